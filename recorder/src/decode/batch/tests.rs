//! Tests how fetched records are cut into batches.

use super::*;

const RECORDS_MAX: usize = 3;

fn fetched(sizes: &[(i64, usize)], next_offset: i64) -> FetchedRecords {
    let record = |&(offset, size): &(i64, usize)| FetchedRecord {
        offset,
        leader_epoch: Some(4),
        timestamp_ms: 0,
        key: None,
        value: Some(vec![0; size].into()),
        headers: Vec::new(),
    };
    FetchedRecords {
        records: sizes.iter().map(record).collect(),
        next_offset,
        leader_epoch: Some(5),
        log_start_offset: 0,
        high_watermark: 100,
    }
}

/// The offsets of the records in each batch, and the position after the batch.
fn cut(sizes: &[(i64, usize)], from: i64, next_offset: i64) -> Vec<(Vec<i64>, i64)> {
    let fetched_batches =
        FetchedBatches::new(fetched(sizes, next_offset), from, &Labels::default(), RECORDS_MAX)
            .unwrap();
    assert_eq!(fetched_batches.next_offset, next_offset);
    fetched_batches
        .batches
        .iter()
        .map(|batch| {
            (batch.records.iter().map(|record| record.offset).collect(), batch.next_offset)
        })
        .collect()
}

#[test]
fn batches_are_contiguous_and_the_last_moves_past_offsets_without_records() {
    assert_eq!(cut(&[], 7, 7), []);
    assert_eq!(cut(&[], 7, 9), [(vec![], 9)]);
    assert_eq!(cut(&[(7, 1)], 7, 8), [(vec![7], 8)]);
    // Compaction removed offsets between the records and after them.
    assert_eq!(cut(&[(8, 1), (11, 1)], 7, 20), [(vec![8, 11], 20)]);
    let five: Vec<_> = [1, 2, 4, 8, 9].map(|offset| (offset, 1)).to_vec();
    assert_eq!(cut(&five, 0, 12), [(vec![1, 2, 4], 5), (vec![8, 9], 12)]);
    let three: Vec<_> = [1, 2, 4].map(|offset| (offset, 1)).to_vec();
    assert_eq!(cut(&three, 0, 12), [(vec![1, 2, 4], 12)]);
}

#[test]
fn a_batch_has_a_bound_in_bytes_but_holds_at_least_one_record() {
    let (half, more) = (BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX + 1);
    assert_eq!(
        cut(&[(0, half), (1, half), (2, 1), (3, more), (4, 1)], 0, 5),
        [(vec![0, 1], 2), (vec![2], 3), (vec![3], 4), (vec![4], 5)]
    );
}

#[test]
fn malformed_values_go_to_quarantine() {
    let fetched_batches =
        FetchedBatches::new(fetched(&[(0, 1), (1, 2)], 2), 0, &Labels::default(), RECORDS_MAX)
            .unwrap();
    let offsets: Vec<_> =
        fetched_batches.batches[0].decoded.quarantined.iter().map(|q| q.offset).collect();
    assert_eq!(offsets, [0, 1]);
    assert!(fetched_batches.has_more());
}

fn with_ended_runs(offset: i64, runs: usize) -> FetchedRecord {
    let ended = |run| {
        let run = kafka_client::Uuid::from_u128(run as u128);
        let (key, value) = common::identity::EndedRun { run, count: 1 }.header();
        (key, Some(value))
    };
    let headers = (0..runs).map(ended).collect();
    FetchedRecord { offset, leader_epoch: None, timestamp_ms: 0, key: None, value: None, headers }
}

/// Each ended run is a row of one statement.
#[test]
fn a_batch_has_a_bound_in_ended_runs() {
    let mut fetched = fetched(&[], 20);
    fetched.records = (0..20).map(|offset| with_ended_runs(offset, 16)).collect();
    let batches = FetchedBatches::new(fetched, 0, &Labels::default(), 50).unwrap().batches;
    let sizes: Vec<_> =
        batches.iter().map(|batch| (batch.records.len(), batch.identities.claims.len())).collect();
    assert_eq!(sizes, [(3, 48), (3, 48), (3, 48), (3, 48), (3, 48), (3, 48), (2, 32)]);
}

/// A batch that is too large, because the size has shrunk since, is cut once more.
#[test]
fn a_batch_is_split_without_decoding_it_again() {
    for malformed in [false, true] {
        let mut records = fetched(&[(1, 1), (2, 1), (4, 1), (7, 1)], 9).records;
        if malformed {
            records[3].headers = vec![("sequence".to_owned(), None)];
        }
        records.insert(1, with_ended_runs(1, 2));
        records.remove(0);
        let mut batch = WriteBatch::new(records.clone(), &Labels::default(), 9);
        let rest = batch.split_off(2).unwrap();
        for (part, records, next_offset) in [(&batch, &records[..2], 4), (&rest, &records[2..], 9)]
        {
            let expected = WriteBatch::new(records.to_vec(), &Labels::default(), next_offset);
            assert_eq!(format!("{part:?}"), format!("{expected:?}"));
        }
        assert!(batch.split_off(2).is_none());
    }
}

/// Panics on the record at offset 3.
fn panicking(records: &[FetchedRecord], labels: &Labels) -> (DecodedRecords, Identities) {
    assert!(records.iter().all(|record| record.offset != 3), "on purpose");
    decode_all(records, labels)
}

/// Records before a record that makes the decoder panic are written. This record is an error.
/// Records after it can be read separately.
#[test]
fn a_panic_of_the_decoder_concerns_one_record() {
    let decode = |from: i64| {
        let sizes: Vec<_> = (from..6).map(|offset| (offset, 1)).collect();
        let labels = Labels::default();
        FetchedBatches::decode_with(fetched(&sizes, 6), from, &labels, RECORDS_MAX, panicking)
    };
    let before = decode(0).unwrap();
    assert_eq!((before.next_offset, before.has_more()), (3, true));
    let offsets: Vec<_> = before
        .batches
        .iter()
        .flat_map(|batch| &batch.records)
        .map(|record| record.offset)
        .collect();
    assert_eq!(offsets, [0, 1, 2]);
    assert_eq!(before.batches.last().unwrap().next_offset, 3);
    assert_eq!(decode(3).unwrap_err(), RecordPanic { offset: Some(3) });
    assert_eq!(decode(4).unwrap().next_offset, 6);
}
