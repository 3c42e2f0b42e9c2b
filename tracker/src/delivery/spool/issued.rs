//! How many numbers this run gave in each topic, on disk before they are used,
//! so that the next run can tell what went with a kill.
//!
//! The file `given` is made of places of 512 bytes that are written in place, so
//! that it takes them on a full disk too:
//!
//! ```text
//! head    "wa-given", version (u32), the file's inode (u64), CRC-32C of those (u32)
//! place   at 0    run (16 bytes), length of the topic's name (u32), name (256 bytes)
//!         at 320 and at 384, in turn: count (u64), time in seconds since 1970 (u64),
//!                 CRC-32C of the 276 bytes and of these two (u32)
//! ```
//!
//! All numbers are little endian. The higher of the two counts that are whole is
//! meant, so that one that is torn leaves the one before. A place without one is
//! free. It is not synced: a kill takes nothing of it, a power cut what the system
//! had not written yet, and then the count is one of before.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use common::identity::Run;
use kafka_client::Uuid;

use super::segment::Fields;

/// The bytes of the head, and of each place after it.
pub(super) const PLACE_BYTES: usize = 512;
/// The most places: 32 MiB.
pub(super) const PLACES_MAX: usize = 65_536;
/// How many more are made when none is free.
const PLACES_MORE: usize = 256;
/// What the file begins with: the magic and the version of the format.
pub(super) const HEAD: [u8; 12] = *b"wa-given\x01\0\0\0";
const NAME_BYTES_MAX: usize = 256;
const KEY_BYTES: usize = 16 + 4 + NAME_BYTES_MAX;
const COUNTS_AT: [usize; 2] = [320, 384];

/// What a place says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) run: Uuid,
    pub(super) topic: String,
    /// How many numbers it gave there.
    pub(super) count: u64,
    /// When it gave the last one.
    pub(super) time_s: u64,
}

/// The head of the file with this inode.
pub(super) fn head(inode: u64) -> [u8; 24] {
    let mut head = [0; 24];
    head[..12].copy_from_slice(&HEAD);
    head[12..20].copy_from_slice(&inode.to_le_bytes());
    let checksum = crc32c::crc32c(&head[..20]);
    head[20..].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// None: it is free, or broken.
pub(super) fn decode(place: &[u8]) -> Option<Place> {
    let key = place.get(..KEY_BYTES)?;
    let checksum = crc32c::crc32c(key);
    let counts = COUNTS_AT.iter().filter_map(|at| {
        let bytes = place.get(*at..at + 20)?;
        let mut fields = Fields(bytes);
        let count = (fields.u64()?, fields.u64()?);
        (fields.u32()? == crc32c::crc32c_append(checksum, &bytes[..16])).then_some(count)
    });
    let (count, time_s) = counts.max()?;
    let (run, name) = key.split_first_chunk::<16>()?;
    let mut name = Fields(name);
    let topic = name.text()?;
    Some(Place { run: Uuid::from_bytes(*run), topic, count, time_s })
}

fn key(run: Uuid, topic: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    key[..16].copy_from_slice(run.as_bytes());
    key[16..20].copy_from_slice(&u32::try_from(topic.len()).ok()?.to_le_bytes());
    key[20..].get_mut(..topic.len())?.copy_from_slice(topic.as_bytes());
    Some(key)
}

fn counted(checksum: u32, count: u64, time_s: u64) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..16].copy_from_slice(&time_s.to_le_bytes());
    let checksum = crc32c::crc32c_append(checksum, &bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Where a topic of this run has its place.
#[derive(Debug)]
struct Noted {
    at: u64,
    checksum: u32,
    /// Which of the two counts is the older one.
    turn: usize,
}

/// The writer.
#[derive(Debug)]
pub struct Given {
    run: Uuid,
    path: PathBuf,
    /// None: it is not to be had.
    file: Option<File>,
    inode: u64,
    /// The places that there are, the head among them.
    places: usize,
    free: Vec<usize>,
    topics: HashMap<Arc<str>, Noted>,
    /// That it is not written was said.
    said: bool,
}

impl Given {
    pub(super) fn new(run: &Run, path: PathBuf) -> Self {
        let (file, topics) = (None, HashMap::new());
        let run = run.id();
        Self { run, path, file, inode: 0, places: 0, free: Vec::new(), topics, said: false }
    }

    /// Writes to an open file from now on, which has so many places, and of them
    /// these free; with none it is to be made anew.
    pub(super) fn use_file(&mut self, file: File, inode: u64, places: usize, free: Vec<usize>) {
        (self.inode, self.places, self.free) = (inode, places, free);
        self.file = Some(file);
        // While there is room, if there is.
        if self.free.is_empty()
            && let Err(cause) = self.more()
        {
            self.say(&cause);
        }
    }

    /// Notes how many numbers were given in a topic. That it can't is logged
    /// once, and tried again with the next.
    pub fn note(&mut self, topic: &Arc<str>, count: i64) {
        if let Err(cause) = self.try_note(topic, count.unsigned_abs()) {
            self.say(&cause);
        }
    }

    pub(super) fn say(&mut self, cause: &io::Error) {
        if !std::mem::replace(&mut self.said, true) {
            let path = self.path.display();
            log::error!(
                "spool: {path}: {cause}: what a kill takes at the end of this run is not seen as a gap"
            );
        }
    }

    fn try_note(&mut self, topic: &Arc<str>, count: u64) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let Some(Noted { at, checksum, turn }) = self.topics.get_mut(topic) else {
            return self.begin(topic, count, time_s);
        };
        let bytes = counted(*checksum, count, time_s);
        if let Some(file) = &self.file {
            // Where that fails the other one stands, until it succeeds.
            file.write_all_at(&bytes, *at + COUNTS_AT[*turn] as u64)?;
        }
        *turn = 1 - *turn;
        Ok(())
    }

    /// Gives a topic its place.
    fn begin(&mut self, topic: &Arc<str>, count: u64, time_s: u64) -> io::Result<()> {
        // No topic of Kafka has a longer name.
        let Some(key) = key(self.run, topic) else { return Ok(()) };
        if self.free.is_empty() {
            self.more()?;
        }
        let (Some(index), Some(file)) = (self.free.last(), &self.file) else { return Ok(()) };
        let at = (index * PLACE_BYTES) as u64;
        let checksum = crc32c::crc32c(&key);
        let mut place = [0; PLACE_BYTES];
        place[..KEY_BYTES].copy_from_slice(&key);
        place[COUNTS_AT[0]..COUNTS_AT[0] + 20].copy_from_slice(&counted(checksum, count, time_s));
        file.write_all_at(&place, at)?;
        self.free.pop();
        self.topics.insert(Arc::clone(topic), Noted { at, checksum, turn: 1 });
        Ok(())
    }

    /// Makes places that are free, and their blocks on disk, so that what comes
    /// needs no room.
    fn more(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if self.places >= PLACES_MAX {
            return Err(io::Error::other(format!("more than {PLACES_MAX} topics and runs")));
        }
        let mut bytes = vec![0; PLACES_MORE * PLACE_BYTES];
        if self.places == 0 {
            bytes[..24].copy_from_slice(&head(self.inode));
        }
        file.write_all_at(&bytes, (self.places * PLACE_BYTES) as u64)?;
        file.sync_all()?;
        let first = self.places.max(1);
        self.places += PLACES_MORE;
        self.free.extend((first..self.places).rev());
        Ok(())
    }
}
