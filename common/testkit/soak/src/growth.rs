//! When something grows, and when it only warms up.
//!
//! A program needs a while until it has all that it will ever need: threads,
//! connections, buffers at their size. So the first fifth of the samples counts
//! for nothing, and the median of the second fifth is what has settled. The
//! median of the last fifth may be above that by a share and by an amount, which
//! is what an allocator and the load of the moment make of it. A leak goes on, so
//! that the longer it is watched the smaller a leak is seen: by 120 probes a
//! second and five minutes, one of some 150 bytes a probe.

use std::fmt;

use testkit::process_usage::ProcessUsage;

/// Of what there is, and of what it may grow by: a share in percent and an amount.
struct WatchedResource {
    name: &'static str,
    value: fn(&ProcessUsage) -> u64,
    percent: u64,
    amount: u64,
}

/// All that is watched.
const RESOURCES: [WatchedResource; 3] = [
    WatchedResource {
        name: "KiB of memory",
        value: |usage| usage.memory_kib,
        percent: 5,
        amount: 2_048,
    },
    WatchedResource { name: "threads", value: |usage| usage.threads, percent: 5, amount: 2 },
    WatchedResource {
        name: "descriptors",
        value: |usage| usage.descriptors,
        percent: 10,
        amount: 8,
    },
];

/// The fewest samples of which something can be said.
pub(crate) const SAMPLES_MIN: usize = 15;

/// What became of one kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    name: &'static str,
    settled: u64,
    last: u64,
    limit: u64,
}

impl Growth {
    /// Whether it stayed within its bound.
    pub(crate) fn is_level(&self) -> bool {
        self.last <= self.limit
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, settled, last, limit } = self;
        write!(f, "{name}: {settled} when settled, {last} at the end, at limit {limit} allowed")
    }
}

/// Judges a program's samples, the oldest first.
pub(crate) fn measure_growth(samples: &[ProcessUsage]) -> Vec<Growth> {
    let fifth = samples.len() / 5;
    let one = |kind: &WatchedResource| {
        let median = |samples: &[ProcessUsage]| {
            let mut values: Vec<u64> = samples.iter().map(kind.value).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        let settled = median(&samples[fifth..2 * fifth]);
        let last = median(&samples[samples.len() - fifth..]);
        let limit = settled + settled * kind.percent / 100 + kind.amount;
        Growth { name: kind.name, settled, last, limit }
    };
    RESOURCES.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(of: impl Fn(u64) -> ProcessUsage) -> Vec<bool> {
        let samples: Vec<_> = (0..50).map(of).collect();
        measure_growth(&samples).iter().map(Growth::is_level).collect()
    }

    fn level(_: u64) -> ProcessUsage {
        ProcessUsage { memory_kib: 20_000, memory_peak_kib: 20_000, threads: 40, descriptors: 60 }
    }

    #[test]
    fn what_warms_up_is_level() {
        assert_eq!(verdicts(level), [true; 3]);
        let warms_up = |n: u64| ProcessUsage {
            memory_kib: 5_000 + 2_000 * n.min(9),
            threads: 4 * n.min(9),
            descriptors: 10 * n.min(9),
            ..level(n)
        };
        assert_eq!(verdicts(warms_up), [true; 3]);
        // One sample that is far above says nothing.
        let peaks =
            |n: u64| ProcessUsage { memory_kib: if n == 49 { 90_000 } else { 20_000 }, ..level(n) };
        assert_eq!(verdicts(peaks), [true; 3]);
    }

    #[test]
    fn what_goes_on_growing_is_not() {
        let leaks = |n: u64| ProcessUsage { memory_kib: 20_000 + 110 * n, ..level(n) };
        assert_eq!(verdicts(leaks), [false, true, true]);
        let leaks = |n: u64| ProcessUsage { threads: 40 + n / 5, ..level(n) };
        assert_eq!(verdicts(leaks), [true, false, true]);
        let leaks = |n: u64| ProcessUsage { descriptors: 60 + n / 2, ..level(n) };
        assert_eq!(verdicts(leaks), [true, true, false]);
    }
}
