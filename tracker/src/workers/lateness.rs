//! How late probes start: the time from when a slot is due until its worker starts the probe.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::counted::counted;

/// Buckets per power of two of microseconds. A quantile is at most an eighth too high.
const BUCKETS_PER_POWER: usize = 8;
/// The last bucket counts starts that are later than about 19 hours.
const BUCKETS: usize = 34 * BUCKETS_PER_POWER;

/// A histogram of fixed size, shared by all workers.
#[derive(Debug)]
pub(crate) struct Lateness {
    buckets: [AtomicU64; BUCKETS],
    max_us: AtomicU64,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), max_us: AtomicU64::new(0) }
    }
}

impl Lateness {
    /// Counts one start.
    pub(crate) fn add(&self, late: Duration) {
        let us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(us)].fetch_add(1, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// Summarizes the starts since the last [`Self::take_summary`].
    pub(crate) fn summary(&self) -> LatenessSummary {
        let counts = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        LatenessSummary::new(&counts, self.max_us.load(Ordering::Relaxed))
    }

    /// Summarizes the starts since the last call, and starts counting again.
    pub(crate) fn take_summary(&self) -> LatenessSummary {
        let counts = self.buckets.each_ref().map(|count| count.swap(0, Ordering::Relaxed));
        LatenessSummary::new(&counts, self.max_us.swap(0, Ordering::Relaxed))
    }
}

fn bucket_of(us: u64) -> usize {
    let power = us.checked_ilog2().unwrap_or(0);
    let index = match power.checked_sub(BUCKETS_PER_POWER.ilog2()) {
        None => us,
        Some(shift) => u64::from(shift) * BUCKETS_PER_POWER as u64 + (us >> shift),
    };
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Returns the largest number of microseconds that the bucket counts.
fn upper_edge(bucket: usize) -> u64 {
    let (shift, part) = match bucket.checked_sub(2 * BUCKETS_PER_POWER) {
        None => (0, bucket),
        Some(above) => {
            (1 + above / BUCKETS_PER_POWER, BUCKETS_PER_POWER + above % BUCKETS_PER_POWER)
        }
    };
    ((part as u64 + 1) << shift) - 1
}

/// Lateness of many starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LatenessSummary {
    pub(crate) count: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl LatenessSummary {
    fn new(counts: &[u64; BUCKETS], max_us: u64) -> Self {
        let count: u64 = counts.iter().sum();
        let quantile = |percent: u64| {
            let mut remaining = (count * percent).div_ceil(100);
            let reached = counts.iter().position(|in_bucket| {
                remaining = remaining.saturating_sub(*in_bucket);
                remaining == 0
            });
            Duration::from_micros(reached.map_or(0, upper_edge).min(max_us))
        };
        Self { count, p50: quantile(50), p99: quantile(99), max: Duration::from_micros(max_us) }
    }
}

impl fmt::Display for LatenessSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [self.p50, self.p99, self.max].map(|time| time.as_secs_f64() * 1e3);
        let count = self.count;
        write!(
            f,
            "{} started, late by p50 {p50:.2}, p99 {p99:.2}, max {max:.2} ms",
            counted(count, "probe")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_a_bucket_at_most_an_eighth_wide() {
        let mut last = 0;
        for us in (0..5_000).chain((13..36).map(|power| (1 << power) + 3)) {
            let bucket = bucket_of(us);
            assert!(
                upper_edge(bucket) >= us && (bucket == 0 || upper_edge(bucket - 1) < us),
                "{us}"
            );
            assert!(upper_edge(bucket) - us <= us / 8, "{us}");
            assert!(us >= 5_000 || bucket <= last + 1, "{us}");
            last = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_summary_covers_the_starts_since_the_last_one() {
        let lateness = Lateness::default();
        assert_eq!(lateness.summary(), LatenessSummary::default());
        (1..=1000).for_each(|us| lateness.add(Duration::from_micros(us)));
        let summary = lateness.take_summary();
        assert_eq!((summary.count, summary.max), (1000, Duration::from_millis(1)));
        assert!((500..=570).contains(&summary.p50.as_micros()), "{summary}");
        assert!((990..=1000).contains(&summary.p99.as_micros()), "{summary}");
        lateness.add(Duration::from_secs(3));
        let expected = "1 probe started, late by p50 3000.00, p99 3000.00, max 3000.00 ms";
        assert_eq!(lateness.take_summary().to_string(), expected);
    }
}
