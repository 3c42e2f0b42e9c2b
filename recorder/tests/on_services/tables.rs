//! Tables that are large, or another's: what is read of them, and by what.

use common::domain::TOPIC_PREFIX_OF_1_1_0;
use testkit::services::{connect, shared};

use crate::support::{World, ok};

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
