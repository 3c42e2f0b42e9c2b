//! Tests of duplicate and missing results, which are detected by their identities.

use common::identity::{EndedRun, Run};
use kafka_client::ProduceRecord;
use testkit::services::shared;

use crate::support::{World, ok};

/// A gap in sequence numbers: run, first number, number after the last, offset, reason.
type Gap = (String, i64, i64, i64, String);

fn gaps(world: &mut World) -> Vec<Gap> {
    let sql = "select run::text, from_sequence, to_sequence, from_offset, reason \
               from availability_gap where run is not null and to_offset = from_offset order by id";
    let rows = world.database.query(sql, &[]).unwrap();
    rows.iter().map(|r| (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4))).collect()
}

/// The marks: runs with their next sequence numbers, ordered by number.
fn marks(world: &mut World) -> Vec<(String, i64)> {
    let sql = "select run::text, next_sequence from availability_mark order by next_sequence";
    let rows = world.database.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn id(run: &Run) -> String {
    run.id().to_string()
}

#[test]
fn a_duplicate_result_is_one_row_and_a_missing_result_is_a_gap() {
    let mut world = World::new(&shared().unwrap());
    let (one, other) = (Run::new().unwrap(), Run::new().unwrap());
    // Offsets 0 to 3: the second and the third record are the same result.
    world.produce_of(&one, [(0, ok(1)), (1, ok(2)), (1, ok(2)), (4, ok(5))]);
    let recorder = world.recorder();
    world.expect_position(4);
    assert_eq!(world.offsets(), [0, 1, 3]);
    let hole = format!("missing sequence numbers: 2 to 3 of run {}", id(&one));
    let first_gap = (id(&one), 2, 4, 3, hole);
    assert_eq!(gaps(&mut world), std::slice::from_ref(&first_gap));
    // Offsets 4 to 9: a duplicate, a new run, a record without an identity, a record with a
    // malformed identity, and a run whose first results are missing.
    world.produce_of(&one, [(4, ok(5)), (5, ok(6))]);
    world.produce_of(&other, [(0, ok(7))]);
    world.produce([ok(8)]);
    let mut broken = one.headers(6);
    broken[1].1 = bytes::Bytes::from_static(&[6]);
    world.produce_records(vec![ProduceRecord {
        timestamp_ms: 1_700_000_000_000,
        value: ok(9).into(),
        headers: broken,
    }]);
    let late = Run::new().unwrap();
    world.produce_of(&late, [(100, ok(10))]);
    world.expect_position(10);
    assert_eq!(world.offsets(), [0, 1, 3, 5, 6, 7, 8, 9]);
    let beginning = format!("missing sequence numbers: 0 to 99 of run {}", id(&late));
    assert_eq!(gaps(&mut world), [first_gap, (id(&late), 0, 100, 9, beginning)]);
    assert_eq!(marks(&mut world), [(id(&other), 1), (id(&one), 6), (id(&late), 101)]);
    let (_, _, log) = recorder.stop();
    assert!(
        log.contains(
            "inserted rows: 8, merged records: 0, records in quarantine: 0, dropped duplicates: 2"
        ),
        "{log}"
    );
    assert!(
        log.contains("malformed identity in 1 record, recorded without it (first at offset 8: header sequence: 1 bytes, expected 8)"),
        "{log}"
    );
    // The results of the first batch are logged at once, the other results when the recorder stops.
    assert_eq!(log.matches("results never arrived").count(), 2, "{log}");
    assert_eq!(log.matches(": dropped 1 duplicate record").count(), 2, "{log}");
}

/// A later run of the tracker reports the number of results of an earlier run. Missing results at
/// the end of the earlier run are one gap, however often they are reported.
#[test]
fn missing_results_at_the_end_of_a_run_are_one_gap() {
    let mut world = World::new(&shared().unwrap());
    let (one, other) = (Run::new().unwrap(), Run::new().unwrap());
    world.produce_of(&one, (0..3).map(|n| (n, ok(n))));
    let recorder = world.recorder();
    world.expect_position(3);
    let reporting = |sequence| {
        let mut headers = other.headers(sequence);
        headers.push(EndedRun { run: one.id(), count: 5 }.header());
        headers.push(EndedRun { run: one.id(), count: 2 }.header());
        let value = ok(10 + sequence).into();
        ProduceRecord { timestamp_ms: 1_700_000_000_000, value, headers }
    };
    // Reported twice, the second time to a new recorder; then a missing result arrives.
    world.produce_records(vec![reporting(0)]);
    world.expect_position(4);
    recorder.kill();
    world.produce_records(vec![reporting(1)]);
    world.produce_of(&one, [(4, ok(4))]);
    let recorder = world.recorder();
    world.expect_position(6);
    assert_eq!(world.offsets(), [0, 1, 2, 3, 4]);
    let reason = format!("missing sequence numbers: 3 to 4 of run {}, its last", id(&one));
    assert_eq!(gaps(&mut world), [(id(&one), 3, 5, 3, reason)]);
    assert_eq!(marks(&mut world), [(id(&other), 2), (id(&one), 5)]);
    recorder.stop();
}

#[test]
fn marks_outlive_the_recorder_and_the_topic() {
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    world.produce_of(&run, (0..5).map(|n| (n, ok(n))));
    let recorder = world.recorder();
    world.expect_position(5);
    recorder.kill();
    world.produce_of(&run, (3..7).map(|n| (n, ok(n))));
    let recorder = world.recorder();
    world.expect_position(9);
    assert_eq!(world.offsets(), [0, 1, 2, 3, 4, 7, 8]);
    world.delete_topic();
    // A new producer is needed, because the old producer uses the id of the old topic.
    let mut again = World::new(&world.services);
    again.topic = world.topic.clone();
    again.produce_of(&run, (6..9).map(|n| (n, ok(n))));
    world.expect_position(3);
    assert_eq!(world.offsets(), [0, 1, 2, 3, 4, 7, 8, 1, 2]);
    assert_eq!(gaps(&mut world), []);
    assert_eq!(marks(&mut world), [(id(&run), 9)]);
    recorder.stop();
}

/// Records in quarantine move the mark, too, and their duplicates are dropped.
#[test]
fn a_record_in_quarantine_is_stored_there_once() {
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    let nonsense = || b"nonsense".to_vec();
    world.produce_of(&run, [(0, nonsense()), (1, ok(1)), (0, nonsense()), (2, nonsense())]);
    let recorder = world.recorder();
    world.expect_position(4);
    // A row that is valid for the recorder, but that the database refuses.
    let constraint = format!("alter table {} add check (event_time <> 7)", world.table());
    world.database.batch_execute(&constraint).unwrap();
    world.produce_of(&run, [(2, nonsense()), (3, ok(7)), (3, ok(7)), (4, ok(8))]);
    world.expect_position(8);
    assert_eq!(world.offsets(), [1, 7]);
    let offsets = "select \"offset\" from availability_quarantine order by 1";
    let rows = world.database.query(offsets, &[]).unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [0, 3, 5]);
    assert_eq!(gaps(&mut world), []);
    assert_eq!(marks(&mut world), [(id(&run), 5)]);
    recorder.stop();
}

