//! The part of the spool in memory: the oldest results of each topic, and all results
//! that are not on disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use kafka_client::{ProduceRecord, batch_len};

use super::segment::StoredResult;

/// Bytes that an entry uses besides its record: the indexes and their spare capacity,
/// the parts of the headers, and the allocator's overhead.
pub(super) const ENTRY_BYTES: usize = 300;

/// A result that waits in memory.
#[derive(Debug)]
pub(super) struct QueuedResult {
    /// Position in the order of arrival.
    number: u64,
    on_disk: bool,
    record: ProduceRecord,
}

impl QueuedResult {
    fn bytes(&self) -> usize {
        self.record.bytes_max() + ENTRY_BYTES
    }
}

/// A result that was dequeued to be sent and is not settled.
#[derive(Debug)]
struct InFlightResult {
    number: u64,
    on_disk: bool,
    /// The record, if it still has to be written to disk.
    record: Option<ProduceRecord>,
}

/// A topic's results, in this order: `queue`, results only on disk, `tail`.
#[derive(Debug, Default)]
pub(super) struct TopicQueue {
    pub(super) queue: VecDeque<QueuedResult>,
    /// The number of results that are only on disk. They are newer than `above`.
    pub(super) unloaded: usize,
    above: u64,
    /// Results that arrived after the results on disk, and are not on disk yet.
    tail: VecDeque<QueuedResult>,
    in_flight: VecDeque<InFlightResult>,
    /// The highest number that was settled.
    settled_max: u64,
    /// Settled numbers behind an older result that is not settled. A segment still holds
    /// these results, and they must not be read back. Bounded by the size of a batch.
    settled_ahead: BTreeSet<u64>,
    bytes: usize,
    bytes_on_disk: usize,
}

/// Results in flight that were settled.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) topic: Arc<str>,
    /// The numbers of the settled results that are on disk.
    pub(super) on_disk: Vec<u64>,
    /// Every result of the topic up to this number is settled.
    pub(super) mark: u64,
}

impl TopicQueue {
    /// The highest number up to which no result of the topic is outstanding.
    fn settled_up_to(&self) -> u64 {
        let queued = |queue: &VecDeque<QueuedResult>| queue.front().map(|it| it.number);
        let in_flight = self.in_flight.front().map(|sent| sent.number);
        let unloaded = (self.unloaded > 0).then_some(self.above + 1);
        // In flight, queue, disk and tail follow each other in the order of numbers.
        let oldest = in_flight.or(queued(&self.queue)).or(unloaded).or(queued(&self.tail));
        oldest.map_or(self.settled_max, |oldest| self.settled_max.min(oldest - 1))
    }

    /// The number of waiting results.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.unloaded + self.tail.len()
    }

    /// The number of results on disk and of results only in memory, both with the results
    /// in flight.
    pub(super) fn disk_and_memory_counts(&self) -> (usize, usize) {
        let in_flight = self.in_flight.iter().map(|sent| sent.on_disk);
        let in_memory = self.queue.iter().chain(&self.tail).map(|waiting| waiting.on_disk);
        let on_disk = in_flight.chain(in_memory).filter(|on_disk| *on_disk).count();
        (on_disk + self.unloaded, self.len() - self.unloaded + self.in_flight.len() - on_disk)
    }

    fn merge_tail(&mut self) {
        if self.unloaded == 0 {
            self.queue.append(&mut self.tail);
        }
    }

    fn find(&mut self, number: u64) -> Option<(&mut QueuedResult, bool)> {
        let in_tail = self.tail.front().is_some_and(|first| first.number <= number);
        let entries = if in_tail { &mut self.tail } else { &mut self.queue };
        let index = entries.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        entries.get_mut(index).map(|waiting| (waiting, in_tail))
    }

    /// The index of a result in flight.
    fn in_flight_index(&self, number: u64) -> Option<usize> {
        self.in_flight.binary_search_by_key(&number, |sent| sent.number).ok()
    }
}

/// Where else a result is that was just written to disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SaveOutcome {
    /// In memory.
    InMemory,
    /// In flight to Kafka.
    InFlight,
    /// Only on disk.
    OnlyOnDisk,
}

