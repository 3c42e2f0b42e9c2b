//! Tests of smart mode: which results are merged into one row.

use common::identity::Run;
use common::record::Extra;
use kafka_client::ProduceRecord;
use testkit::services::shared;

use crate::extra_columns::{OLD_ROW, changed, schema};
use crate::support::{World, failed, now_ms, ok, result};

#[test]
fn smart_mode_survives_a_restart_and_keeps_the_order_of_events() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(10), ok(20), failed(30), ok(40)]);
    let smart = [("SMART", "true")];
    let recorder = world.recorder_with(&smart);
    world.expect_position(4);
    assert_eq!(world.history(), ["20 1 ok", "30 2 forbidden", "40 3 ok"]);
    // Another location is another target.
    world.produce([ok(50), result(50, "oslo", "https://a.example/", "ok"), ok(60)]);
    world.expect_position(7);
    assert_eq!(world.history(), ["20 1 ok", "30 2 forbidden", "50 5 ok", "60 6 ok"]);
    recorder.stop();
    let recorder = world.recorder_with(&smart);
    world.produce([ok(70), result(70, "oslo", "https://a.example/", "ok")]);
    world.expect_position(9);
    assert_eq!(world.history(), ["20 1 ok", "30 2 forbidden", "70 7 ok", "70 8 ok"]);
    // Late results before and after the failure, then a late failure.
    world.produce([ok(25), ok(35), failed(26)]);
    world.expect_position(12);
    assert_eq!(
        world.history(),
        ["25 9 ok", "26 11 forbidden", "30 2 forbidden", "70 8 ok", "70 10 ok"]
    );
    world.produce([ok(80)]);
    world.expect_position(13);
    assert_eq!(world.history().last().unwrap(), "80 12 ok");
    // Another session inserts a row, which invalidates what the recorder remembers.
    let table = world.table();
    let failure = format!(
        "insert into {table} (topic_offset, test_from, url, event_time, status, phrase) \
         values (12, 'sydney', 'https://a.example/', 85, 'responsive', 'forbidden')"
    );
    world.database.batch_execute(&failure).unwrap();
    world.produce([ok(90)]);
    world.expect_position(14);
    assert_eq!(world.history()[4..], ["80 12 ok", "85 12 forbidden", "90 13 ok"]);
    recorder.stop();
}

