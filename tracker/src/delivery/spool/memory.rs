//! What of the spool is in memory: of each topic its oldest results, and those
//! that are not on disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use kafka_client::{ProduceRecord, batch_len};

use super::segment::Stored;

/// What an entry takes beside its record: its places in the indexes, their
/// growth, its headers' parts and the allocator's share.
pub(super) const ENTRY_BYTES: usize = 300;

/// A result that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its place in the order of arrival.
    number: u64,
    on_disk: bool,
    record: ProduceRecord,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.record.bytes_max() + ENTRY_BYTES
    }
}

/// A result that was taken to be sent and is not settled.
#[derive(Debug)]
struct InFlight {
    number: u64,
    on_disk: bool,
    /// What goes to disk when that takes it: one that waits here alone, before a
    /// disk, goes there in its place like the others.
    record: Option<ProduceRecord>,
}

/// A topic's results, in this order: `queue`, those on disk alone, `tail`.
#[derive(Debug, Default)]
pub(super) struct Topic {
    pub(super) queue: VecDeque<Waiting>,
    /// How many are on disk alone, and above which number those are.
    pub(super) unloaded: usize,
    above: u64,
    /// What came since, and is not on disk yet.
    tail: VecDeque<Waiting>,
    in_flight: VecDeque<InFlight>,
    bytes: usize,
    bytes_on_disk: usize,
}

impl Topic {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.unloaded + self.tail.len()
    }

    /// How many are on disk and how many in memory alone, those in flight too.
    pub(super) fn counts(&self) -> (usize, usize) {
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

    fn find(&mut self, number: u64) -> Option<(&mut Waiting, bool)> {
        let in_tail = self.tail.front().is_some_and(|first| first.number <= number);
        let entries = if in_tail { &mut self.tail } else { &mut self.queue };
        let index = entries.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        entries.get_mut(index).map(|waiting| (waiting, in_tail))
    }

    /// The place of a result in flight.
    fn sent(&self, number: u64) -> Option<usize> {
        self.in_flight.binary_search_by_key(&number, |sent| sent.number).ok()
    }
}

/// Where else a result is that is on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// In memory.
    Waits,
    /// On its way to Kafka.
    InFlight,
    /// Nowhere.
    Alone,
}

