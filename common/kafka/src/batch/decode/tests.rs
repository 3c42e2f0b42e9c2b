use super::*;
use crate::batch::encode::{ProduceRecord, ProducerIdentity, encode_batch};

/// A batch at `base_offset` as in a broker's log.
fn batch(base_offset: i64, values: &[&'static str]) -> Vec<u8> {
    let records: Vec<_> = values
        .iter()
        .map(|value| ProduceRecord {
            timestamp_ms: 1000,
            value: Bytes::from_static(value.as_bytes()),
            headers: vec![("h".to_owned(), Bytes::from_static(b"1"))],
        })
        .collect();
    let mut bytes =
        encode_batch(&records, ProducerIdentity { producer_id: 1, epoch: 0 }, 0).to_vec();
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes
}

/// Changes a batch and corrects its checksum.
fn with_checksum(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    let length = i32::try_from(bytes.len() - LENGTH_END).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[CHECKSUMMED_START..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn read(bytes: impl Into<Bytes>, offset: i64) -> DecodedBatches {
    decode_batches(bytes.into(), offset)
}

fn offsets(read: &DecodedBatches) -> Vec<i64> {
    read.records.iter().map(|record| record.offset).collect()
}

const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const COUNT: usize = 57;

#[test]
fn cut_last_batch_is_left_for_the_next_fetch() {
    let mut bytes = batch(10, &["a", "b"]);
    bytes.extend(batch(12, &["c"]));
    let whole = bytes.len();
    bytes.extend(batch(13, &["d"]));
    for length in whole..bytes.len() {
        let read = read(bytes[..length].to_vec(), 10);
        assert_eq!(offsets(&read), [10, 11, 12]);
        assert_eq!((read.next_offset, &read.failure), (13, &None));
    }
    assert_eq!(read(bytes, 10).next_offset, 14);
}

#[test]
fn cut_first_batch_is_reported() {
    let bytes = batch(10, &["a", "b"]);
    let read = read(bytes[..bytes.len() - 1].to_vec(), 10);
    assert!(matches!(read.failure, Some((_, BatchFailure::Cut))));
    assert_eq!(read.next_offset, 10);
    assert_eq!(super::decode_batches(Bytes::new(), 5).failure, None);
}

#[test]
fn records_before_the_offset_are_dropped() {
    let read = read(batch(10, &["a", "b", "c"]), 12);
    assert_eq!(offsets(&read), [12]);
    assert_eq!(read.next_offset, 13);
}

#[test]
fn empty_and_control_batches_move_the_next_offset() {
    // Compaction leaves batches with a last offset and no record.
    let mut empty = batch(10, &[]);
    empty.truncate(HEADER_LEN);
    let mut bytes = with_checksum(empty, LAST_OFFSET_DELTA, &4_i32.to_be_bytes());
    bytes.extend(with_checksum(batch(15, &["control"]), ATTRIBUTES, &CONTROL.to_be_bytes()));
    let read = read(bytes, 10);
    assert_eq!((read.records.len(), read.next_offset, read.failure), (0, 16, None));
}

#[test]
fn flipped_bit_never_changes_a_record() {
    let good = batch(10, &["a", "b"]);
    let right = read(good.clone(), 10).records;
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[position] ^= 1 << bit;
            let read = read(bytes, 10);
            // The checksum does not cover base offset and leader epoch.
            let unchecked = position < 8 || (12..16).contains(&position);
            assert!(
                unchecked || read.failure.is_some() || read.records.is_empty(),
                "byte {position} bit {bit}: {read:?}"
            );
            let values = |records: &[FetchedRecord]| {
                records.iter().map(|record| record.value.clone()).collect::<Vec<_>>()
            };
            assert!(read.records.is_empty() || values(&read.records) == values(&right));
        }
    }
}

#[test]
fn unreadable_batch_is_reported_after_the_batches_before_it() {
    let mut bytes = batch(10, &["a"]);
    let mut bad = batch(11, &["b", "c"]);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    bytes.extend(&bad);
    let both = read(bytes, 10);
    assert_eq!((offsets(&both), both.next_offset), (vec![10], 11));
    // Last offset delta and record count agree.
    let (range, failure) = read(bad.clone(), 11).failure.unwrap();
    assert_eq!((range.base_offset, range.next_offset), (11, 13));
    assert!(matches!(failure, BatchFailure::Checksum { .. }) && failure.is_retryable());
    // They disagree: only a valid batch after it gives the offset.
    bad[LAST_OFFSET_DELTA] ^= 0x40;
    assert_eq!(read(bad.clone(), 11).failure.unwrap().0.next_offset, 11);
    bad.extend(batch(13, &["d"]));
    assert_eq!(read(bad.clone(), 11).failure.unwrap().0.next_offset, 13);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    assert_eq!(read(bad, 11).failure.unwrap().0.next_offset, 11);
}

/// A message of format 1, as in a log segment of Kafka 0.10.
fn old_message(offset: i64) -> Vec<u8> {
    // Magic, attributes, timestamp, no key, a value of one byte.
    let body = [1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, b'v'];
    let mut checksum = flate2::Crc::new();
    checksum.update(&body);
    let mut message = offset.to_be_bytes().to_vec();
    message.extend((body.len() as i32 + 4).to_be_bytes());
    message.extend(checksum.sum().to_be_bytes());
    message.extend(body);
    message
}

/// The offset after old messages is known. The offset after a batch of a future format is
/// unknown.
#[test]
fn old_formats_and_unknown_codecs_are_named_and_can_be_skipped() {
    let old: Vec<u8> = (7..10).flat_map(old_message).collect();
    let mixed = [old.clone(), batch(10, &["a"])].concat();
    for bytes in [old, mixed] {
        let (range, failure) = read(bytes, 7).failure.unwrap();
        assert_eq!(failure, BatchFailure::UnsupportedFormat(1));
        assert_eq!((range.base_offset, range.next_offset), (7, 10));
    }
    // A current batch with a flipped magic byte is damaged, not old.
    let mut flipped = batch(0, &["a"]);
    flipped[16] = 0;
    assert!(matches!(read(flipped, 0).failure, Some((_, BatchFailure::Checksum { .. }))));
    // The end of a batch of a future format is unknown.
    let mut future = batch(0, &["a"]);
    future[16] = 3;
    let (range, failure) = read(future, 0).failure.unwrap();
    assert_eq!((range.next_offset, failure), (0, BatchFailure::UnsupportedFormat(3)));
    let unknown = with_checksum(batch(0, &["a", "b"]), ATTRIBUTES, &5_i16.to_be_bytes());
    let (range, failure) = read(unknown, 0).failure.unwrap();
    assert_eq!(failure.to_string(), "compression number 5 is not supported");
    assert!(!failure.is_retryable());
    assert_eq!(range.next_offset, 2);
}

/// A batch whose records have these offset deltas, all below 64, in this order.
fn batch_with_deltas(base_offset: i64, deltas: &[u8]) -> Vec<u8> {
    let mut bytes = batch(base_offset, &["x"]);
    bytes.truncate(HEADER_LEN);
    for delta in deltas {
        // Length, attributes, time, offset, no key, a value of one byte, no header.
        bytes.extend([14, 0, 0, delta << 1, 1, 2, b'v', 0]);
    }
    let last = i32::from(*deltas.iter().max().unwrap());
    let bytes = with_checksum(bytes, LAST_OFFSET_DELTA, &last.to_be_bytes());
    with_checksum(bytes, COUNT, &i32::try_from(deltas.len()).unwrap().to_be_bytes())
}

/// Otherwise records would be left out without a gap, or the position would move back.
#[test]
fn offsets_ascend_strictly_and_the_body_ends_with_the_last_record() {
    assert_eq!(offsets(&read(batch_with_deltas(10, &[0, 1, 2]), 10)), [10, 11, 12]);
    // Compaction removes records.
    assert_eq!(offsets(&read(batch_with_deltas(10, &[1, 4, 9]), 10)), [11, 14, 19]);
    for deltas in [[2, 0, 1], [0, 0, 2], [1, 2, 0], [0, 2, 1]] {
        for offset in [10, 11, 12] {
            let (range, failure) = read(batch_with_deltas(10, &deltas), offset).failure.unwrap();
            assert_eq!(failure.to_string(), "offsets of records that do not ascend");
            assert_eq!(range.next_offset, 13);
        }
    }
    for count in [0_i32, 1, 2] {
        let cut = with_checksum(batch_with_deltas(10, &[0, 1, 2]), COUNT, &count.to_be_bytes());
        let (range, failure) = read(cut, 10).failure.unwrap();
        assert_eq!(failure.to_string(), "bytes after the last record");
        assert_eq!(range.next_offset, 13);
    }
}

#[test]
fn hostile_counts_do_not_allocate_or_panic() {
    for count in [i32::MAX, 3, -1] {
        let bytes = with_checksum(batch(0, &["a", "b"]), COUNT, &count.to_be_bytes());
        assert!(matches!(read(bytes, 0).failure, Some((_, BatchFailure::Invalid(_)))), "{count}");
    }
    let far =
        with_checksum(batch(i64::MAX, &["a", "b"]), LAST_OFFSET_DELTA, &i32::MAX.to_be_bytes());
    assert!(read(far, 0).failure.is_some());
    // Each byte of the records with each value and a correct checksum: decoded or refused.
    let good = batch(0, &["a", "b"]);
    for position in HEADER_LEN..good.len() {
        for byte in 0..=255 {
            let _ = read(with_checksum(good.clone(), position, &[byte]), 0);
        }
    }
}

#[test]
fn records_beyond_the_maximum_are_left_for_the_next_fetch() {
    let values = vec!["v"; RECORDS_MAX + 10];
    let bytes = Bytes::from(batch(0, &values));
    let first = decode_batches(bytes.clone(), 0);
    assert_eq!((first.records.len(), first.next_offset), (RECORDS_MAX, RECORDS_MAX as i64));
    let rest = decode_batches(bytes, first.next_offset);
    assert_eq!((rest.records.len(), rest.next_offset), (10, RECORDS_MAX as i64 + 10));
}

/// Log segments of Kafka 4.4.0, written by its console producer with each `--compression-codec`:
/// 200 records with a key and three headers (two with the same key, one null), then a record with
/// a null key and one with a null value.
#[test]
fn batches_of_the_java_producer_are_decoded_in_every_codec() {
    for (codec, bytes) in [
        ("none", &include_bytes!("../../../testdata/batches-none-console-producer-4.4.0.log")[..]),
        ("gzip", include_bytes!("../../../testdata/batches-gzip-console-producer-4.4.0.log")),
        ("snappy", include_bytes!("../../../testdata/batches-snappy-console-producer-4.4.0.log")),
        ("lz4", include_bytes!("../../../testdata/batches-lz4-console-producer-4.4.0.log")),
        ("zstd", include_bytes!("../../../testdata/batches-zstd-console-producer-4.4.0.log")),
    ] {
        let read = read(Bytes::from_static(bytes), 0);
        assert_eq!(read.failure, None, "{codec}");
        assert_eq!(read.next_offset, 202, "{codec}");
        for (n, record) in read.records[..200].iter().enumerate() {
            let value = format!("value number {n} {}", "abc".repeat(n % 7));
            assert_eq!(record.offset, n as i64);
            assert_eq!(record.key, Some(format!("key-{n}").into()), "{codec}");
            assert_eq!(record.value, Some(value.into()), "{codec}");
            let headers = [
                ("a".to_owned(), Some(n.to_string().into())),
                ("a".to_owned(), Some("again".into())),
                ("b".to_owned(), None),
            ];
            assert_eq!(record.headers, headers, "{codec}");
            assert!(record.timestamp_ms > 1_700_000_000_000, "{codec}");
        }
        assert_eq!((&read.records[200].key, read.records[200].headers.len()), (&None, 0));
        assert_eq!(read.records[201].value, None, "{codec}");
    }
}

/// Damaged batches of every codec, with a wrong and with a corrected checksum: all records are
/// within the requested offsets, and the next offset never moves back.
#[test]
fn fuzzed_batches_move_forward_within_the_requested_offsets() {
    let mut samples = vec![batch(10, &["a", "b", "c"]), batch(10, &[])];
    for bytes in [
        &include_bytes!("../../../testdata/batches-gzip-console-producer-4.4.0.log")[..],
        include_bytes!("../../../testdata/batches-snappy-console-producer-4.4.0.log"),
        include_bytes!("../../../testdata/batches-lz4-console-producer-4.4.0.log"),
        include_bytes!("../../../testdata/batches-zstd-console-producer-4.4.0.log"),
    ] {
        samples.push(bytes.to_vec());
    }
    samples.push([batch(10, &["a"]), batch(11, &["b"])].concat());
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let corrected = (bytes.len() > HEADER_LEN).then(|| with_checksum(bytes.to_vec(), 16, &[2]));
        for bytes in [Some(bytes.to_vec()), corrected].into_iter().flatten() {
            let read = read(bytes, 11);
            assert!(read.next_offset >= 11);
            let mut last = 10;
            for record in &read.records {
                assert!(record.offset > last, "before the requested or the last offset");
                assert!(record.offset < read.next_offset, "at or after the next offset");
                last = record.offset;
            }
        }
    });
    println!("batches: {tried} inputs");
}

/// The batches before it are returned first. The batch itself is requested again, like a batch with
/// a wrong checksum.
#[test]
fn a_panic_of_the_decoder_makes_the_batch_unreadable() {
    fn panicking(
        batch: &Bytes,
        range: BatchRange,
        offset: i64,
        records: &mut Vec<FetchedRecord>,
    ) -> Result<bool, BatchFailure> {
        let result = decode_batch(batch, range, offset, records);
        assert!(range.base_offset != 2, "on purpose");
        result
    }
    let bytes: Bytes = [batch(0, &["a", "b"]), batch(2, &["c", "d"])].concat().into();
    let decoded = decode_batches_with(bytes, 0, panicking);
    assert_eq!((decoded.records.len(), decoded.next_offset), (2, 2));
    let (range, failure) = decoded.failure.unwrap();
    assert_eq!((range.base_offset, range.next_offset), (2, 4));
    assert!(failure == BatchFailure::Panicked && failure.is_retryable());
}
