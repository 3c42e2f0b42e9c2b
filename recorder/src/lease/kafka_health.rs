//! Whether Kafka answers the discovery thread. A recorder without workers registers as a lease
//! holder only if Kafka answers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The reachability of Kafka. The discovery thread records it.
#[derive(Debug)]
pub(crate) struct KafkaHealth {
    state: Mutex<HealthState>,
    /// The time for which requests must fail before Kafka counts as unreachable.
    unreachable_after: Duration,
}

#[derive(Debug)]
enum HealthState {
    /// Kafka has not answered since the start.
    NeverReached,
    /// The last request was answered.
    Reachable,
    /// All requests have failed since the request that began at this time.
    FailingSince(Instant),
}

impl KafkaHealth {
    /// Kafka counts as unreachable before its first answer, and after requests have failed for
    /// `unreachable_after`.
    pub(crate) fn new(unreachable_after: Duration) -> Self {
        Self { state: Mutex::new(HealthState::NeverReached), unreachable_after }
    }

    /// Records that Kafka answered. Returns whether Kafka counted as unreachable before.
    pub(crate) fn record_success(&self) -> bool {
        let was_unreachable = self.is_unreachable();
        *self.state() = HealthState::Reachable;
        was_unreachable
    }

    /// Records the failure of a request that began at `requested_at`.
    pub(crate) fn record_failure(&self, requested_at: Instant) {
        let mut state = self.state();
        if matches!(*state, HealthState::Reachable) {
            *state = HealthState::FailingSince(requested_at);
        }
    }

    /// Whether Kafka counts as unreachable.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.is_unreachable_at(Instant::now())
    }

    fn is_unreachable_at(&self, now: Instant) -> bool {
        match *self.state() {
            HealthState::NeverReached => true,
            HealthState::Reachable => false,
            HealthState::FailingSince(since) => {
                now.saturating_duration_since(since) >= self.unreachable_after
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_is_unreachable_until_it_answers_and_after_failing_for_long() {
        let (after, start) = (Duration::from_secs(30), Instant::now());
        let health = KafkaHealth::new(after);
        health.record_failure(start);
        assert!(health.is_unreachable(), "never reached");
        assert!(health.record_success() && !health.record_success());
        assert!(!health.is_unreachable());
        health.record_failure(start);
        health.record_failure(start + after / 2);
        assert!(!health.is_unreachable_at(start + after - Duration::from_millis(1)));
        assert!(health.is_unreachable_at(start + after), "counted from the first failure");
        assert!(!health.record_success(), "it answered in time");
        assert!(!health.is_unreachable_at(start + after));
    }
}
