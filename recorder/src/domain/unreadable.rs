//! Batches that can't be read: which are passed, and when.
//!
//! What is wrong with its checksum right is wrong for ever: a codec or a format
//! that nobody here reads, more than may be unpacked. A wrong checksum can be the
//! fault of the way, or of a broker's disk while the others have it right.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka_client::BatchFailure;

/// How often, and over how long, the same wrong bytes must have come before
/// nobody waits for others any more.
const FETCHES_MIN: u32 = 5;
const DOUBT_MIN: Duration = Duration::from_secs(60);

/// The doubtful batch of each partition.
#[derive(Debug, Default)]
pub(super) struct Doubts(HashMap<i32, Doubt>);

#[derive(Debug)]
struct Doubt {
    base_offset: i64,
    failure: BatchFailure,
    since: Instant,
    fetches: u32,
}

impl Doubts {
    /// Whether to pass the batch that begins there, fetched once more at `now`.
    pub(super) fn is_over(
        &mut self,
        partition: i32,
        base_offset: i64,
        failure: &BatchFailure,
        now: Instant,
    ) -> bool {
        if !failure.is_retryable() {
            return true;
        }
        let doubt = self.0.entry(partition).or_insert_with(|| Doubt {
            base_offset,
            failure: failure.clone(),
            since: now,
            fetches: 0,
        });
        if doubt.base_offset != base_offset || doubt.failure != *failure {
            *doubt = Doubt { base_offset, failure: failure.clone(), since: now, fetches: 0 };
        }
        doubt.fetches += 1;
        doubt.fetches >= FETCHES_MIN && now.duration_since(doubt.since) >= DOUBT_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes red when a failure that is another does not begin again, and when
    /// either bound is not asked for.
    #[test]
    fn a_wrong_checksum_is_believed_when_it_stays_the_same() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let bad = |found| BatchFailure::Checksum { written: 1, found };
        let mut doubts = Doubts::default();
        for second in 0..60 {
            assert!(!doubts.is_over(0, 10, &bad(2), at(second)), "{second}");
        }
        assert!(doubts.is_over(0, 10, &bad(2), at(60)));
        // Another partition has doubts of its own; seldom is not often.
        for second in [0, 30, 60, 90] {
            assert!(!doubts.is_over(1, 10, &bad(2), at(second)), "{second}");
        }
        assert!(doubts.is_over(1, 10, &bad(2), at(91)));
        // Other bytes, or another batch, and it begins again.
        assert!(!doubts.is_over(1, 10, &bad(3), at(200)));
        assert!(!doubts.is_over(1, 20, &bad(3), at(300)));
        for second in 301..304 {
            assert!(!doubts.is_over(1, 20, &bad(3), at(second)), "{second}");
        }
        assert!(doubts.is_over(1, 20, &bad(3), at(360)));
        assert!(doubts.is_over(0, 0, &BatchFailure::UnsupportedFormat(1), start));
    }
}
