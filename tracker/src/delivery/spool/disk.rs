//! The segments on disk: what is in them is known by count, not kept in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::delivered::Marks;
use super::folder::Folder;
use super::segment::{FILE_HEAD, Reader, Step, Stored};

/// A segment goes when all of it was delivered, so it is small beside the bound.
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The fewest segments that the bound has room for.
const SEGMENTS_MIN: u64 = 8;

/// What a segment holds of a topic.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Held {
    /// Results that were not delivered.
    pub(super) waiting: usize,
    /// Those of them that are not in memory.
    pub(super) unloaded: usize,
}

#[derive(Debug, Default)]
pub(super) struct Segment {
    bytes: u64,
    pub(super) topics: HashMap<Arc<str>, Held>,
    /// Results that were taken to be sent and are not settled.
    in_flight: usize,
}

impl Segment {
    fn waits(&self) -> bool {
        self.topics.values().any(|held| held.waiting > 0)
    }
}

/// The folder's segments by the number of their first result.
#[derive(Debug)]
pub(super) struct Disk {
    folder: Folder,
    bytes_max: u64,
    bytes: u64,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The segment that is written to. Each run begins with a new one, and so
    /// does each time after an error.
    active: Option<(u64, File)>,
    pub(super) marks: Marks,
    marks_changed: bool,
    /// Results that turned out to be unreadable.
    pub(super) lost: usize,
}

