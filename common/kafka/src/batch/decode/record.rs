//! Decoding of one record of a batch (`DefaultRecord` in Kafka).

use bytes::{Buf, Bytes};

/// A record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecord {
    /// The offset in the partition.
    pub offset: i64,
    /// The epoch of the leader that appended the record. `None` if the batch has none.
    pub leader_epoch: Option<i32>,
    /// Milliseconds since 1970, set by the producer, or by the broker if the topic's
    /// `message.timestamp.type` is `LogAppendTime`.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers in their order. Several headers can have the same key.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Decodes the next record. `None`: the record exceeds its own length or the batch.
pub(super) fn decode_record(
    body: &mut Bytes,
    base_offset: i64,
    base_timestamp_ms: i64,
    leader_epoch: Option<i32>,
) -> Option<FetchedRecord> {
    let length = usize::try_from(read_varint(body)?).ok()?;
    let mut record = split_bytes(body, length)?;
    split_bytes(&mut record, 1)?; // attributes, not used by Kafka so far
    let timestamp_delta = read_varint(&mut record)?;
    let offset_delta = read_varint(&mut record)?;
    let key = read_nullable(&mut record)?;
    let value = read_nullable(&mut record)?;
    let header_count = read_varint(&mut record)?;
    let mut headers = Vec::new();
    for _ in 0..header_count {
        let key = read_nullable(&mut record)??;
        headers.push((String::from_utf8_lossy(&key).into_owned(), read_nullable(&mut record)?));
    }
    Some(FetchedRecord {
        offset: base_offset.checked_add(offset_delta)?,
        leader_epoch,
        timestamp_ms: base_timestamp_ms.checked_add(timestamp_delta)?,
        key,
        value,
        headers,
    })
}

fn split_bytes(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

/// Bytes after their length; a negative length is null.
#[expect(clippy::option_option, reason = "cut bytes and null bytes are different")]
fn read_nullable(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match usize::try_from(read_varint(bytes)?) {
        Ok(length) => split_bytes(bytes, length).map(Some),
        Err(_) => Some(None),
    }
}

/// A zigzag varint of at most 10 bytes.
fn read_varint(bytes: &mut Bytes) -> Option<i64> {
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
