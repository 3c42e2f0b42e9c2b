use common::identity::{EndedRun, Identity};
use common::record::{Extra, Status};

use super::rows::required_columns;
use super::*;
use crate::observations::{QuarantineRow, StoredRow, TopicIncarnation};

const INCARNATION: Uuid = Uuid::from_u128(1);
const NEXT_INCARNATION: Uuid = Uuid::from_u128(2);
const RUN: Uuid = Uuid::from_u128(3);

fn value(second: i64, healthy: bool) -> Vec<u8> {
    Record {
        from: "here".to_owned(),
        url: "http://a.example/".to_owned(),
        timestamp: second as f64 + 0.5,
        status: Status::Responsive,
        phrase: if healthy { "ok" } else { "not found" }.to_owned(),
        dns_ms: Some(1),
        response_ms: None,
        detail: None,
        offset: -1,
        extra: Extra::default(),
    }
    .encode()
}

fn kafka_record(offset: i64, sequence: i64, healthy: bool) -> KafkaRecord {
    let identity = Some(Identity { run: RUN, sequence });
    KafkaRecord { offset, identity, ended: Vec::new(), value: value(100 + sequence, healthy) }
}

fn stored(id: i64, record: &KafkaRecord) -> StoredRow {
    StoredRow { id, columns: required_columns(record).unwrap() }
}

/// Sequence numbers 0 to 3, correctly recorded: each is a row, except an invalid record in
/// quarantine. Sequence number 1 is twice in the log.
fn good() -> TopicObservations {
    let broken = KafkaRecord { value: vec![0xc1], ..kafka_record(3, 2, true) };
    let records = vec![
        kafka_record(0, 0, true),
        kafka_record(1, 1, true),
        kafka_record(2, 1, true),
        broken,
        kafka_record(4, 3, false),
    ];
    TopicObservations {
        topic: "t".to_owned(),
        issued_counts: HashMap::new(),
        log_end: 5,
        rows: vec![stored(1, &records[0]), stored(2, &records[1]), stored(3, &records[4])],
        quarantine: vec![QuarantineRow { topic_id: INCARNATION, offset: 3, bytes: vec![0xc1] }],
        gaps: Vec::new(),
        next_sequences: HashMap::from([(RUN, 4)]),
        position: Some((INCARNATION, 5)),
        incarnations: vec![TopicIncarnation { id: INCARNATION, records, next_offset: 5 }],
    }
}

/// The same in smart mode: the first two results are one row.
fn smart() -> TopicObservations {
    let mut observed = good();
    let second = observed.rows.remove(1);
    let first = &mut observed.rows[0].columns;
    (first.offset, first.event_time) = (second.columns.offset, second.columns.event_time);
    (first.identity, first.results) = (second.columns.identity, 2);
    first.first = Some((100, 0));
    observed
}

/// A healthy record with these additional columns.
fn record_with_extra(offset: i64, sequence: i64, extra: Extra) -> KafkaRecord {
    let without_extra = kafka_record(offset, sequence, true);
    let record = Record::decode(&without_extra.value).unwrap();
    KafkaRecord { value: Record { extra, ..record }.encode(), ..without_extra }
}

/// Whether the first two results of [`smart`] may be one row, if the second one has these
/// columns.
fn may_share(extra: Extra) -> bool {
    may_share_slots(Extra::default(), extra)
}

/// The same, if both results have these columns.
fn may_share_slots(first: Extra, extra: Extra) -> bool {
    let (mut apart, mut one) = (good(), smart());
    for observed in [&mut apart, &mut one] {
        observed.incarnations[0].records[0] = record_with_extra(0, 0, first.clone());
        for offset in [1, 2] {
            observed.incarnations[0].records[offset] =
                record_with_extra(offset as i64, 1, extra.clone());
        }
    }
    apart.rows[0] = stored(1, &apart.incarnations[0].records[0]);
    apart.rows[1] = stored(2, &apart.incarnations[0].records[1]);
    let row = &mut one.rows[0].columns;
    row.extra = Extra { slot: extra.slot, ..first.clone() };
    row.totals = first
        .total_us
        .zip(extra.total_us)
        .map(|(one, other)| [one + other, one.min(other), one.max(other)]);
    let (apart, one) = (check_topic(&apart, true).errors, check_topic(&one, true).errors);
    assert_ne!(apart.is_empty(), one.is_empty(), "{apart:#?} {one:#?}");
    one.is_empty()
}

