//! The spool: results that wait for Kafka, within a bound, in memory or, with a
//! folder, on disk.
//!
//! [`Spool::push`] takes a result into memory, [`Spool::save`] writes all that
//! came since to disk and syncs it. Memory then is a window: of each topic it
//! holds the oldest results, up to the bound, and [`Spool::load`] reads the next
//! ones back when a topic's window is empty. So no topic waits for another's
//! backlog, whatever the order on disk.

mod delivered;
mod disk;
mod ended_runs;
mod folder;
mod issued;
mod memory;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_client::ProduceRecord;

use disk::Disk;
pub use ended_runs::{Untold, open as open_given};
pub use folder::Folder;
pub use issued::Given;
use memory::{Loaded, Memory, Saved};

/// How long the disk is left alone after an error.
const DISK_RETRY: Duration = Duration::from_secs(5);
/// How long the last try of a disk that has failed may take, unless it hangs.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// What is written and synced in one piece.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// The topics with more on disk share this part of the memory when they are read
/// back, whatever is in memory already: one that is stuck keeps nobody's room.
const LOAD_PART: usize = 2;
/// The most segments that are read in one go, some 10 ms each.
const LOAD_SEGMENTS_MAX: usize = 8;

/// Results by topic, oldest first. Full, it drops the oldest results that are
/// not in flight, whichever their topic, and counts them.
#[derive(Debug)]
pub struct Spool {
    memory: Memory,
    disk: Option<Disk>,
    /// Since the disk took no results, until when it is left alone.
    failed: Option<Instant>,
    disk_retry: Duration,
    /// Reading has failed, and it was said.
    unreadable: bool,
}

impl Spool {
    /// An empty spool in memory.
    pub fn new(bytes_max: usize) -> Self {
        let disk_retry = DISK_RETRY;
        let memory = Memory::new(bytes_max);
        Self { memory, disk: None, failed: None, disk_retry, unreadable: false }
    }

    /// Goes on with what an earlier run left in a folder, and waits on disk from
    /// now on, in at most `disk_bytes_max` bytes. It must be empty. A folder that
    /// can't be listed is logged, and memory goes on alone.
    pub fn open(&mut self, folder: Folder, disk_bytes_max: u64) {
        let name = folder.to_string();
        let disk = match Disk::open(folder, disk_bytes_max) {
            Ok(disk) => disk,
            Err(cause) => {
                log::error!("spool: {name}: {cause}: results wait in memory alone");
                return;
            }
        };
        for segment in disk.segments.values() {
            for (topic, held) in &segment.topics {
                let mark = disk.marks.delivered.get(topic).copied().unwrap_or(0);
                self.memory.found(topic, held.unloaded, mark);
            }
        }
        self.memory.next_number = disk.marks.next_number;
        self.memory.track_unsaved = true;
        self.disk = Some(disk);
        if !self.is_empty() {
            log::info!("spool: {name}: {} results of the last run go first", self.len());
        }
    }

    /// Whether results wait on disk.
    pub fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// When the disk, which has failed, is tried again for what it did not take.
    pub fn retry_at(&self) -> Option<Instant> {
        self.failed.filter(|_| !self.memory.unsaved.is_empty())
    }

    /// Results found unreadable since the last call.
    pub fn take_unreadable(&mut self) -> usize {
        self.disk.as_mut().map_or(0, |disk| std::mem::take(&mut disk.lost))
    }

    /// The number of results that wait.
    pub fn len(&self) -> usize {
        self.memory.topics.values().map(memory::Topic::len).sum()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.memory.topics.values().all(|topic| topic.len() == 0)
    }

    /// Adds a result. `dropped` hears the topic of each result that had to go
    /// for it.
    pub fn push(
        &mut self,
        topic: &Arc<str>,
        record: ProduceRecord,
        dropped: impl FnMut(&Arc<str>),
    ) {
        self.memory.push(topic, record);
        self.bound_memory(dropped);
    }

    /// Keeps the bound of the memory: what is on disk too leaves it first.
    fn bound_memory(&mut self, mut dropped: impl FnMut(&Arc<str>)) {
        while self.memory.is_over() {
            let Self { memory, disk, .. } = self;
            if let Some(disk) = disk.as_mut().filter(|_| memory.bytes_on_disk() > 0) {
                memory.unload(|topic, number| {
                    if let Some(held) = disk.held(topic, number) {
                        held.unloaded += 1;
                    }
                });
                continue;
            }
            let Some(topic) = memory.drop_oldest() else { return };
            dropped(&topic);
        }
    }