/// A fenced recorder reads the marks again. It reports no gap for results that another recorder has
/// recorded.
#[test]
fn a_fenced_recorder_sees_no_gap_in_results_recorded_by_another() {
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    world.produce_of(&run, (0..10).map(|n| (n, ok(n))));
    let suspended = world.recorder();
    world.expect_position(10);
    let holder = "select holder::text from availability_lease";
    let holder: String = world.database.query_one(holder, &[]).unwrap().get(0);
    suspended.signal("STOP");
    let other = world.recorder();
    world.produce_of(&run, (10..20).map(|n| (n, ok(n))));
    world.expect_position(20);
    other.kill();
    // The recorder gets its lease back before it reads the leases, so that its worker continues.
    let back = format!(
        "update availability_recorder set expires_at = now() + interval '9 s' where holder = '{holder}';
         update availability_lease set holder = '{holder}'"
    );
    world.database.batch_execute(&back).unwrap();
    suspended.signal("CONT");
    world.produce_of(&run, (20..30).map(|n| (n, ok(n))));
    world.expect_position(30);
    assert_eq!(world.offsets(), (0..30).collect::<Vec<_>>());
    assert_eq!(gaps(&mut world), []);
    assert_eq!(marks(&mut world), [(id(&run), 30)]);
    suspended.stop();
}

