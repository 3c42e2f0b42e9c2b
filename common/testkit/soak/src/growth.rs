//! Decides whether a resource keeps growing or only warmed up.
//!
//! A program needs some time until it has all its threads, connections and buffers. So the first
//! fifth of the samples is ignored, and the median of the second fifth is the settled value. The
//! median of the last fifth may be higher by a percentage plus an amount, because the allocator
//! and the load cause small variations. A leak grows with time, so a longer test finds smaller
//! leaks: with 120 probes per second and five minutes, a leak of about 150 bytes per probe.

use std::fmt;

use testkit::process_usage::ProcessUsage;

/// A resource, and the limit of its growth: a percentage plus an amount.
struct WatchedResource {
    name: &'static str,
    value: fn(&ProcessUsage) -> u64,
    percent: u64,
    amount: u64,
}

/// The resources that are watched.
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

/// Minimum number of samples for a decision.
pub(crate) const SAMPLES_MIN: usize = 15;

/// The growth of one resource.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    name: &'static str,
    settled: u64,
    last: u64,
    limit: u64,
}

impl Growth {
    /// Whether the resource stayed within its limit.
    pub(crate) fn is_level(&self) -> bool {
        self.last <= self.limit
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, settled, last, limit } = self;
        write!(f, "{name}: {settled} when settled, {last} at the end, limit {limit}")
    }
}

/// Computes the growth of each resource from a program's samples, oldest first.
pub(crate) fn measure_growth(samples: &[ProcessUsage]) -> Vec<Growth> {
    let fifth = samples.len() / 5;
    let growth_of = |resource: &WatchedResource| {
        let median = |samples: &[ProcessUsage]| {
            let mut values: Vec<u64> = samples.iter().map(resource.value).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        let settled = median(&samples[fifth..2 * fifth]);
        let last = median(&samples[samples.len() - fifth..]);
        let limit = settled + settled * resource.percent / 100 + resource.amount;
        Growth { name: resource.name, settled, last, limit }
    };
    RESOURCES.iter().map(growth_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(sample: impl Fn(u64) -> ProcessUsage) -> Vec<bool> {
        let samples: Vec<_> = (0..50).map(sample).collect();
        measure_growth(&samples).iter().map(Growth::is_level).collect()
    }

    fn level(_: u64) -> ProcessUsage {
        ProcessUsage { memory_kib: 20_000, memory_peak_kib: 20_000, threads: 40, descriptors: 60 }
    }

    #[test]
    fn warming_up_is_not_growth() {
        assert_eq!(levels(level), [true; 3]);
        let warms_up = |n: u64| ProcessUsage {
            memory_kib: 5_000 + 2_000 * n.min(9),
            threads: 4 * n.min(9),
            descriptors: 10 * n.min(9),
            ..level(n)
        };
        assert_eq!(levels(warms_up), [true; 3]);
        // A single outlier does not count.
        let peaks =
            |n: u64| ProcessUsage { memory_kib: if n == 49 { 90_000 } else { 20_000 }, ..level(n) };
        assert_eq!(levels(peaks), [true; 3]);
    }

    #[test]
    fn steady_growth_is_detected() {
        let leaks = |n: u64| ProcessUsage { memory_kib: 20_000 + 110 * n, ..level(n) };
        assert_eq!(levels(leaks), [false, true, true]);
        let leaks = |n: u64| ProcessUsage { threads: 40 + n / 5, ..level(n) };
        assert_eq!(levels(leaks), [true, false, true]);
        let leaks = |n: u64| ProcessUsage { descriptors: 60 + n / 2, ..level(n) };
        assert_eq!(levels(leaks), [true, true, false]);
    }
}
