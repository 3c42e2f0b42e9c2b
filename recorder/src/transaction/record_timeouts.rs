//! The time-outs of a record that is alone in its transaction.

use std::time::{Duration, Instant};

/// The minimum number of time-outs of a single record before it may go to quarantine.
const ATTEMPTS_MIN: u32 = 5;

/// Counts the time-outs of a record that is alone in its transaction. A slow database must not send
/// records to quarantine, so a record gets several attempts over some time.
#[derive(Debug)]
pub(super) struct RecordTimeouts {
    /// The minimum time from the first to the last time-out before the record may go to quarantine.
    quarantine_after: Duration,
    last: Option<TimedOutRecord>,
}

#[derive(Debug, Clone, Copy)]
struct TimedOutRecord {
    partition: i32,
    offset: i64,
    since: Instant,
    attempts: u32,
}

impl RecordTimeouts {
    pub(super) fn new(quarantine_after: Duration) -> Self {
        Self { quarantine_after, last: None }
    }

    /// Counts a time-out of the record. Returns whether the record may go to quarantine.
    pub(super) fn record(&mut self, partition: i32, offset: i64, now: Instant) -> bool {
        let same = self.last.filter(|last| (last.partition, last.offset) == (partition, offset));
        let mut record =
            same.unwrap_or(TimedOutRecord { partition, offset, since: now, attempts: 0 });
        record.attempts += 1;
        self.last = Some(record);
        let lasted = now.saturating_duration_since(record.since);
        record.attempts >= ATTEMPTS_MIN && lasted >= self.quarantine_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_five_attempts_and_some_time() {
        let (start, after) = (Instant::now(), Duration::from_secs(300));
        let mut timeouts = RecordTimeouts::new(after);
        for seconds in [0, 20, 40, 60, 80, 299] {
            assert!(!timeouts.record(0, 7, start + Duration::from_secs(seconds)), "{seconds}");
        }
        assert!(timeouts.record(0, 7, start + after));
        // Another record restarts the count, whatever time has passed.
        for attempt in 0..4 {
            assert!(!timeouts.record(0, 8, start + after * (1 + attempt)), "{attempt}");
        }
        assert!(timeouts.record(0, 8, start + after * 5));
        assert!(!timeouts.record(1, 8, start + after * 6));
    }
}
