//! The deadline of a probe.

use std::time::{Duration, Instant};

/// The longest time-out. Adding it to an instant can't overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The instant at which a probe ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline `timeout` from now, at most a day.
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout.min(TIMEOUT_MAX))
    }

    /// The remaining time. Zero once the deadline has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether no time remains.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// This deadline, or `timeout` from now if that is earlier.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        self.min(Self::after(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_never_extends_a_deadline() {
        let long = Deadline::after(Duration::MAX);
        assert!(long.remaining() <= TIMEOUT_MAX);
        let short = long.within(Duration::from_secs(1));
        assert!(short.remaining() <= Duration::from_secs(1));
        assert!(short.within(Duration::MAX).remaining() <= Duration::from_secs(1));
    }
}
