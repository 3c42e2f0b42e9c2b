//! When to log an outage: once when it begins, at intervals while it lasts, once when it ends.

use std::time::{Duration, Instant};

/// The default interval at which a lasting outage is logged again.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Decides which failures of one kind are logged.
///
/// The caller reports each failure and each success, and logs a line only if a duration is
/// returned.
#[derive(Debug)]
pub struct LogThrottle {
    grace: Duration,
    repeat_interval: Duration,
    failing_since: Option<Instant>,
    last_logged: Option<Instant>,
}

impl LogThrottle {
    /// Creates a throttle without an outage. An outage shorter than `grace` is not logged: a topic
    /// that was just created, or a leader that moves, fails for a moment only.
    pub const fn new(grace: Duration) -> Self {
        Self::with_repeat_interval(grace, REPEAT_INTERVAL)
    }

    /// Like [`LogThrottle::new`], with another interval than [`REPEAT_INTERVAL`].
    pub const fn with_repeat_interval(grace: Duration, repeat_interval: Duration) -> Self {
        Self { grace, repeat_interval, failing_since: None, last_logged: None }
    }

    /// Records a failure. Returns the duration of the outage so far if the failure should be
    /// logged now.
    pub fn record_failure(&mut self) -> Option<Duration> {
        self.record_failure_at(Instant::now())
    }

    fn record_failure_at(&mut self, now: Instant) -> Option<Duration> {
        let duration = now.duration_since(*self.failing_since.get_or_insert(now));
        let is_early = match self.last_logged {
            None => duration < self.grace,
            Some(last_logged) => now.duration_since(last_logged) < self.repeat_interval,
        };
        if is_early {
            return None;
        }
        self.last_logged = Some(now);
        Some(duration)
    }

    /// Records a success, which ends the outage. Returns the outage's duration if it was logged.
    pub fn record_success(&mut self) -> Option<Duration> {
        let failing_since = self.failing_since.take()?;
        self.last_logged.take().map(|_| failing_since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn outage_is_logged_at_its_start_at_each_interval_and_at_its_end() {
        let mut throttle = LogThrottle::new(Duration::ZERO);
        let start = Instant::now();
        assert_eq!(throttle.record_failure_at(start), Some(Duration::ZERO));
        assert_eq!(throttle.record_failure_at(start + 59 * SECOND), None);
        assert_eq!(throttle.record_failure_at(start + 60 * SECOND), Some(60 * SECOND));
        assert_eq!(throttle.record_failure_at(start + 61 * SECOND), None);
        assert!(throttle.record_success().is_some());
        assert_eq!(throttle.record_success(), None);
        assert_eq!(throttle.record_failure_at(start), Some(Duration::ZERO));
    }

    #[test]
    fn outage_shorter_than_the_grace_is_not_logged() {
        let mut throttle = LogThrottle::new(2 * SECOND);
        let start = Instant::now();
        assert_eq!(throttle.record_failure_at(start), None);
        assert_eq!(throttle.record_success(), None);
        assert_eq!(throttle.record_failure_at(start), None);
        assert_eq!(throttle.record_failure_at(start + 2 * SECOND), Some(2 * SECOND));
        assert!(throttle.record_success().is_some());
    }
}
