//! The number of sequence numbers that this run issued in each topic. The count is on
//! disk before the numbers are used, so that the next run knows which results a kill lost.
//!
//! The file `given` consists of entries of 512 bytes that are overwritten in place, so
//! that writing works on a full disk too:
//!
//! ```text
//! head    "wa-given", version (u32), the file's inode (u64), CRC-32C of the fields before it (u32)
//! entry   at 0    run (16 bytes), length of the topic's name (u32), name (256 bytes)
//!         at 320 and at 384, in turn: count (u64), time in seconds since 1970 (u64),
//!                 CRC-32C of the 276 bytes and of these two (u32)
//! ```
//!
//! All numbers are little endian. The higher of the two counts with a right checksum is
//! valid, so that a torn write leaves the previous count. An entry without a valid count
//! is free. The file is not synced: a kill loses nothing, and after a power cut the count
//! may be an earlier one.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use common::identity::Run;
use kafka_client::Uuid;

use super::segment::FieldReader;

/// Bytes of the head and of each entry.
pub(super) const ISSUED_ENTRY_BYTES: usize = 512;
/// Bound on the number of entries: 32 MiB.
pub(super) const ISSUED_ENTRIES_MAX: usize = 65_536;
/// Number of entries that are added when none is free.
const ISSUED_ENTRIES_GROWTH: usize = 256;
/// The first bytes of the file: magic and version of the format.
pub(super) const HEAD: [u8; 12] = *b"wa-given\x01\0\0\0";
const NAME_BYTES_MAX: usize = 256;
const KEY_BYTES: usize = 16 + 4 + NAME_BYTES_MAX;
const COUNTS_AT: [usize; 2] = [320, 384];

/// The contents of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IssuedEntry {
    pub(super) run: Uuid,
    pub(super) topic: String,
    /// The number of sequence numbers issued.
    pub(super) count: u64,
    /// When the last number was issued, in seconds since 1970.
    pub(super) time_s: u64,
}

