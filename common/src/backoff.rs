//! Delays between tries: growing, capped and jittered, and quiet in the log.

use std::time::{Duration, Instant};

/// Delays that double from a first one up to a cap, each drawn between half
/// and all of its value, so that many threads that lost the same server do not
/// come back to it in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays from `first` to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// The delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.cap);
        delay.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }

    /// After a success: the next failure waits the first delay again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Says a state of things once when it begins, once a minute while it lasts
/// and once when it ends, however often it is seen.
#[derive(Debug)]
pub struct Outage {
    grace: Duration,
    since: Option<Instant>,
    said: Option<Instant>,
}

/// How often a lasting outage is said again.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Outage {
    /// All is well. Of an outage shorter than `grace` nothing is said: a topic
    /// just made, or a leader that moves, is gone in a moment and is no news.
    pub const fn new(grace: Duration) -> Self {
        Self { grace, since: None, said: None }
    }

    /// A failure was seen: the outage's length so far when it is to be said now.
    pub fn failed(&mut self) -> Option<Duration> {
        self.failed_at(Instant::now())
    }

    fn failed_at(&mut self, now: Instant) -> Option<Duration> {
        let length = now.duration_since(*self.since.get_or_insert(now));
        let is_early = match self.said {
            None => length < self.grace,
            Some(said) => now.duration_since(said) < SAY_AGAIN_AFTER,
        };
        if is_early {
            return None;
        }
        self.said = Some(now);
        Some(length)
    }

    /// A success was seen: the length of the outage that ends with it, when it
    /// was said.
    pub fn succeeded(&mut self) -> Option<Duration> {
        let since = self.since.take()?;
        self.said.take().map(|_| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for expected_ms in [100, 200, 350, 350] {
            let delay = backoff.next_delay();
            let expected = Duration::from_millis(expected_ms);
            assert!(delay >= expected / 2 && delay <= expected, "{delay:?} for {expected:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }

    #[test]
    fn an_outage_is_said_at_its_start_once_a_minute_and_at_its_end() {
        let mut outage = Outage::new(Duration::ZERO);
        let start = Instant::now();
        let after = Duration::from_secs;
        assert_eq!(outage.failed_at(start), Some(Duration::ZERO));
        assert_eq!(outage.failed_at(start + after(59)), None);
        assert_eq!(outage.failed_at(start + after(60)), Some(after(60)));
        assert_eq!(outage.failed_at(start + after(61)), None);
        assert!(outage.succeeded().is_some());
        assert_eq!(outage.succeeded(), None);
        assert_eq!(outage.failed_at(start), Some(Duration::ZERO));
    }

    #[test]
    fn an_outage_within_its_grace_is_not_said_at_all() {
        let mut outage = Outage::new(Duration::from_secs(2));
        let start = Instant::now();
        assert_eq!(outage.failed_at(start), None);
        assert_eq!(outage.succeeded(), None);
        assert_eq!(outage.failed_at(start), None);
        let now = start + Duration::from_secs(2);
        assert_eq!(outage.failed_at(now), Some(Duration::from_secs(2)));
        assert!(outage.succeeded().is_some());
    }
}