/// The rows of a target: time, offset, phrase, number of results, slot, sequence number.
fn rows(world: &mut World) -> Vec<String> {
    let sql = format!(
        "select concat_ws(' ', event_time, topic_offset, phrase, results, slot, sequence) from {} \
         order by event_time, topic_offset",
        world.table()
    );
    world.database.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Results of every kind that smart mode must not merge with others.
fn results_of_all_kinds(run: &Run, other: &Run) -> Vec<ProduceRecord> {
    type Change = fn(&mut Extra);
    let mut results = Vec::new();
    let mut add = |run: &Run, sequence: i64, phrase: &str, change: Change| {
        let second = results.len() as i64;
        let value = changed(second, |record| {
            record.phrase = phrase.to_owned();
            record.extra = Extra {
                healthy: Some(true),
                attempts: Some(1),
                period_ms: Some(1_000),
                slot: Some(second),
                ..Extra::default()
            };
            change(&mut record.extra);
        });
        results.push(ProduceRecord {
            timestamp_ms: now_ms(),
            value: value.into(),
            headers: run.headers(sequence),
        });
    };
    let plain: Change = |_| {};
    let marked: [Change; 5] = [
        |extra| extra.reason = Some("too_slow".into()),
        |extra| extra.attempts = Some(2),
        |extra| extra.missed = [("clock".to_owned(), 2)].into(),
        |extra| extra.others_failing = Some(true),
        |extra| extra.no_network = Some(true),
    ];
    add(run, 0, "ok", plain);
    add(run, 1, "ok", plain);
    // A result without a mark is not merged into a marked row.
    for (number, mark) in (1..).zip(marked) {
        add(run, 2 * number, "ok", mark);
        add(run, 2 * number + 1, "ok", plain);
    }
    add(run, 12, "found", plain);
    add(run, 13, "found", plain);
    add(run, 14, "found", |extra| extra.healthy = Some(false));
    add(run, 15, "found", plain);
    add(run, 16, "found", |extra| extra.period_ms = Some(2_000));
    add(run, 17, "found", |extra| extra.name = Some("another".into()));
    add(run, 18, "found", |extra| (extra.period_ms, extra.slot) = (Some(2_000), Some(17)));
    add(run, 19, "found", |extra| {
        (extra.name, extra.slot) = (Some("another".into()), Some(18));
    });
    add(other, 0, "found", |extra| extra.period_ms = Some(2_000));
    add(other, 1, "found", |extra| extra.period_ms = Some(2_000));
    results
}

/// The rows of [`results_of_all_kinds`].
const EXPECTED_ROWS: [&str; 17] = [
    "1 1 ok 2 1 1",
    "2 2 ok 1 2 2",
    "3 3 ok 1 3 3",
    "4 4 ok 1 4 4",
    "5 5 ok 1 5 5",
    "6 6 ok 1 6 6",
    "7 7 ok 1 7 7",
    "8 8 ok 1 8 8",
    "9 9 ok 1 9 9",
    "10 10 ok 1 10 10",
    "11 11 ok 1 11 11",
    "13 13 found 2 13 13",
    "14 14 found 1 14 14",
    "15 15 found 1 15 15",
    "18 18 found 2 17 18",
    "19 19 found 2 18 19",
    "21 21 found 2 21 1",
];

/// Smart mode merges only results of the same kind. This holds whether it remembers the last row of
/// the target or reads it from the table.
#[test]
fn smart_mode_merges_only_results_of_the_same_kind() {
    let services = shared().unwrap();
    let (run, other) = (Run::new().unwrap(), Run::new().unwrap());
    // One batch is merged in memory.
    let mut at_once = World::new(&services);
    at_once.produce_records(results_of_all_kinds(&run, &other));
    let recorder = at_once.recorder_with(&[("SMART", "true")]);
    at_once.expect_position(22);
    recorder.stop();
    assert_eq!(rows(&mut at_once), EXPECTED_ROWS);
    // A single result is merged with a row that is read from the table, because a row of another
    // session invalidates the remembered rows.
    let mut one_by_one = World::new(&services);
    let recorder = one_by_one.recorder_with(&[("SMART", "true")]);
    for (position, result) in results_of_all_kinds(&run, &other).into_iter().enumerate() {
        if position > 0 {
            let row = OLD_ROW.replace("TABLE", &one_by_one.table());
            let row = row.replace("https://a.example/", "https://of.another.session/");
            one_by_one.database.batch_execute(&row).unwrap();
        }
        one_by_one.produce_records(vec![result]);
        one_by_one.expect_position(position as i64 + 1);
    }
    recorder.stop();
    let table = one_by_one.table();
    let others = format!("delete from {table} where url = 'https://of.another.session/'");
    one_by_one.database.batch_execute(&others).unwrap();
    assert_eq!(rows(&mut one_by_one), EXPECTED_ROWS);
}

/// The look-up of the last row of a target reads a bounded number of rows. An old row of the name
/// behind many rows of other names is not found, and a new row is inserted.
#[test]
fn the_look_up_of_a_target_reads_a_bounded_number_of_rows() {
    let mut world = World::new(&shared().unwrap());
    let script = schema(&world);
    world.database.batch_execute(&script).unwrap();
    let table = world.table();
    let fill = format!(
        "insert into {table} (topic_offset, test_from, url, event_time, status, phrase, name) \
         select -1, 'sydney', 'https://a.example/', n, 'responsive', 'ok', \
         case when n > 1 then 'other' else 'front' end from generate_series(1, 10001) as n"
    );
    world.database.batch_execute(&fill).unwrap();
    let named = |second| changed(second, |record| record.extra.name = Some("front".into()));
    world.produce([named(20_000), named(20_001)]);
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(2);
    recorder.stop();
    let rows = format!(
        "select string_agg(concat_ws(' ', event_time, results), ', ' order by id) \
         from {table} where name = 'front'"
    );
    assert_eq!(world.text(&rows), "1, 20001 2");
}

/// A healthy result of a slot. Its period is 10 s, and its `total_us` is the number of the slot.
fn of_slot(run: &Run, sequence: i64, slot: i64, change: impl FnOnce(&mut Extra)) -> ProduceRecord {
    let value = changed(1_000 + 10 * slot, |record| {
        record.extra = Extra {
            healthy: Some(true),
            attempts: Some(1),
            period_ms: Some(10_000),
            slot: Some(slot),
            total_us: Some(slot),
            ..Extra::default()
        };
        change(&mut record.extra);
    });
    ProduceRecord { timestamp_ms: now_ms(), value: value.into(), headers: run.headers(sequence) }
}

/// The rows of a target: last time, number of results, last slot; then the columns of merged
/// rows: first time and offset, and sum, minimum and maximum of `total_us`.
fn merged_rows(world: &mut World) -> Vec<String> {
    let sql = format!(
        "select concat_ws(' ', event_time, results, slot, '|', \
         coalesce(first_event_time || ' ' || first_offset, '-'), \
         coalesce(total_us_sum || ' ' || total_us_min || ' ' || total_us_max, '-')) from {} \
         order by event_time, topic_offset",
        world.table()
    );
    world.database.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// A row stores its first result and the times of all its results, whether it was merged in memory
/// or in the table. A slot without a result ends a row.
#[test]
fn a_merged_row_stores_its_first_result_and_the_times_of_all() {
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    let plain = |sequence: i64, slot: i64| of_slot(&run, sequence, slot, |_| {});
    // Slot 4 is missing.
    world.produce_records([0, 1, 2, 3, 5].map(|slot| plain(slot, slot)).to_vec());
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(5);
    let first = "1030 4 3 | 1000 0 6 0 3";
    assert_eq!(merged_rows(&mut world), [first, "1050 1 5 | - -"]);
    // Merged into a row of one result, which the recorder remembers.
    world.produce_records(vec![plain(6, 6)]);
    world.expect_position(6);
    assert_eq!(merged_rows(&mut world), [first, "1060 2 6 | 1050 4 11 5 6"]);
    // Merged into rows that are read from the table: after the last slot, and before the first
    // slot.
    recorder.stop();
    let other = Run::new().unwrap();
    world.produce_records(vec![of_slot(&other, 0, 20, |_| {}), plain(7, 7), plain(8, 4)]);
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(9);
    assert_eq!(merged_rows(&mut world), [first, "1070 4 7 | 1040 8 22 4 7", "1200 1 20 | - -"]);
    // Results without `total_us`, or with a `total_us` out of range.
    world.produce_records(vec![
        of_slot(&other, 1, 21, |extra| extra.total_us = None),
        of_slot(&other, 2, 22, |extra| extra.total_us = None),
        of_slot(&other, 3, 23, |extra| extra.total_us = Some(i64::MAX)),
        of_slot(&other, 4, 24, |extra| extra.total_us = Some(i64::MAX)),
    ]);
    world.expect_position(13);
    assert_eq!(
        merged_rows(&mut world)[2..],
        ["1200 1 20 | - -", "1220 2 22 | 1210 9 -", "1230 1 23 | - -", "1240 1 24 | - -"]
    );
    recorder.stop();
}

/// No result is merged into a row that an earlier version merged. A row of one result is the same
/// in this version and in earlier versions.
#[test]
fn a_row_that_an_earlier_version_merged_stays_as_it_is() {
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    world.produce_records(vec![
        of_slot(&run, 0, 0, |_| {}),
        of_slot(&run, 1, 1, |extra| extra.name = Some("single".into())),
    ]);
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(2);
    recorder.stop();
    // Merges like earlier versions: without a first time, and across a missing slot.
    let merge = format!(
        "update {} set results = 3, slot = 5, event_time = 1050 where name is null",
        world.table()
    );
    world.database.batch_execute(&merge).unwrap();
    world.produce_records(vec![
        of_slot(&run, 2, 6, |_| {}),
        of_slot(&run, 3, 7, |_| {}),
        of_slot(&run, 4, 2, |extra| extra.name = Some("single".into())),
    ]);
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(5);
    recorder.stop();
    assert_eq!(
        merged_rows(&mut world),
        ["1020 2 2 | 1010 1 3 1 2", "1050 3 5 | - -", "1070 2 7 | 1060 2 13 6 7"]
    );
}

/// The results of a run may arrive in any order and in any batches. No result lies inside a row
/// that does not include it.
#[test]
fn no_result_lies_inside_a_merged_row() {
    const SLOTS: i64 = 60;
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    let mut random = fastrand::Rng::with_seed(15);
    let mut slots: Vec<i64> = (0..SLOTS).collect();
    random.shuffle(&mut slots);
    let records = (0..).zip(&slots).map(|(sequence, &slot)| {
        of_slot(&run, sequence, slot, |extra| extra.healthy = Some(slot % 10 != 9))
    });
    let records: Vec<_> = records.collect();
    let recorder = world.recorder_with(&[("SMART", "true")]);
    for (end, records) in (12..).step_by(12).zip(records.chunks(12)) {
        world.produce_records(records.to_vec());
        world.expect_position(end);
    }
    recorder.stop();
    let table = world.table();
    let inside = format!(
        "select count(*) from {table} as merged join {table} as other on other.id <> merged.id \
         and other.event_time >= merged.first_event_time \
         and coalesce(other.first_event_time, other.event_time) <= merged.event_time"
    );
    assert_eq!(world.number(&inside), Some(0));
    let results = format!("select sum(results) from {table}");
    assert_eq!(world.number(&results), Some(SLOTS));
    let total_us = format!("select sum(coalesce(total_us_sum, total_us))::bigint from {table}");
    assert_eq!(world.number(&total_us), Some(SLOTS * (SLOTS - 1) / 2));
    assert!(world.number(&format!("select count(*) from {table}")).unwrap() < SLOTS);
}

/// The results of a target are in three partitions. Each result is in one row, and the slots of
/// rows do not overlap.
#[test]
fn results_from_several_partitions_share_rows() {
    const SLOTS: i64 = 60;
    let mut world = World::new(&shared().unwrap());
    world.client().create_topic_with(&world.topic, 3, 1, &[]).unwrap();
    let recorder = world.recorder_with(&[("SMART", "true")]);
    let topic = world.topic.clone();
    let positions = format!(
        "select coalesce(sum(next_offset), 0)::bigint from availability_offset \
         where topic = '{topic}'"
    );
    let value = |slot: i64| {
        changed(1_000 + 10 * slot, |record| {
            record.extra.period_ms = Some(10_000);
            record.extra.slot = Some(slot);
            record.extra.total_us = Some(slot);
        })
    };
    // Each part is written while the recorder remembers the rows of the earlier parts.
    for part in 0..SLOTS / 6 {
        for partition in 0..3 {
            let slots = [6 * part + i64::from(partition), 6 * part + 3 + i64::from(partition)];
            world.produce_to(partition, slots.map(value));
        }
        world.expect(&positions, 6 * (part + 1));
    }
    recorder.stop();
    let table = world.table();
    let wrong = format!(
        "select count(*) from {table} where event_time <> 1000 + 10 * slot \
         or first_event_time <> 1000 + 10 * (slot - results + 1) \
         or total_us_min <> slot - results + 1 or total_us_max <> slot \
         or 2 * total_us_sum <> results * (2 * slot - results + 1) \
         or (results > 1) <> (first_event_time is not null and total_us_sum is not null)"
    );
    assert_eq!(world.number(&wrong), Some(0));
    let overlapping = format!(
        "select count(*) from {table} as one join {table} as other on one.id <> other.id \
         and int8range(one.slot - one.results + 1, one.slot, '[]') \
             && int8range(other.slot - other.results + 1, other.slot, '[]')"
    );
    assert_eq!(world.number(&overlapping), Some(0));
    let results = format!("select sum(results) from {table}");
    assert_eq!(world.number(&results), Some(SLOTS));
    assert!(world.number(&format!("select count(*) from {table}")).unwrap() < SLOTS);
}
