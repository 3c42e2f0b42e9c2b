//! Record batches as they are written: message format 2, not compressed.

use bytes::{BufMut, Bytes, BytesMut};

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRecord {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The value.
    pub value: Bytes,
    /// The headers, in their order.
    pub headers: Vec<(String, Bytes)>,
}

/// The bytes of a batch before its first record.
pub const BATCH_HEADER_LEN: usize = 61;

/// The most bytes that a record's own numbers can take: length 5, attributes 1,
/// timestamp 10, offset 5, key 1, value's length 5, count of headers 5.
const RECORD_OVERHEAD_MAX: usize = 32;

impl ProduceRecord {
    /// The most bytes that it can take in a batch.
    pub fn bytes_max(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(key, value)| key.len() + value.len() + 10).sum();
        RECORD_OVERHEAD_MAX + self.value.len() + headers
    }
}

/// How many of the first records of a queue fit a batch of `bytes_max` bytes, its
/// header included, and `records_max` records; at least one when there is one.
pub fn batch_len<'a>(
    queue: impl IntoIterator<Item = &'a ProduceRecord>,
    bytes_max: usize,
    records_max: usize,
) -> usize {
    let mut bytes = BATCH_HEADER_LEN;
    let fitting = queue.into_iter().take(records_max.max(1)).enumerate().take_while(|it| {
        bytes += it.1.bytes_max();
        it.0 == 0 || bytes <= bytes_max
    });
    fitting.count()
}

/// Who writes a batch, so that the broker knows it when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
}

/// The bytes of one batch; the broker sets the offsets when it appends them.
pub(super) fn encode_batch(
    records: &[ProduceRecord],
    identity: Identity,
    base_sequence: i32,
) -> Bytes {
    let size: usize = records.iter().map(ProduceRecord::bytes_max).sum();
    let mut batch = BytesMut::with_capacity(BATCH_HEADER_LEN + size);
    let base_timestamp_ms = records.first().map_or(0, |record| record.timestamp_ms);
    let max_timestamp_ms = records.iter().map(|record| record.timestamp_ms).max().unwrap_or(0);
    // Batches are bounded far below 2^31 bytes, and so are all lengths in them.
    let count = records.len() as i32;
    batch.put_i64(0); // base offset
    batch.put_i32(0); // length, set below
    batch.put_i32(-1); // partition leader epoch, which the broker sets
    batch.put_i8(2); // magic
    batch.put_u32(0); // checksum, set below
    batch.put_i16(0); // attributes: no compression, time of creation, no transaction
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
mod tests {
    use super::*;
    use kafka_protocol::protocol::StrBytes;
    use kafka_protocol::records::*;

    fn records() -> Vec<ProduceRecord> {
        (0..300_i64)
            .map(|n| ProduceRecord {
                timestamp_ms: 1_700_000_000_000 + n * 37 % 1000,
                value: Bytes::from(vec![b'v'; usize::try_from(n).unwrap()]),
                headers: vec![("run".to_owned(), Bytes::from_static(b"\0\x01"))],
            })
            .collect()
    }

    /// The generated encoder as a second opinion; it takes the smallest
    /// timestamp as base, so the first record here has it.
    #[test]
    fn the_bytes_are_those_of_kafka_protocol() {
        let records = records();
        let same: Vec<Record> = records
            .iter()
            .enumerate()
            .map(|(n, record)| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: 7,
                producer_epoch: 3,
                timestamp_type: TimestampType::Creation,
                offset: n as i64,
                sequence: 5 + n as i32,
                timestamp: record.timestamp_ms,
                key: None,
                value: Some(record.value.clone()),
                headers: record
                    .headers
                    .iter()
                    .map(|(key, value)| (StrBytes::from_string(key.clone()), Some(value.clone())))
                    .collect(),
            })
            .collect();
        let mut expected = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut expected, &same, &options).unwrap();
        let batch = encode_batch(&records, Identity { producer_id: 7, epoch: 3 }, 5);
        assert_eq!(batch, expected.freeze());
    }

    #[test]
    fn a_batch_takes_what_fits_and_at_least_one() {
        let queue = vec![records().swap_remove(100); 5];
        let one = queue[0].bytes_max();
        assert_eq!(batch_len(&queue, BATCH_HEADER_LEN + 2 * one, 9), 2);
        assert_eq!(batch_len(&queue, BATCH_HEADER_LEN + 2 * one - 1, 9), 1);
        assert_eq!(batch_len(&queue, 1, 9), 1);
        assert_eq!(batch_len(&queue, 1_000_000, 3), 3);
        assert_eq!(batch_len(&queue, usize::MAX, 0), 1);
        assert_eq!(batch_len(&queue, usize::MAX, usize::MAX), 5);
        assert_eq!(batch_len(&[], 1_000_000, 9), 0);
    }

    #[test]
    fn the_bound_of_a_record_holds() {
        let mut record = records().pop().unwrap();
        record.timestamp_ms = i64::MIN / 2;
        let first = ProduceRecord { timestamp_ms: i64::MAX / 2, ..record.clone() };
        let bound = BATCH_HEADER_LEN + record.bytes_max() + first.bytes_max();
        let identity = Identity { producer_id: 1, epoch: 0 };
        assert!(encode_batch(&[first, record], identity, 0).len() <= bound);
    }
}
