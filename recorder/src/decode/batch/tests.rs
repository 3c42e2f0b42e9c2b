//! How a fetch is cut.

use common::record::{Extra, Record, Status};

use super::*;

const MOST: Most = Most { records: 3, targets: 2 };

fn fetched(sizes: &[(i64, usize)], next_offset: i64) -> Fetched {
    let record = |&(offset, size): &(i64, usize)| FetchedRecord {
        offset,
        timestamp_ms: 0,
        key: None,
        value: Some(vec![0; size].into()),
        headers: Vec::new(),
    };
    Fetched {
        records: sizes.iter().map(record).collect(),
        next_offset,
        log_start_offset: 0,
        high_watermark: 100,
    }
}

/// The offsets of each part's records, and the offset after it.
fn cut(sizes: &[(i64, usize)], from: i64, next_offset: i64) -> Vec<(Vec<i64>, i64)> {
    let parts = Parts::new(fetched(sizes, next_offset), from, &Labels::default(), &MOST);
    assert_eq!(parts.next_offset, next_offset);
    parts
        .parts
        .iter()
        .map(|part| (part.records.iter().map(|record| record.offset).collect(), part.next_offset))
        .collect()
}

#[test]
fn parts_follow_on_each_other_and_the_last_passes_what_is_not_for_us() {
    assert_eq!(cut(&[], 7, 7), []);
    assert_eq!(cut(&[], 7, 9), [(vec![], 9)]);
    assert_eq!(cut(&[(7, 1)], 7, 8), [(vec![7], 8)]);
    // Offsets that compaction removed, within and behind.
    assert_eq!(cut(&[(8, 1), (11, 1)], 7, 20), [(vec![8, 11], 20)]);
    let five: Vec<_> = [1, 2, 4, 8, 9].map(|offset| (offset, 1)).to_vec();
    assert_eq!(cut(&five, 0, 12), [(vec![1, 2, 4], 5), (vec![8, 9], 12)]);
    let three: Vec<_> = [1, 2, 4].map(|offset| (offset, 1)).to_vec();
    assert_eq!(cut(&three, 0, 12), [(vec![1, 2, 4], 12)]);
}

#[test]
fn a_part_has_a_bound_in_bytes_but_takes_one_record_whatever_it_has() {
    let (half, more) = (BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX + 1);
    assert_eq!(
        cut(&[(0, half), (1, half), (2, 1), (3, more), (4, 1)], 0, 5),
        [(vec![0, 1], 2), (vec![2], 3), (vec![3], 4), (vec![4], 5)]
    );
}

#[test]
fn what_is_no_record_is_in_its_part_for_quarantine() {
    let parts = Parts::new(fetched(&[(0, 1), (1, 2)], 2), 0, &Labels::default(), &MOST);
    let offsets: Vec<_> = parts.parts[0].batch.quarantined.iter().map(|q| q.offset).collect();
    assert_eq!(offsets, [0, 1]);
    assert!(parts.is_more_there());
}

/// Goes red when the look-ups of a transaction have no bound.
#[test]
fn a_part_has_a_bound_in_targets() {
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
        FetchedRecord { offset, timestamp_ms: 0, key: None, value, headers: Vec::new() }
    };
    let names = ["a", "a", "b", "b", "c", "d", "d", "d"];
    let mut fetched = fetched(&[], 9);
    fetched.records = (0..).zip(names).map(|(offset, name)| record(offset, name)).collect();
    let parts = Parts::new(fetched, 0, &labels, &Most { records: 100, targets: 2 });
    let rows = parts.parts.iter().map(|part| (part.batch.rows.len(), part.next_offset));
    assert_eq!(rows.collect::<Vec<_>>(), [(4, 4), (4, 9)]);
}