#[test]
fn results_with_visible_properties_share_no_row() {
    let extra = Extra::default;
    assert!(may_share(extra()));
    assert!(may_share(Extra { healthy: Some(true), attempts: Some(1), ..extra() }));
    for marked in [
        Extra { healthy: Some(false), ..extra() },
        Extra { reason: Some("too_slow".to_owned()), ..extra() },
        Extra { attempts: Some(2), ..extra() },
        Extra { first_reason: Some("dns_timeout".to_owned()), ..extra() },
        Extra { no_network: Some(true), ..extra() },
        Extra { others_failing: Some(true), ..extra() },
        Extra { missed: [("clock".to_owned(), 1)].into(), ..extra() },
        Extra { period_ms: Some(1), ..extra() },
        Extra { name: Some("another".to_owned()), ..extra() },
        Extra { total_us: Some(1), ..extra() },
        Extra { slot: Some(4), ..extra() },
    ] {
        assert!(!may_share(marked.clone()), "{marked:?}");
    }
}

#[test]
fn only_results_of_adjacent_slots_share_a_row() {
    let with_slot = |slot, period_ms, total_us| Extra {
        slot: Some(slot),
        period_ms: Some(period_ms),
        total_us: Some(total_us),
        ..Extra::default()
    };
    let first = with_slot(4, 1_000, 70);
    assert!(may_share_slots(first.clone(), with_slot(5, 1_000, 30)));
    assert!(!may_share_slots(first.clone(), with_slot(6, 1_000, 30)));
    assert!(!may_share_slots(first, with_slot(4, 1_000, 30)));
    // The results are a second apart.
    assert!(may_share_slots(with_slot(4, 334, 70), with_slot(5, 334, 30)));
    assert!(!may_share_slots(with_slot(4, 333, 70), with_slot(5, 333, 30)));
}

#[track_caller]
fn expect_error(observed: &TopicObservations, smart: bool, text: &str) {
    let errors = check_topic(observed, smart).errors;
    assert!(errors.iter().any(|it| it.contains(text)), "{errors:#?}");
}

/// Checks without smart mode.
#[track_caller]
fn expect_pass(observed: &TopicObservations) -> OracleReport {
    let report = check_topic(observed, false);
    assert_eq!(report.errors, [""; 0]);
    report
}

#[test]
fn correct_observations_pass() {
    let report = check_topic(&good(), false);
    assert_eq!(report.errors, [""; 0]);
    let counts =
        ResultCounts { issued: 4, rows: 3, quarantined: 1, dropped: 1, ..ResultCounts::default() };
    assert_eq!(report.counts, counts);
    assert!(counts.balances());
    let report = check_topic(&smart(), true);
    assert_eq!(report.errors, [""; 0]);
    assert_eq!(report.counts, ResultCounts { rows: 2, merged: 1, ..counts });
}

#[test]
fn a_missing_row_is_reported() {
    let mut observed = good();
    observed.rows.remove(1);
    expect_error(&observed, false, "no row for offset 1");
    let mut observed = smart();
    observed.rows.remove(1);
    expect_error(&observed, true, "no row for offset 4");
}

#[test]
fn an_extra_row_is_reported() {
    let mut observed = good();
    observed.rows.push(StoredRow { id: 9, ..observed.rows[0].clone() });
    expect_error(&observed, false, "a duplicate row");
    // The duplicate of sequence number 1, at its own offset.
    let mut observed = good();
    observed.rows.insert(2, StoredRow { id: 9, ..stored(9, &observed.incarnations[0].records[2]) });
    expect_error(&observed, false, "an extra row");
    let mut observed = smart();
    observed.rows.insert(1, stored(2, &observed.incarnations[0].records[1]));
    expect_error(&observed, true, "an extra row");
    // Rows that are not merged. Nothing is lost.
    expect_error(&good(), true, "an extra row");
    let mut observed = good();
    observed.quarantine.push(observed.quarantine[0].clone());
    expect_error(&observed, false, "but is not an invalid record");
}

#[test]
fn wrong_columns_are_reported() {
    let mut observed = good();
    observed.rows[0].columns.response = 7;
    expect_error(&observed, false, "no row for offset 0");
    let mut observed = good();
    observed.quarantine[0].bytes.push(0);
    expect_error(&observed, false, "not in quarantine");
    let mut observed = good();
    observed.rows[0].columns.extra.total_us = Some(1);
    expect_error(&observed, false, "no row for offset 0");
    // The row stands for more results than its column `results` has.
    let mut observed = smart();
    observed.rows[0].columns.results = 1;
    expect_error(&observed, true, "no row for offset 1");
    let mut observed = smart();
    observed.rows[0].columns.first = Some((100, 1));
    expect_error(&observed, true, "no row for offset 1");
    // The time of a merged row is too early.
    let mut observed = smart();
    observed.rows[0].columns.event_time -= 1;
    expect_error(&observed, true, "no row for offset 1");
}

#[test]
fn rows_out_of_order_are_reported() {
    let mut observed = good();
    observed.rows[0].id = 7;
    expect_error(&observed, false, "out of order");
}