impl Disk {
    /// Reads what the last run left, and cuts off what is torn.
    pub(super) fn open(folder: Folder, bytes_max: u64) -> io::Result<Self> {
        let mut firsts = Vec::new();
        for entry in fs::read_dir(folder.path())? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".segment"));
            firsts.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        let marks = Marks::read(folder.path());
        let segments = BTreeMap::new();
        let (active, marks_changed) = (None, false);
        let mut disk =
            Self { folder, bytes_max, bytes: 0, segments, active, marks, marks_changed, lost: 0 };
        for (index, first) in firsts.iter().enumerate() {
            // Above what the next segment begins with stands what was written a
            // second time there, because writing here had ended in an error.
            let end = firsts.get(index + 1).copied().unwrap_or(u64::MAX);
            disk.marks.next_number = disk.marks.next_number.max(first + 1);
            if let Err(cause) = disk.scan(*first, end) {
                log::error!("spool: {}: left alone: {cause}", disk.path(*first).display());
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
        let Some(mut reader) = Reader::new(&bytes) else {
            if bytes.len() < FILE_HEAD.len() {
                return fs::remove_file(&path);
            }
            return Err(io::Error::other("not a segment of this version"));
        };
        let mut segment = Segment::default();
        let mut lost = 0;
        let last = loop {
            match reader.step() {
                Step::Result(stored) if stored.number < end => {
                    self.marks.next_number = self.marks.next_number.max(stored.number + 1);
                    let topic: Arc<str> = Arc::from(stored.topic);
                    if self.marks.delivered.get(&topic).is_none_or(|mark| *mark < stored.number) {
                        let held = segment.topics.entry(topic).or_default();
                        held.waiting += 1;
                        held.unloaded += 1;
                    }
                }
                Step::Result(_) => {}
                Step::Lost => lost += 1,
                last => break last,
            }
        };
        let cut = bytes.len() - reader.at();
        if last == Step::Torn {
            log::warn!("spool: {}: torn last record cut off, {cut} bytes", path.display());
        }
        if last == Step::Damaged {
            lost += 1;
            log::error!("spool: {}: damaged: the last {cut} bytes are lost", path.display());
        }
        if lost > 0 {
            self.lost += lost;
            log::error!("spool: {}: lost at least {lost} results: bad checksum", path.display());
        }
        if cut > 0 {
            File::options().write(true).open(&path)?.set_len(reader.at() as u64)?;
        }
        segment.bytes = reader.at() as u64;
        self.bytes += segment.bytes;
        self.segments.insert(first, segment);
        self.remove_if_done(first)
    }

    /// Appends frames, the first of number `first`, and syncs them: they are
    /// accepted then. After an error none of them is, and the next go to another
    /// segment, as nothing is known of what a failed sync left.
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
            // Should this fail too, the next segment's name says what counts.
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
        // One of that name is what an earlier attempt left, with nothing accepted.
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

    /// The oldest segment that may go for `bytes` more: not the active one, none
    /// with results in flight. None: there is room. An error: there is none.
    pub(super) fn oldest_to_drop(&self, bytes: usize) -> io::Result<Option<u64>> {
        if self.bytes + bytes as u64 <= self.bytes_max {
            return Ok(None);
        }
        let active = self.active.as_ref().map(|(key, _)| *key);
        let mut droppable =
            self.segments.iter().filter(|(key, it)| Some(**key) != active && it.in_flight == 0);
        match droppable.next() {
            Some((first, _)) => Ok(Some(*first)),
            None => Err(io::Error::other("full of results in flight")),
        }
    }

    /// Removes a segment, whatever is in it: what waited there, by topic.
    pub(super) fn remove(&mut self, first: u64) -> io::Result<HashMap<Arc<str>, Held>> {
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
        let done = self.segments.get(&first).is_some_and(|segment| !segment.waits());
        if done && !active {
            self.remove(first)?;
        }
        Ok(())
    }

    /// The segment that holds a result.
    fn segment_of(&mut self, number: u64) -> Option<(u64, &mut Segment)> {
        let (first, segment) = self.segments.range_mut(..=number).next_back()?;
        Some((*first, segment))
    }

    /// What the segment of a result holds of its topic.
    pub(super) fn held(&mut self, topic: &Arc<str>, number: u64) -> Option<&mut Held> {
        let (_, segment) = self.segment_of(number)?;
        Some(segment.topics.entry(Arc::clone(topic)).or_default())
    }

    /// A result was taken to be sent.
    pub(super) fn taken(&mut self, number: u64) {
        if let Some((_, segment)) = self.segment_of(number) {
            segment.in_flight += 1;
        }
    }

    /// A result that was taken is back.
    pub(super) fn returned(&mut self, number: u64) {
        if let Some((_, segment)) = self.segment_of(number) {
            segment.in_flight -= 1;
        }
    }

    /// A result that was taken is delivered, or given up.
    pub(super) fn settled(&mut self, topic: &Arc<str>, number: u64) {
        let Some((first, segment)) = self.segment_of(number) else { return };
        segment.in_flight -= 1;
        if let Some(held) = segment.topics.get_mut(topic) {
            held.waiting -= 1;
        }
        self.mark(topic, number);
        self.remove_or_say(first);
    }

    /// All results of a topic are given up.
    pub(super) fn forget(&mut self, topic: &Arc<str>) {
        for first in self.segments.keys().copied().collect::<Vec<_>>() {
            if let Some(segment) = self.segments.get_mut(&first) {
                segment.topics.remove(topic);
            }
            self.remove_or_say(first);
        }
    }

    /// Removes a segment in which nothing waits.
    pub(super) fn remove_or_say(&mut self, first: u64) {
        if let Err(cause) = self.remove_if_done(first) {
            // It is tried again with the next result of it, and at the next start.
            log::warn!("spool: {}: can't be removed: {cause}", self.path(first).display());
        }
    }

    pub(super) fn mark(&mut self, topic: &Arc<str>, number: u64) {
        self.marks.delivered.insert(Arc::clone(topic), number);
        self.marks_changed = true;
    }

    /// Notes what was delivered since it was last noted.
    pub(super) fn note(&mut self, next_number: u64) -> io::Result<()> {
        if !self.marks_changed {
            return Ok(());
        }
        // Below the oldest segment a mark has nothing to say.
        let oldest = self.segments.first_key_value().map_or(u64::MAX, |(first, _)| *first);
        self.marks.delivered.retain(|_, number| *number >= oldest);
        self.marks.next_number = next_number;
        self.marks.write()?;
        self.marks_changed = false;
        Ok(())
    }

    /// The results of a segment that were not delivered when it was opened.
    pub(super) fn load(&self, first: u64) -> io::Result<Vec<Stored>> {
        let mut bytes = match fs::read(self.path(first)) {
            // Somebody took it away, and waiting does not bring it back.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        // What a failed write left behind what was accepted is no part of it.
        let accepted = self.segments.get(&first).map_or(0, |segment| segment.bytes);
        bytes.truncate(usize::try_from(accepted).unwrap_or(usize::MAX));
        let end = self.segments.range(first + 1..).next().map_or(u64::MAX, |(next, _)| *next);
        let mut results = Vec::new();
        let Some(mut reader) = Reader::new(&bytes) else { return Ok(results) };
        loop {
            match reader.step() {
                Step::Result(stored) if stored.number < end => results.push(stored),
                Step::Result(_) | Step::Lost => {}
                Step::End | Step::Torn | Step::Damaged => return Ok(results),
            }
        }
    }

    /// Ends the active segment, which goes when nothing in it waits.
    pub(super) fn close(&mut self) {
        if let Some((key, _)) = self.active.take() {
            self.remove_or_say(key);
        }
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }
}
