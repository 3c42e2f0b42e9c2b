//! How fetched records are cut into batches.

use common::record::{Extra, Record, Status};

use super::*;

const LIMITS: BatchLimits = BatchLimits { records: 3, targets: 2 };

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

/// The offsets of the records of each batch, and the position after it.
fn cut(sizes: &[(i64, usize)], from: i64, next_offset: i64) -> Vec<(Vec<i64>, i64)> {
    let fetched_batches =
        FetchedBatches::new(fetched(sizes, next_offset), from, &Labels::default(), &LIMITS);
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
    // Offsets that compaction removed, within and after the records.
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
        FetchedBatches::new(fetched(&[(0, 1), (1, 2)], 2), 0, &Labels::default(), &LIMITS);
    let offsets: Vec<_> =
        fetched_batches.batches[0].decoded.quarantined.iter().map(|q| q.offset).collect();
    assert_eq!(offsets, [0, 1]);
    assert!(fetched_batches.has_more());
}

/// The number of look-ups of one transaction is bounded.
#[test]
fn a_batch_has_a_bound_in_targets() {
    let labels = Labels::new(vec!["responsive".into()], vec!["ok".into()]);
    let record = |offset: i64, name: &str| {
        let extra = Extra { name: Some(name.into()), ..Extra::default() };
        let record = Record {
            from: "sydney".into(),
            url: "https://a.example/".into(),
            timestamp: 1.5,
            status: Status::Responsive,
            phrase: "ok".into(),
            dns_ms: None,
            response_ms: None,
            detail: None,
            offset: -1,
            extra,
        };
        let value = Some(record.encode().into());
        FetchedRecord {
            offset,
            leader_epoch: None,
            timestamp_ms: 0,
            key: None,
            value,
            headers: Vec::new(),
        }
    };
    let names = ["a", "a", "b", "b", "c", "d", "d", "d"];
    let mut fetched = fetched(&[], 9);
    fetched.records = (0..).zip(names).map(|(offset, name)| record(offset, name)).collect();
    let fetched_batches =
        FetchedBatches::new(fetched, 0, &labels, &BatchLimits { records: 100, targets: 2 });
    let rows =
        fetched_batches.batches.iter().map(|batch| (batch.decoded.rows.len(), batch.next_offset));
    assert_eq!(rows.collect::<Vec<_>>(), [(4, 4), (4, 9)]);
}
