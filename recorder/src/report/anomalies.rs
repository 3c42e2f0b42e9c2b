//! Logs irregular sequence numbers: one line for each topic, at most once an interval, and once at
//! the end.

use common::counted::counted;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use common::identity::BrokenIdentity;

/// The numbers of irregular identities of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Anomalies {
    /// Records that were dropped because their results are recorded already.
    pub duplicates: u64,
    /// Sequence numbers that never arrived.
    pub missing: u64,
    /// Records with a malformed identity, recorded without it.
    pub malformed: u64,
    /// The offset and the error of the first record with a malformed identity.
    pub first_malformed: Option<(i64, BrokenIdentity)>,
}

impl AddAssign for Anomalies {
    fn add_assign(&mut self, other: Self) {
        self.duplicates += other.duplicates;
        self.missing = self.missing.saturating_add(other.missing);
        self.malformed += other.malformed;
        self.first_malformed = self.first_malformed.or(other.first_malformed);
    }
}

/// Collects the anomalies of one topic and logs their sums.
#[derive(Debug)]
pub struct AnomalyLog {
    topic: String,
    interval: Duration,
    pending: Anomalies,
    last_logged: Option<Instant>,
}

impl AnomalyLog {
    /// Creates the log for `topic`, with at most one line an `interval`.
    pub fn new(topic: String, interval: Duration) -> Self {
        Self { topic, interval, pending: Anomalies::default(), last_logged: None }
    }

    /// Adds anomalies to the sums of the next log line.
    pub fn add(&mut self, anomalies: Anomalies) {
        self.pending += anomalies;
    }

    /// Logs the sums, unless a line was logged less than an interval ago.
    pub fn flush_if_due(&mut self, now: Instant) {
        let is_early = self
            .last_logged
            .is_some_and(|last| now.saturating_duration_since(last) < self.interval);
        if self.pending != Anomalies::default() && !is_early {
            self.last_logged = Some(now);
            self.flush();
        }
    }

    /// Logs the sums. Logs nothing if no anomaly was added.
    pub fn flush(&mut self) {
        let topic = &self.topic;
        let Anomalies { duplicates, missing, malformed, first_malformed } =
            std::mem::take(&mut self.pending);
        if missing > 0 {
            log::warn!(
                "{topic}: {} never arrived: see table availability_gap",
                counted(missing, "result")
            );
        }
        if duplicates > 0 {
            log::info!("{topic}: dropped {}", counted(duplicates, "duplicate record"));
        }
        if let Some((offset, error)) = first_malformed {
            log::warn!(
                "{topic}: malformed identity in {}, recorded without it (first at offset {offset}: {error})",
                counted(malformed, "record")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anomalies_are_kept_until_an_interval_has_passed() {
        let (start, interval) = (Instant::now(), Duration::from_secs(60));
        let mut log = AnomalyLog::new("topic".to_owned(), interval);
        let anomalies = Anomalies { duplicates: 1, ..Anomalies::default() };
        log.flush_if_due(start);
        assert_eq!(log.last_logged, None, "nothing to log");
        log.add(anomalies);
        log.flush_if_due(start);
        assert_eq!(log.pending, Anomalies::default());
        log.add(anomalies);
        log.add(anomalies);
        log.flush_if_due(start + interval - Duration::from_nanos(1));
        assert_eq!(log.pending.duplicates, 2);
        log.flush_if_due(start + interval);
        assert_eq!(log.pending, Anomalies::default());
    }

    #[test]
    fn nouns_have_a_singular_and_a_plural() {
        assert_eq!(
            [counted(0, "row"), counted(1, "row"), counted(2, "row")],
            ["0 rows", "1 row", "2 rows"]
        );
    }
}
