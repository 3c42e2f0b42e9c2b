//! Logs records that go to quarantine: one line for each domain, once an interval and at the end.

use std::time::{Duration, Instant};

use common::domain::Domain;

use common::counted::counted;

/// If so many consecutive records are refused with one SQLSTATE, the records are not the cause.
const SERIES_MIN: u64 = 100;

/// Counts records that went to quarantine, and logs the counts.
#[derive(Debug)]
pub struct QuarantineLog {
    domain: Domain,
    interval: Duration,
    /// The number of records that were not logged yet.
    pending: u64,
    /// The partition, the offset and the reason of the last pending record.
    last: Option<(i32, i64, String)>,
    last_logged: Option<Instant>,
    series: Option<RefusalSeries>,
    series_logged: Option<Instant>,
}

/// Consecutive records that the database refused, all with the same SQLSTATE.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RefusalSeries {
    code: String,
    first_partition: i32,
    first_offset: i64,
    count: u64,
}

impl QuarantineLog {
    /// Creates the log for `domain`. Each kind of line is logged at most once an `interval`.
    pub fn new(domain: Domain, interval: Duration) -> Self {
        Self {
            domain,
            interval,
            pending: 0,
            last: None,
            last_logged: None,
            series: None,
            series_logged: None,
        }
    }

    /// Adds records that went to quarantine, with the offset and the reason of the last one.
    pub fn add(&mut self, count: usize, partition: i32, offset: i64, reason: String) {
        self.pending += count as u64;
        self.last = Some((partition, offset, reason));
    }

    /// Records that the database refused a record with this SQLSTATE.
    pub fn record_refusal(&mut self, code: &str, partition: i32, offset: i64, now: Instant) {
        match &mut self.series {
            Some(series) if series.code == code => series.count += 1,
            series => {
                *series = Some(RefusalSeries {
                    code: code.to_owned(),
                    first_partition: partition,
                    first_offset: offset,
                    count: 1,
                });
            }
        }
        if let Some(series) = self.due_series(now) {
            let RefusalSeries { code, first_partition, first_offset, count } = series;
            let domain = &self.domain;
            log::error!(
                "{domain}: {count} records one after another went to quarantine for SQLSTATE {code}, \
                 the first at {first_partition}@{first_offset}: remove the cause, then run \
                 `recorder replay -d {domain}`"
            );
        }
    }

    /// Records that the database accepted a row, which ends a series of refusals.
    pub fn record_row(&mut self) {
        self.series = None;
    }

    /// The series of refusals, if it is long and was not logged within the interval.
    fn due_series(&mut self, now: Instant) -> Option<RefusalSeries> {
        let series = self.series.as_ref().filter(|series| series.count >= SERIES_MIN)?;
        if is_early(self.series_logged, self.interval, now) {
            return None;
        }
        self.series_logged = Some(now);
        Some(series.clone())
    }

    /// Logs the pending records, unless a line was logged less than an interval ago.
    pub fn flush_if_due(&mut self, now: Instant) {
        if self.pending > 0 && !is_early(self.last_logged, self.interval, now) {
            self.last_logged = Some(now);
            self.flush();
        }
    }

    /// Logs the pending records.
    pub fn flush(&mut self) {
        let count = std::mem::take(&mut self.pending);
        let Some((partition, offset, reason)) = self.last.take() else { return };
        log::warn!(
            "{}: {} of table {} went to table availability_quarantine, the last at \
             {partition}@{offset}: {reason}",
            self.domain,
            counted(count, "record"),
            self.domain.table()
        );
    }
}

fn is_early(last: Option<Instant>, interval: Duration, now: Instant) -> bool {
    last.is_some_and(|last| now.saturating_duration_since(last) < interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn log() -> QuarantineLog {
        QuarantineLog::new(Domain::parse("a.example").unwrap(), INTERVAL)
    }

    #[test]
    fn quarantine_is_logged_once_an_interval() {
        let (start, mut log) = (Instant::now(), log());
        log.flush_if_due(start);
        assert_eq!(log.last_logged, None, "nothing to log");
        log.add(2, 0, 7, "why".to_owned());
        log.flush_if_due(start);
        assert_eq!((log.pending, log.last.is_none()), (0, true));
        log.add(1, 0, 8, "why".to_owned());
        log.flush_if_due(start + INTERVAL - Duration::from_nanos(1));
        assert_eq!(log.pending, 1);
        log.flush_if_due(start + INTERVAL);
        assert_eq!(log.pending, 0);
    }

    #[test]
    fn a_hundred_refusals_for_one_code_are_a_series() {
        let (start, mut log) = (Instant::now(), log());
        let refuse = |log: &mut QuarantineLog, code, offsets: std::ops::Range<i64>| {
            for offset in offsets {
                log.record_refusal(code, 0, offset, start);
            }
        };
        refuse(&mut log, "P0001", 0..99);
        refuse(&mut log, "22003", 99..100);
        refuse(&mut log, "P0001", 100..199);
        log.record_row();
        refuse(&mut log, "P0001", 199..298);
        assert_eq!(log.series_logged, None);
        refuse(&mut log, "P0001", 298..299);
        assert_eq!(log.series_logged, Some(start));
        let series = log.series.clone().unwrap();
        assert_eq!((series.first_offset, series.count), (199, 100));
        assert_eq!(log.due_series(start + INTERVAL - Duration::from_nanos(1)), None);
        assert_eq!(log.due_series(start + INTERVAL), Some(series));
    }
}