    /// Writes what came since the last call to disk: it is accepted then, and a
    /// kill or a power cut does not take it. When the disk does not take it, it
    /// stays in memory, which is said once, and the disk is tried again later.
    /// `dropped` hears the topic of each result that had to go.
    pub fn save(&mut self, mut dropped: impl FnMut(&Arc<str>)) {
        if self.failed.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.save_until(None, &mut dropped);
    }

    fn save_until(&mut self, end: Option<Instant>, dropped: &mut impl FnMut(&Arc<str>)) {
        let result = self.try_save(end, dropped);
        let Some(disk) = &self.disk else { return };
        match result {
            Ok(saved) if saved > 0 && self.failed.take().is_some() => {
                log::info!("spool: {}: results wait on disk again", disk.folder());
            }
            Ok(_) => {}
            Err(cause) => {
                if self.failed.is_none() {
                    let folder = disk.folder();
                    log::error!("spool: {folder}: {cause}: results wait in memory meanwhile");
                }
                self.failed = Some(Instant::now() + self.disk_retry);
            }
        }
    }

    /// Saves piece by piece, until the `end` if there is one: how many results.
    fn try_save(
        &mut self,
        end: Option<Instant>,
        dropped: &mut impl FnMut(&Arc<str>),
    ) -> io::Result<usize> {
        let Self { memory, disk: Some(disk), .. } = self else { return Ok(0) };
        let mut saved = 0;
        while end.is_none_or(|end| Instant::now() < end) {
            let mut frames = Vec::new();
            let mut chunk = Vec::new();
            for (number, topic) in &memory.unsaved {
                if let Some(record) = memory.unsaved_record(topic, *number) {
                    segment::encode(*number, topic, record, &mut frames);
                }
                chunk.push((*number, Arc::clone(topic)));
                if frames.len() >= CHUNK_BYTES_MAX {
                    break;
                }
            }
            let Some((first, _)) = chunk.first() else { return Ok(saved) };
            while let Some(oldest) = disk.oldest_to_drop(frames.len())? {
                for (topic, held) in disk.remove(oldest)? {
                    let end = disk.segments.range(oldest..).next().map_or(*first, |(end, _)| *end);
                    memory.drop_saved(&topic, oldest..end, held.unloaded);
                    (0..held.waiting).for_each(|_| dropped(&topic));
                }
            }
            disk.append(*first, &frames)?;
            saved += chunk.len();
            for (number, topic) in chunk {
                let saved = memory.saved(&topic, number);
                if let Some(held) = disk.held(&topic, number) {
                    held.waiting += 1;
                    held.unloaded += usize::from(saved == Saved::Alone);
                }
                if saved == Saved::InFlight {
                    disk.taken(number);
                }
            }
        }
        Ok(saved)
    }

    /// Reads the next results back of topics that have none in memory but some on
    /// disk. While a segment can't be read, which is said once, they stay there.
    ///
    /// Memory may then be over its bound by half, until the next [`Spool::push`].
    pub fn load(&mut self) {
        match self.try_load() {
            Ok(()) => self.unreadable = false,
            Err(cause) if !self.unreadable => {
                self.unreadable = true;
                log::error!("spool: can't be read, and is tried again: {cause}");
            }
            Err(_) => {}
        }
    }

    fn try_load(&mut self) -> io::Result<()> {
        let Self { memory, disk: Some(disk), .. } = self else { return Ok(()) };
        for _ in 0..LOAD_SEGMENTS_MAX {
            let hungry: HashSet<&str> = memory.hungry().collect();
            if hungry.is_empty() {
                return Ok(());
            }
            let next = disk.segments.iter().find(|(_, segment)| {
                let mut topics = segment.topics.iter();
                topics.any(|(topic, held)| held.unloaded > 0 && hungry.contains(&**topic))
            });
            let Some((first, _)) = next else { return Ok(()) };
            let first = *first;
            let backlogs = memory.topics.values().filter(|topic| topic.unloaded > 0).count();
            let share = memory.bytes_max / LOAD_PART / backlogs.max(1);
            load_segment(memory, disk, first, share)?;
        }
        Ok(())
    }

    /// Puts results back that were taken and could not be written in one piece;
    /// they are in front of all others of the topic again. The bound is kept by
    /// the next [`Spool::push`].
    pub fn put_back(&mut self, topic: &Arc<str>, records: Vec<ProduceRecord>) {
        for number in self.memory.put_back(topic, records) {
            if let Some(disk) = &mut self.disk {
                disk.returned(number);
            }
        }
    }

