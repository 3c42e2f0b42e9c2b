//! The spool: results that wait for Kafka, in memory, within a bound.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use common::kafka::ProduceRecord;

/// The most bytes of waiting results: 64 MiB, some 120,000 of them.
pub const SPOOL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What an entry takes beside its record: its places in the two indexes, their
/// growth, its headers' parts and the allocator's share.
const ENTRY_BYTES: usize = 300;

/// A result that waits, and its place in the order of arrival.
#[derive(Debug)]
struct Waiting {
    arrival: i64,
    record: ProduceRecord,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.record.bytes_max() + ENTRY_BYTES
    }
}

/// Results by topic, oldest first. Full, it drops the oldest result of all,
/// whichever its topic, and counts it.
#[derive(Debug)]
pub struct Spool {
    topics: HashMap<Arc<str>, VecDeque<Waiting>>,
    /// The topic of each result, in the order of arrival.
    arrivals: BTreeMap<i64, Arc<str>>,
    next_arrival: i64,
    /// Below all that have arrived, for what comes back to the front.
    next_return: i64,
    bytes: usize,
    bytes_max: usize,
}

impl Spool {
    /// An empty spool.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            topics: HashMap::new(),
            arrivals: BTreeMap::new(),
            next_arrival: 0,
            next_return: -1,
            bytes: 0,
            bytes_max,
        }
    }

    /// The number of results that wait.
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Adds a result. `dropped` hears the topic of each result that had to go
    /// for it.
    pub fn push(
        &mut self,
        topic: &Arc<str>,
        record: ProduceRecord,
        mut dropped: impl FnMut(&Arc<str>),
    ) {
        let waiting = Waiting { arrival: self.next_arrival, record };
        self.next_arrival += 1;
        self.bytes += waiting.bytes();
        self.arrivals.insert(waiting.arrival, Arc::clone(topic));
        self.topics.entry(Arc::clone(topic)).or_default().push_back(waiting);
        while self.bytes > self.bytes_max {
            let Some((_, topic)) = self.arrivals.pop_first() else { break };
            if let Some(oldest) = self.topics.get_mut(&topic).and_then(VecDeque::pop_front) {
                self.bytes -= oldest.bytes();
            }
            dropped(&topic);
        }
    }

    /// Puts results back that were taken and could not be written in one piece;
    /// they are in front of all others again. The bound is kept by the next
    /// [`Spool::push`].
    pub fn put_back(&mut self, topic: &Arc<str>, records: Vec<ProduceRecord>) {
        let queue = self.topics.entry(Arc::clone(topic)).or_default();
        for record in records.into_iter().rev() {
            let waiting = Waiting { arrival: self.next_return, record };
            self.next_return -= 1;
            self.bytes += waiting.bytes();
            self.arrivals.insert(waiting.arrival, Arc::clone(topic));
            queue.push_front(waiting);
        }
    }

    /// The topics with results that wait, the one with the oldest first.
    pub fn topics(&self) -> Vec<Arc<str>> {
        let waiting = self.topics.iter().filter_map(|(topic, queue)| {
            let oldest = queue.front()?;
            Some((oldest.arrival, Arc::clone(topic)))
        });
        let mut topics: Vec<_> = waiting.collect();
        topics.sort_unstable();
        topics.into_iter().map(|(_, topic)| topic).collect()
    }

    /// Takes the oldest results of a topic, at most `count_max` of them and
    /// `bytes_max` bytes of records (a batch's header not among them), but at
    /// least one.
    pub fn take(&mut self, topic: &str, count_max: usize, bytes_max: usize) -> Vec<ProduceRecord> {
        let Some(queue) = self.topics.get_mut(topic) else { return Vec::new() };
        let mut bytes = 0;
        let fitting = queue.iter().take(count_max).take_while(|waiting| {
            bytes += waiting.record.bytes_max();
            bytes <= bytes_max
        });
        let count = fitting.count().max(1).min(queue.len());
        let taken: Vec<Waiting> = queue.drain(..count).collect();
        for waiting in &taken {
            self.arrivals.remove(&waiting.arrival);
            self.bytes -= waiting.bytes();
        }
        taken.into_iter().map(|waiting| waiting.record).collect()
    }

    /// Takes all results of a topic, to lose them: how many they were.
    pub fn discard(&mut self, topic: &str) -> usize {
        self.take(topic, usize::MAX, usize::MAX).len()
    }

    /// How many results wait, by topic.
    pub fn counts(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.topics
            .iter()
            .map(|(topic, queue)| (topic, queue.len()))
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: u8) -> ProduceRecord {
        ProduceRecord { timestamp_ms: 0, value: vec![value; 10].into(), headers: Vec::new() }
    }

    fn entry_bytes() -> usize {
        record(0).bytes_max() + ENTRY_BYTES
    }

    fn push(spool: &mut Spool, topic: &str, value: u8) -> Vec<String> {
        let mut dropped = Vec::new();
        spool.push(&Arc::from(topic), record(value), |topic| dropped.push(topic.to_string()));
        dropped
    }

    fn values(records: &[ProduceRecord]) -> Vec<u8> {
        records.iter().map(|record| record.value[0]).collect()
    }

    #[test]
    fn each_topic_gives_its_oldest_first_within_bounds() {
        let mut spool = Spool::new(usize::MAX);
        for value in 0..6 {
            push(&mut spool, if value % 2 == 0 { "a" } else { "b" }, value);
        }
        assert_eq!(spool.topics(), [Arc::from("a"), Arc::from("b")]);
        assert_eq!(values(&spool.take("a", 2, usize::MAX)), [0, 2]);
        assert_eq!(spool.topics(), [Arc::from("b"), Arc::from("a")]);
        assert_eq!(values(&spool.take("b", 9, 1)), [1], "at least one, however large");
        assert_eq!(values(&spool.take("b", 9, 2 * record(0).bytes_max())), [3, 5]);
        assert!(spool.take("c", 9, 9).is_empty());
        assert_eq!(spool.topics(), [Arc::from("a")]);
        assert_eq!((spool.len(), spool.discard("a"), spool.is_empty()), (1, 1, true));
        assert_eq!(spool.bytes, 0);
    }

    #[test]
    fn a_full_spool_drops_the_oldest_of_all_topics() {
        let mut spool = Spool::new(3 * entry_bytes());
        assert!(push(&mut spool, "a", 0).is_empty());
        assert!(push(&mut spool, "b", 1).is_empty());
        assert!(push(&mut spool, "a", 2).is_empty());
        assert_eq!(push(&mut spool, "b", 3), ["a"]);
        assert_eq!(push(&mut spool, "b", 4), ["b"]);
        assert_eq!(values(&spool.take("a", 9, usize::MAX)), [2]);
        assert_eq!(values(&spool.take("b", 9, usize::MAX)), [3, 4]);
        assert_eq!(spool.bytes, 0);
    }

    #[test]
    fn what_comes_back_is_the_oldest_again() {
        let mut spool = Spool::new(3 * entry_bytes());
        push(&mut spool, "a", 0);
        push(&mut spool, "b", 1);
        push(&mut spool, "b", 2);
        let taken = spool.take("b", 9, usize::MAX);
        spool.put_back(&Arc::from("b"), taken);
        assert_eq!(push(&mut spool, "b", 3), ["b"]);
        assert_eq!(values(&spool.take("b", 9, usize::MAX)), [2, 3]);
        assert_eq!(values(&spool.take("a", 9, usize::MAX)), [0]);
        assert_eq!(spool.bytes, 0);
    }
}
