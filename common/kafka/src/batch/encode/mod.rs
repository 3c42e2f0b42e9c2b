//! Encoding of record batches: message format 2, not compressed.

use bytes::{BufMut, Bytes, BytesMut};

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRecord {
    /// The record's time in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The value.
    pub value: Bytes,
    /// The headers in their order.
    pub headers: Vec<(String, Bytes)>,
}

/// The bytes of a batch before its first record, in message format 2.
pub const BATCH_HEADER_LEN: usize = 61;

/// The maximum size in bytes of a record without its value and headers: length 5, attributes 1,
/// timestamp 10, offset 5, key 1, value length 5, header count 5.
const RECORD_OVERHEAD_MAX: usize = 32;

impl ProduceRecord {
    /// The maximum size of the record in a batch, in bytes.
    pub fn bytes_max(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(key, value)| key.len() + value.len() + 10).sum();
        RECORD_OVERHEAD_MAX + self.value.len() + headers
    }
}

/// Returns how many records from the front of `queue` fit in a batch of at most `bytes_max` bytes
/// (batch header included) and `records_max` records. At least 1, unless the queue is empty.
pub fn batch_len<'a>(
    queue: impl IntoIterator<Item = &'a ProduceRecord>,
    bytes_max: usize,
    records_max: usize,
) -> usize {
    let mut bytes = BATCH_HEADER_LEN;
    let fitting =
        queue.into_iter().take(records_max.max(1)).enumerate().take_while(|(index, record)| {
            bytes += record.bytes_max();
            *index == 0 || bytes <= bytes_max
        });
    fitting.count()
}

/// Producer id and epoch, by which the broker recognises a batch that is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerIdentity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// Encodes one batch. The broker sets its base offset when it appends the batch.
pub(crate) fn encode_batch(
    records: &[ProduceRecord],
    identity: ProducerIdentity,
    base_sequence: i32,
) -> Bytes {
    let size: usize = records.iter().map(ProduceRecord::bytes_max).sum();
    let mut batch = BytesMut::with_capacity(BATCH_HEADER_LEN + size);
    let base_timestamp_ms = records.first().map_or(0, |record| record.timestamp_ms);
    let max_timestamp_ms = records.iter().map(|record| record.timestamp_ms).max().unwrap_or(0);
    // A batch is far smaller than 2^31 bytes, and so are all counts and lengths in it.
    let count = records.len() as i32;
    batch.put_i64(0); // base offset
    batch.put_i32(0); // length, set below
    batch.put_i32(-1); // partition leader epoch, which the broker sets
    batch.put_i8(2); // magic
    batch.put_u32(0); // checksum, set below
    batch.put_i16(0); // attributes: no compression, create time, no transaction
    batch.put_i32(count - 1); // last offset delta
    batch.put_i64(base_timestamp_ms);
    batch.put_i64(max_timestamp_ms);
    batch.put_i64(identity.producer_id);
    batch.put_i16(identity.epoch);
    batch.put_i32(base_sequence);
    batch.put_i32(count);
    let mut body = BytesMut::new();
    for (delta, record) in records.iter().enumerate() {
        body.clear();
        encode_record(&mut body, record, base_timestamp_ms, delta as i64);
        put_varint(&mut batch, body.len() as i64);
        batch.put_slice(&body);
    }
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch.freeze()
}

fn encode_record(body: &mut BytesMut, record: &ProduceRecord, base_timestamp_ms: i64, delta: i64) {
    body.put_i8(0);
    put_varint(body, record.timestamp_ms.wrapping_sub(base_timestamp_ms));
    put_varint(body, delta);
    put_varint(body, -1); // no key
    put_varint(body, record.value.len() as i64);
    body.put_slice(&record.value);
    put_varint(body, record.headers.len() as i64);
    for (key, value) in &record.headers {
        put_varint(body, key.len() as i64);
        body.put_slice(key.as_bytes());
        put_varint(body, value.len() as i64);
        body.put_slice(value);
    }
}

fn put_varint(buffer: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        buffer.put_u8((zigzag as u8) | 0x80);
        zigzag >>= 7;
    }
    buffer.put_u8(zigzag as u8);
}

#[cfg(test)]
mod tests;