/// Sequence numbers 3 and 4 never arrive. There is no gap for them.
fn missing_sequences() -> TopicObservations {
    let mut observed = good();
    observed.incarnations[0].records.remove(4);
    observed.incarnations[0].records.push(kafka_record(4, 5, false));
    observed.rows[2] = stored(3, &observed.incarnations[0].records[4]);
    observed.next_sequences.insert(RUN, 6);
    observed
}

#[test]
fn a_missing_sequence_without_a_gap_is_reported() {
    let mut observed = missing_sequences();
    expect_error(&observed, false, "sequence 3: neither recorded nor in a gap");
    observed.gaps.push(StoredGap::Sequence { run: RUN, from: 3, to: 5 });
    let report = expect_pass(&observed);
    assert_eq!(report.counts.missing, 2);
    assert_eq!(
        report.missing[&RUN],
        MissingSequences { location: "here".to_owned(), followed: 2, at_end: 0 }
    );
}

#[test]
fn overlapping_gaps_are_reported() {
    let mut observed = missing_sequences();
    observed.gaps.push(StoredGap::Sequence { run: RUN, from: 3, to: 5 });
    observed.gaps.push(StoredGap::Sequence { run: RUN, from: 4, to: 5 });
    expect_error(&observed, false, "sequence 4: in 2 gaps");
}

/// Another run reported the sequence numbers at the end of this run.
#[test]
fn a_gap_at_the_end_of_a_run_moves_its_next_sequence() {
    let mut observed = missing_sequences();
    observed.gaps.push(StoredGap::Sequence { run: RUN, from: 3, to: 5 });
    observed.gaps.push(StoredGap::Sequence { run: RUN, from: 6, to: 9 });
    expect_error(&observed, false, "availability_mark has Some(6)");
    observed.next_sequences.insert(RUN, 9);
    assert_eq!(
        expect_pass(&observed).missing[&RUN],
        MissingSequences { location: "here".to_owned(), followed: 2, at_end: 3 }
    );
}

#[test]
fn a_missing_sequence_at_the_end_of_a_run_is_reported() {
    let mut observed = good();
    observed.issued_counts.insert(RUN, 4);
    assert_eq!(check_topic(&observed, false).errors, [""; 0]);
    observed.issued_counts.insert(RUN, 6);
    expect_error(&observed, false, "sequence 4: neither recorded nor in a gap, and 5 was issued");
    observed.gaps.push(StoredGap::Sequence { run: RUN, from: 4, to: 6 });
    observed.next_sequences.insert(RUN, 6);
    assert_eq!(check_topic(&observed, false).errors, [""; 0]);
}

#[test]
fn a_recorded_sequence_in_a_gap_is_reported() {
    let mut observed = good();
    observed.gaps.push(StoredGap::Sequence { run: RUN, from: 1, to: 2 });
    expect_error(&observed, false, "sequence 1: in 1 gaps, recorded: true");
}

#[test]
fn a_lower_sequence_after_a_higher_one_is_reported() {
    let mut observed = good();
    observed.incarnations[0].records[0].identity = Some(Identity { run: RUN, sequence: 1 });
    observed.incarnations[0].records[1].identity = Some(Identity { run: RUN, sequence: 0 });
    expect_error(&observed, false, "sequence 0: arrived at offset 1");
}

#[test]
fn records_that_were_in_flight_when_their_topic_was_deleted_are_recorded() {
    let mut observed = good();
    observed.incarnations.push(TopicIncarnation {
        id: NEXT_INCARNATION,
        // Sequence number 3 arrives again.
        records: vec![kafka_record(0, 3, false), kafka_record(1, 4, false)],
        next_offset: 2,
    });
    let records = observed.incarnations[1].records.clone();
    observed.rows.truncate(2);
    observed.rows.extend([stored(3, &records[0]), stored(4, &records[1])]);
    observed.position = Some((NEXT_INCARNATION, 2));
    observed.log_end = 2;
    observed.next_sequences.insert(RUN, 5);
    observed.gaps.push(StoredGap::Offsets { topic_id: INCARNATION, from: 4, to: None });
    expect_pass(&observed);
}

/// The last record of a run is deleted unread with its topic. Nobody sends it again.
fn last_record_unread() -> TopicObservations {
    let mut observed = good();
    observed.rows.truncate(2);
    observed
        .incarnations
        .push(TopicIncarnation { id: NEXT_INCARNATION, ..TopicIncarnation::default() });
    (observed.position, observed.log_end) = (Some((NEXT_INCARNATION, 0)), 0);
    observed.next_sequences.insert(RUN, 3);
    observed.gaps.push(StoredGap::Offsets { topic_id: INCARNATION, from: 4, to: None });
    observed
}

#[test]
fn unread_records_of_a_deleted_topic_need_a_gap() {
    let mut observed = last_record_unread();
    assert_eq!(expect_pass(&observed).counts.unread, 1);
    observed.gaps.clear();
    expect_error(&observed, false, "but is not an invalid record");
}

