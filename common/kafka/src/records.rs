//! Record batches as they stand in the log, read.
//!
//! The batches are read here and not by `kafka-protocol`, which fails on the
//! cut last batch in which a fetch often ends, allocates by counts from the
//! wire, and drops headers that share a key.
//!
//! The layout is that of Kafka's `DefaultRecordBatch` (message format 2).

use std::fmt;

use bytes::{Buf, Bytes};

use super::compression::{Codec, UNPACKED_BYTES_MAX, Unpack, unpack};

/// One record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecord {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, as the producer gave it (or the broker, where
    /// the topic is set to the time of appending).
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers in their order, with all that share a key.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Why a batch can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchFailure {
    /// Its bytes are not those that were written. What they come to is the same
    /// at each fetch if the log holds them so, and another if the way is bad.
    Checksum {
        /// The checksum that they were written with.
        written: u32,
        /// That of what came.
        found: u32,
    },
    /// Compressed by something that is not read here.
    UnsupportedCodec(Codec),
    /// Message format 0 or 1, written by clients older than Kafka 0.11.
    UnsupportedFormat(i8),
    /// Unpacked it would have more bytes than are allowed.
    TooLarge(Codec),
    /// The checksum is right, and what it covers is not a batch.
    Broken(String),
    /// It does not fit the bytes that were asked for.
    Cut,
}

impl BatchFailure {
    /// A checksum can be wrong by the way and right the next time, and a cut
    /// batch fits a larger fetch; the others stay as they are.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Checksum { .. } | Self::Cut)
    }
}

impl fmt::Display for BatchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum { written, found } => {
                write!(f, "the checksum is wrong: {found:08x} instead of {written:08x}")
            }
            Self::UnsupportedCodec(codec) => write!(f, "compression {codec} is not supported"),
            Self::UnsupportedFormat(magic) => {
                write!(f, "message format {magic} is not supported (only 2, of Kafka 0.11)")
            }
            Self::TooLarge(codec) => {
                write!(f, "more than {UNPACKED_BYTES_MAX} bytes when unpacked from {codec}")
            }
            Self::Broken(what) => f.write_str(what),
            Self::Cut => f.write_str("larger than what was asked for"),
        }
    }
}

impl std::error::Error for BatchFailure {}

/// The most records that are handed out at once. Records of a byte each, packed
/// well, would else become a hundred times their size; the next fetch goes on
/// within the batch.
const RECORDS_MAX: usize = 50_000;

/// The fixed part of a batch, up to its first record.
const HEADER_LEN: usize = 61;
/// Base offset and length stand before what the length counts.
const LENGTH_END: usize = 12;
/// What the checksum covers begins after it.
const CHECKED_START: usize = 21;
const CONTROL: i16 = 1 << 5;
const LOG_APPEND_TIME: i16 = 1 << 3;

/// What the bytes of a fetch hold from an offset on.
#[derive(Debug, Default)]
pub(super) struct ReadBatches {
    pub(super) records: Vec<FetchedRecord>,
    /// Where to go on.
    pub(super) next_offset: i64,
    /// The batch at which reading stopped, when it can't be read.
    pub(super) failure: Option<(BatchPlace, BatchFailure)>,
}

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchPlace {
    pub(super) base_offset: i64,
    /// The offset behind it; with a failure its first when nobody can tell.
    pub(super) next_offset: i64,
}

