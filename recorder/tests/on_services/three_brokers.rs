//! Tests with three brokers, one of which is killed or suspended.

use std::time::{Duration, Instant};

use common::domain::Domain;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::{ApiKey, DescribeQuorumRequest, DescribeQuorumResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use testkit::proxy::KafkaProxy;
use testkit::raw_request::send_raw_request;
use testkit::services::{Services, fresh_name};

use crate::leases::ANOTHER_ACQUIRES_ALL;
use crate::own_services::with_own_services;
use crate::support::{Recorder, SOON, World, eventually, ok, outage_warnings};

/// If a partition has no leader, the recorder continues with the other partitions.
#[test]
fn a_partition_without_a_leader_does_not_delay_the_others_broken_on_purpose() {
    with_own_services(3, |services| {
        let dead = 1;
        let (mut world, alive) = eventually("a topic with partitions on all brokers", || {
            let world = World::new(services);
            world.client().create_topic_with(&world.topic, 3, 1, &[]).unwrap();
            let leaders = eventually("leaders", || {
                let found = world.client().topics(std::slice::from_ref(&world.topic)).ok()?;
                let leaders: Vec<_> = found.first()?.partitions.iter().map(|p| p.leader).collect();
                let leaders = leaders.into_iter().map(|leader| usize::try_from(leader?).ok());
                // Brokers learn of a topic before they learn of its partitions.
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
        let mut write_and_record = |world: &mut World, count: i64| {
            let start = Instant::now();
            for _ in 0..count {
                world.produce_to(0, [ok(written)]);
                written += 1;
                world.expect_position(written);
            }
            start.elapsed()
        };
        // Each record takes one fetch. The broker of the third partition delays it by 3 s.
        let took = write_and_record(&mut world, 3);
        assert!(took < Duration::from_secs(20), "{took:?}");
        recorder.expect_log("WARN  recorder::report::outage_log] kafka: ");
        recorder.stop();
        let started = Instant::now();
        let recorder = world.recorder();
        let took = write_and_record(&mut world, 2);
        assert!(took < Duration::from_secs(20), "{took:?}");

        services.start_broker(dead).unwrap();
        world.services.kafka_plain = address(dead);
        world.produce_to(1, [ok(101)]);
        let other = "select next_offset from availability_offset where partition = 1";
        world.expect(other, 2);
        let (_, _, log) = recorder.stop();
        assert!(log.matches("WARN").count() <= outage_warnings(started.elapsed()), "{log}");
    });
}

/// A recorder asks a former leader, which was suspended and does not know yet that it was replaced.
/// Meanwhile one topic got more records, and the other topic was deleted and recreated. The
/// recorder asks a majority of the brokers for confirmation. So it accepts neither a log that seems
/// shorter nor an old topic id.
#[test]
fn a_stale_broker_makes_the_recorder_read_nothing_again_broken_on_purpose() {
    with_own_services(3, |services| {
        // While the controller is suspended, no topic can be deleted.
        let controller = controller_of(services);
        let topic_led_by = |what: &str, is_wanted: &dyn Fn(i32) -> bool| {
            eventually(what, || {
                let mut world = World::new(services);
                world.produce((0..3).map(ok));
                let leader = leader_of(&world).filter(|leader| is_wanted(*leader))?;
                Some((world, leader))
            })
        };
        let (longer, leader) =
            topic_led_by("a leader that is not the controller", &|by| by != controller);
        let (again, _) = topic_led_by("the same leader", &|by| by == leader);
        let mut longer = StaleTopic::recorded(longer, 8);
        let mut again = StaleTopic::recorded(again, 5);
        let number = usize::try_from(leader).unwrap();
        let mut brokers: Vec<_> = services.kafka_plain.split(',').collect();
        let stale = brokers.remove(number - 1);
        let mut others: Services = (**services).clone();
        others.kafka_plain = brokers.join(",");
        let suspended = [&mut longer, &mut again].map(|topic| topic.suspended_recorder(stale));
        services.pause_broker(number).unwrap();
        let [mut longer, mut again] = [longer, again]
            .map(|topic| StaleTopic { world: topic.world.through(&others), ..topic });
        for StaleTopic { world, .. } in [&longer, &again] {
            eventually("another leader", || leader_of(world).filter(|now| *now != leader));
        }
        again.world.delete_topic();
        longer.write_and_record();
        again.write_and_record();

        for recorder in &suspended {
            recorder.signal("CONT");
        }
        for recorder in &suspended {
            recorder.expect_log("leases: holding 1 of 1;");
        }
        // The requests must wait at the broker when it resumes.
        std::thread::park_timeout(Duration::from_secs(1));
        services.resume_broker(number).unwrap();
        for StaleTopic { world, end } in [&mut longer, &mut again] {
            world.produce([ok(8)]);
            world.expect_position(*end + 1);
        }
        suspended.into_iter().for_each(|recorder| drop(recorder.stop()));

        let gaps = "select count(*) from availability_gap";
        assert_eq!(longer.world.offsets(), (0..9).collect::<Vec<_>>());
        assert_eq!(longer.world.number(gaps), Some(0));
        assert_eq!(again.world.offsets(), [0, 1, 2, 0, 1, 2, 3, 4, 5]);
        assert_eq!(again.world.number(gaps), Some(1));
    });
}

/// A recorder that reaches two of three leaders keeps all domains while it is alone. Another
/// recorder, which reaches all leaders, acquires the domains of the third leader. After that, no
/// lease moves any more.
#[test]
fn domains_whose_leader_is_not_reached_are_taken_over_broken_on_purpose() {
    with_own_services(3, |services| {
        let cut = 2;
        let mut world = World::new(services);
        let mut domains: Vec<(Domain, bool)> = Vec::new();
        // Two domains of the leader that is cut off, and two domains of other leaders.
        while domains.len() < 4 {
            let domain = Domain::parse(&format!("{}.example", fresh_name("l"))).unwrap();
            world.topic = domain.topic(&world.prefix).unwrap();
            world.client().create_topic_with(&world.topic, 1, 1, &[]).unwrap();
            let is_cut = eventually("a leader", || leader_of(&world)) == cut;
            if domains.iter().filter(|(_, other)| *other == is_cut).count() < 2 {
                domains.push((domain, is_cut));
            }
        }
        let list: Vec<_> = domains.iter().map(|(domain, _)| domain.as_str()).collect();
        let list = list.join(",");
        let mut proxy = KafkaProxy::start(&services.kafka_plain).unwrap();
        let through = proxy.addresses();
        let first = world.recorder_with(&[("DOMAIN", &list), ("KAFKA", &through)]);
        let produce_and_record =
            |world: &mut World, count: i64, is_recorded: &dyn Fn(bool) -> bool| {
                for (domain, _) in &domains {
                    world.topic = domain.topic(&world.prefix).unwrap();
                    world.produce([ok(count)]);
                }
                for (domain, _) in domains.iter().filter(|(_, is_cut)| is_recorded(*is_cut)) {
                    world.topic = domain.topic(&world.prefix).unwrap();
                    world.expect_position(count);
                }
            };
        produce_and_record(&mut world, 1, &|_| true);
        proxy.close_broker(usize::try_from(cut).unwrap());
        produce_and_record(&mut world, 2, &|is_cut| !is_cut);
        first.expect_log("because no recorder reaches broker 2 (127.0.0.1:");
        let log = first.log();
        let line = log.lines().find(|line| line.contains("no recorder reaches")).unwrap();
        for (domain, is_cut) in &domains {
            assert_eq!(line.contains(domain.as_str()), *is_cut, "{line}");
        }
        let leases =
            "select topic, holder::text, since::text from availability_lease order by topic";
        let leases = |world: &mut World| {
            let rows = world.database.query(leases, &[]).unwrap();
            let lease = |row: &postgres::Row| (row.get(0), row.get(1), row.get(2));
            rows.iter().map(lease).collect::<Vec<(String, String, String)>>()
        };
        let alone = leases(&mut world);
        assert!(alone.iter().all(|(_, holder, _)| *holder == alone[0].1), "{alone:?}");

        let start = Instant::now();
        let second = world.recorder_with(&[("DOMAIN", &list)]);
        produce_and_record(&mut world, 3, &|_| true);
        eprintln!("taken over after {:?}", start.elapsed());
        first.expect_log("leases: handing over ");
        let shared = leases(&mut world);
        for (topic, holder, _) in &shared {
            let is_first = *holder == alone[0].1;
            let is_cut =
                domains.iter().any(|(domain, is_cut)| *is_cut && topic.ends_with(domain.as_str()));
            assert_eq!(is_first, !is_cut, "{topic}: {shared:?}");
        }
        let start = Instant::now();
        while start.elapsed() < SOON / 6 {
            assert_eq!(leases(&mut world), shared, "leases still move");
            std::thread::park_timeout(Duration::from_millis(200));
        }
        for recorder in [first, second] {
            let (status, _, log) = recorder.stop();
            assert!(status.success(), "{log}");
        }
    });
}

fn leader_of(world: &World) -> Option<i32> {
    let found = world.client().topics(std::slice::from_ref(&world.topic)).ok()?;
    found.first()?.partitions.first()?.leader
}

/// The active controller: the leader of the metadata log.
fn controller_of(services: &Services) -> i32 {
    let log = PartitionData::default().with_partition_index(0);
    let log = TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str("__cluster_metadata")))
        .with_partitions(vec![log]);
    let request = DescribeQuorumRequest::default().with_topics(vec![log]);
    let broker = services.plain_listener(1).unwrap();
    let answer: DescribeQuorumResponse =
        send_raw_request(broker, ApiKey::DescribeQuorum, &request, 0).unwrap();
    answer.topics[0].partitions[0].leader_id.0
}

/// A topic whose leader becomes stale. Three of its records are recorded.
struct StaleTopic {
    world: World,
    /// The offset after five more records. The stale broker does not have these records.
    end: i64,
}

impl StaleTopic {
    fn recorded(mut world: World, end: i64) -> Self {
        let recorder = world.recorder();
        world.expect_position(3);
        recorder.stop();
        Self { world, end }
    }

    /// A suspended recorder that knows only the stale broker. Kafka has answered it once, but it
    /// had no lease, so it has not asked for the leader.
    fn suspended_recorder(&mut self, broker: &str) -> Recorder {
        self.world.database.batch_execute(ANOTHER_ACQUIRES_ALL).unwrap();
        let recorder = self.world.recorder_with(&[("KAFKA", broker)]);
        recorder.expect_log("leases: holding 0 of 1; active recorders: 2");
        recorder.signal("STOP");
        recorder
    }

    fn write_and_record(&mut self) {
        self.world.produce((3..8).map(ok));
        let recorder = self.world.recorder();
        self.world.expect_position(self.end);
        recorder.stop();
    }
}
