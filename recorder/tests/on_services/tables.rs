//! Tests of reads of large tables, and of tables that another role owns.

use std::time::{Duration, Instant};

use common::domain::TOPIC_PREFIX_OF_1_1_0;
use testkit::services::{connect, shared};

use crate::support::{World, ok};

/// The time-out of the recorder for waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of sequential scans of the domain's table. Sessions report their statistics when they
/// end, so this waits until all recorders are disconnected.
fn scans(world: &mut World) -> i64 {
    let sessions = "select count(*) from pg_stat_activity \
                    where datname = current_database() and application_name like 'recorder-%'";
    world.expect(sessions, 0);
    let table = world.domain.table();
    let scans = format!("select seq_scan from pg_stat_user_tables where relname = '{table}'");
    world.number(&scans).unwrap()
}

/// A recorder scans a table of 1.1.0 once after its start, but not after each expiry of a lease.
#[test]
fn a_table_of_1_1_0_is_scanned_once() {
    let mut world = World::with_prefix(&shared().unwrap(), TOPIC_PREFIX_OF_1_1_0);
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    recorder.stop();
    let before = scans(&mut world);
    let recorder = world.recorder();
    world.produce([ok(1)]);
    world.expect_position(2);
    // No recorder can renew its leases, and all leases expire.
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

/// Smart mode creates an index for its look-ups. Without the right to do so, it logs the statement.
/// If the table is locked, it retries later and does not delay recording.
#[test]
fn smart_mode_creates_its_index_or_logs_the_statement() {
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
    // A role that does not own the table can't create the index.
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

    // Another session writes to the table. A session that waits for it would block all other
    // sessions.
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
    // The index does not include old versions of the merged row. So PostgreSQL does not use the
    // index while any transaction of the server, even in another database, is older than the index.
    let too_new = format!(
        "select count(*) from pg_index where indexrelid = '\"{index}\"'::regclass and indcheckxmin
         and age(xmin) <= age(pg_snapshot_xmin(pg_current_snapshot())::xid)"
    );
    world.expect(&too_new, 0);
    let before_index = scans(&mut world);
    world.produce([ok(20_004)]);
    let recorder = world.recorder_with(&[("SMART", "yes")]);
    world.expect_position(5);
    recorder.stop();
    assert_eq!(scans(&mut world), before_index, "{before} before the index");
    let merged = format!("select count(*) from {table} where event_time > 20000");
    assert_eq!(world.number(&merged), Some(1));
}