/// The outcome of reading a result back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoadOutcome {
    /// The result is now in memory.
    Loaded,
    /// The result was already in memory, or is delivered.
    Known,
    /// The topic already has its share of memory.
    Full,
}

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) topics: HashMap<Arc<str>, TopicQueue>,
    /// The topic of each result in memory, in the order of arrival.
    arrivals: BTreeMap<u64, Arc<str>>,
    /// The topic of each result, waiting or in flight, that is not on disk yet.
    pub(super) unsaved: BTreeMap<u64, Arc<str>>,
    pub(super) track_unsaved: bool,
    /// The highest number written to disk. A returned result with a lower number can't be
    /// written any more, because segments are in order.
    saved_to: u64,
    pub(super) next_number: u64,
    pub(super) bytes: usize,
    pub(super) bytes_max: usize,
    bytes_on_disk: usize,
}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            topics: HashMap::new(),
            arrivals: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            track_unsaved: false,
            saved_to: 0,
            next_number: 1,
            bytes: 0,
            bytes_max,
            bytes_on_disk: 0,
        }
    }

    pub(super) fn topic(&mut self, topic: &Arc<str>) -> &mut TopicQueue {
        self.topics.entry(Arc::clone(topic)).or_default()
    }

    /// The topics that have results on disk and none in memory.
    pub(super) fn empty_windows(&self) -> impl Iterator<Item = &str> {
        let topics = self.topics.iter();
        let empty = topics.filter(|(_, topic)| topic.unloaded > 0 && topic.queue.is_empty());
        empty.map(|(topic, _)| &**topic)
    }

    pub(super) fn is_over(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Bytes of results in memory that are also on disk.
    pub(super) fn bytes_on_disk(&self) -> usize {
        self.bytes_on_disk
    }

    /// Adds a result to the indexes and byte counts before it is put into a queue.
    fn add_to_counts(&mut self, topic: &Arc<str>, waiting: &QueuedResult) {
        let bytes = waiting.bytes();
        self.bytes += bytes;
        self.arrivals.insert(waiting.number, Arc::clone(topic));
        if self.must_go_to_disk(waiting) {
            self.unsaved.insert(waiting.number, Arc::clone(topic));
        }
        let on_disk = if waiting.on_disk { bytes } else { 0 };
        self.bytes_on_disk += on_disk;
        let topic = self.topic(topic);
        topic.bytes += bytes;
        topic.bytes_on_disk += on_disk;
    }

    fn must_go_to_disk(&self, waiting: &QueuedResult) -> bool {
        self.track_unsaved && !waiting.on_disk && waiting.number > self.saved_to
    }

    /// Removes a result from the indexes and byte counts after it left a queue.
    fn remove_from_counts(&mut self, topic: &Arc<str>, waiting: &QueuedResult) {
        let bytes = waiting.bytes();
        self.bytes -= bytes;
        self.arrivals.remove(&waiting.number);
        self.unsaved.remove(&waiting.number);
        let on_disk = if waiting.on_disk { bytes } else { 0 };
        self.bytes_on_disk -= on_disk;
        let topic = self.topic(topic);
        topic.bytes -= bytes;
        topic.bytes_on_disk -= on_disk;
    }

    pub(super) fn push(&mut self, topic: &Arc<str>, record: ProduceRecord) {
        let waiting = QueuedResult { number: self.next_number, on_disk: false, record };
        self.next_number += 1;
        self.add_to_counts(topic, &waiting);
        let topic = self.topic(topic);
        topic.tail.push_back(waiting);
        topic.merge_tail();
    }

    /// Finds the topic with the most bytes that are both in memory and on disk, and
    /// removes the newest half of these results from memory. Calls `unloaded` for each.
    pub(super) fn unload(&mut self, mut unloaded: impl FnMut(&Arc<str>, u64)) {
        let largest = self.topics.iter().max_by_key(|(_, topic)| topic.bytes_on_disk);
        let Some((name, _)) = largest else { return };
        let name = Arc::clone(name);
        let topic = self.topic(&name);
        while let Some(waiting) = topic.queue.pop_back_if(|waiting| !waiting.on_disk) {
            topic.tail.push_front(waiting);
        }
        let keep = topic.bytes_on_disk / 2;
        let mut removed_bytes = 0;
        let mut removed = Vec::new();
        while removed_bytes < topic.bytes_on_disk - keep
            && let Some(waiting) = topic.queue.pop_back_if(|waiting| waiting.on_disk)
        {
            removed_bytes += waiting.bytes();
            topic.unloaded += 1;
            topic.above = waiting.number - 1;
            unloaded(&name, waiting.number);
            removed.push(waiting);
        }
        removed.iter().for_each(|waiting| self.remove_from_counts(&name, waiting));
    }

    /// Drops the oldest result in memory, which must not be on disk. Returns its topic.
    pub(super) fn drop_oldest(&mut self) -> Option<Arc<str>> {
        let (number, name) = self.arrivals.first_key_value()?;
        let (number, name) = (*number, Arc::clone(name));
        let topic = self.topics.get_mut(&name)?;
        let is_oldest = |waiting: &mut QueuedResult| waiting.number == number;
        let waiting =
            topic.queue.pop_front_if(is_oldest).or_else(|| topic.tail.pop_front_if(is_oldest))?;
        self.remove_from_counts(&name, &waiting);
        Some(name)
    }

    /// The record of a result that has to be written to disk.
    pub(super) fn unsaved_record(&self, topic: &str, number: u64) -> Option<&ProduceRecord> {
        let topic = self.topics.get(topic)?;
        if let Some(index) = topic.in_flight_index(number) {
            return topic.in_flight.get(index)?.record.as_ref();
        }
        let in_tail = topic.tail.front().is_some_and(|first| first.number <= number);
        let entries = if in_tail { &topic.tail } else { &topic.queue };
        let index = entries.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        entries.get(index).map(|waiting| &waiting.record)
    }

    /// Records that a result is on disk. Returns where else the result is.
    pub(super) fn mark_saved(&mut self, name: &Arc<str>, number: u64) -> SaveOutcome {
        self.saved_to = number;
        self.unsaved.remove(&number);
        let Some(topic) = self.topics.get_mut(name) else { return SaveOutcome::OnlyOnDisk };
        if let Some(sent) =
            topic.in_flight_index(number).and_then(|index| topic.in_flight.get_mut(index))
        {
            (sent.on_disk, sent.record) = (true, None);
            return SaveOutcome::InFlight;
        }
        let Some((waiting, in_tail)) = topic.find(number) else { return SaveOutcome::OnlyOnDisk };
        if !in_tail {
            waiting.on_disk = true;
            let bytes = waiting.bytes();
            topic.bytes_on_disk += bytes;
            self.bytes_on_disk += bytes;
            return SaveOutcome::InMemory;
        }
        if let Some(waiting) = topic.tail.pop_front() {
            topic.unloaded += 1;
            self.remove_from_counts(name, &waiting);
        }
        SaveOutcome::OnlyOnDisk
    }

    /// Removes a topic's results that were in a dropped segment with these numbers;
    /// `unloaded` of them were only on disk.
    pub(super) fn drop_saved(&mut self, name: &Arc<str>, numbers: Range<u64>, unloaded: usize) {
        let topic = self.topic(name);
        topic.unloaded -= unloaded;
        let is_dropped =
            |waiting: &QueuedResult| waiting.on_disk && numbers.contains(&waiting.number);
        let (dropped, remaining) =
            std::mem::take(&mut topic.queue).into_iter().partition(is_dropped);
        topic.queue = remaining;
        topic.merge_tail();
        let dropped: VecDeque<QueuedResult> = dropped;
        dropped.iter().for_each(|waiting| self.remove_from_counts(name, waiting));
    }

    /// Adds a result that was read from disk, unless it is known or its topic already has
    /// `share` bytes in memory.
    pub(super) fn add_loaded(
        &mut self,
        name: &Arc<str>,
        stored: StoredResult,
        share: usize,
    ) -> LoadOutcome {
        let topic = self.topic(name);
        if stored.number <= topic.above || topic.settled_ahead.contains(&stored.number) {
            return LoadOutcome::Known;
        }
        if topic.bytes >= share && !topic.queue.is_empty() {
            return LoadOutcome::Full;
        }
        let StoredResult { number, record, .. } = stored;
        let waiting = QueuedResult { number, on_disk: true, record };
        self.add_to_counts(name, &waiting);
        let topic = self.topic(name);
        topic.above = number;
        topic.queue.push_back(waiting);
        self.reduce_unloaded(name, 1);
        LoadOutcome::Loaded
    }

    /// Reduces the number of results that are only on disk.
    pub(super) fn reduce_unloaded(&mut self, name: &Arc<str>, count: usize) {
        let topic = self.topic(name);
        topic.unloaded -= count;
        topic.merge_tail();
    }

    /// At the start: adds `count` results that are only on disk, newer than `above`.
    pub(super) fn add_backlog(&mut self, name: &Arc<str>, count: usize, above: u64) {
        let topic = self.topic(name);
        topic.unloaded += count;
        topic.above = above;
    }

    /// Puts a topic's results in flight back into its queue. Returns the numbers of the
    /// results that are on disk.
    pub(super) fn return_unsent(
        &mut self,
        name: &Arc<str>,
        records: Vec<ProduceRecord>,
    ) -> Vec<u64> {
        let mut numbers = Vec::new();
        for record in records.into_iter().rev() {
            let Some(sent) = self.topic(name).in_flight.pop_back() else { break };
            let InFlightResult { number, on_disk, .. } = sent;
            let waiting = QueuedResult { number, on_disk, record };
            self.add_to_counts(name, &waiting);
            self.topic(name).queue.push_front(waiting);
            numbers.extend(on_disk.then_some(number));
        }
        numbers
    }

    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        let waiting = self.topics.iter().filter_map(|(topic, it)| {
            let oldest = it.queue.front()?;
            Some((oldest.number, Arc::clone(topic)))
        });
        let mut topics: Vec<_> = waiting.collect();
        topics.sort_unstable();
        topics.into_iter().map(|(_, topic)| topic).collect()
    }

    /// Dequeues the oldest results of a topic. Returns these results, and the numbers of
    /// the results that are on disk.
    pub(super) fn take_batch(
        &mut self,
        name: &str,
        count_max: usize,
        bytes_max: usize,
    ) -> (Vec<ProduceRecord>, Vec<u64>) {
        let Some((name, topic)) = self.topics.get_key_value(name) else {
            return (Vec::new(), Vec::new());
        };
        let name = Arc::clone(name);
        let records = topic.queue.iter().map(|waiting| &waiting.record);
        let count = batch_len(records, bytes_max, count_max);
        let dequeued: Vec<QueuedResult> = self.topic(&name).queue.drain(..count).collect();
        let mut numbers = Vec::new();
        let mut records = Vec::with_capacity(count);
        for waiting in dequeued {
            self.remove_from_counts(&name, &waiting);
            let must_go_to_disk = self.must_go_to_disk(&waiting);
            let QueuedResult { number, on_disk, record } = waiting;
            if must_go_to_disk {
                self.unsaved.insert(number, Arc::clone(&name));
            }
            // Cloning the record shares its bytes.
            let sent =
                InFlightResult { number, on_disk, record: must_go_to_disk.then(|| record.clone()) };
            self.topic(&name).in_flight.push_back(sent);
            numbers.extend(on_disk.then_some(number));
            records.push(record);
        }
        (records, numbers)
    }

    /// Removes results in flight, by their positions in the batch.
    pub(super) fn settle(
        &mut self,
        name: &str,
        is_settled: impl Fn(usize) -> bool,
    ) -> Option<Settled> {
        let name = Arc::clone(self.topics.get_key_value(name)?.0);
        let topic = self.topic(&name);
        let (mut kept, mut settled) = (VecDeque::new(), Vec::new());
        for (position, sent) in std::mem::take(&mut topic.in_flight).into_iter().enumerate() {
            if is_settled(position) {
                topic.settled_max = topic.settled_max.max(sent.number);
                topic.settled_ahead.insert(sent.number);
                settled.push(sent);
            } else {
                kept.push_back(sent);
            }
        }
        topic.in_flight = kept;
        let mark = topic.settled_up_to();
        topic.settled_ahead = topic.settled_ahead.split_off(&(mark + 1));
        let mut on_disk = Vec::new();
        for InFlightResult { number, on_disk: is_on_disk, .. } in settled {
            self.unsaved.remove(&number);
            on_disk.extend(is_on_disk.then_some(number));
        }
        Some(Settled { topic: name, on_disk, mark })
    }

    /// Drops all waiting results of a topic. Returns their number.
    pub(super) fn discard_topic(&mut self, name: &str) -> Option<(Arc<str>, usize)> {
        let name = Arc::clone(self.topics.get_key_value(name)?.0);
        let topic = self.topic(&name);
        let count = topic.len();
        topic.unloaded = 0;
        let mut discarded = std::mem::take(&mut topic.queue);
        discarded.append(&mut topic.tail);
        discarded.iter().for_each(|waiting| self.remove_from_counts(&name, waiting));
        Some((name, count))
    }
}
