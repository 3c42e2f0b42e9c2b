//! Log lines about lost results: counted by topic and reason, at most once an interval.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::counted::counted;

/// At most this many lines name a topic; one more line counts the other topics.
const TOPICS_LOGGED_MAX: usize = 10;

/// Losses that are not logged yet.
#[derive(Debug, Default)]
pub(crate) struct LossLog {
    counts: BTreeMap<(String, String), usize>,
    last_logged: Option<Instant>,
}

impl LossLog {
    /// Counts `count` more lost results of a topic.
    pub(crate) fn add(&mut self, topic: &str, reason: &str, count: usize) {
        *self.counts.entry((topic.to_owned(), reason.to_owned())).or_default() += count;
    }

    /// Returns the lines to log and clears the counts, or nothing if the last lines
    /// are younger than `interval`. Without an interval the lines are always due.
    pub(crate) fn take_due_lines(&mut self, interval: Option<Duration>) -> Vec<String> {
        let is_early = |logged: Instant| interval.is_some_and(|it| logged.elapsed() < it);
        if self.counts.is_empty() || self.last_logged.is_some_and(is_early) {
            return Vec::new();
        }
        self.last_logged = Some(Instant::now());
        let counts = std::mem::take(&mut self.counts);
        let more = counts.len().saturating_sub(TOPICS_LOGGED_MAX);
        let line = |((topic, reason), count)| {
            format!("lost {} for {topic}: {reason}", counted(count, "result"))
        };
        let mut lines: Vec<_> = counts.into_iter().take(TOPICS_LOGGED_MAX).map(line).collect();
        if more > 0 {
            lines.push(format!("lost results of {}", counted(more, "more topic")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each loss is logged once, and a large number of topics gives few lines.
    #[test]
    fn losses_are_logged_once_and_in_few_lines() {
        let mut losses = LossLog::default();
        assert_eq!(losses.take_due_lines(None), [] as [&str; 0]);
        losses.add("a", "why", 2);
        losses.add("a", "why", 3);
        losses.add("a", "other", 1);
        let expected = ["lost 1 result for a: other", "lost 5 results for a: why"];
        assert_eq!(losses.take_due_lines(Some(Duration::from_secs(60))), expected);
        (0..12).for_each(|topic| losses.add(&format!("t{topic:02}"), "why", 1));
        assert_eq!(losses.take_due_lines(Some(Duration::from_secs(60))), [] as [&str; 0]);
        let lines = losses.take_due_lines(None);
        assert_eq!((lines.len(), lines[10].as_str()), (11, "lost results of 2 more topics"));
        assert_eq!(losses.take_due_lines(None), [] as [&str; 0]);
    }
}
