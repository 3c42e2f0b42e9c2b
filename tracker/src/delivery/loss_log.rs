//! Results that reached nobody, by topic and reason, said once a minute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The most topics that a line names; the others are summed up.
const TOPICS_SAID: usize = 10;

/// What is not said yet.
#[derive(Debug, Default)]
pub struct Lost {
    counts: BTreeMap<(String, String), usize>,
    said: Option<Instant>,
}

impl Lost {
    /// So many more of a topic.
    pub fn add(&mut self, topic: &str, reason: &str, count: usize) {
        *self.counts.entry((topic.to_owned(), reason.to_owned())).or_default() += count;
    }

    /// The lines that say what was lost since the last ones, when that is `after`
    /// ago.
    pub fn lines(&mut self, after: Option<Duration>) -> Vec<String> {
        let early = |said: Instant| after.is_some_and(|after| said.elapsed() < after);
        if self.counts.is_empty() || self.said.is_some_and(early) {
            return Vec::new();
        }
        self.said = Some(Instant::now());
        let counts = std::mem::take(&mut self.counts);
        let more = counts.len().saturating_sub(TOPICS_SAID);
        let line = |((topic, reason), count)| format!("lost {count} results for {topic}: {reason}");
        let mut lines: Vec<_> = counts.into_iter().take(TOPICS_SAID).map(line).collect();
        if more > 0 {
            lines.push(format!("lost results of {more} more topics"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when `lines` does not take what it says, or names all topics.
    #[test]
    fn what_is_lost_is_said_once_and_in_few_lines() {
        let mut lost = Lost::default();
        assert_eq!(lost.lines(None), [] as [&str; 0]);
        lost.add("a", "why", 2);
        lost.add("a", "why", 3);
        lost.add("a", "other", 1);
        let expected = ["lost 1 results for a: other", "lost 5 results for a: why"];
        assert_eq!(lost.lines(Some(Duration::from_secs(60))), expected);
        (0..12).for_each(|topic| lost.add(&format!("t{topic:02}"), "why", 1));
        assert_eq!(lost.lines(Some(Duration::from_secs(60))), [] as [&str; 0]);
        let lines = lost.lines(None);
        assert_eq!((lines.len(), lines[10].as_str()), (11, "lost results of 2 more topics"));
        assert_eq!(lost.lines(None), [] as [&str; 0]);
    }
}
