use common::identity::{EndedRun, Identity};
use common::record::{Extra, Status};

use super::super::facts::{StoredQuarantine, StoredRow, TopicLife};
use super::rows::columns;
use super::*;

const LIFE: Uuid = Uuid::from_u128(1);
const NEXT_LIFE: Uuid = Uuid::from_u128(2);
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

fn tapped(offset: i64, number: i64, healthy: bool) -> Tapped {
    let identity = Some(Identity { run: RUN, sequence: number });
    Tapped { offset, identity, ended: Vec::new(), value: value(100 + number, healthy) }
}

fn stored(id: i64, record: &Tapped) -> StoredRow {
    StoredRow { id, columns: columns(record).unwrap() }
}

/// Numbers 0 to 3 as they should be: each a row, but for a broken one, and the
/// second twice in the log.
fn good() -> TopicFacts {
    let broken = Tapped { value: vec![0xc1], ..tapped(3, 2, true) };
    let records = vec![
        tapped(0, 0, true),
        tapped(1, 1, true),
        tapped(2, 1, true),
        broken,
        tapped(4, 3, false),
    ];
    TopicFacts {
        topic: "t".to_owned(),
        given: HashMap::new(),
        log_end: 5,
        rows: vec![stored(1, &records[0]), stored(2, &records[1]), stored(3, &records[4])],
        quarantined: vec![StoredQuarantine { topic_id: LIFE, offset: 3, bytes: vec![0xc1] }],
        gaps: Vec::new(),
        marks: HashMap::from([(RUN, 4)]),
        position: Some((LIFE, 5)),
        lives: vec![TopicLife { id: LIFE, records, next_offset: 5 }],
    }
}

/// The same in smart mode: the first two are one row.
fn smart() -> TopicFacts {
    let mut facts = good();
    let second = facts.rows.remove(1);
    let first = &mut facts.rows[0].columns;
    (first.offset, first.event_time) = (second.columns.offset, second.columns.event_time);
    (first.identity, first.results) = (second.columns.identity, 2);
    facts
}

/// A healthy record with more to say.
fn saying(offset: i64, number: i64, extra: Extra) -> Tapped {
    let plain = tapped(offset, number, true);
    let record = Record::decode(&plain.value).unwrap();
    Tapped { value: Record { extra, ..record }.encode(), ..plain }
}

/// The first two of [`smart`], the second of which says something: whether they
/// may then be one row.
fn may_share(extra: Extra) -> bool {
    let (mut apart, mut one) = (good(), smart());
    for facts in [&mut apart, &mut one] {
        for offset in [1, 2] {
            facts.lives[0].records[offset] = saying(offset as i64, 1, extra.clone());
        }
    }
    apart.rows[1] = stored(2, &apart.lives[0].records[1]);
    one.rows[0].columns.extra.slot = extra.slot;
    let (apart, one) = (judge(&apart, true).wrong, judge(&one, true).wrong);
    assert_ne!(apart.is_empty(), one.is_empty(), "{apart:#?} {one:#?}");
    one.is_empty()
}

#[test]
fn what_is_to_be_seen_shares_no_row() {
    let extra = Extra::default;
    assert!(may_share(extra()));
    assert!(may_share(Extra { healthy: Some(true), attempts: Some(1), slot: Some(4), ..extra() }));
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
    ] {
        assert!(!may_share(marked.clone()), "{marked:?}");
    }
}

#[track_caller]
fn expect_wrong(facts: &TopicFacts, smart: bool, words: &str) {
    let wrong = judge(facts, smart).wrong;
    assert!(wrong.iter().any(|it| it.contains(words)), "{wrong:#?}");
}

#[test]
fn what_is_right_balances() {
    let judgement = judge(&good(), false);
    assert_eq!(judgement.wrong, [""; 0]);
    let account = Account { given: 4, rows: 3, quarantined: 1, dropped: 1, ..Account::default() };
    assert_eq!(judgement.account, account);
    assert!(account.balances());
    let judgement = judge(&smart(), true);
    assert_eq!(judgement.wrong, [""; 0]);
    assert_eq!(judgement.account, Account { rows: 2, merged: 1, ..account });
}

#[test]
fn a_row_is_missing() {
    let mut facts = good();
    facts.rows.remove(1);
    expect_wrong(&facts, false, "no row for offset 1");
    let mut facts = smart();
    facts.rows.remove(1);
    expect_wrong(&facts, true, "no row for offset 4");
}

#[test]
fn a_row_is_there_twice() {
    let mut facts = good();
    facts.rows.push(StoredRow { id: 9, ..facts.rows[0].clone() });
    expect_wrong(&facts, false, "a second row of the same");
    // The copy of number 1, at its own offset.
    let mut facts = good();
    facts.rows.insert(2, StoredRow { id: 9, ..stored(9, &facts.lives[0].records[2]) });
    expect_wrong(&facts, false, "a row too many");
    let mut facts = smart();
    facts.rows.insert(1, stored(2, &facts.lives[0].records[1]));
    expect_wrong(&facts, true, "a row too many");
    // Not merged, and nothing lost.
    expect_wrong(&good(), true, "a row too many");
    let mut facts = good();
    facts.quarantined.push(facts.quarantined[0].clone());
    expect_wrong(&facts, false, "no broken record");
}

