//! The spool: a bounded queue of results that wait for Kafka, in memory or, with a
//! folder, on disk.
//!
//! [`Spool::push`] adds a result in memory. [`Spool::write_to_disk`] writes and syncs
//! all results that are not on disk yet. Memory is then a window: it holds the oldest
//! results of each topic, up to the bound. [`Spool::load_from_disk`] reads the next
//! results of a topic back when the topic's window is empty. So no topic waits for the
//! backlog of another topic, whatever their order on disk.

mod delivered;
mod disk;
mod ended_runs;
mod folder;
mod issued;
mod memory;
mod segment;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::counted::counted;
use kafka_client::ProduceRecord;

use disk::Disk;
pub(crate) use ended_runs::{EndedRuns, open as open_issued_numbers};
pub(crate) use folder::SpoolFolder;
pub(crate) use issued::IssuedNumbers;
use memory::{LoadOutcome, Memory, SaveOutcome};

/// The pause before the disk is used again after an error.
const DISK_RETRY: Duration = Duration::from_secs(5);
/// Time for the last attempt to write to a failed disk when the program ends. A disk
/// that hangs can take longer.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// Bytes that are written and synced in one piece.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// When results are read back, the topics with a backlog on disk share one
/// `LOAD_FRACTION`th of the memory bound, no matter how much of it is already used. So a
/// topic that Kafka does not accept occupies no memory of the others.
const LOAD_FRACTION: usize = 2;
/// Segments read by one call, some 10 ms each.
const LOAD_SEGMENTS_MAX: usize = 8;

/// Results by topic, oldest first. A full spool drops the oldest results of any topic
/// that are not in flight, and reports each.
#[derive(Debug)]
pub(crate) struct Spool {
    memory: Memory,
    disk: Option<Disk>,
    /// Set after a disk error: the disk is not used before this.
    disk_retry_at: Option<Instant>,
    disk_retry: Duration,
    /// A failed read was logged and has not succeeded since.
    read_failed: bool,
}

