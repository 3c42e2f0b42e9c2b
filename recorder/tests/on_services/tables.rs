//! Tables that are large, or another's: what is read of them, and by what.

use std::time::{Duration, Instant};

use common::domain::TOPIC_PREFIX_OF_1_1_0;
use testkit::services::{connect, shared};

use crate::support::{World, ok};

/// How long any statement may wait for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of times that the domain's table was read from its beginning to
/// its end, once nobody is connected who has not told yet.
fn scans(world: &mut World) -> i64 {
    let sessions = "select count(*) from pg_stat_activity \
                    where datname = current_database() and application_name like 'recorder-%'";
    world.expect(sessions, 0);
    let table = world.domain.table();
    let scans = format!("select seq_scan from pg_stat_user_tables where relname = '{table}'");
    world.number(&scans).unwrap()
}

/// Goes red when `DomainThread::run` counts anew because a lease was over.
#[test]
fn a_table_of_1_1_0_is_counted_once_whatever_becomes_of_the_lease() {
    let mut world = World::with_prefix(&shared().unwrap(), TOPIC_PREFIX_OF_1_1_0);
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    recorder.stop();
    let before = scans(&mut world);
    let recorder = world.recorder();
    world.produce([ok(1)]);
    world.expect_position(2);
    // Nobody can renew a lease for longer than it lasts.
    let mut gate = connect(&world.services, &world.uri).unwrap();
    let mut gate = gate.transaction().unwrap();
    gate.batch_execute("lock table availability_recorder in access exclusive mode").unwrap();
    std::thread::park_timeout(std::time::Duration::from_secs(7));
    world.produce([ok(2)]);
    assert_eq!(world.number("select next_offset from availability_offset"), Some(2));
    gate.rollback().unwrap();
    world.expect_position(3);
    recorder.stop();
    assert_eq!(scans(&mut world), before + 1);
    assert_eq!(world.offsets(), [0, 1, 2]);
}

/// Goes red when `DomainThread::record` does not make the index, and when
/// `ensure_target_index` waits for its lock as long as any statement may.
#[test]
fn smart_mode_looks_targets_up_by_an_index_or_says_that_it_can_not() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    recorder.stop();
    let (table, index) = (world.table(), world.domain.target_index());
    let fill = format!(
        "insert into {table} (topic_offset, test_from, url, event_time, status, phrase)
         select 0, 'sydney', 'https://a.example/', n, 'responsive', 'ok'
         from generate_series(1, 20000) as n; analyze {table};"
    );
    world.database.batch_execute(&fill).unwrap();
    // One that does not own the table can't make it.
    let role = testkit::services::fresh_name("role").replace('-', "_");
    let rights = format!(
        "create role {role} login password 'hunter2';
         grant all on all tables in schema public to {role};
         grant all on all sequences in schema public to {role};"
    );
    world.database.batch_execute(&rights).unwrap();
    let (host, port) = (&services.postgres_host, services.postgres_port);
    let name = world.uri.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let uri = format!("postgres://{role}:hunter2@{host}:{port}/{name}?sslmode=verify-full");
    world.produce([ok(20_001)]);
    let recorder = world.recorder_with(&[("POSTGRES", &uri), ("SMART", "yes")]);
    world.expect_position(2);
    let (_, _, log) = recorder.stop();
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    let statement = format!("create index if not exists \"{index}\" on {table} ");
    assert!(log.contains(&statement) && log.contains("must be owner of table"), "{log}");
    let before = scans(&mut world);

    // Somebody writes to the table, and who waits for that keeps all others waiting.
    let mut gate = connect(&services, &world.uri).unwrap();
    let mut gate = gate.transaction().unwrap();
    gate.batch_execute(&format!("lock table {table} in row exclusive mode")).unwrap();
    let start = Instant::now();
    world.produce([ok(20_002)]);
    let recorder = world.recorder_with(&[("SMART", "yes")]);
    world.expect_position(3);
    let took = start.elapsed();
    assert!(took < LOCK_TIMEOUT, "waited for a lock: {took:?}");
    gate.rollback().unwrap();
    let (_, _, log) = recorder.stop();
    assert!(!log.contains("created index") && !log.contains("WARN"), "{log}");

    world.produce([ok(20_003)]);
    let recorder = world.recorder_with(&[("SMART", "yes")]);
    world.expect_position(4);
    recorder.expect_log(&format!("created index {index}"));
    recorder.stop();
    // As the row that was merged has versions that the index leaves out, nobody uses it
    // while a transaction of the server is older, be it of another database.
    let too_new = format!(
        "select count(*) from pg_index where indexrelid = '\"{index}\"'::regclass and indcheckxmin
         and age(xmin) <= age(pg_snapshot_xmin(pg_current_snapshot())::xid)"
    );
    world.expect(&too_new, 0);
    let making = scans(&mut world);
    world.produce([ok(20_004)]);
    let recorder = world.recorder_with(&[("SMART", "yes")]);
    world.expect_position(5);
    recorder.stop();
    assert_eq!(scans(&mut world), making, "{before} before the index");
    let merged = format!("select count(*) from {table} where event_time > 20000");
    assert_eq!(world.number(&merged), Some(1));
}
