//! Tests of the offsets of the consumer group.

use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiKey;
use testkit::proxy::{Direction, KafkaProxy, ProxyFault};
use testkit::services::shared;

use crate::support::{World, eventually, ok};

/// The coordinator of the group accepts each commit request and does not answer. No row and no stop
/// waits for the answer.
#[test]
fn a_silent_coordinator_delays_no_row_and_no_stop() {
    let services = shared().unwrap();
    let proxy = KafkaProxy::start(&services.kafka_plain).unwrap();
    let commits: Vec<_> = (0..40)
        .map(|_| proxy.add_rule(ApiKey::OffsetCommit, 0, Direction::Response, ProxyFault::Discard))
        .collect();
    let mut worlds: Vec<_> = (0..3).map(|_| World::new(&services)).collect();
    let names: Vec<_> = worlds.iter().map(|world| world.domain.to_string()).collect();
    for world in &mut worlds {
        world.produce([ok(0)]);
    }
    // A new cluster must first create the topic for committed offsets.
    eventually("a coordinator", || {
        let world = &worlds[0];
        world.client().commit_offset("websites-availability", &world.topic, 0, 0).ok()
    });
    let recorder =
        worlds[0].recorder_with(&[("DOMAIN", &names.join(",")), ("KAFKA", &proxy.addresses())]);
    let positions = "select sum(next_offset)::bigint from availability_offset";
    worlds[0].expect(positions, 3);
    eventually("a commit without an answer", || {
        commits.iter().any(|rule| rule.fired()).then_some(())
    });
    for round in 1..=3 {
        let produced_at = Instant::now();
        for world in &mut worlds {
            world.produce([ok(round)]);
        }
        worlds[0].expect(positions, 3 * (round + 1));
        assert!(produced_at.elapsed() < Duration::from_secs(4), "{:?}", produced_at.elapsed());
    }
    // The commit is not answered yet.
    let (status, took, log) = recorder.stop();
    assert!(status.success() && took < Duration::from_secs(7), "{status} {took:?} {log}");
    assert!(!log.contains("did not stop within"), "{log}");
}

/// At a stop the offset of the last record is committed.
#[test]
fn the_last_offset_is_committed_at_a_stop() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(0)]);
    let group = |world: &World| {
        world.client().committed_offset("websites-availability", &world.topic, 0).ok().flatten()
    };
    let recorder = world.recorder();
    world.expect_position(1);
    eventually("a commit", || (group(&world) == Some(1)).then_some(()));
    for second in 1..4 {
        world.produce([ok(second)]);
    }
    world.expect_position(4);
    recorder.stop();
    assert_eq!(group(&world), Some(4));
}
