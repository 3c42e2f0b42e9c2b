//! The segments on disk. Memory holds counts of their results, not the results.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use common::counted::counted;

use super::delivered::DeliveredMarks;
use super::folder::SpoolFolder;
use super::segment::{FILE_HEAD, FrameStep, SegmentReader, StoredResult};

/// Bytes in one segment. A segment is removed when all its results are delivered, so it
/// must be small compared to the bound of the spool.
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The bound has room for at least this many segments.
const SEGMENTS_MIN: u64 = 8;

/// Counts of one topic's results in a segment.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct SegmentTopic {
    /// Results that are not delivered.
    pub(super) waiting: usize,
    /// Results that are not delivered and not in memory.
    pub(super) unloaded: usize,
}

#[derive(Debug, Default)]
pub(super) struct Segment {
    bytes: u64,
    pub(super) topics: HashMap<Arc<str>, SegmentTopic>,
    /// Results in flight.
    in_flight: usize,
}

impl Segment {
    fn has_waiting(&self) -> bool {
        self.topics.values().any(|held| held.waiting > 0)
    }
}

/// The folder's segments, keyed by the number of their first result.
#[derive(Debug)]
pub(super) struct Disk {
    folder: SpoolFolder,
    bytes_max: u64,
    bytes: u64,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The segment that is written to. A run starts with a new segment, and so does the
    /// first write after an error.
    active: Option<(u64, File)>,
    pub(super) marks: DeliveredMarks,
    marks_changed: bool,
    /// Results that could not be read.
    pub(super) lost: usize,
}

