//! Results that come twice or never, told by their identity.

use common::identity::{Ended, Run};
use kafka_client::ProduceRecord;
use testkit::services::shared;

use crate::support::{World, ok};

/// A gap by numbers: run, first number, the one after the last, offset, reason.
type Gap = (String, i64, i64, i64, String);

fn gaps(world: &mut World) -> Vec<Gap> {
    let sql = "select run::text, from_sequence, to_sequence, from_offset, reason \
               from availability_gap where run is not null and to_offset = from_offset order by id";
    let rows = world.database.query(sql, &[]).unwrap();
    rows.iter().map(|r| (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4))).collect()
}

/// The runs that have a mark and the number after the highest, by number.
fn marks(world: &mut World) -> Vec<(String, i64)> {
    let sql = "select run::text, next_sequence from availability_mark order by next_sequence";
    let rows = world.database.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn id(run: &Run) -> String {
    run.id().to_string()
}

/// Goes red when `try_write` does not leave out what `judge` drops, or `judge`
/// does not store what is missing.
#[test]
fn what_comes_twice_is_one_row_and_what_never_comes_is_a_gap() {
    let mut world = World::new(&shared().unwrap());
    let (one, other) = (Run::new().unwrap(), Run::new().unwrap());
    // Offsets 0 to 3: the second and the third are the same result.
    world.produce_of(&one, [(0, ok(1)), (1, ok(2)), (1, ok(2)), (4, ok(5))]);
    let recorder = world.recorder();
    world.expect_position(4);
    assert_eq!(world.offsets(), [0, 1, 3]);
    let hole = format!("missing sequence numbers: 2 to 3 of run {}", id(&one));
    let first_gap = (id(&one), 2, 4, 3, hole);
    assert_eq!(gaps(&mut world), std::slice::from_ref(&first_gap));
    // Offsets 4 to 9: again, a new run, one without and one with a broken
    // identity, and a run whose beginning nobody saw.
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
        log.contains("8 rows, 0 merged records, 0 in quarantine, 2 duplicates dropped"),
        "{log}"
    );
    assert!(
        log.contains("1 records with a broken identity, recorded without it (first at offset 8: header sequence: 1 bytes, expected 8)"),
        "{log}"
    );
    // The first batch's are said at once, the others when the recorder ends.
    assert_eq!(log.matches("results of a tracker never came").count(), 2, "{log}");
    assert_eq!(log.matches("records dropped, as they are recorded already").count(), 2, "{log}");
}

/// Goes red when `Identities::new` does not look for ended runs.
#[test]
fn the_end_of_a_run_that_another_tells_of_is_a_gap_once() {
    let mut world = World::new(&shared().unwrap());
    let (one, other) = (Run::new().unwrap(), Run::new().unwrap());
    world.produce_of(&one, (0..3).map(|n| (n, ok(n))));
    let recorder = world.recorder();
    world.expect_position(3);
    let telling = |sequence| {
        let mut headers = other.headers(sequence);
        headers.push(Ended { run: one.id(), count: 5 }.header());
        headers.push(Ended { run: one.id(), count: 2 }.header());
        let value = ok(10 + sequence).into();
        ProduceRecord { timestamp_ms: 1_700_000_000_000, value, headers }
    };
    // Twice, the second time to a recorder that remembers nothing; and then what
    // was thought to be lost.
    world.produce_records(vec![telling(0)]);
    world.expect_position(4);
    recorder.kill();
    world.produce_records(vec![telling(1)]);
    world.produce_of(&one, [(4, ok(4))]);
    let recorder = world.recorder();
    world.expect_position(6);
    assert_eq!(world.offsets(), [0, 1, 2, 3, 4]);
    let reason = format!("missing sequence numbers: 3 to 4 of run {}, its last", id(&one));
    assert_eq!(gaps(&mut world), [(id(&one), 3, 5, 3, reason)]);
    assert_eq!(marks(&mut world), [(id(&other), 2), (id(&one), 5)]);
    recorder.stop();
}

