//! What a tracker's spool says of how many numbers it gave, read by other code
//! than the tracker's own.

use std::io;
use std::path::Path;

use kafka_client::Uuid;

const PLACE_BYTES: usize = 512;

/// How many numbers a run gave in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The run.
    pub run: Uuid,
    /// The topic's name.
    pub topic: String,
    /// The number after the last.
    pub count: i64,
}

/// Reads the file `given` of a spool's folder: of the run at work or killed, and
/// of those before it that nobody was told of yet.
///
/// # Errors
/// When it can't be read or is no such file; a place that is broken is left out.
pub fn read(spool: &Path) -> io::Result<Vec<Given>> {
    let bytes = std::fs::read(spool.join("given"))?;
    if !bytes.starts_with(b"wa-given\x01\0\0\0") {
        return Err(io::Error::other("no file of numbers given"));
    }
    Ok(bytes.chunks_exact(PLACE_BYTES).skip(1).filter_map(place).collect())
}

fn place(bytes: &[u8]) -> Option<Given> {
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|it| u32::from_le_bytes(*it));
    let long = |at: usize| bytes.get(at..)?.first_chunk().map(|it| u64::from_le_bytes(*it));
    let key = crc32c::crc32c(bytes.get(..276)?);
    let count = |at: usize| {
        let whole = number(at + 16)? == crc32c::crc32c_append(key, bytes.get(at..at + 16)?);
        long(at).filter(|_| whole)
    };
    let length = usize::try_from(number(16)?).ok()?;
    Some(Given {
        run: Uuid::from_slice(bytes.get(..16)?).ok()?,
        topic: std::str::from_utf8(bytes.get(20..276)?.get(..length)?).ok()?.to_owned(),
        count: i64::try_from(count(320).max(count(384))?).ok()?,
    })
}
