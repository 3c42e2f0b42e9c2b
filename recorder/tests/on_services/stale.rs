//! A broker that stood still, and for a moment leads what another leads by now.

use std::time::Duration;

use testkit::services::{OwnSet, Services};

use crate::leases::ANOTHER;
use crate::support::{World, eventually, ok};
use crate::unreadable::Rotten;

/// Three brokers take a while to start, so that these share them; and a wrong
/// checksum is believed after a minute.
#[test]
fn brokers_broken_on_purpose() {
    let services = Services::start(3).unwrap();
    let rotten = Rotten::start(&services);
    a_broker_that_is_behind_the_others_leads_to_nothing_being_read_again(&services);
    rotten.check();
}

/// Goes red without `Client::confirm` in `DomainThread::start_position`: the
/// first as the log seems to be shorter than what was read of it, the second as
/// the topic seems to be made again, once there and once back.
fn a_broker_that_is_behind_the_others_leads_to_nothing_being_read_again(services: &OwnSet) {
    let mut world = behind(services, false);
    assert_eq!(world.offsets(), (0..9).collect::<Vec<_>>());
    assert_eq!(world.number("select count(*) from availability_gap"), Some(0));
    let mut world = behind(services, true);
    assert_eq!(world.offsets(), [0, 1, 2, 0, 1, 2, 3, 4, 5]);
    assert_eq!(world.number("select count(*) from availability_gap"), Some(1));
}

/// What is recorded when a recorder asks the leader of before, just as that goes
/// on, after the others have gone on without it.
fn behind(services: &OwnSet, made_again: bool) -> World {
    let mut world = World::new(services);
    world.produce((0..3).map(ok));
    let recorder = world.recorder();
    world.expect_position(3);
    recorder.stop();
    let leader_of = |world: &World| {
        let found = world.client().topics(std::slice::from_ref(&world.topic)).ok()?;
        found.first()?.partitions.first()?.leader
    };
    let leader = eventually("leader", || leader_of(&world));
    let number = usize::try_from(leader).unwrap();
    let mut brokers: Vec<_> = services.kafka_plain.split(',').collect();
    let behind = brokers.remove(number - 1);
    let mut others: Services = (**services).clone();
    others.kafka_plain = brokers.join(",");
    // One that Kafka has answered, without the lease, and so without knowing of others.
    world.database.batch_execute(ANOTHER).unwrap();
    let late = world.recorder_with(&[("KAFKA", behind)]);
    late.expect_log("leases: 0 of 1 domains are ours, recorders at work: 2");
    late.signal("STOP");
    services.pause_broker(number).unwrap();
    let World { topic, domain, uri, database, .. } = world;
    let mut world = World::new(&others);
    (world.topic, world.domain, world.uri, world.database) = (topic, domain, uri, database);
    eventually("another leader", || leader_of(&world).filter(|now| *now != leader));
    if made_again {
        world.delete_topic();
    }
    world.produce((3..8).map(ok));
    let end = if made_again { 5 } else { 8 };
    let recorder = world.recorder();
    world.expect_position(end);
    recorder.stop();

    late.signal("CONT");
    late.expect_log("leases: 1 of 1");
    // What it asks is to lie there when the broker goes on.
    std::thread::park_timeout(Duration::from_secs(1));
    services.resume_broker(number).unwrap();
    world.produce([ok(8)]);
    world.expect_position(end + 1);
    late.stop();
    world
}