impl Disk {
    /// Reads the segments that earlier runs left, and truncates a torn last frame.
    pub(super) fn open(folder: SpoolFolder, bytes_max: u64) -> io::Result<Self> {
        let mut firsts = Vec::new();
        for entry in fs::read_dir(folder.path())? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".segment"));
            firsts.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        let marks = DeliveredMarks::read(folder.path());
        let segments = BTreeMap::new();
        let (active, marks_changed) = (None, false);
        let mut disk =
            Self { folder, bytes_max, bytes: 0, segments, active, marks, marks_changed, lost: 0 };
        for (index, first) in firsts.iter().enumerate() {
            // Numbers from the start of the next segment on were written a second time
            // there, because the write to this segment had failed.
            let end = firsts.get(index + 1).copied().unwrap_or(u64::MAX);
            disk.marks.next_number = disk.marks.next_number.max(first + 1);
            if let Err(cause) = disk.scan(*first, end) {
                log::error!("spool: {}: skipped: {cause}", disk.path(*first).display());
            }
        }
        Ok(disk)
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.path().join(format!("{first:020}.segment"))
    }

    fn scan(&mut self, first: u64, end: u64) -> io::Result<()> {
        let path = self.path(first);
        let bytes = fs::read(&path)?;
        let Some(mut reader) = SegmentReader::new(&bytes) else {
            if bytes.len() < FILE_HEAD.len() {
                return fs::remove_file(&path);
            }
            return Err(io::Error::other("not a segment of this version"));
        };
        let mut segment = Segment::default();
        let mut lost = 0;
        let last = loop {
            match reader.step() {
                FrameStep::Result(stored) if stored.number < end => {
                    self.marks.next_number = self.marks.next_number.max(stored.number + 1);
                    let topic: Arc<str> = Arc::from(stored.topic);
                    if self.marks.delivered.get(&topic).is_none_or(|mark| *mark < stored.number) {
                        let held = segment.topics.entry(topic).or_default();
                        held.waiting += 1;
                        held.unloaded += 1;
                    }
                }
                FrameStep::Result(_) => {}
                FrameStep::Lost => lost += 1,
                last => break last,
            }
        };
        let cut = bytes.len() - reader.offset();
        if last == FrameStep::Torn {
            log::warn!("spool: {}: truncated a torn last record, {cut} bytes", path.display());
        }
        if last == FrameStep::Damaged {
            lost += 1;
            log::error!("spool: {}: damaged: lost the last {cut} bytes", path.display());
        }
        if lost > 0 {
            self.lost += lost;
            log::error!(
                "spool: {}: lost at least {}: bad checksum",
                path.display(),
                counted(lost, "result")
            );
        }
        if cut > 0 {
            File::options().write(true).open(&path)?.set_len(reader.offset() as u64)?;
        }
        segment.bytes = reader.offset() as u64;
        self.bytes += segment.bytes;
        self.segments.insert(first, segment);
        self.remove_if_done(first)
    }

    /// Appends and syncs frames; `first` is the number of the first frame. After an error
    /// none of the frames counts as written, and the next write starts another segment,
    /// because the state of the file after a failed sync is unknown.
    pub(super) fn append(&mut self, first: u64, frames: &[u8]) -> io::Result<()> {
        let room = (self.bytes_max / SEGMENTS_MIN).min(SEGMENT_BYTES_MAX);
        let full = |segment: &Segment| segment.bytes + frames.len() as u64 > room;
        let current = self.active.as_ref().map(|(key, _)| *key);
        if current.and_then(|key| self.segments.get(&key)).is_some_and(full) {
            self.active = None;
        }
        if let Some(key) = current.filter(|_| self.active.is_none()) {
            self.remove_if_done(key)?;
        }
        let (key, mut file) = match self.active.take() {
            Some(active) => active,
            None => (first, self.create(first)?),
        };
        let segment = self.segments.entry(key).or_default();
        let written = file.write_all(frames).and_then(|()| file.sync_data());
        if let Err(cause) = written {
            // If truncating fails too, the name of the next segment determines which
            // numbers of this segment are valid.
            let _ = file.set_len(segment.bytes);
            return Err(cause);
        }
        segment.bytes += frames.len() as u64;
        self.bytes += frames.len() as u64;
        self.active = Some((key, file));
        Ok(())
    }

    fn create(&mut self, first: u64) -> io::Result<File> {
        let path = self.path(first);
        // A file of that name is left from a failed attempt and holds no valid result.
        let mut file = File::options().write(true).create(true).truncate(true).open(&path)?;
        let folder = self.folder.path();
        let written = file
            .write_all(&FILE_HEAD)
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(folder)?.sync_all());
        if let Err(cause) = written {
            let _ = fs::remove_file(&path);
            return Err(cause);
        }
        let bytes = FILE_HEAD.len() as u64;
        self.bytes += bytes;
        if let Some(before) = self.segments.insert(first, Segment { bytes, ..Segment::default() }) {
            self.bytes -= before.bytes;
        }
        Ok(file)
    }

    /// Returns the oldest segment that can be dropped to make room for `bytes` more, or
    /// `None` if there is room. The active segment and segments with results in flight
    /// can't be dropped.
    ///
    /// # Errors
    /// There is no room and no segment can be dropped.
    pub(super) fn oldest_to_drop(&self, bytes: usize) -> io::Result<Option<u64>> {
        if self.bytes + bytes as u64 <= self.bytes_max {
            return Ok(None);
        }
        let active = self.active.as_ref().map(|(key, _)| *key);
        let mut droppable =
            self.segments.iter().filter(|(key, it)| Some(**key) != active && it.in_flight == 0);
        match droppable.next() {
            Some((first, _)) => Ok(Some(*first)),
            None => Err(io::Error::other("full, and all results are in flight")),
        }
    }

    /// Removes a segment with all its results. Returns its counts by topic.
    pub(super) fn remove(&mut self, first: u64) -> io::Result<HashMap<Arc<str>, SegmentTopic>> {
        match fs::remove_file(self.path(first)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let Some(segment) = self.segments.remove(&first) else { return Ok(HashMap::new()) };
        self.bytes -= segment.bytes;
        Ok(segment.topics)
    }

    fn remove_if_done(&mut self, first: u64) -> io::Result<()> {
        let active = self.active.as_ref().is_some_and(|(key, _)| *key == first);
        let done = self.segments.get(&first).is_some_and(|segment| !segment.has_waiting());
        if done && !active {
            self.remove(first)?;
        }
        Ok(())
    }

    /// The segment that holds a result.
    fn segment_with(&mut self, number: u64) -> Option<(u64, &mut Segment)> {
        let (first, segment) = self.segments.range_mut(..=number).next_back()?;
        Some((*first, segment))
    }

    /// The counts of `topic` in the segment that holds the result `number`.
    pub(super) fn topic_counts(
        &mut self,
        topic: &Arc<str>,
        number: u64,
    ) -> Option<&mut SegmentTopic> {
        let (_, segment) = self.segment_with(number)?;
        Some(segment.topics.entry(Arc::clone(topic)).or_default())
    }

    /// Records that a result was dequeued to be sent.
    pub(super) fn record_dequeued(&mut self, number: u64) {
        if let Some((_, segment)) = self.segment_with(number) {
            segment.in_flight += 1;
        }
    }

    /// Records that a dequeued result was returned.
    pub(super) fn record_returned(&mut self, number: u64) {
        if let Some((_, segment)) = self.segment_with(number) {
            segment.in_flight -= 1;
        }
    }

    /// Records that a dequeued result was delivered or lost.
    pub(super) fn settle(&mut self, topic: &Arc<str>, number: u64) {
        let Some((first, segment)) = self.segment_with(number) else { return };
        segment.in_flight -= 1;
        if let Some(held) = segment.topics.get_mut(topic) {
            held.waiting -= 1;
        }
        self.remove_or_log(first);
    }

    /// Removes all results of a topic from the counts.
    pub(super) fn remove_topic(&mut self, topic: &Arc<str>) {
        for first in self.segments.keys().copied().collect::<Vec<_>>() {
            if let Some(segment) = self.segments.get_mut(&first) {
                segment.topics.remove(topic);
            }
            self.remove_or_log(first);
        }
    }

    /// Removes a segment without waiting results. An error is logged.
    pub(super) fn remove_or_log(&mut self, first: u64) {
        if let Err(cause) = self.remove_if_done(first) {
            // The removal is retried with the segment's next result, and at the next
            // start.
            log::warn!("spool: {}: can't remove the file: {cause}", self.path(first).display());
        }
    }

    /// Moves the topic's mark up to `number`. No result up to it may be outstanding, because
    /// the next start skips all of them.
    pub(super) fn mark_delivered(&mut self, topic: &Arc<str>, number: u64) {
        let mark = self.marks.delivered.entry(Arc::clone(topic)).or_default();
        if number > *mark {
            *mark = number;
            self.marks_changed = true;
        }
    }

    /// Writes the delivered marks, if they changed since the last call.
    pub(super) fn write_marks(&mut self, next_number: u64) -> io::Result<()> {
        if !self.marks_changed {
            return Ok(());
        }
        // A mark below the oldest segment is not needed any more.
        let oldest = self.segments.first_key_value().map_or(u64::MAX, |(first, _)| *first);
        self.marks.delivered.retain(|_, number| *number >= oldest);
        self.marks.next_number = next_number;
        self.marks.write()?;
        self.marks_changed = false;
        Ok(())
    }

    /// Reads all results of a segment.
    pub(super) fn read_segment(&self, first: u64) -> io::Result<Vec<StoredResult>> {
        let mut bytes = match fs::read(self.path(first)) {
            // Somebody removed the file. Waiting would not bring it back.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        // Bytes after the valid length are left from a failed write.
        let valid_bytes = self.segments.get(&first).map_or(0, |segment| segment.bytes);
        bytes.truncate(usize::try_from(valid_bytes).unwrap_or(usize::MAX));
        let end = self.segments.range(first + 1..).next().map_or(u64::MAX, |(next, _)| *next);
        let mut results = Vec::new();
        let Some(mut reader) = SegmentReader::new(&bytes) else { return Ok(results) };
        loop {
            match reader.step() {
                FrameStep::Result(stored) if stored.number < end => results.push(stored),
                FrameStep::Result(_) | FrameStep::Lost => {}
                FrameStep::End | FrameStep::Torn | FrameStep::Damaged => return Ok(results),
            }
        }
    }

    /// Closes the active segment and removes it if no result in it waits.
    pub(super) fn close(&mut self) {
        if let Some((key, _)) = self.active.take() {
            self.remove_or_log(key);
        }
    }

    pub(super) fn folder(&self) -> &SpoolFolder {
        &self.folder
    }
}