/// Encodes the head of the file with this inode.
pub(super) fn head(inode: u64) -> [u8; 24] {
    let mut head = [0; 24];
    head[..12].copy_from_slice(&HEAD);
    head[12..20].copy_from_slice(&inode.to_le_bytes());
    let checksum = crc32c::crc32c(&head[..20]);
    head[20..].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// Returns `None` if the entry is free or damaged.
pub(super) fn decode(entry: &[u8]) -> Option<IssuedEntry> {
    let key = entry.get(..KEY_BYTES)?;
    let checksum = crc32c::crc32c(key);
    let counts = COUNTS_AT.iter().filter_map(|at| {
        let bytes = entry.get(*at..at + 20)?;
        let mut fields = FieldReader(bytes);
        let count = (fields.u64()?, fields.u64()?);
        (fields.u32()? == crc32c::crc32c_append(checksum, &bytes[..16])).then_some(count)
    });
    let (count, time_s) = counts.max()?;
    let (run, name) = key.split_first_chunk::<16>()?;
    let mut name = FieldReader(name);
    let topic = name.text()?;
    Some(IssuedEntry { run: Uuid::from_bytes(*run), topic, count, time_s })
}

fn key(run: Uuid, topic: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    key[..16].copy_from_slice(run.as_bytes());
    key[16..20].copy_from_slice(&u32::try_from(topic.len()).ok()?.to_le_bytes());
    key[20..].get_mut(..topic.len())?.copy_from_slice(topic.as_bytes());
    Some(key)
}

fn encode_count(checksum: u32, count: u64, time_s: u64) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..16].copy_from_slice(&time_s.to_le_bytes());
    let checksum = crc32c::crc32c_append(checksum, &bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Where the entry of a topic of this run is.
#[derive(Debug)]
struct EntryPosition {
    at: u64,
    checksum: u32,
    /// Index of the older of the two counts.
    older: usize,
}

/// Writes the file `given`.
#[derive(Debug)]
pub(crate) struct IssuedNumbers {
    run: Uuid,
    path: PathBuf,
    /// `None` if the file could not be opened.
    file: Option<File>,
    inode: u64,
    /// Number of entries in the file, including the head.
    entries: usize,
    free: Vec<usize>,
    topics: HashMap<Arc<str>, EntryPosition>,
    failure_logged: bool,
}

impl IssuedNumbers {
    pub(super) fn new(run: &Run, path: PathBuf) -> Self {
        let (file, topics) = (None, HashMap::new());
        let run = run.id();
        Self {
            run,
            path,
            file,
            inode: 0,
            entries: 0,
            free: Vec::new(),
            topics,
            failure_logged: false,
        }
    }

    /// Writes to an open file from now on. `entries` is the number of entries in the file
    /// (0 for an empty file), and `free` are the free ones.
    pub(super) fn use_file(&mut self, file: File, inode: u64, entries: usize, free: Vec<usize>) {
        (self.inode, self.entries, self.free) = (inode, entries, free);
        self.file = Some(file);
        // The disk may be full later.
        if self.free.is_empty()
            && let Err(cause) = self.grow()
        {
            self.log_failure(&cause);
        }
    }

    /// Records the number of sequence numbers issued in a topic. A failure is logged once;
    /// the next call tries again.
    pub(crate) fn record(&mut self, topic: &Arc<str>, count: i64) {
        if let Err(cause) = self.try_record(topic, count.unsigned_abs()) {
            self.log_failure(&cause);
        }
    }

    pub(super) fn log_failure(&mut self, cause: &io::Error) {
        if !std::mem::replace(&mut self.failure_logged, true) {
            let path = self.path.display();
            log::error!(
                "spool: {path}: {cause}: if this run is killed, no gap row will show its last results"
            );
        }
    }

    fn try_record(&mut self, topic: &Arc<str>, count: u64) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let Some(EntryPosition { at, checksum, older }) = self.topics.get_mut(topic) else {
            return self.add_entry(topic, count, time_s);
        };
        let bytes = encode_count(*checksum, count, time_s);
        if let Some(file) = &self.file {
            // If the write fails, the other count stays valid.
            file.write_all_at(&bytes, *at + COUNTS_AT[*older] as u64)?;
        }
        *older = 1 - *older;
        Ok(())
    }

    /// Adds an entry for a topic.
    fn add_entry(&mut self, topic: &Arc<str>, count: u64, time_s: u64) -> io::Result<()> {
        // Kafka allows no longer topic names.
        let Some(key) = key(self.run, topic) else { return Ok(()) };
        if self.free.is_empty() {
            self.grow()?;
        }
        let (Some(index), Some(file)) = (self.free.last(), &self.file) else { return Ok(()) };
        let at = (index * ISSUED_ENTRY_BYTES) as u64;
        let checksum = crc32c::crc32c(&key);
        let mut entry = [0; ISSUED_ENTRY_BYTES];
        entry[..KEY_BYTES].copy_from_slice(&key);
        entry[COUNTS_AT[0]..COUNTS_AT[0] + 20]
            .copy_from_slice(&encode_count(checksum, count, time_s));
        file.write_all_at(&entry, at)?;
        self.free.pop();
        self.topics.insert(Arc::clone(topic), EntryPosition { at, checksum, older: 1 });
        Ok(())
    }

    /// Adds free entries and allocates their blocks, so that later writes need no room.
    fn grow(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if self.entries >= ISSUED_ENTRIES_MAX {
            return Err(io::Error::other(format!(
                "more than {ISSUED_ENTRIES_MAX} topics and runs"
            )));
        }
        let mut bytes = vec![0; ISSUED_ENTRIES_GROWTH * ISSUED_ENTRY_BYTES];
        if self.entries == 0 {
            bytes[..24].copy_from_slice(&head(self.inode));
        }
        file.write_all_at(&bytes, (self.entries * ISSUED_ENTRY_BYTES) as u64)?;
        file.sync_all()?;
        let first = self.entries.max(1);
        self.entries += ISSUED_ENTRIES_GROWTH;
        self.free.extend((first..self.entries).rev());
        Ok(())
    }
}
