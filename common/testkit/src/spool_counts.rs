//! Reads from a tracker's spool how many sequence numbers each run has issued. The code is
//! independent of the tracker's own.

use std::io;
use std::path::Path;

use kafka_client::Uuid;

const SLOT_BYTES: usize = 512;

/// How many sequence numbers a run has issued for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCount {
    /// The run id.
    pub run: Uuid,
    /// The topic's name.
    pub topic: String,
    /// The sequence number after the last issued number.
    pub count: i64,
}

/// Reads the file `given` in a spool folder. It has one entry for the current or killed run, and
/// one for each earlier run whose end has not been reported yet.
///
/// # Errors
/// Fails if the file can't be read or does not start with the expected magic bytes. Corrupt
/// entries are skipped.
pub fn read_counts(spool: &Path) -> io::Result<Vec<RunCount>> {
    let bytes = std::fs::read(spool.join("given"))?;
    if !bytes.starts_with(b"wa-given\x01\0\0\0") {
        return Err(io::Error::other("not a file of issued sequence numbers"));
    }
    Ok(bytes.chunks_exact(SLOT_BYTES).skip(1).filter_map(decode_slot).collect())
}

fn decode_slot(bytes: &[u8]) -> Option<RunCount> {
    let u32_at = |at: usize| bytes.get(at..)?.first_chunk().map(|it| u32::from_le_bytes(*it));
    let u64_at = |at: usize| bytes.get(at..)?.first_chunk().map(|it| u64::from_le_bytes(*it));
    let key = crc32c::crc32c(bytes.get(..276)?);
    let count_at = |at: usize| {
        let is_intact = u32_at(at + 16)? == crc32c::crc32c_append(key, bytes.get(at..at + 16)?);
        u64_at(at).filter(|_| is_intact)
    };
    let length = usize::try_from(u32_at(16)?).ok()?;
    Some(RunCount {
        run: Uuid::from_slice(bytes.get(..16)?).ok()?,
        topic: std::str::from_utf8(bytes.get(20..276)?.get(..length)?).ok()?.to_owned(),
        count: i64::try_from(count_at(320).max(count_at(384))?).ok()?,
    })
}
