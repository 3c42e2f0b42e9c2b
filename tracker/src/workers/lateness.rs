//! How late probes start: from when a slot is due until its worker begins.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two of microseconds is cut into so many buckets, so that a
/// quantile is at most an eighth too high.
const PARTS: usize = 8;
/// The last bucket holds what is later than some 19 hours.
const BUCKETS: usize = 34 * PARTS;

/// A histogram of bounded size, for all workers to count in.
#[derive(Debug)]
pub struct Lateness {
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
    pub fn add(&self, late: Duration) {
        let us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn summary(&self) -> Summary {
        let counts = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        Summary::of(&counts, self.max_us.load(Ordering::Relaxed))
    }

    /// What was counted, which then begins anew.
    pub fn take(&self) -> Summary {
        let counts = self.buckets.each_ref().map(|count| count.swap(0, Ordering::Relaxed));
        Summary::of(&counts, self.max_us.swap(0, Ordering::Relaxed))
    }
}

fn bucket(us: u64) -> usize {
    let power = us.checked_ilog2().unwrap_or(0);
    let index = match power.checked_sub(PARTS.ilog2()) {
        None => us,
        Some(shift) => u64::from(shift) * PARTS as u64 + (us >> shift),
    };
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The most microseconds that fall into a bucket.
fn edge(bucket: usize) -> u64 {
    let (shift, part) = match bucket.checked_sub(2 * PARTS) {
        None => (0, bucket),
        Some(above) => (1 + above / PARTS, PARTS + above % PARTS),
    };
    ((part as u64 + 1) << shift) - 1
}

/// The lateness of many starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Starts.
    pub count: u64,
    /// Half of them were no later.
    pub p50: Duration,
    /// 99 of 100 were no later.
    pub p99: Duration,
    /// The latest.
    pub max: Duration,
}

impl Summary {
    fn of(counts: &[u64; BUCKETS], max_us: u64) -> Self {
        let count: u64 = counts.iter().sum();
        let quantile = |percent: u64| {
            let mut left = (count * percent).div_ceil(100);
            let reaches = counts.iter().position(|here| {
                left = left.saturating_sub(*here);
                left == 0
            });
            Duration::from_micros(reaches.map_or(0, edge).min(max_us))
        };
        Self { count, p50: quantile(50), p99: quantile(99), max: Duration::from_micros(max_us) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [self.p50, self.p99, self.max].map(|time| time.as_secs_f64() * 1e3);
        let Self { count, .. } = self;
        write!(f, "{count} probes started, late by p50 {p50:.2}, p99 {p99:.2}, max {max:.2} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_in_its_bucket_and_the_bucket_is_narrow() {
        let mut last = 0;
        for us in (0..5_000).chain((13..36).map(|power| (1 << power) + 3)) {
            let bucket = bucket(us);
            assert!(edge(bucket) >= us && (bucket == 0 || edge(bucket - 1) < us), "{us}");
            assert!(edge(bucket) - us <= us / 8, "{us}");
            assert!(us >= 5_000 || bucket <= last + 1, "{us}");
            last = bucket;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_of_what_was_counted_since_the_last_take() {
        let lateness = Lateness::default();
        assert_eq!(lateness.summary(), Summary::default());
        (1..=1000).for_each(|us| lateness.add(Duration::from_micros(us)));
        let summary = lateness.take();
        assert_eq!((summary.count, summary.max), (1000, Duration::from_millis(1)));
        assert!((500..=570).contains(&summary.p50.as_micros()), "{summary}");
        assert!((990..=1000).contains(&summary.p99.as_micros()), "{summary}");
        lateness.add(Duration::from_secs(3));
        let expected = "1 probes started, late by p50 3000.00, p99 3000.00, max 3000.00 ms";
        assert_eq!(lateness.take().to_string(), expected);
    }
}
