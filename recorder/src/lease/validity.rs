//! How long this recorder may rely on its leases, by its own clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the keeper of the leases knows, for the threads that work under them.
///
/// It only keeps a recorder from useless work: that no record is written twice
/// is the doing of the position's compare-and-set.
#[derive(Debug, Default)]
pub struct LeaseClock(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    until: Option<Instant>,
    confirmed: Option<Instant>,
}

impl LeaseClock {
    /// All leases were seen to hold by a look that began at `looked`, and hold
    /// until `until`.
    pub fn confirm(&self, looked: Instant, until: Instant) {
        *self.times() = Times { until: Some(until), confirmed: Some(looked) };
    }

    /// No lease holds until the next that is confirmed.
    pub fn revoke(&self) {
        *self.times() = Times::default();
    }

    /// Whether the leases hold now, and, for whoever came to doubt its own at
    /// a time, whether that was looked at since.
    pub fn holds(&self, doubted: Option<Instant>) -> bool {
        let times = self.times();
        times.until.is_some_and(|until| Instant::now() < until)
            && doubted.is_none_or(|doubted| times.confirmed.is_some_and(|at| at > doubted))
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Goes red without the comparison with `until`, and with `doubted`.
    #[test]
    fn a_lease_holds_until_its_time_and_a_doubt_until_the_next_look() {
        let (clock, start) = (LeaseClock::default(), Instant::now());
        let later = start + Duration::from_secs(60);
        assert!(!clock.holds(None), "not held yet");
        clock.confirm(start, start);
        assert!(!clock.holds(None), "run out");
        clock.confirm(start, later);
        assert!(clock.holds(None));
        let doubted = Instant::now();
        assert!(!clock.holds(Some(doubted)), "looked at before");
        clock.confirm(doubted + Duration::from_nanos(1), later);
        assert!(clock.holds(Some(doubted)));
        clock.revoke();
        assert!(!clock.holds(None), "let go");
    }
}
