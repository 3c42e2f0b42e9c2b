//! Tests in which the database refuses a row, a table, a statement, or too much work at once.

use std::time::Duration;

use recorder::timings::Timings;
use testkit::services::shared;

use crate::schema::create_schema_of_1_1_0;
use crate::support::{Recorder, World, eventually, ok};

/// Statements that make the table refuse or delay some rows.
fn add_trigger(world: &mut World, body: &str) {
    let table = world.table();
    let sql = format!(
        "create or replace function refuse() returns trigger language plpgsql as \
         $$ begin {body} return new; end $$;
         create trigger refuse before insert on {table} for each row execute function refuse();"
    );
    world.database.batch_execute(&sql).unwrap();
}

fn count_quarantined(world: &mut World) -> Option<i64> {
    world.number("select count(*) from availability_quarantine")
}

fn reasons(world: &mut World) -> Vec<(i64, String)> {
    let sql = "select \"offset\", reason from availability_quarantine order by 1";
    let rows = world.database.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The statement between backticks that follows a text in the log.
fn statement_in_log(recorder: &Recorder, before: &str) -> String {
    eventually(before, || {
        let log = recorder.log();
        let (_, after) = log.split_once(before)?;
        Some(after.split('`').next()?.to_owned())
    })
}

/// Starts a recorder for a world. The table exists and has one row.
fn started(world: &mut World) -> Recorder {
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    recorder
}

#[test]
fn a_row_that_the_database_refuses_goes_to_quarantine() {
    let mut world = World::new(&shared().unwrap());
    let recorder = started(&mut world);
    add_trigger(
        &mut world,
        "if new.event_time = 3 then raise 'own rule'; end if;
         if new.event_time = 5 then raise 'own code' using errcode = 'ZZ999'; end if;
         if new.event_time = 6 then raise check_violation; end if;",
    );
    let table = world.table();
    let narrow = format!(
        "alter table {table} alter column event_time type smallint;
         create function noise(text) returns text immutable language sql as
         $$ select string_agg(md5($1 || n), '') from generate_series(1, 200) as n $$;
         create index on {table} ((case when event_time = 8 then noise(url) end));"
    );
    world.database.batch_execute(&narrow).unwrap();
    let values = (1..=100).map(|second| ok(if second == 50 { 40_000 } else { second }));
    world.produce(values);
    world.expect_position(101);
    let reasons = reasons(&mut world);
    let codes: Vec<_> = reasons
        .iter()
        .map(|(offset, reason)| (*offset, reason.rsplit(' ').next().unwrap()))
        .collect();
    let expected =
        [(3, "(P0001)"), (5, "(ZZ999)"), (6, "(23514)"), (8, "(54000)"), (50, "(22003)")];
    assert_eq!(codes, expected, "{reasons:?}");
    assert_eq!(world.offsets().len(), 96);
    let (_, _, log) = recorder.stop();
    let name = world.domain.table();
    let line = format!("of table {name} went to table availability_quarantine, the last at 0@");
    assert!(log.contains(&line) && log.contains("out of range (22003)"), "{log}");
    assert!(!log.contains("one after another"), "{log}");
}

#[test]
fn many_refusals_for_one_code_are_an_error_line() {
    let mut world = World::new(&shared().unwrap());
    let recorder = started(&mut world);
    add_trigger(&mut world, "raise 'own rule';");
    world.produce((1..=120).map(ok));
    world.expect_position(121);
    assert_eq!(count_quarantined(&mut world), Some(120));
    let (_, _, log) = recorder.stop();
    let line = format!(
        "100 records one after another went to quarantine for SQLSTATE P0001, the first at 0@1: \
         remove the cause, then run `recorder replay -d {}`",
        world.domain
    );
    assert!(log.contains(&line), "{log}");
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
}

/// The position moves only with the record in quarantine.
#[test]
fn a_position_waits_until_the_quarantine_accepts_the_record() {
    let mut world = World::new(&shared().unwrap());
    let recorder = started(&mut world);
    add_trigger(&mut world, "if new.event_time = 2 then raise 'own rule'; end if;");
    world
        .database
        .batch_execute("alter table availability_quarantine add constraint none check (false)")
        .unwrap();
    world.produce([ok(1), ok(2), ok(3)]);
    recorder.expect_log("postgresql: table availability_quarantine: ");
    world.expect_position(2);
    world
        .database
        .batch_execute("alter table availability_quarantine drop constraint none")
        .unwrap();
    world.expect_position(4);
    assert_eq!((world.offsets(), count_quarantined(&mut world)), (vec![0, 1, 3], Some(1)));
    recorder.stop();
}

#[test]
fn a_missing_partition_or_right_sends_nothing_to_quarantine() {
    let mut world = World::new(&shared().unwrap());
    let recorder = started(&mut world);
    let table = world.table();
    let partitioned = format!(
        "alter table {table} rename to old;
         create table {table} (like old including defaults) partition by range (event_time);
         create table small partition of {table} for values from (0) to (10);"
    );
    world.database.batch_execute(&partitioned).unwrap();
    world.produce([ok(1), ok(11), ok(2)]);
    let name = world.domain.table();
    recorder.expect_log(&format!(
        "postgresql: table {name}: no partition of relation \"{name}\" found for row (23514)"
    ));
    world.expect_position(1);
    let add = format!("create table large partition of {table} for values from (10) to (20)");
    world.database.batch_execute(&add).unwrap();
    world.expect_position(4);
    // A statement that fails for every row.
    add_trigger(&mut world, "perform 1 from nowhere;");
    world.produce([ok(3)]);
    recorder.expect_log(&format!(
        "postgresql: table {name}: relation \"nowhere\" does not exist (42P01)"
    ));
    world.database.batch_execute(&format!("drop trigger refuse on {table}")).unwrap();
    world.expect_position(5);
    assert_eq!((world.offsets(), count_quarantined(&mut world)), (vec![1, 2, 3, 4], Some(0)));
    recorder.stop();
}

#[test]
fn a_sequence_that_is_behind_is_named_with_the_statement_to_run() {
    let mut world = World::new(&shared().unwrap());
    let recorder = started(&mut world);
    world.produce([ok(1), ok(2)]);
    world.expect_position(3);
    let table = world.table();
    let back = format!(
        "insert into {table} (test_from, url) select 'sydney', '' from generate_series(1, 100);
         select setval(pg_get_serial_sequence('{table}', 'id'), 1, false)"
    );
    world.database.batch_execute(&back).unwrap();
    world.produce([ok(3), ok(4)]);
    let statement = statement_in_log(&recorder, "as after a restore: run `");
    assert!(statement.starts_with("select setval("), "{statement}");
    world.expect_position(3);
    world.database.batch_execute(&statement).unwrap();
    world.expect_position(5);
    let offsets: Vec<i64> = world.offsets().into_iter().filter(|offset| *offset >= 0).collect();
    assert_eq!((offsets, count_quarantined(&mut world)), ((0..5).collect(), Some(0)));
    // The same for one of the recorder's own tables.
    world.produce([b"nonsense".to_vec()]);
    world.expect_position(6);
    let back =
        "insert into availability_quarantine (topic, topic_id, partition, \"offset\", reason)
            select '', gen_random_uuid(), 0, 0, '' from generate_series(1, 100);
        select setval('availability_quarantine_id_seq', 1, false)";
    world.database.batch_execute(back).unwrap();
    world.produce([b"nonsense".to_vec()]);
    recorder.expect_log("availability_quarantine: duplicate key value violates");
    let statement = eventually("statement", || {
        let log = recorder.log();
        let (_, after) = log.rsplit_once("as after a restore: run `")?;
        let statement = after.split('`').next()?;
        statement.contains("availability_quarantine").then(|| statement.to_owned())
    });
    world.database.batch_execute(&statement).unwrap();
    world.expect_position(7);
    assert_eq!(count_quarantined(&mut world), Some(102));
    recorder.stop();
}

#[test]
fn an_id_that_is_used_up_is_named_with_the_statement_to_run() {
    for sequence_is_wide in [true, false] {
        let mut world = World::new(&shared().unwrap());
        create_schema_of_1_1_0(&mut world, "page content not expected");
        let recorder = started(&mut world);
        let sequence = world.domain.table() + "_id_seq";
        if sequence_is_wide {
            world
                .database
                .batch_execute(&format!("alter sequence \"{sequence}\" as bigint"))
                .unwrap();
        }
        let end = format!("select setval('\"{sequence}\"', 2147483647)");
        world.database.batch_execute(&end).unwrap();
        world.produce([ok(1), ok(2)]);
        let statement = statement_in_log(&recorder, "of column id are used up: run `");
        assert!(statement.starts_with("alter table "), "{statement}");
        world.expect_position(1);
        world.database.batch_execute(&statement).unwrap();
        world.expect_position(3);
        assert_eq!((world.offsets(), count_quarantined(&mut world)), (vec![0, 1, 2], Some(0)));
        recorder.stop();
    }
}

fn short_timings() -> Timings {
    Timings {
        write_timeout: Duration::from_secs(2),
        retry_delay_max: Duration::from_millis(400),
        timeout_quarantine_after: Duration::from_secs(3),
        ..Timings::default()
    }
}

/// Batches get smaller until a transaction ends within its time-out.
#[test]
fn a_slow_trigger_makes_batches_smaller() {
    let mut world = World::new(&shared().unwrap());
    started(&mut world).stop();
    add_trigger(&mut world, "perform pg_sleep(0.02);");
    world.produce((1..=400).map(ok));
    let recorder = world.recorder_in_process(short_timings(), &[]);
    world.expect_position(401);
    assert_eq!(world.offsets(), (0..=400).collect::<Vec<_>>());
    recorder.stop();
}

#[test]
fn a_record_that_always_times_out_goes_to_quarantine() {
    let mut world = World::new(&shared().unwrap());
    started(&mut world).stop();
    add_trigger(
        &mut world,
        "if new.event_time = 2 then perform pg_sleep(5); end if;
         if new.event_time = 4 then raise query_canceled; end if;",
    );
    world.produce((1..=5).map(ok));
    let recorder = world.recorder_in_process(short_timings(), &[]);
    world.expect_position(6);
    recorder.stop();
    assert_eq!(world.offsets(), [0, 1, 3, 5]);
    let reasons = reasons(&mut world);
    let [(2, by_recorder), (4, by_server)] = &reasons[..] else { panic!("{reasons:?}") };
    assert!(by_recorder.contains("in time") && by_server.ends_with("(57014)"), "{reasons:?}");
}
