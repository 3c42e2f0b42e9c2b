//! The highest delivered number of each topic, so that a restart does not send results
//! again.
//!
//! Two files are written in turn, so that one is complete while the other is written:
//!
//! ```text
//! file    CRC-32C of all that follows (u32), length of the body (u32), body
//! body    generation (u64), next number (u64), topics' count (u32),
//!         each topic's name (length, bytes) and highest delivered number (u64)
//! ```
//!
//! The files are not synced. If a power cut loses a mark, results are sent a second time
//! with the same identity, and the recorder drops the duplicates.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::FieldReader;

/// The contents of the newer file.
#[derive(Debug)]
pub(super) struct DeliveredMarks {
    paths: [PathBuf; 2],
    generation: u64,
    /// Higher than all numbers issued when the file was written.
    pub(super) next_number: u64,
    /// The highest number of each topic that was delivered or dropped.
    pub(super) delivered: HashMap<Arc<str>, u64>,
}

impl DeliveredMarks {
    /// Reads the newer complete file. A missing file is no error.
    pub(super) fn read(folder: &Path) -> Self {
        let paths = ["delivered-0", "delivered-1"].map(|name| folder.join(name));
        let read = |path| decode(&fs::read(path).ok()?);
        let newest = paths.iter().filter_map(read).max_by_key(|(generation, ..)| *generation);
        let (generation, next_number, delivered) = newest.unwrap_or((0, 1, HashMap::new()));
        Self { paths, generation, next_number, delivered }
    }

    /// Writes over the older file.
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.generation += 1;
        let mut body = Vec::new();
        body.extend(self.generation.to_le_bytes());
        body.extend(self.next_number.to_le_bytes());
        // Topics are far fewer than 2^32, and their names shorter.
        body.extend((self.delivered.len() as u32).to_le_bytes());
        for (topic, number) in &self.delivered {
            body.extend((topic.len() as u32).to_le_bytes());
            body.extend(topic.as_bytes());
            body.extend(number.to_le_bytes());
        }
        let mut bytes = vec![0; 4];
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.append(&mut body);
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        let path = &self.paths[usize::from(self.generation % 2 == 1)];
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        file.write_all_at(&bytes, 0)
    }
}

fn decode(bytes: &[u8]) -> Option<(u64, u64, HashMap<Arc<str>, u64>)> {
    let mut fields = FieldReader(bytes);
    let checksum = fields.u32()?;
    let checked = fields.0;
    let mut body = FieldReader(fields.bytes()?);
    if checksum != crc32c::crc32c(&checked[..4 + body.0.len()]) {
        return None;
    }
    let (generation, next_number, count) = (body.u64()?, body.u64()?, body.u32()?);
    let mut delivered = HashMap::new();
    for _ in 0..count {
        delivered.insert(Arc::from(body.text()?), body.u64()?);
    }
    Some((generation, next_number, delivered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_leaves_the_older_one() {
        let folder = std::env::temp_dir().join(format!("marks-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut marks = DeliveredMarks::read(&folder);
        assert_eq!((marks.next_number, marks.delivered.len()), (1, 0));
        for number in 1..=3 {
            marks.next_number = number + 1;
            marks.delivered.insert(Arc::from("topic"), number);
            marks.write().unwrap();
        }
        let newest = fs::read(&marks.paths[1]).unwrap();
        let read = || DeliveredMarks::read(&folder);
        assert_eq!((read().next_number, read().delivered[&Arc::from("topic")]), (4, 3));
        for bit in 0..newest.len() * 8 {
            let mut flipped = newest.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&marks.paths[1], flipped).unwrap();
            assert_eq!((read().next_number, read().delivered[&Arc::from("topic")]), (3, 2));
        }
        for length in 0..newest.len() {
            fs::write(&marks.paths[1], &newest[..length]).unwrap();
            assert_eq!((read().next_number, read().delivered[&Arc::from("topic")]), (3, 2));
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
