//! Decoding of record batches (message format 2, `DefaultRecordBatch` in Kafka).
//!
//! `kafka-protocol` has a decoder too, but it fails on the cut last batch in which a fetch often
//! ends, allocates by counts from the network, and drops headers that share a key.

mod failure;
mod record;

use bytes::{Buf, Bytes};
use common::panics;

use crate::batch::compression::{Codec, UNPACKED_BYTES_MAX, UnpackError, unpack};
use record::decode_record;

pub use failure::BatchFailure;
pub use record::FetchedRecord;

/// The maximum number of records of one fetch. Without it, many small compressed records would grow
/// to a hundred times their size. The next fetch continues within the batch.
const RECORDS_MAX: usize = 50_000;

/// The bytes of a batch before its first record.
const HEADER_LEN: usize = 61;
/// The end of the base offset and the length; the length counts the bytes after it.
const LENGTH_END: usize = 12;
/// The start of the bytes that the checksum covers.
const CHECKSUMMED_START: usize = 21;
/// The attribute bit of control batches.
const CONTROL: i16 = 1 << 5;
/// The attribute bit of topics with `LogAppendTime`.
const LOG_APPEND_TIME: i16 = 1 << 3;

/// The records in the bytes of a fetch, from an offset on.
#[derive(Debug, Default)]
pub(crate) struct DecodedBatches {
    pub(crate) records: Vec<FetchedRecord>,
    /// The offset to fetch next.
    pub(crate) next_offset: i64,
    /// The epoch of the leader that appended the last batch before `next_offset`. `None` if no
    /// batch was read, or if the batch has no epoch.
    pub(crate) leader_epoch: Option<i32>,
    /// The unreadable batch at which decoding stopped, if any.
    pub(crate) failure: Option<(BatchRange, BatchFailure)>,
}

/// The offsets of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRange {
    pub(crate) base_offset: i64,
    /// The offset after the batch. For an unreadable batch it may be unknown; it then equals
    /// `base_offset`.
    pub(crate) next_offset: i64,
}

/// Decodes complete batches up to the first incomplete or unreadable batch.
pub(crate) fn decode_batches(bytes: Bytes, offset: i64) -> DecodedBatches {
    decode_batches_with(bytes, offset, decode_batch)
}

type BatchDecoder =
    fn(&Bytes, BatchRange, i64, &mut Vec<FetchedRecord>) -> Result<bool, BatchFailure>;

/// Decodes each batch with `decode`. A panic makes the batch unreadable.
fn decode_batches_with(mut bytes: Bytes, offset: i64, decode: BatchDecoder) -> DecodedBatches {
    let mut decoded = DecodedBatches { next_offset: offset, ..DecodedBatches::default() };
    let mut has_batch = false;
    let had_bytes = !bytes.is_empty();
    while let Some(batch) = split_batch(&mut bytes) {
        let range = batch_range(&batch);
        if !decoded.records.is_empty() && range.base_offset < decoded.next_offset {
            // Batches ascend too. The next fetch shows which of the two is damaged.
            break;
        }
        has_batch = true;
        let len_before = decoded.records.len();
        let records = &mut decoded.records;
        let result = panics::catch(|| decode(&batch, range, offset, records));
        match result.unwrap_or(Err(BatchFailure::Panicked)) {
            Ok(true) if range.next_offset > decoded.next_offset => {
                decoded.next_offset = range.next_offset;
                decoded.leader_epoch = leader_epoch(&batch);
            }
            Ok(true) => {}
            Ok(false) => {
                if let Some(last) = decoded.records.last() {
                    decoded.next_offset = decoded.next_offset.max(last.offset.saturating_add(1));
                    decoded.leader_epoch = last.leader_epoch;
                }
                return decoded;
            }
            Err(failure) => {
                // A batch is returned completely or not at all.
                decoded.records.truncate(len_before);
                let next_offset =
                    offset_after(&batch, range, &failure, bytes).unwrap_or(range.base_offset);
                decoded.failure = Some((BatchRange { next_offset, ..range }, failure));
                return decoded;
            }
        }
    }
    if had_bytes && !has_batch {
        let range = BatchRange { base_offset: offset, next_offset: offset };
        decoded.failure = Some((range, BatchFailure::Cut));
    }
    decoded
}

/// Splits off the next batch. `None`: it is not complete.
fn split_batch(bytes: &mut Bytes) -> Option<Bytes> {
    let length = i32::from_be_bytes(*bytes.get(8..)?.first_chunk()?);
    // A negative length becomes an empty batch, which fails to decode.
    let size = LENGTH_END.checked_add(usize::try_from(length).unwrap_or(0))?;
    if bytes.len() < size { None } else { Some(bytes.split_to(size)) }
}

fn batch_range(batch: &Bytes) -> BatchRange {
    let base_offset = (&batch[..8]).get_i64();
    let delta = batch.get(23..27).map_or(0, |mut delta| delta.get_i32()).max(0);
    BatchRange {
        base_offset,
        next_offset: base_offset.saturating_add(i64::from(delta)).saturating_add(1),
    }
}