    /// The topics with results that can be taken, the one with the oldest first.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.memory.topics()
    }

    /// Takes the oldest results of a topic, at most `count_max` of them and what a
    /// batch of `bytes_max` bytes holds, but at least one. They are in flight until
    /// they are settled or put back.
    pub fn take(&mut self, topic: &str, count_max: usize, bytes_max: usize) -> Vec<ProduceRecord> {
        let (records, on_disk) = self.memory.take(topic, count_max, bytes_max);
        if let Some(disk) = &mut self.disk {
            on_disk.into_iter().for_each(|number| disk.taken(number));
        }
        records
    }

    /// The oldest `count` results of a topic in flight are delivered, or given up.
    pub fn settled(&mut self, topic: &str, count: usize) {
        let Some((topic, on_disk)) = self.memory.settled(topic, count) else { return };
        if let Some(disk) = &mut self.disk {
            on_disk.into_iter().for_each(|number| disk.settled(&topic, number));
        }
    }

    /// Notes on disk what was settled since the last call.
    pub fn note(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        if let Err(cause) = disk.note(self.memory.next_number) {
            // The next call writes it too. Till then a kill makes some sent twice.
            log::debug!("spool: {}: what was delivered: {cause}", disk.folder());
        }
    }

    /// Gives up all results of a topic that wait: how many they were.
    pub fn discard(&mut self, topic: &str) -> usize {
        let Some((topic, count)) = self.memory.discard(topic) else { return 0 };
        if let Some(disk) = &mut self.disk {
            disk.forget(&topic);
            disk.mark(&topic, self.memory.next_number - 1);
        }
        count
    }

    /// The end: what is on disk stays there for the next run, and how many results
    /// of each topic are in memory alone, in flight or not, so that they are lost.
    /// The first number is of those that stay. A disk that has failed is tried a
    /// last time, whenever that was.
    pub fn close(&mut self) -> (usize, Vec<(Arc<str>, usize)>) {
        let mut lost = Vec::new();
        if self.failed.is_some() {
            let end = Instant::now() + CLOSE_TIMEOUT;
            self.save_until(Some(end), &mut |topic| lost.push((Arc::clone(topic), 1)));
        }
        self.note();
        if let Some(disk) = &mut self.disk {
            disk.close();
        }
        let counts = self.memory.topics.iter().map(|(topic, it)| (topic, it.counts()));
        let mut stay = 0;
        for (topic, (on_disk, in_memory)) in counts {
            stay += on_disk;
            if in_memory > 0 {
                lost.push((Arc::clone(topic), in_memory));
            }
        }
        (stay, lost)
    }
}

/// Takes from a segment what follows in the window of each topic that has it
/// next, up to `share` bytes of each.
fn load_segment(memory: &mut Memory, disk: &mut Disk, first: u64, share: usize) -> io::Result<()> {
    let results = disk.load(first)?;
    // A topic with older ones in another segment has to read that first.
    let older = disk.segments.range(..first).flat_map(|(_, segment)| &segment.topics);
    let older = older.filter(|(_, held)| held.unloaded > 0).map(|(topic, _)| Arc::clone(topic));
    let mut done: HashSet<Arc<str>> = older.collect();
    let Some(segment) = disk.segments.get_mut(&first) else { return Ok(()) };
    for stored in results {
        let Some((topic, held)) = segment.topics.get_key_value(stored.topic.as_str()) else {
            continue;
        };
        if held.unloaded == 0 || done.contains(topic) {
            continue;
        }
        let topic = Arc::clone(topic);
        match memory.load(&topic, stored, share) {
            Loaded::Known => {}
            Loaded::Full => drop(done.insert(topic)),
            Loaded::Yes => {
                if let Some(held) = segment.topics.get_mut(&topic) {
                    held.unloaded -= 1;
                }
            }
        }
    }
    // What should have been there and was not is unreadable.
    for (topic, held) in &mut segment.topics {
        if held.unloaded > 0 && !done.contains(topic) {
            let lost = std::mem::take(&mut held.unloaded);
            log::error!("spool: lost {lost} results for {topic}: bad checksum");
            held.waiting -= lost;
            memory.unloaded_less(topic, lost);
            disk.lost += lost;
        }
    }
    disk.remove_or_say(first);
    Ok(())
}
