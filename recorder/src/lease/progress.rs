//! The progress of one worker. It decides whether the lease is offered to other recorders.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::offers::OfferCause;

/// The minimum number of consecutive failures after which a leader counts as not answering. A
/// single failure may be an idle connection that the broker closed.
const FAILURES_MIN: u32 = 2;

/// The kind of a worker's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerFailure {
    /// A broker did not answer.
    NoAnswer,
    /// Kafka or PostgreSQL refused a request because of a missing right. Another recorder may have
    /// it.
    Refused,
    /// Any other failure. It affects all recorders, or does not depend on the recorder.
    Other,
}

/// The progress of one worker. The worker reports its fetches and failures, and the
/// supervisor reads them.
#[derive(Debug, Default)]
pub(crate) struct WorkerProgress(Mutex<Progress>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Progress {
    /// The worker makes progress, or has not started yet.
    #[default]
    Fetching,
    /// Brokers have not answered since this time.
    NoAnswer { since: Instant, failures: u32 },
    /// A right is missing.
    Refused,
}

impl WorkerProgress {
    /// Records a completed fetch from all partitions.
    pub(crate) fn record_fetch(&self) {
        // A fetch may succeed before PostgreSQL refuses the write, so it does not clear `Refused`.
        let mut progress = self.progress();
        if *progress != Progress::Refused {
            *progress = Progress::Fetching;
        }
    }

    /// Records that the fetched records are written.
    pub(crate) fn record_write(&self) {
        *self.progress() = Progress::Fetching;
    }

    /// Records the failure of an attempt that began at `began`.
    pub(crate) fn record_failure(&self, failure: WorkerFailure, began: Instant) {
        let mut progress = self.progress();
        *progress = match (failure, *progress) {
            (WorkerFailure::NoAnswer, Progress::NoAnswer { since, failures }) => {
                Progress::NoAnswer { since, failures: failures.saturating_add(1) }
            }
            (WorkerFailure::NoAnswer, _) => Progress::NoAnswer { since: began, failures: 1 },
            (WorkerFailure::Refused, _) => Progress::Refused,
            (WorkerFailure::Other, _) => Progress::Fetching,
        };
    }

    /// The cause for which the lease of this worker should be offered. `None`: it should be kept.
    pub(crate) fn offer_cause(
        &self,
        now: Instant,
        unreachable_after: Duration,
    ) -> Option<OfferCause> {
        match *self.progress() {
            Progress::NoAnswer { since, failures } => {
                let is_long = now.saturating_duration_since(since) >= unreachable_after;
                (is_long && failures >= FAILURES_MIN).then_some(OfferCause::NoAnswer)
            }
            Progress::Refused => Some(OfferCause::Refused),
            Progress::Fetching => None,
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    #[test]
    fn a_lease_is_offered_when_the_leader_has_not_answered_for_long() {
        let (progress, start) = (WorkerProgress::default(), Instant::now());
        let cause = |seconds| progress.offer_cause(start + Duration::from_secs(seconds), AFTER);
        assert_eq!(cause(100), None, "an idle worker");
        progress.record_failure(WorkerFailure::NoAnswer, start);
        assert_eq!(cause(100), None, "one failure");
        progress.record_failure(WorkerFailure::NoAnswer, start + AFTER / 2);
        assert_eq!((cause(29), cause(30)), (None, Some(OfferCause::NoAnswer)));
        progress.record_fetch();
        assert_eq!(cause(100), None, "it answered");
        // A failure of another kind restarts the time.
        progress.record_failure(WorkerFailure::NoAnswer, start);
        progress.record_failure(WorkerFailure::NoAnswer, start);
        progress.record_failure(WorkerFailure::Other, start);
        assert_eq!(cause(100), None);
        for _ in 0..2 {
            progress.record_failure(WorkerFailure::NoAnswer, start + AFTER);
        }
        assert_eq!((cause(59), cause(60)), (None, Some(OfferCause::NoAnswer)));
    }

    /// Only a write shows that PostgreSQL grants the right now. A fetch does not.
    #[test]
    fn a_lease_is_offered_while_a_right_is_missing() {
        let (progress, start) = (WorkerProgress::default(), Instant::now());
        progress.record_failure(WorkerFailure::Refused, start);
        assert_eq!(progress.offer_cause(start, AFTER), Some(OfferCause::Refused));
        progress.record_fetch();
        assert_eq!(progress.offer_cause(start, AFTER), Some(OfferCause::Refused));
        progress.record_write();
        assert_eq!(progress.offer_cause(start, AFTER), None);
    }
}