impl Spool {
    /// Creates an empty spool in memory.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let disk_retry = DISK_RETRY;
        let memory = Memory::new(bytes_max);
        Self { memory, disk: None, disk_retry_at: None, disk_retry, read_failed: false }
    }

    /// Adds the results that an earlier run left in a folder, and stores waiting results
    /// there from now on, in at most `disk_bytes_max` bytes. The spool must be empty. An
    /// error is logged, and the spool stays in memory.
    pub(crate) fn attach_folder(&mut self, folder: SpoolFolder, disk_bytes_max: u64) {
        let name = folder.to_string();
        let disk = match Disk::open(folder, disk_bytes_max) {
            Ok(disk) => disk,
            Err(cause) => {
                log::error!("spool: {name}: {cause}: results wait in memory only");
                return;
            }
        };
        for segment in disk.segments.values() {
            for (topic, held) in &segment.topics {
                let mark = disk.marks.delivered.get(topic).copied().unwrap_or(0);
                self.memory.add_backlog(topic, held.unloaded, mark);
            }
        }
        self.memory.next_number = disk.marks.next_number;
        self.memory.track_unsaved = true;
        self.disk = Some(disk);
        if !self.is_empty() {
            let results = counted(self.len(), "result");
            log::info!("spool: {name}: sending {results} of the last run first");
        }
    }

    /// Whether the spool has a folder.
    pub(crate) fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// When to write to the failed disk again, if results wait for that.
    pub(crate) fn disk_retry_at(&self) -> Option<Instant> {
        self.disk_retry_at.filter(|_| !self.memory.unsaved.is_empty())
    }

    /// The number of results found unreadable since the last call.
    pub(crate) fn take_unreadable_count(&mut self) -> usize {
        self.disk.as_mut().map_or(0, |disk| std::mem::take(&mut disk.lost))
    }

    /// The number of results that wait.
    pub(crate) fn len(&self) -> usize {
        self.memory.topics.values().map(memory::TopicQueue::len).sum()
    }

    /// Whether no result waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.topics.values().all(|topic| topic.len() == 0)
    }

    /// Adds a result. Calls `dropped` with the topic of each result that was dropped to
    /// make room.
    pub(crate) fn push(
        &mut self,
        topic: &Arc<str>,
        record: ProduceRecord,
        dropped: impl FnMut(&Arc<str>),
    ) {
        self.memory.push(topic, record);
        self.enforce_memory_bound(dropped);
    }

    /// Enforces the memory bound. Results that are also on disk leave memory first.
    fn enforce_memory_bound(&mut self, mut dropped: impl FnMut(&Arc<str>)) {
        while self.memory.is_over() {
            let Self { memory, disk, .. } = self;
            if let Some(disk) = disk.as_mut().filter(|_| memory.bytes_on_disk() > 0) {
                memory.unload(|topic, number| {
                    if let Some(held) = disk.topic_counts(topic, number) {
                        held.unloaded += 1;
                    }
                });
                continue;
            }
            let Some(topic) = memory.drop_oldest() else { return };
            dropped(&topic);
        }
    }

    /// Writes and syncs all results that are not on disk yet. After that neither a kill
    /// nor a power cut loses them. After a disk error the results stay in memory, the
    /// error is logged once, and the disk is tried again later. Calls `dropped` with the
    /// topic of each result that was dropped to make room.
    pub(crate) fn write_to_disk(&mut self, mut dropped: impl FnMut(&Arc<str>)) {
        if self.disk_retry_at.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.write_until(None, &mut dropped);
    }

    fn write_until(&mut self, end: Option<Instant>, dropped: &mut impl FnMut(&Arc<str>)) {
        let result = self.try_write(end, dropped);
        let Some(disk) = &self.disk else { return };
        match result {
            Ok(saved) if saved > 0 && self.disk_retry_at.take().is_some() => {
                log::info!("spool: {}: recovered: results wait on disk again", disk.folder());
            }
            Ok(_) => {}
            Err(cause) => {
                if self.disk_retry_at.is_none() {
                    let folder = disk.folder();
                    log::error!(
                        "spool: {folder}: {cause}: results wait in memory until the disk recovers"
                    );
                }
                self.disk_retry_at = Some(Instant::now() + self.disk_retry);
            }
        }
    }

    /// Writes piece by piece, until `end` if there is one. Returns the number of results.
    fn try_write(
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
                let saved = memory.mark_saved(&topic, number);
                if let Some(held) = disk.topic_counts(&topic, number) {
                    held.waiting += 1;
                    held.unloaded += usize::from(saved == SaveOutcome::OnlyOnDisk);
                }
                if saved == SaveOutcome::InFlight {
                    disk.record_dequeued(number);
                }
            }
        }
        Ok(saved)
    }

    /// Reads results back for topics that have results on disk and none in memory. A
    /// segment that can't be read is logged once and stays on disk.
    ///
    /// Memory may exceed its bound by half until the next [`Spool::push`].
    pub(crate) fn load_from_disk(&mut self) {
        match self.try_load() {
            Ok(()) => self.read_failed = false,
            Err(cause) if !self.read_failed => {
                self.read_failed = true;
                log::error!("spool: reading failed, trying again: {cause}");
            }
            Err(_) => {}
        }
    }

    fn try_load(&mut self) -> io::Result<()> {
        let Self { memory, disk: Some(disk), .. } = self else { return Ok(()) };
        for _ in 0..LOAD_SEGMENTS_MAX {
            let empty: HashSet<&str> = memory.empty_windows().collect();
            if empty.is_empty() {
                return Ok(());
            }
            let next = disk.segments.iter().find(|(_, segment)| {
                let mut topics = segment.topics.iter();
                topics.any(|(topic, held)| held.unloaded > 0 && empty.contains(&**topic))
            });
            let Some((first, _)) = next else { return Ok(()) };
            let first = *first;
            let backlogs = memory.topics.values().filter(|topic| topic.unloaded > 0).count();
            let share = memory.bytes_max / LOAD_FRACTION / backlogs.max(1);
            load_segment(memory, disk, first, share)?;
        }
        Ok(())
    }

    /// Puts dequeued results back at the front of their topic, because they were not
    /// sent. The next [`Spool::push`] enforces the bound.
    pub(crate) fn return_unsent(&mut self, topic: &Arc<str>, records: Vec<ProduceRecord>) {
        for number in self.memory.return_unsent(topic, records) {
            if let Some(disk) = &mut self.disk {
                disk.record_returned(number);
            }
        }
    }

    /// The topics with results in memory, the topic with the oldest result first.
    pub(crate) fn topics(&self) -> Vec<Arc<str>> {
        self.memory.topics()
    }

    /// Dequeues the oldest results of a topic: at most `count_max`, and at most
    /// `bytes_max` bytes in a batch, but at least one result. They are in flight until
    /// they are settled or returned.
    pub(crate) fn take_batch(
        &mut self,
        topic: &str,
        count_max: usize,
        bytes_max: usize,
    ) -> Vec<ProduceRecord> {
        let (records, on_disk) = self.memory.take_batch(topic, count_max, bytes_max);
        if let Some(disk) = &mut self.disk {
            on_disk.into_iter().for_each(|number| disk.record_dequeued(number));
        }
        records
    }

    /// Removes all results in flight of a topic: they are delivered, or lost.
    pub(crate) fn settle_all(&mut self, topic: &str) {
        self.settle(topic, |_| true);
    }

    /// Removes the results in flight at these positions of the topic's batch, which Kafka
    /// refused. The others stay in flight.
    pub(crate) fn settle_positions(&mut self, topic: &str, positions: &BTreeSet<usize>) {
        self.settle(topic, |position| positions.contains(&position));
    }

    fn settle(&mut self, topic: &str, is_settled: impl Fn(usize) -> bool) {
        let Some(settled) = self.memory.settle(topic, is_settled) else { return };
        if let Some(disk) = &mut self.disk {
            for number in settled.on_disk {
                disk.settle(&settled.topic, number);
            }
            disk.mark_delivered(&settled.topic, settled.mark);
        }
    }

    /// Writes to disk which results were settled since the last call.
    pub(crate) fn write_delivered_marks(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        if let Err(cause) = disk.write_marks(self.memory.next_number) {
            // The next call writes them too. A kill before that sends some results twice.
            log::debug!("spool: {}: delivered marks not written: {cause}", disk.folder());
        }
    }

    /// Drops all waiting results of a topic and returns their number.
    pub(crate) fn discard_topic(&mut self, topic: &str) -> usize {
        let Some((topic, count)) = self.memory.discard_topic(topic) else { return 0 };
        if let Some(disk) = &mut self.disk {
            disk.remove_topic(&topic);
            disk.mark_delivered(&topic, self.memory.next_number - 1);
        }
        count
    }

    /// Ends the spool. Returns the number of results that stay on disk for the next run,
    /// and for each topic the number of results that are lost because they are only in
    /// memory, in flight or not. Tries to write to a failed disk a last time.
    pub(crate) fn close(&mut self) -> (usize, Vec<(Arc<str>, usize)>) {
        let mut lost = Vec::new();
        if self.disk_retry_at.is_some() {
            let end = Instant::now() + CLOSE_TIMEOUT;
            self.write_until(Some(end), &mut |topic| lost.push((Arc::clone(topic), 1)));
        }
        self.write_delivered_marks();
        if let Some(disk) = &mut self.disk {
            disk.close();
        }
        let counts =
            self.memory.topics.iter().map(|(topic, it)| (topic, it.disk_and_memory_counts()));
        let mut kept = 0;
        for (topic, (on_disk, in_memory)) in counts {
            kept += on_disk;
            if in_memory > 0 {
                lost.push((Arc::clone(topic), in_memory));
            }
        }
        (kept, lost)
    }
}

/// Reads from a segment the results that come next in each topic's window, up to
/// `share` bytes of each topic.
fn load_segment(memory: &mut Memory, disk: &mut Disk, first: u64, share: usize) -> io::Result<()> {
    let results = disk.read_segment(first)?;
    // A topic with older results in another segment must read that segment first.
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
        match memory.add_loaded(&topic, stored, share) {
            LoadOutcome::Known => {}
            LoadOutcome::Full => drop(done.insert(topic)),
            LoadOutcome::Loaded => {
                if let Some(held) = segment.topics.get_mut(&topic) {
                    held.unloaded -= 1;
                }
            }
        }
    }
    // Results that the segment should hold and did not yield are unreadable.
    for (topic, held) in &mut segment.topics {
        if held.unloaded > 0 && !done.contains(topic) {
            let lost = std::mem::take(&mut held.unloaded);
            log::error!("spool: lost {} for {topic}: bad checksum", counted(lost, "result"));
            held.waiting -= lost;
            memory.reduce_unloaded(topic, lost);
            disk.lost += lost;
        }
    }
    disk.remove_or_log(first);
    Ok(())
}

#[cfg(test)]
mod tests;
