//! Three brokers, of which one is lost, or stands still, or all of which hold what
//! nobody can read.

use std::time::{Duration, Instant};

use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::{ApiKey, DescribeQuorumRequest, DescribeQuorumResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use testkit::ask::ask;
use testkit::services::{OwnSet, Services};

use crate::leases::ANOTHER;
use crate::support::{Recorder, World, eventually, ok};
use crate::unreadable::Rotten;

/// Three brokers take a while to start, so that these share them; and a wrong
/// checksum is believed after a minute, in which there is room for the others.
#[test]
fn brokers_broken_on_purpose() {
    let services = Services::start(3).unwrap();
    let rotten = Rotten::start(&services);
    a_partition_without_a_leader_holds_up_no_other(&services, rotten.spared);
    a_broker_that_is_behind_the_others_leads_to_nothing_being_read_again(&services);
    rotten.check();
}

/// Goes red when `add_partitions` or `fetch_and_write` ends the session for one
/// partition: then nothing is read, or one fetch each 10 s.
fn a_partition_without_a_leader_holds_up_no_other(services: &OwnSet, dead: usize) {
    let (mut world, alive) = eventually("a topic of all brokers", || {
        let world = World::new(services);
        world.client().create_topic_with(&world.topic, 3, 1, &[]).unwrap();
        let leaders = eventually("leaders", || {
            let found = world.client().topics(std::slice::from_ref(&world.topic)).ok()?;
            let leaders: Vec<_> = found.first()?.partitions.iter().map(|p| p.leader).collect();
            let leaders = leaders.into_iter().map(|leader| usize::try_from(leader?).ok());
            // A broker knows a topic before it knows its partitions.
            leaders.collect::<Option<Vec<_>>>().filter(|leaders| leaders.len() == 3)
        });
        (leaders[1] == dead).then_some((world, leaders[0]))
    });
    assert_ne!(alive, dead);
    let address = |broker: usize| services.plain_listener(broker).unwrap().to_owned();
    world.services.kafka_plain = address(dead);
    world.produce_to(1, [ok(100)]);
    world.services.kafka_plain = address(alive);
    world.produce_to(0, [ok(0)]);
    let recorder = world.recorder();
    world.expect("select sum(next_offset)::bigint from availability_offset", 2);

    services.kill_broker(dead).unwrap();
    let mut written = 1;
    let mut goes_on = |world: &mut World, count: i64| {
        let start = Instant::now();
        for _ in 0..count {
            world.produce_to(0, [ok(written)]);
            written += 1;
            world.expect_position(written);
        }
        start.elapsed()
    };
    // One fetch each, which the broker that leads the third lets wait for 3 s.
    let took = goes_on(&mut world, 3);
    assert!(took < Duration::from_secs(20), "{took:?}");
    recorder.expect_log("WARN  recorder::report::outage_log] kafka: ");
    recorder.stop();
    let recorder = world.recorder();
    let took = goes_on(&mut world, 2);
    assert!(took < Duration::from_secs(20), "{took:?}");

    services.start_broker(dead).unwrap();
    world.services.kafka_plain = address(dead);
    world.produce_to(1, [ok(101)]);
    let other = "select next_offset from availability_offset where partition = 1";
    world.expect(other, 2);
    let (_, _, log) = recorder.stop();
    assert!(log.matches("WARN").count() <= 1, "{log}");
}

/// What is recorded when a recorder asks the leader of before, just as that goes
/// on, after the others have gone on without it: of a topic that has more records
/// by then, and of one that was made again.
///
/// Goes red without `Client::confirm` in `DomainThread::start_position`: the
/// first as the log seems to be shorter than what was read of it, the second as
/// the topic seems to be made again, once there and once back.
fn a_broker_that_is_behind_the_others_leads_to_nothing_being_read_again(services: &OwnSet) {
    // Without the controller nothing is deleted for a while.
    let controller = controller_of(services);
    let led = |what: &str, by: &dyn Fn(i32) -> bool| {
        eventually(what, || {
            let mut world = World::new(services);
            world.produce((0..3).map(ok));
            let leader = leader_of(&world).filter(|leader| by(*leader))?;
            Some((world, leader))
        })
    };
    let (longer, leader) = led("a leader that is not the controller", &|by| by != controller);
    let (again, _) = led("the same leader", &|by| by == leader);
    let mut longer = Behind::recorded(longer, 8);
    let mut again = Behind::recorded(again, 5);
    let number = usize::try_from(leader).unwrap();
    let mut brokers: Vec<_> = services.kafka_plain.split(',').collect();
    let behind = brokers.remove(number - 1);
    let mut others: Services = (**services).clone();
    others.kafka_plain = brokers.join(",");
    let lates = [&mut longer, &mut again].map(|of| of.late(behind));
    services.pause_broker(number).unwrap();
    let [mut longer, mut again] =
        [longer, again].map(|of| Behind { world: of.world.by(&others), ..of });
    for Behind { world, .. } in [&longer, &again] {
        eventually("another leader", || leader_of(world).filter(|now| *now != leader));
    }
    again.world.delete_topic();
    longer.go_on();
    again.go_on();

    for late in &lates {
        late.signal("CONT");
    }
    for late in &lates {
        late.expect_log("leases: 1 of 1");
    }
    // What they ask is to lie there when the broker goes on.
    std::thread::park_timeout(Duration::from_secs(1));
    services.resume_broker(number).unwrap();
    for Behind { world, end } in [&mut longer, &mut again] {
        world.produce([ok(8)]);
        world.expect_position(*end + 1);
    }
    lates.into_iter().for_each(|late| drop(late.stop()));

    let gaps = "select count(*) from availability_gap";
    assert_eq!(longer.world.offsets(), (0..9).collect::<Vec<_>>());
    assert_eq!(longer.world.number(gaps), Some(0));
    assert_eq!(again.world.offsets(), [0, 1, 2, 0, 1, 2, 3, 4, 5]);
    assert_eq!(again.world.number(gaps), Some(1));
}

fn leader_of(world: &World) -> Option<i32> {
    let found = world.client().topics(std::slice::from_ref(&world.topic)).ok()?;
    found.first()?.partitions.first()?.leader
}

/// The broker that leads the log of all that the brokers know.
fn controller_of(services: &Services) -> i32 {
    let log = PartitionData::default().with_partition_index(0);
    let log = TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str("__cluster_metadata")))
        .with_partitions(vec![log]);
    let request = DescribeQuorumRequest::default().with_topics(vec![log]);
    let broker = services.plain_listener(1).unwrap();
    let answer: DescribeQuorumResponse = ask(broker, ApiKey::DescribeQuorum, &request, 0).unwrap();
    answer.topics[0].partitions[0].leader_id.0
}

/// A topic whose leader is to be behind, three of whose records are recorded.
struct Behind {
    world: World,
    /// The offset after the five records that are written without that broker.
    end: i64,
}

impl Behind {
    fn recorded(mut world: World, end: i64) -> Self {
        let recorder = world.recorder();
        world.expect_position(3);
        recorder.stop();
        Self { world, end }
    }

    /// A recorder that stands still and reaches that broker alone. Kafka has
    /// answered it, without the lease, and so without knowing of the others.
    fn late(&mut self, broker: &str) -> Recorder {
        self.world.database.batch_execute(ANOTHER).unwrap();
        let late = self.world.recorder_with(&[("KAFKA", broker)]);
        late.expect_log("leases: 0 of 1 domains are ours, recorders at work: 2");
        late.signal("STOP");
        late
    }

    fn go_on(&mut self) {
        self.world.produce((3..8).map(ok));
        let recorder = self.world.recorder();
        self.world.expect_position(self.end);
        recorder.stop();
    }
}
