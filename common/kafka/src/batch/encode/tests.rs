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

/// Compares with the encoder of kafka-protocol. Its base timestamp is the smallest timestamp,
/// so the first record has the smallest timestamp here.
#[test]
fn bytes_equal_those_of_kafka_protocol() {
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
    let batch = encode_batch(&records, ProducerIdentity { producer_id: 7, epoch: 3 }, 5);
    assert_eq!(batch, expected.freeze());
}

#[test]
fn batch_len_is_bounded_and_at_least_one() {
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
fn bytes_max_of_a_record_is_an_upper_bound() {
    let mut record = records().pop().unwrap();
    record.timestamp_ms = i64::MIN / 2;
    let first = ProduceRecord { timestamp_ms: i64::MAX / 2, ..record.clone() };
    let bound = BATCH_HEADER_LEN + record.bytes_max() + first.bytes_max();
    let identity = ProducerIdentity { producer_id: 1, epoch: 0 };
    assert!(encode_batch(&[first, record], identity, 0).len() <= bound);
}
