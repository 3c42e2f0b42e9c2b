//! The number of records that one transaction writes, adapted to the duration of earlier
//! transactions.

use std::time::Duration;

/// The first size. Even at 20 ms a row, such a batch stays within every time-out.
const FIRST_RECORDS: usize = 250;
/// The maximum number of records in a batch.
pub const RECORDS_MAX: usize = 10_000;
/// After a full batch that was written faster than this, the size doubles.
const FAST: Duration = Duration::from_secs(1);
/// After a batch that took longer than this, the size shrinks, so that the next batch takes about
/// this long.
const SLOW: Duration = Duration::from_secs(3);

/// The number of records that the next transaction of a worker writes. A worker keeps the size
/// after an error, because a batch that timed out would time out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    records: usize,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { records: FIRST_RECORDS }
    }
}

impl BatchSize {
    /// The maximum number of records in the next batch, from 1 to [`RECORDS_MAX`].
    pub fn records(self) -> usize {
        self.records
    }

    /// Adapts the size to a committed transaction that wrote `records` and lasted for `took`.
    pub(super) fn record_commit(&mut self, records: usize, took: Duration) {
        if took > SLOW {
            let share = SLOW.as_secs_f64() / took.as_secs_f64();
            // The conversion from float to integer saturates.
            let fitting = (records as f64 * share) as usize;
            self.records = self.records.min(fitting).max(1);
        } else if took < FAST && records >= self.records {
            self.records = (self.records * 2).min(RECORDS_MAX);
        }
    }

    /// Adapts the size to a transaction of `records` that timed out.
    pub(super) fn record_timeout(&mut self, records: usize) {
        self.records = (self.records.min(records) / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_fast_full_batch_doubles_the_size_up_to_the_maximum() {
        let mut size = BatchSize::default();
        assert_eq!(size.records(), 250);
        // A batch that is not full says nothing about a larger batch.
        size.record_commit(249, ms(1));
        size.record_commit(250, ms(1_000));
        assert_eq!(size.records(), 250);
        size.record_commit(250, ms(999));
        assert_eq!(size.records(), 500);
        for _ in 0..9 {
            size.record_commit(size.records(), ms(1));
        }
        assert_eq!(size.records(), RECORDS_MAX);
    }

    #[test]
    fn a_slow_batch_shrinks_the_size_in_proportion() {
        let mut size = BatchSize::default();
        size.record_commit(250, ms(3_000));
        assert_eq!(size.records(), 250);
        size.record_commit(250, ms(5_000));
        assert_eq!(size.records(), 150);
        // A slow batch that is not full is measured by its own number of records.
        size.record_commit(10, ms(6_000));
        assert_eq!(size.records(), 5);
        size.record_commit(1, ms(20_000));
        assert_eq!(size.records(), 1);
    }

    #[test]
    fn a_timeout_halves_the_size_down_to_one_record() {
        let mut size = BatchSize::default();
        size.record_timeout(250);
        assert_eq!(size.records(), 125);
        size.record_timeout(20);
        assert_eq!(size.records(), 10);
        for _ in 0..5 {
            size.record_timeout(size.records());
        }
        assert_eq!(size.records(), 1);
        size.record_timeout(0);
        assert_eq!(size.records(), 1);
    }
}