/// Goes red when `judge` does not ask for `MARKS` or does not execute
/// `MARKS_MOVE`.
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
    // A new client: the old one's producer knows the old topic.
    let mut again = World::new(&world.services);
    again.topic = world.topic.clone();
    again.produce_of(&run, (6..9).map(|n| (n, ok(n))));
    world.expect_position(3);
    assert_eq!(world.offsets(), [0, 1, 2, 3, 4, 7, 8, 1, 2]);
    assert_eq!(gaps(&mut world), []);
    assert_eq!(marks(&mut world), [(id(&run), 9)]);
    recorder.stop();
}

/// Goes red when `judge` is given only the records that are rows, or when
/// `leave_out` does not look at `quarantined`.
#[test]
fn what_goes_to_quarantine_moves_the_mark_and_goes_there_once() {
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    let nonsense = || b"nonsense".to_vec();
    world.produce_of(&run, [(0, nonsense()), (1, ok(1)), (0, nonsense()), (2, nonsense())]);
    let recorder = world.recorder();
    world.expect_position(4);
    // What only the database refuses, too.
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

/// Goes red when `record` does not forget the marks: it would take what the
/// other recorded for a hole.
#[test]
fn who_lost_the_position_sees_no_hole_in_what_the_other_recorded() {
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    world.produce_of(&run, (0..10).map(|n| (n, ok(n))));
    let stopped = world.recorder();
    world.expect_position(10);
    let holder = "select holder::text from availability_lease";
    let holder: String = world.database.query_one(holder, &[]).unwrap().get(0);
    stopped.signal("STOP");
    let other = world.recorder();
    world.produce_of(&run, (10..20).map(|n| (n, ok(n))));
    world.expect_position(20);
    other.kill();
    // Its lease comes back to it before it looks, so that its thread goes on.
    let back = format!(
        "update availability_recorder set expires_at = now() + interval '9 s' where holder = '{holder}';
         update availability_lease set holder = '{holder}'"
    );
    world.database.batch_execute(&back).unwrap();
    stopped.signal("CONT");
    world.produce_of(&run, (20..30).map(|n| (n, ok(n))));
    world.expect_position(30);
    assert_eq!(world.offsets(), (0..30).collect::<Vec<_>>());
    assert_eq!(gaps(&mut world), []);
    assert_eq!(marks(&mut world), [(id(&run), 30)]);
    stopped.stop();
}

/// What was in a database then.
const BEFORE: &str = r#"create table "availability_offset" ("topic" text not null, "partition" integer not null, "topic_id" uuid not null, "next_offset" bigint not null, "counted_after_id" bigint not null default 0, "updated_at" timestamp with time zone not null default current_timestamp, primary key ("topic", "partition"));
        create table "availability_gap" ("id" bigserial primary key, "topic" text not null, "topic_id" uuid not null, "partition" integer not null, "from_offset" bigint not null, "to_offset" bigint, "reason" text not null, "at" timestamp with time zone not null default current_timestamp);
        insert into "availability_gap" ("topic", "topic_id", "partition", "from_offset", "to_offset", "reason") values ('t', '00000000-0000-0000-0000-000000000001', 0, 5, 7, 'kept');"#;

/// Goes red when `look` does not look for the gap table's columns, or the
/// schema lacks the table of marks.
#[test]
fn a_database_from_before_there_were_marks_is_completed() {
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

/// Goes red when `script` does not add the gap table's columns.
#[test]
fn the_script_completes_a_database_from_before_there_were_marks() {
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

/// Goes red when `remove_old` is not called, or does not look at the time.
#[test]
fn marks_of_runs_silent_for_long_are_removed() {
    let mut world = World::new(&shared().unwrap());
    let (old, silent, new) = (Run::new().unwrap(), Run::new().unwrap(), Run::new().unwrap());
    world.produce_of(&old, [(0, ok(1))]);
    world.produce_of(&silent, [(0, ok(2)), (1, ok(2))]);
    world.produce_of(&new, [(0, ok(3)), (1, ok(3)), (2, ok(3))]);
    let recorder = world.recorder();
    world.expect_position(6);
    assert_eq!(marks(&mut world), [(id(&old), 1), (id(&silent), 2), (id(&new), 3)]);
    recorder.stop();
    // The clock is the database's.
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
    recorder.expect_log("removed the marks of 1 old runs");
    recorder.stop();
}