/// What became of a result that was read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// It is in memory.
    Yes,
    /// It was before, or is delivered.
    Known,
    /// The topic has its share.
    Full,
}

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) topics: HashMap<Arc<str>, Topic>,
    /// The topic of each result in memory, in the order of arrival.
    arrivals: BTreeMap<u64, Arc<str>>,
    /// Those of them, and of those in flight, that go to disk next, when there is one.
    pub(super) unsaved: BTreeMap<u64, Arc<str>>,
    pub(super) track_unsaved: bool,
    /// The highest number that went to disk: what comes back with a lower one
    /// can't follow it there.
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

    pub(super) fn topic(&mut self, topic: &Arc<str>) -> &mut Topic {
        self.topics.entry(Arc::clone(topic)).or_default()
    }

    /// The topics that have results on disk and none here.
    pub(super) fn hungry(&self) -> impl Iterator<Item = &str> {
        let topics = self.topics.iter();
        let hungry = topics.filter(|(_, topic)| topic.unloaded > 0 && topic.queue.is_empty());
        hungry.map(|(topic, _)| &**topic)
    }

    pub(super) fn is_over(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// The bytes of results in memory that are on disk too.
    pub(super) fn bytes_on_disk(&self) -> usize {
        self.bytes_on_disk
    }

    /// Counts a result in that is about to be put into the topic.
    fn enter(&mut self, topic: &Arc<str>, waiting: &Waiting) {
        let bytes = waiting.bytes();
        self.bytes += bytes;
        self.arrivals.insert(waiting.number, Arc::clone(topic));
        if self.is_for_disk(waiting) {
            self.unsaved.insert(waiting.number, Arc::clone(topic));
        }
        let on_disk = if waiting.on_disk { bytes } else { 0 };
        self.bytes_on_disk += on_disk;
        let topic = self.topic(topic);
        topic.bytes += bytes;
        topic.bytes_on_disk += on_disk;
    }

    fn is_for_disk(&self, waiting: &Waiting) -> bool {
        self.track_unsaved && !waiting.on_disk && waiting.number > self.saved_to
    }

    /// Counts a result out that was taken from the topic.
    fn leave(&mut self, topic: &Arc<str>, waiting: &Waiting) {
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
        let waiting = Waiting { number: self.next_number, on_disk: false, record };
        self.next_number += 1;
        self.enter(topic, &waiting);
        let topic = self.topic(topic);
        topic.tail.push_back(waiting);
        topic.merge_tail();
    }

    /// Takes the youngest half of what one topic has both here and on disk from
    /// memory: that of the topic with the most. `unloaded` hears each.
    pub(super) fn unload(&mut self, mut unloaded: impl FnMut(&Arc<str>, u64)) {
        let largest = self.topics.iter().max_by_key(|(_, topic)| topic.bytes_on_disk);
        let Some((name, _)) = largest else { return };
        let name = Arc::clone(name);
        let topic = self.topic(&name);
        while let Some(waiting) = topic.queue.pop_back_if(|waiting| !waiting.on_disk) {
            topic.tail.push_front(waiting);
        }
        let keep = topic.bytes_on_disk / 2;
        let mut taken = 0;
        let mut gone = Vec::new();
        while taken < topic.bytes_on_disk - keep
            && let Some(waiting) = topic.queue.pop_back_if(|waiting| waiting.on_disk)
        {
            taken += waiting.bytes();
            topic.unloaded += 1;
            topic.above = waiting.number - 1;
            unloaded(&name, waiting.number);
            gone.push(waiting);
        }
        gone.iter().for_each(|waiting| self.leave(&name, waiting));
    }

    /// Drops the oldest result here, which must not be on disk: its topic.
    pub(super) fn drop_oldest(&mut self) -> Option<Arc<str>> {
        let (number, name) = self.arrivals.first_key_value()?;
        let (number, name) = (*number, Arc::clone(name));
        let topic = self.topics.get_mut(&name)?;
        let is_it = |waiting: &mut Waiting| waiting.number == number;
        let waiting = topic.queue.pop_front_if(is_it).or_else(|| topic.tail.pop_front_if(is_it))?;
        self.leave(&name, &waiting);
        Some(name)
    }

    /// A result that is to be written to disk.
    pub(super) fn unsaved_record(&self, topic: &str, number: u64) -> Option<&ProduceRecord> {
        let topic = self.topics.get(topic)?;
        if let Some(index) = topic.sent(number) {
            return topic.in_flight.get(index)?.record.as_ref();
        }
        let in_tail = topic.tail.front().is_some_and(|first| first.number <= number);
        let entries = if in_tail { &topic.tail } else { &topic.queue };
        let index = entries.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        entries.get(index).map(|waiting| &waiting.record)
    }

    /// A result is on disk: where it is as well.
    pub(super) fn saved(&mut self, name: &Arc<str>, number: u64) -> Saved {
        self.saved_to = number;
        self.unsaved.remove(&number);
        let Some(topic) = self.topics.get_mut(name) else { return Saved::Alone };
        if let Some(sent) = topic.sent(number).and_then(|index| topic.in_flight.get_mut(index)) {
            (sent.on_disk, sent.record) = (true, None);
            return Saved::InFlight;
        }
        let Some((waiting, in_tail)) = topic.find(number) else { return Saved::Alone };
        if !in_tail {
            waiting.on_disk = true;
            let bytes = waiting.bytes();
            topic.bytes_on_disk += bytes;
            self.bytes_on_disk += bytes;
            return Saved::Waits;
        }
        if let Some(waiting) = topic.tail.pop_front() {
            topic.unloaded += 1;
            self.leave(name, &waiting);
        }
        Saved::Alone
    }

    /// What a segment with these numbers held of a topic is gone, and so many
    /// results that were there alone.
    pub(super) fn drop_saved(&mut self, name: &Arc<str>, numbers: Range<u64>, unloaded: usize) {
        let topic = self.topic(name);
        topic.unloaded -= unloaded;
        let is_gone = |waiting: &Waiting| waiting.on_disk && numbers.contains(&waiting.number);
        let (gone, kept) = std::mem::take(&mut topic.queue).into_iter().partition(is_gone);
        topic.queue = kept;
        topic.merge_tail();
        let gone: VecDeque<Waiting> = gone;
        gone.iter().for_each(|waiting| self.leave(name, waiting));
    }

    /// Takes a result that was read from disk, unless it is known or its topic has
    /// `share` bytes.
    pub(super) fn load(&mut self, name: &Arc<str>, stored: Stored, share: usize) -> Loaded {
        let topic = self.topic(name);
        if stored.number <= topic.above {
            return Loaded::Known;
        }
        if topic.bytes >= share && !topic.queue.is_empty() {
            return Loaded::Full;
        }
        let Stored { number, record, .. } = stored;
        let waiting = Waiting { number, on_disk: true, record };
        self.enter(name, &waiting);
        let topic = self.topic(name);
        topic.above = number;
        topic.queue.push_back(waiting);
        self.unloaded_less(name, 1);
        Loaded::Yes
    }

    /// So many results are not on disk alone any more.
    pub(super) fn unloaded_less(&mut self, name: &Arc<str>, count: usize) {
        let topic = self.topic(name);
        topic.unloaded -= count;
        topic.merge_tail();
    }

    /// At the start: of the topic there are so many more on disk, above a number.
    pub(super) fn found(&mut self, name: &Arc<str>, count: usize, above: u64) {
        let topic = self.topic(name);
        topic.unloaded += count;
        topic.above = above;
    }

    /// Puts results of the topic in flight back: the numbers of those on disk.
    pub(super) fn put_back(&mut self, name: &Arc<str>, records: Vec<ProduceRecord>) -> Vec<u64> {
        let mut numbers = Vec::new();
        for record in records.into_iter().rev() {
            let Some(sent) = self.topic(name).in_flight.pop_back() else { break };
            let InFlight { number, on_disk, .. } = sent;
            let waiting = Waiting { number, on_disk, record };
            self.enter(name, &waiting);
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

    /// The oldest results of a topic, and the numbers of those on disk.
    pub(super) fn take(
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
        let taken: Vec<Waiting> = self.topic(&name).queue.drain(..count).collect();
        let mut numbers = Vec::new();
        let mut records = Vec::with_capacity(count);
        for waiting in taken {
            self.leave(&name, &waiting);
            let is_for_disk = self.is_for_disk(&waiting);
            let Waiting { number, on_disk, record } = waiting;
            if is_for_disk {
                self.unsaved.insert(number, Arc::clone(&name));
            }
            // Its bytes are shared.
            let sent = InFlight { number, on_disk, record: is_for_disk.then(|| record.clone()) };
            self.topic(&name).in_flight.push_back(sent);
            numbers.extend(on_disk.then_some(number));
            records.push(record);
        }
        (records, numbers)
    }

    /// The oldest results in flight are over: topic and number of those on disk.
    pub(super) fn settled(&mut self, name: &str, count: usize) -> Option<(Arc<str>, Vec<u64>)> {
        let name = Arc::clone(self.topics.get_key_value(name)?.0);
        let in_flight = &mut self.topic(&name).in_flight;
        let over: Vec<_> = in_flight.drain(..count.min(in_flight.len())).collect();
        let mut numbers = Vec::new();
        for InFlight { number, on_disk, .. } in over {
            self.unsaved.remove(&number);
            numbers.extend(on_disk.then_some(number));
        }
        Some((name, numbers))
    }

    /// Gives up all of a topic that waits: how many they were.
    pub(super) fn discard(&mut self, name: &str) -> Option<(Arc<str>, usize)> {
        let name = Arc::clone(self.topics.get_key_value(name)?.0);
        let topic = self.topic(&name);
        let count = topic.len();
        topic.unloaded = 0;
        let mut gone = std::mem::take(&mut topic.queue);
        gone.append(&mut topic.tail);
        gone.iter().for_each(|waiting| self.leave(&name, waiting));
        Some((name, count))
    }
}