/// The epoch of the leader that appended the batch, which is at least as long as its header.
fn leader_epoch(batch: &Bytes) -> Option<i32> {
    let epoch = batch.get(12..16)?.first_chunk().map(|epoch| i32::from_be_bytes(*epoch))?;
    (epoch >= 0).then_some(epoch)
}

/// Returns the offset after an unreadable batch; `rest` are the bytes after it. Returns `None`
/// rather than a guess, so that no readable record is skipped.
fn offset_after(
    batch: &Bytes,
    range: BatchRange,
    failure: &BatchFailure,
    mut rest: Bytes,
) -> Option<i64> {
    let header = |at: usize| Some(i32::from_be_bytes(*batch.get(at..)?.first_chunk()?));
    match failure {
        BatchFailure::Cut => None,
        BatchFailure::Checksum { .. } | BatchFailure::Panicked => match split_batch(&mut rest) {
            Some(next) if verify_checksum(&next).is_ok() => Some(batch_range(&next).base_offset),
            // The header itself can be damaged. Last offset delta and record count must agree.
            _ => (header(23)?.checked_add(1) == header(57)).then_some(range.next_offset),
        },
        // A message of an old format has its own offset, or the offset of the last message in it.
        // More old messages can follow.
        BatchFailure::UnsupportedFormat(0 | 1) => {
            let mut last = range.base_offset;
            while let Some(next) = split_batch(&mut rest)
                && matches!(verify_checksum(&next), Err(BatchFailure::UnsupportedFormat(0 | 1)))
            {
                last = last.max(batch_range(&next).base_offset);
            }
            Some(last.saturating_add(1))
        }
        // The layout of a future format is unknown.
        BatchFailure::UnsupportedFormat(_) => None,
        // The checksum matches, so the header is valid.
        BatchFailure::UnsupportedCodec(_)
        | BatchFailure::TooLarge(_)
        | BatchFailure::Invalid(_) => Some(range.next_offset),
    }
}

/// Verifies the format and the checksum of a batch.
fn verify_checksum(batch: &Bytes) -> Result<(), BatchFailure> {
    let too_short = || BatchFailure::invalid("a batch shorter than its header");
    // The magic byte is at the same place in all formats.
    let magic = *batch.get(16).ok_or_else(too_short)? as i8;
    let (written, found) = match magic {
        // Formats 0 and 1 use another checksum, so a current batch with a flipped magic byte is
        // recognised as damaged.
        0 | 1 => {
            let mut found = flate2::Crc::new();
            found.update(&batch[16..]);
            ((&batch[12..16]).get_u32(), found.sum())
        }
        2 if batch.len() < HEADER_LEN => return Err(too_short()),
        2 => {
            ((&batch[17..CHECKSUMMED_START]).get_u32(), crc32c::crc32c(&batch[CHECKSUMMED_START..]))
        }
        _ => return Err(BatchFailure::UnsupportedFormat(magic)),
    };
    match magic {
        _ if written != found => Err(BatchFailure::Checksum { written, found }),
        2 => Ok(()),
        _ => Err(BatchFailure::UnsupportedFormat(magic)),
    }
}

/// Appends the records of one batch from `offset` on. Returns `false` if [`RECORDS_MAX`] was
/// reached before the end of the batch.
fn decode_batch(
    batch: &Bytes,
    range: BatchRange,
    offset: i64,
    records: &mut Vec<FetchedRecord>,
) -> Result<bool, BatchFailure> {
    verify_checksum(batch)?;
    let mut header = &batch[CHECKSUMMED_START..HEADER_LEN];
    let attributes = header.get_i16();
    let last_offset_delta = header.get_i32();
    let base_timestamp_ms = header.get_i64();
    let max_timestamp_ms = header.get_i64();
    header.advance(8 + 2 + 4);
    let count = header.get_i32();
    if last_offset_delta < 0 || count < 0 {
        return Err(BatchFailure::invalid("a negative count in the header"));
    }
    if attributes & CONTROL != 0 || range.next_offset <= offset {
        return Ok(true);
    }
    let codec = Codec::from_attributes(attributes);
    let mut body =
        unpack(codec, batch.slice(HEADER_LEN..), UNPACKED_BYTES_MAX).map_err(|failure| {
            match failure {
                UnpackError::TooLarge => BatchFailure::TooLarge(codec),
                UnpackError::Unsupported => BatchFailure::UnsupportedCodec(codec),
                UnpackError::Invalid(reason) => BatchFailure::Invalid(format!("{codec}: {reason}")),
            }
        })?;
    let epoch = leader_epoch(batch);
    // Kafka checks the offsets of the records in compressed batches only.
    let mut offset_min = range.base_offset;
    for _ in 0..count {
        let mut record = decode_record(&mut body, range.base_offset, base_timestamp_ms, epoch)
            .ok_or_else(|| BatchFailure::invalid("a record exceeds its length"))?;
        if record.offset < range.base_offset || record.offset >= range.next_offset {
            return Err(BatchFailure::invalid("a record with an offset outside the batch"));
        }
        if record.offset < offset_min {
            return Err(BatchFailure::invalid("offsets of records that do not ascend"));
        }
        offset_min = record.offset + 1;
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
    if !body.is_empty() {
        return Err(BatchFailure::invalid("bytes after the last record"));
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