#[test]
fn an_unread_record_may_have_reported_the_end_of_a_run() {
    let mut observed = last_record_unread();
    observed.issued_counts.insert(RUN, 6);
    expect_error(&observed, false, "sequence 4: neither recorded nor in a gap");
    observed.incarnations[0].records[4].ended = vec![EndedRun { run: RUN, count: 6 }];
    assert_eq!(expect_pass(&observed).counts.unread, 3);
}

/// The first record of the tracker's next run reported the end of the run. The topic reader did
/// not see this record either.
#[test]
fn an_unseen_record_may_have_reported_the_end_of_a_run() {
    let next_run = Uuid::from_u128(4);
    let mut observed = last_record_unread();
    observed.issued_counts.insert(RUN, 6);
    observed.incarnations[1].records = vec![KafkaRecord {
        identity: Some(Identity { run: next_run, sequence: 1 }),
        ..kafka_record(0, 9, false)
    }];
    observed.incarnations[1].next_offset = 1;
    observed.rows.push(stored(3, &observed.incarnations[1].records[0]));
    (observed.position, observed.log_end) = (Some((NEXT_INCARNATION, 1)), 1);
    observed.next_sequences.insert(next_run, 2);
    expect_error(&observed, false, "sequence 4: neither recorded nor in a gap");
    observed.gaps.push(StoredGap::Sequence { run: next_run, from: 0, to: 1 });
    assert_eq!(expect_pass(&observed).counts.unread, 3);
}

/// An unread record can be the only one that reveals missing sequence numbers before it. This
/// does not excuse sequence numbers that are missing before records that were read.
#[test]
fn an_unread_record_may_have_revealed_missing_sequences() {
    let mut observed = last_record_unread();
    observed.incarnations[0].records[4] = kafka_record(4, 5, false);
    assert_eq!(expect_pass(&observed).counts.unread, 3);
    observed.rows.remove(1);
    observed.incarnations[0].records.drain(1..3);
    expect_error(&observed, false, "sequence 1: neither recorded nor in a gap");
}

#[test]
fn a_position_or_next_sequence_that_stays_behind_is_reported() {
    let mut observed = good();
    observed.position = Some((INCARNATION, 4));
    expect_error(&observed, false, "the position is");
    let mut observed = good();
    observed.next_sequences.insert(RUN, 3);
    expect_error(&observed, false, "availability_mark has Some(3)");
    let mut observed = good();
    observed.incarnations[0].next_offset = 4;
    expect_error(&observed, false, "the topic reader read up to 4");
}

/// In smart mode a row keeps its higher offset from before its topic was recreated. It then
/// follows results of the same second that are newer.
#[test]
fn a_run_that_begins_in_the_last_second_of_another_may_be_two_rows() {
    let of = |run: Uuid, sequence: i64, second: i64, offset: i64| KafkaRecord {
        identity: Some(Identity { run, sequence }),
        value: value(second, true),
        ..kafka_record(offset, 0, true)
    };
    let (old, new) = (RUN, Uuid::from_u128(4));
    let before = of(old, 0, 99, 20);
    let after = [of(old, 1, 100, 0), of(new, 0, 100, 1), of(new, 1, 101, 2)];
    let row = |id: i64, last: &KafkaRecord, offset: i64, results: i32| {
        let mut row = stored(id, last);
        let last_second = row.columns.event_time;
        row.columns.offset = offset;
        row.columns.results = results;
        row.columns.first = (results > 1).then_some((last_second - 1, offset));
        row
    };
    let mut observed = TopicObservations {
        log_end: 3,
        rows: vec![row(1, &after[0], 20, 2), row(2, &after[1], 1, 1), row(3, &after[2], 2, 1)],
        quarantine: Vec::new(),
        gaps: vec![StoredGap::Offsets { topic_id: INCARNATION, from: 21, to: None }],
        next_sequences: HashMap::from([(old, 2), (new, 2)]),
        position: Some((NEXT_INCARNATION, 3)),
        incarnations: vec![
            TopicIncarnation { id: INCARNATION, records: vec![before], next_offset: 21 },
            TopicIncarnation { id: NEXT_INCARNATION, records: after.to_vec(), next_offset: 3 },
        ],
        ..good()
    };
    assert_eq!(check_topic(&observed, true).errors, [""; 0]);
    // One row instead of two is accepted too.
    let mut one = observed.clone();
    one.rows.remove(1);
    one.rows[1].columns.results = 2;
    one.rows[1].columns.first = Some((100, 1));
    assert_eq!(check_topic(&one, true).errors, [""; 0]);
    observed.rows.remove(1);
    expect_error(&observed, true, "no row for offset 2");
}
