//! Decides which unreadable batches are skipped, and when.
//!
//! A batch with a correct checksum that can't be decoded is skipped at once. It stays unreadable,
//! because its codec or format is not supported, or because it is larger than the limit after
//! decompression. A wrong checksum may be caused by the network, or by the disk of one broker while
//! the other replicas are intact. Such a batch, and a record on which the decoder panics, are
//! fetched again for some time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka_client::BatchFailure;

/// The minimum number of fetches with the same wrong checksum before a batch is skipped.
const FETCHES_MIN: u32 = 5;

/// The unreadable batch of each partition, if it has one.
#[derive(Debug)]
pub(super) struct UnreadableBatches {
    by_partition: HashMap<i32, UnreadableBatch>,
    /// The minimum time with the same wrong checksum before a batch is skipped.
    skip_after: Duration,
}

#[derive(Debug)]
struct UnreadableBatch {
    base_offset: i64,
    failure: BatchFailure,
    since: Instant,
    fetches: u32,
}

impl UnreadableBatches {
    /// A batch is skipped after it has failed with the same checksum error for `skip_after`.
    pub(super) fn new(skip_after: Duration) -> Self {
        Self { by_partition: HashMap::new(), skip_after }
    }

    /// Records that the batch at `base_offset` was fetched and is unreadable.
    /// Returns whether to skip it.
    pub(super) fn record_failure(
        &mut self,
        partition: i32,
        base_offset: i64,
        failure: &BatchFailure,
        now: Instant,
    ) -> bool {
        if !failure.is_retryable() {
            return true;
        }
        let first =
            || UnreadableBatch { base_offset, failure: failure.clone(), since: now, fetches: 0 };
        let batch = self.by_partition.entry(partition).or_insert_with(first);
        if batch.base_offset != base_offset || batch.failure != *failure {
            *batch = first();
        }
        batch.fetches += 1;
        batch.fetches >= FETCHES_MIN && now.duration_since(batch.since) >= self.skip_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_checksum_is_skipped_after_five_equal_fetches_in_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let wrong = |found| BatchFailure::Checksum { written: 1, found };
        let mut batches = UnreadableBatches::new(Duration::from_secs(60));
        let mut skips = |partition, base_offset, found, second| {
            batches.record_failure(partition, base_offset, &wrong(found), at(second))
        };
        for second in 0..60 {
            assert!(!skips(0, 10, 2, second), "{second}");
        }
        assert!(skips(0, 10, 2, 60));
        // Each partition is counted separately. The time alone is not enough without enough
        // fetches.
        for second in [0, 30, 60, 90] {
            assert!(!skips(1, 10, 2, second), "{second}");
        }
        assert!(skips(1, 10, 2, 91));
        // Other bytes, or another batch, restart the count.
        assert!(!skips(1, 10, 3, 200));
        assert!(!skips(1, 20, 3, 300));
        for second in 301..304 {
            assert!(!skips(1, 20, 3, second), "{second}");
        }
        assert!(skips(1, 20, 3, 360));
        let unsupported = BatchFailure::UnsupportedFormat(1);
        assert!(batches.record_failure(0, 0, &unsupported, start));
    }
}