#[test]
fn a_row_holds_something_else() {
    let mut facts = good();
    facts.rows[0].columns.response = 7;
    expect_wrong(&facts, false, "no row for offset 0");
    let mut facts = good();
    facts.quarantined[0].bytes.push(0);
    expect_wrong(&facts, false, "not in quarantine");
    let mut facts = good();
    facts.rows[0].columns.extra.total_us = Some(1);
    expect_wrong(&facts, false, "no row for offset 0");
    // It stands for more than it says.
    let mut facts = smart();
    facts.rows[0].columns.results = 1;
    expect_wrong(&facts, true, "no row for offset 1");
    // A row that was merged into stands too early.
    let mut facts = smart();
    facts.rows[0].columns.event_time -= 1;
    expect_wrong(&facts, true, "no row for offset 1");
}

#[test]
fn rows_are_out_of_order() {
    let mut facts = good();
    facts.rows[0].id = 7;
    expect_wrong(&facts, false, "out of order");
}

#[test]
fn a_hole_is_silent() {
    let mut facts = good();
    facts.lives[0].records.remove(4);
    facts.lives[0].records.push(tapped(4, 5, false));
    facts.rows[2] = stored(3, &facts.lives[0].records[4]);
    facts.marks.insert(RUN, 6);
    expect_wrong(&facts, false, "number 3: neither recorded nor in a gap");
    facts.gaps.push(StoredGap::Sequence { run: RUN, from: 3, to: 5 });
    let judgement = judge(&facts, false);
    assert_eq!(judgement.wrong, [""; 0]);
    assert_eq!(judgement.account.missing, 2);
    assert_eq!(judgement.missing[&RUN], Missing { from: "here".to_owned(), inner: 2, at_end: 0 });
    // What a run lost at its end, as another run told of it.
    let mut at_end = facts.clone();
    at_end.gaps.push(StoredGap::Sequence { run: RUN, from: 6, to: 9 });
    expect_wrong(&at_end, false, "the mark is Some(6)");
    at_end.marks.insert(RUN, 9);
    let judgement = judge(&at_end, false);
    assert_eq!(judgement.wrong, [""; 0]);
    assert_eq!(judgement.missing[&RUN], Missing { from: "here".to_owned(), inner: 2, at_end: 3 });
    facts.gaps.push(StoredGap::Sequence { run: RUN, from: 4, to: 5 });
    expect_wrong(&facts, false, "number 4: in 2 gaps");
}

#[test]
fn a_hole_at_the_end_of_a_run_is_silent() {
    let mut facts = good();
    facts.given.insert(RUN, 4);
    assert_eq!(judge(&facts, false).wrong, [""; 0]);
    facts.given.insert(RUN, 6);
    expect_wrong(&facts, false, "number 4: neither recorded nor in a gap, and 5 was given");
    facts.gaps.push(StoredGap::Sequence { run: RUN, from: 4, to: 6 });
    facts.marks.insert(RUN, 6);
    assert_eq!(judge(&facts, false).wrong, [""; 0]);
}

#[test]
fn what_is_recorded_is_in_no_gap() {
    let mut facts = good();
    facts.gaps.push(StoredGap::Sequence { run: RUN, from: 1, to: 2 });
    expect_wrong(&facts, false, "number 1: in 1 gaps, recorded: true");
}

#[test]
fn a_later_one_overtakes() {
    let mut facts = good();
    facts.lives[0].records[0].identity = Some(Identity { run: RUN, sequence: 1 });
    facts.lives[0].records[1].identity = Some(Identity { run: RUN, sequence: 0 });
    expect_wrong(&facts, false, "number 0: came at offset 1");
}

