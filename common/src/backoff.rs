//! Retry delays: exponential, with a maximum and jitter.

use std::time::Duration;

/// Retry delays that double from a first delay up to a maximum. Each delay is random between half
/// of its value and its value, so that threads that lost the same server do not reconnect at the
/// same time.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Creates delays from `first` to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// Returns the delay before the next retry.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        delay.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }

    /// Starts again with the first delay, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for expected_ms in [100, 200, 350, 350] {
            let delay = backoff.next_delay();
            let expected = Duration::from_millis(expected_ms);
            assert!(delay >= expected / 2 && delay <= expected, "{delay:?} for {expected:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