/// Reads whole batches up to the first that is cut or can't be read.
pub(super) fn read_batches(mut bytes: Bytes, offset: i64) -> ReadBatches {
    let mut read = ReadBatches { next_offset: offset, ..ReadBatches::default() };
    let mut any = false;
    let had_bytes = !bytes.is_empty();
    while let Some(batch) = split_batch(&mut bytes) {
        any = true;
        let place = place_of(&batch);
        let before = read.records.len();
        match read_batch(&batch, place, offset, &mut read.records) {
            Ok(true) => read.next_offset = read.next_offset.max(place.next_offset),
            Ok(false) => {
                if let Some(last) = read.records.last() {
                    read.next_offset = read.next_offset.max(last.offset.saturating_add(1));
                }
                return read;
            }
            Err(failure) => {
                // Half a batch is none: it is read whole or reported whole.
                read.records.truncate(before);
                let behind = behind(&batch, place, &failure, bytes);
                let next_offset = behind.unwrap_or(place.base_offset);
                read.failure = Some((BatchPlace { next_offset, ..place }, failure));
                return read;
            }
        }
    }
    if had_bytes && !any {
        let place = BatchPlace { base_offset: offset, next_offset: offset };
        read.failure = Some((place, BatchFailure::Cut));
    }
    read
}

/// The next batch when all of it is there; `Bytes` past its end stay.
fn split_batch(bytes: &mut Bytes) -> Option<Bytes> {
    let length = i32::from_be_bytes(*bytes.get(8..)?.first_chunk()?);
    // A negative length becomes the shortest batch there can be, and fails as one.
    let size = LENGTH_END.checked_add(usize::try_from(length).unwrap_or(0))?;
    if bytes.len() < size { None } else { Some(bytes.split_to(size)) }
}

fn place_of(batch: &Bytes) -> BatchPlace {
    let base_offset = (&batch[..8]).get_i64();
    let delta = batch.get(23..27).map_or(0, |mut delta| delta.get_i32()).max(0);
    BatchPlace {
        base_offset,
        next_offset: base_offset.saturating_add(i64::from(delta)).saturating_add(1),
    }
}

/// Where reading can go on behind a batch that can't be read, which `rest` comes
/// after: less than all that is lost with it is never passed, but what would be
/// a guess is not given.
fn behind(
    batch: &Bytes,
    place: BatchPlace,
    failure: &BatchFailure,
    mut rest: Bytes,
) -> Option<i64> {
    let header = |at: usize| Some(i32::from_be_bytes(*batch.get(at..)?.first_chunk()?));
    match failure {
        BatchFailure::Cut => None,
        BatchFailure::Checksum { .. } => match split_batch(&mut rest) {
            Some(next) if read_checksum(&next).is_ok() => Some(place_of(&next).base_offset),
            // Its header may be what is wrong. Two numbers in it say the same, though.
            _ => (header(23)?.checked_add(1) == header(57)).then_some(place.next_offset),
        },
        // One of these is a single message, or has the offset of its last one; others
        // like it come after it.
        BatchFailure::UnsupportedFormat(0 | 1) => {
            let mut last = place.base_offset;
            while let Some(next) = split_batch(&mut rest)
                && matches!(read_checksum(&next), Err(BatchFailure::UnsupportedFormat(0 | 1)))
            {
                last = last.max(place_of(&next).base_offset);
            }
            Some(last.saturating_add(1))
        }
        // Of a format to come nobody knows where it says that.
        BatchFailure::UnsupportedFormat(_) => None,
        // The checksum was right, so that the header is.
        BatchFailure::UnsupportedCodec(_) | BatchFailure::TooLarge(_) | BatchFailure::Broken(_) => {
            Some(place.next_offset)
        }
    }
}

fn broken(what: &str) -> BatchFailure {
    BatchFailure::Broken(what.to_owned())
}

/// Whether it is a batch, and as it was written.
fn read_checksum(batch: &Bytes) -> Result<(), BatchFailure> {
    let too_short = || broken("a batch shorter than its header");
    // The magic byte stands at the same place in all formats.
    let magic = *batch.get(16).ok_or_else(too_short)? as i8;
    let (written, found) = match magic {
        // Their checksum is another one: that a batch of today looks like one of
        // them by a single bit is seen.
        0 | 1 => {
            let mut found = flate2::Crc::new();
            found.update(&batch[16..]);
            ((&batch[12..16]).get_u32(), found.sum())
        }
        2 if batch.len() < HEADER_LEN => return Err(too_short()),
        2 => ((&batch[17..CHECKED_START]).get_u32(), crc32c::crc32c(&batch[CHECKED_START..])),
        _ => return Err(BatchFailure::UnsupportedFormat(magic)),
    };
    match magic {
        _ if written != found => Err(BatchFailure::Checksum { written, found }),
        2 => Ok(()),
        _ => Err(BatchFailure::UnsupportedFormat(magic)),
    }
}