#[test]
fn what_nobody_read_of_a_deleted_topic_is_in_a_gap() {
    let mut facts = good();
    facts.lives.push(TopicLife {
        id: NEXT_LIFE,
        // Number 3 comes again, as it was on its way when the topic was deleted.
        records: vec![tapped(0, 3, false), tapped(1, 4, false)],
        next_offset: 2,
    });
    let again = facts.lives[1].records.clone();
    facts.rows.truncate(2);
    facts.rows.extend([stored(3, &again[0]), stored(4, &again[1])]);
    facts.position = Some((NEXT_LIFE, 2));
    facts.log_end = 2;
    facts.marks.insert(RUN, 5);
    facts.gaps.push(StoredGap::Offsets { topic_id: LIFE, from: 4, to: None });
    assert_eq!(judge(&facts, false).wrong, [""; 0]);
    // The last of a run, which nobody sends again.
    let mut last = good();
    last.rows.truncate(2);
    last.lives.push(TopicLife { id: NEXT_LIFE, ..TopicLife::default() });
    (last.position, last.log_end) = (Some((NEXT_LIFE, 0)), 0);
    last.marks.insert(RUN, 3);
    last.gaps.push(StoredGap::Offsets { topic_id: LIFE, from: 4, to: None });
    let judgement = judge(&last, false);
    assert_eq!(judgement.wrong, [""; 0]);
    assert_eq!(judgement.account.unread, 1);
    // What the run lost at its end was told by that record alone.
    let mut told = last.clone();
    told.given.insert(RUN, 6);
    expect_wrong(&told, false, "number 4: neither recorded nor in a gap");
    told.lives[0].records[4].ended = vec![EndedRun { run: RUN, count: 6 }];
    let judgement = judge(&told, false);
    assert_eq!(judgement.wrong, [""; 0]);
    assert_eq!(judgement.account.unread, 3);
    // By the first record of the tracker's next run, which the tap did not see either.
    let next_run = Uuid::from_u128(4);
    let mut next = last.clone();
    next.given.insert(RUN, 6);
    next.lives[1].records = vec![Tapped {
        identity: Some(Identity { run: next_run, sequence: 1 }),
        ..tapped(0, 9, false)
    }];
    next.lives[1].next_offset = 1;
    next.rows.push(stored(3, &next.lives[1].records[0]));
    (next.position, next.log_end) = (Some((NEXT_LIFE, 1)), 1);
    next.marks.insert(next_run, 2);
    expect_wrong(&next, false, "number 4: neither recorded nor in a gap");
    next.gaps.push(StoredGap::Sequence { run: next_run, from: 0, to: 1 });
    let judgement = judge(&next, false);
    assert_eq!(judgement.wrong, [""; 0]);
    assert_eq!(judgement.account.unread, 3);
    // A hole before it shows by that record alone, too, but none before what was read.
    let mut hole = last.clone();
    hole.lives[0].records[4] = tapped(4, 5, false);
    let judgement = judge(&hole, false);
    assert_eq!(judgement.wrong, [""; 0]);
    assert_eq!(judgement.account.unread, 3);
    hole.rows.remove(1);
    hole.lives[0].records.drain(1..3);
    expect_wrong(&hole, false, "number 1: neither recorded nor in a gap");
    last.gaps.clear();
    expect_wrong(&last, false, "no broken record");
}

#[test]
fn a_position_or_a_mark_stays_behind() {
    let mut facts = good();
    facts.position = Some((LIFE, 4));
    expect_wrong(&facts, false, "the position is");
    let mut facts = good();
    facts.marks.insert(RUN, 3);
    expect_wrong(&facts, false, "the mark is Some(3)");
    let mut facts = good();
    facts.lives[0].next_offset = 4;
    expect_wrong(&facts, false, "the tap read up to 4");
}

/// In smart mode a row keeps the higher offset of before its topic was made again,
/// and so stands behind what came after it in the same second.
#[test]
fn a_run_that_begins_in_the_second_of_another_may_be_two_rows() {
    let of = |run: Uuid, number: i64, second: i64, offset: i64| Tapped {
        identity: Some(Identity { run, sequence: number }),
        value: value(second, true),
        ..tapped(offset, 0, true)
    };
    let (old, new) = (RUN, Uuid::from_u128(4));
    let before = of(old, 0, 99, 20);
    let after = [of(old, 1, 100, 0), of(new, 0, 100, 1), of(new, 1, 101, 2)];
    let row = |id: i64, last: &Tapped, offset: i64, results: i32| {
        let mut row = stored(id, last);
        row.columns.offset = offset;
        row.columns.results = results;
        row
    };
    let mut facts = TopicFacts {
        log_end: 3,
        rows: vec![row(1, &after[0], 20, 2), row(2, &after[1], 1, 1), row(3, &after[2], 2, 1)],
        quarantined: Vec::new(),
        gaps: vec![StoredGap::Offsets { topic_id: LIFE, from: 21, to: None }],
        marks: HashMap::from([(old, 2), (new, 2)]),
        position: Some((NEXT_LIFE, 3)),
        lives: vec![
            TopicLife { id: LIFE, records: vec![before], next_offset: 21 },
            TopicLife { id: NEXT_LIFE, records: after.to_vec(), next_offset: 3 },
        ],
        ..good()
    };
    assert_eq!(judge(&facts, true).wrong, [""; 0]);
    // One is as good.
    let mut one = facts.clone();
    one.rows.remove(1);
    one.rows[1].columns.results = 2;
    assert_eq!(judge(&one, true).wrong, [""; 0]);
    facts.rows.remove(1);
    expect_wrong(&facts, true, "no row for offset 2");
}