/// The tables of a version without marks.
const BEFORE: &str = r#"create table "availability_offset" ("topic" text not null, "partition" integer not null, "topic_id" uuid not null, "next_offset" bigint not null, "counted_after_id" bigint not null default 0, "updated_at" timestamp with time zone not null default current_timestamp, primary key ("topic", "partition"));
        create table "availability_gap" ("id" bigserial primary key, "topic" text not null, "topic_id" uuid not null, "partition" integer not null, "from_offset" bigint not null, "to_offset" bigint, "reason" text not null, "at" timestamp with time zone not null default current_timestamp);
        insert into "availability_gap" ("topic", "topic_id", "partition", "from_offset", "to_offset", "reason") values ('t', '00000000-0000-0000-0000-000000000001', 0, 5, 7, 'kept');"#;

#[test]
fn the_recorder_completes_a_database_without_marks() {
    let mut world = World::new(&shared().unwrap());
    world.database.batch_execute(BEFORE).unwrap();
    let run = Run::new().unwrap();
    world.produce_of(&run, [(0, ok(1)), (2, ok(2))]);
    let recorder = world.recorder();
    world.expect_position(2);
    assert_eq!(gaps(&mut world).len(), 1);
    assert_eq!(marks(&mut world), [(id(&run), 3)]);
    let kept = "select count(*) from availability_gap where reason = 'kept' and run is null";
    assert_eq!(world.number(kept), Some(1));
    let (_, _, log) = recorder.stop();
    assert!(log.contains("parts of the schema"), "{log}");
}

#[test]
fn the_script_completes_a_database_without_marks() {
    let mut world = World::new(&shared().unwrap());
    world.database.batch_execute(BEFORE).unwrap();
    let script = std::process::Command::new(env!("CARGO_BIN_EXE_recorder"))
        .env_clear()
        .args(["schema", "--domain", world.domain.as_str()])
        .output()
        .unwrap();
    world.database.batch_execute(&String::from_utf8(script.stdout).unwrap()).unwrap();
    let run = Run::new().unwrap();
    world.produce_of(&run, [(0, ok(1)), (2, ok(2))]);
    let recorder = world.recorder();
    world.expect_position(2);
    assert_eq!(gaps(&mut world).len(), 1);
    let (_, _, log) = recorder.stop();
    assert!(!log.contains("parts of the schema"), "{log}");
}

#[test]
fn marks_of_runs_without_results_for_long_are_removed() {
    let mut world = World::new(&shared().unwrap());
    let (old, silent, new) = (Run::new().unwrap(), Run::new().unwrap(), Run::new().unwrap());
    world.produce_of(&old, [(0, ok(1))]);
    world.produce_of(&silent, [(0, ok(2)), (1, ok(2))]);
    world.produce_of(&new, [(0, ok(3)), (1, ok(3)), (2, ok(3))]);
    let recorder = world.recorder();
    world.expect_position(6);
    assert_eq!(marks(&mut world), [(id(&old), 1), (id(&silent), 2), (id(&new), 3)]);
    recorder.stop();
    // The database computes ages by its own clock.
    let age = format!(
        "update availability_mark set updated_at = now() - case run when '{}' then interval '31 days' \
         else interval '29 days' end where run <> '{}'",
        id(&old),
        id(&new)
    );
    world.database.batch_execute(&age).unwrap();
    let recorder = world.recorder();
    world.expect("select count(*) from availability_mark", 2);
    assert_eq!(marks(&mut world), [(id(&silent), 2), (id(&new), 3)]);
    recorder.expect_log("removed marks of 1 old run");
    recorder.stop();
}