/// Appends the records of one batch from `offset` on; false when there was no
/// room for all of them.
fn read_batch(
    batch: &Bytes,
    place: BatchPlace,
    offset: i64,
    records: &mut Vec<FetchedRecord>,
) -> Result<bool, BatchFailure> {
    read_checksum(batch)?;
    let mut header = &batch[CHECKED_START..HEADER_LEN];
    let attributes = header.get_i16();
    let last_offset_delta = header.get_i32();
    let base_timestamp_ms = header.get_i64();
    let max_timestamp_ms = header.get_i64();
    header.advance(8 + 2 + 4);
    let count = header.get_i32();
    if last_offset_delta < 0 || count < 0 {
        return Err(broken("a negative count in the header"));
    }
    if attributes & CONTROL != 0 || place.next_offset <= offset {
        return Ok(true);
    }
    let codec = Codec::from_attributes(attributes);
    let mut body =
        unpack(codec, batch.slice(HEADER_LEN..), UNPACKED_BYTES_MAX).map_err(|failure| {
            match failure {
                Unpack::TooLarge => BatchFailure::TooLarge(codec),
                Unpack::Unsupported => BatchFailure::UnsupportedCodec(codec),
                Unpack::Broken(what) => BatchFailure::Broken(format!("{codec}: {what}")),
            }
        })?;
    for _ in 0..count {
        let mut record = read_record(&mut body, place.base_offset, base_timestamp_ms)
            .ok_or_else(|| broken("a record that goes past its end"))?;
        if record.offset < place.base_offset || record.offset >= place.next_offset {
            return Err(broken("a record with an offset outside its batch"));
        }
        if record.offset < offset {
            continue;
        }
        if records.len() == RECORDS_MAX {
            return Ok(false);
        }
        if attributes & LOG_APPEND_TIME != 0 {
            record.timestamp_ms = max_timestamp_ms;
        }
        records.push(record);
    }
    Ok(true)
}

/// None when it does not lie within the bytes that it says it has.
fn read_record(
    body: &mut Bytes,
    base_offset: i64,
    base_timestamp_ms: i64,
) -> Option<FetchedRecord> {
    let length = usize::try_from(varint(body)?).ok()?;
    let mut record = take(body, length)?;
    take(&mut record, 1)?; // The attributes, unused by Kafka so far.
    let timestamp_delta = varint(&mut record)?;
    let offset_delta = varint(&mut record)?;
    let key = nullable(&mut record)?;
    let value = nullable(&mut record)?;
    let header_count = varint(&mut record)?;
    let mut headers = Vec::new();
    for _ in 0..header_count {
        let key = nullable(&mut record)??;
        headers.push((String::from_utf8_lossy(&key).into_owned(), nullable(&mut record)?));
    }
    Some(FetchedRecord {
        offset: base_offset.checked_add(offset_delta)?,
        timestamp_ms: base_timestamp_ms.checked_add(timestamp_delta)?,
        key,
        value,
        headers,
    })
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

/// Bytes with their length before them; a length below zero is null.
#[expect(clippy::option_option, reason = "cut bytes and null bytes are two things")]
fn nullable(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match usize::try_from(varint(bytes)?) {
        Ok(length) => take(bytes, length).map(Some),
        Err(_) => Some(None),
    }
}

/// A zigzag number of at most 10 bytes.
fn varint(bytes: &mut Bytes) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests;
