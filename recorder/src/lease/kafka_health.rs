//! Whether Kafka answers this recorder, which decides on whether it has a share
//! of the domains.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long Kafka may be away before what is held is left to others: longer than
/// a broker takes to start anew, or the others to go on without it.
const AWAY_AFTER: Duration = Duration::from_secs(30);

/// What was seen of Kafka.
#[derive(Debug, Default)]
pub struct Reach(Mutex<Seen>);

#[derive(Debug, Default)]
enum Seen {
    /// No answer yet.
    #[default]
    Never,
    /// The last question was answered.
    Answers,
    /// None since a question that began then.
    Silent(Instant),
}

impl Reach {
    /// Kafka answered; true when it was taken to be away.
    pub fn answered(&self) -> bool {
        let was_away = self.is_away();
        *self.seen() = Seen::Answers;
        was_away
    }

    /// A question that began at `asked` got no answer.
    pub fn failed(&self, asked: Instant) {
        let mut seen = self.seen();
        if matches!(*seen, Seen::Answers) {
            *seen = Seen::Silent(asked);
        }
    }

    /// Whether Kafka never answered, or has not for longer than a moment.
    pub fn is_away(&self) -> bool {
        self.is_away_at(Instant::now())
    }

    fn is_away_at(&self, now: Instant) -> bool {
        match *self.seen() {
            Seen::Never => true,
            Seen::Answers => false,
            Seen::Silent(since) => now.saturating_duration_since(since) >= AWAY_AFTER,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_is_away_until_it_answers_and_when_it_is_silent_for_long() {
        let (reach, start) = (Reach::default(), Instant::now());
        reach.failed(start);
        assert!(reach.is_away(), "never seen");
        assert!(reach.answered() && !reach.answered());
        assert!(!reach.is_away());
        reach.failed(start);
        reach.failed(start + AWAY_AFTER / 2);
        assert!(!reach.is_away_at(start + AWAY_AFTER - Duration::from_millis(1)));
        assert!(reach.is_away_at(start + AWAY_AFTER), "counted from the first");
        assert!(!reach.answered(), "it came in time");
        assert!(!reach.is_away_at(start + AWAY_AFTER));
    }
}
