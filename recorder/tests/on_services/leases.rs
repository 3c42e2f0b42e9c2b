//! Several recorders that share domains.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::domain::Domain;
use testkit::proxy::KafkaProxy;
use testkit::services::{connect, fresh_name, shared};

use crate::support::{Recorder, World, eventually, ok};

/// How long others may take to go on after a holder died, or has stopped.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

/// How long it may take until a recorder is sure that Kafka is away: it asks every
/// 15 s, and believes it 30 s after the first question without an answer.
const KAFKA_IS_AWAY_WITHIN: Duration = Duration::from_secs(48);

/// Who holds each topic, as far as they are at work.
const HOLDERS: &str = "select topic, holder::text from availability_lease \
    join availability_recorder using (holder) where expires_at > clock_timestamp()";

/// Domains in one database.
struct Domains {
    world: World,
    domains: Vec<Domain>,
    second: i64,
}

impl Domains {
    fn new(count: usize) -> Self {
        let world = World::new(&shared().unwrap());
        let prefix = fresh_name("n");
        let name = |index| Domain::parse(&format!("{prefix}-{index}.example")).unwrap();
        let mut all = Self { world, domains: (0..count).map(name).collect(), second: 0 };
        all.produce();
        all
    }

    fn list(&self) -> String {
        self.domains.iter().map(Domain::as_str).collect::<Vec<_>>().join(",")
    }

    fn recorder(&self) -> Recorder {
        self.world.recorder_with(&[("DOMAIN", &self.list())])
    }

    /// One more record for each.
    fn produce(&mut self) {
        for domain in &self.domains {
            self.world.topic = domain.topic(&self.world.prefix).unwrap();
            self.world.produce([ok(self.second)]);
        }
        self.second += 1;
    }

    /// Waits until all that was produced is recorded, and sees it once each.
    fn expect_all_once(&mut self) {
        for domain in self.domains.clone() {
            self.world.domain = domain;
            self.world.topic = self.world.domain.topic(&self.world.prefix).unwrap();
            self.world.expect_position(self.second);
            assert_eq!(self.world.offsets(), (0..self.second).collect::<Vec<_>>());
        }
    }

    /// How many domains each has that is at work.
    fn shares(&mut self) -> Vec<usize> {
        let mut shares = BTreeMap::<String, usize>::new();
        for row in self.world.database.query(HOLDERS, &[]).unwrap_or_default() {
            *shares.entry(row.get(1)).or_default() += 1;
        }
        let mut shares: Vec<_> = shares.into_values().collect();
        shares.sort_unstable();
        shares
    }

    fn expect_shares(&mut self, expected: &[usize]) {
        eventually(&format!("shares {expected:?}"), || (self.shares() == expected).then_some(()));
    }
}

/// Goes red when `Keeper::end` does not release, when a dead holder's leases
/// are not free to `leases::plan`, and when that asks for none.
#[test]
fn domains_are_spread_and_taken_over_from_who_dies_and_who_stops() {
    let mut all = Domains::new(7);
    let first = all.recorder();
    all.expect_shares(&[7]);
    let says_more = ("RUST_LOG", "info,recorder::lease::store=debug");
    let second = all.world.recorder_with(&[("DOMAIN", &all.list()), says_more]);
    all.expect_shares(&[3, 4]);
    let third = all.recorder();
    all.expect_shares(&[2, 2, 3]);
    all.produce();
    all.expect_all_once();

    let start = Instant::now();
    first.kill();
    all.produce();
    all.expect_all_once();
    let took = start.elapsed();
    eprintln!("taken over from who died: {took:?}");
    assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
    all.expect_shares(&[3, 4]);

    let (status, _, log) = second.stop();
    let start = Instant::now();
    // Nothing is held any more by who would have held it for some seconds yet, unless
    // the database was too slow for it.
    let holders = all.shares().len();
    assert!(holders == 1 || log.contains("; they run out in 5 s"), "{holders} holders: {log}");
    assert!(status.success(), "{log}");
    all.produce();
    all.expect_all_once();
    let took = start.elapsed();
    eprintln!("taken over from who stopped: {took:?}");
    assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
    let (_, _, log) = third.stop();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert_eq!(all.world.number("select count(*) from availability_recorder"), Some(3));
    // A recorder that comes later sits down where one was long ago.
    all.world
        .database
        .batch_execute("update availability_recorder set expires_at = '-infinity'")
        .unwrap();
    let last = all.recorder();
    all.expect_shares(&[7]);
    assert_eq!(all.world.number("select count(*) from availability_recorder"), Some(3));
    last.stop();
}

/// Goes red when `Keeper::look` does not end the threads of leases that others
/// hold.
#[test]
fn who_was_stopped_and_goes_on_writes_nothing_twice_and_joins_again() {
    let mut all = Domains::new(6);
    let stopped = all.recorder();
    all.expect_shares(&[6]);
    let other = all.recorder();
    all.expect_shares(&[3, 3]);
    stopped.signal("STOP");
    all.produce();
    all.expect_all_once();
    all.expect_shares(&[6]);
    stopped.signal("CONT");
    // Both are at work on all that comes, whatever either believes.
    for _ in 0..10 {
        all.produce();
    }
    all.expect_all_once();
    all.expect_shares(&[3, 3]);
    all.produce();
    all.expect_all_once();
    for recorder in [stopped, other] {
        let (status, _, log) = recorder.stop();
        assert!(status.success(), "{log}");
    }
}

/// Goes red when `move_position` does not look at the number of rows.
#[test]
fn who_is_fenced_asks_for_its_lease_and_goes_on_from_where_the_other_left() {
    let mut world = World::new(&shared().unwrap());
    world.produce((0..3).map(ok));
    let recorder = world.recorder();
    world.expect_position(3);
    // What one without leases does, while ours waits for the same records.
    let table = world.table();
    let moved = format!(
        "insert into {table} (topic_offset, test_from, url) values (3, 'a', 'b'), (4, 'a', 'b');
         update availability_offset set next_offset = 5;"
    );
    world.database.batch_execute(&moved).unwrap();
    world.produce((3..8).map(ok));
    world.expect_position(8);
    assert_eq!(world.offsets(), (0..8).collect::<Vec<_>>());
    let (_, _, log) = recorder.stop();
    assert_eq!(log.matches("another recorder is at work on it").count(), 1, "{log}");
}

/// A recorder whose Kafka never answers takes nothing from one that is well.
/// Goes red when `Keeper::look` always joins.
#[test]
fn who_never_reached_kafka_has_no_share() {
    let mut all = Domains::new(4);
    let well = all.recorder();
    all.expect_shares(&[4]);
    let list = all.list();
    let blind = all.world.recorder_with(&[("DOMAIN", &list), ("KAFKA", "127.0.0.1:1")]);
    blind.expect_log("leases: 0 of 4 domains are ours, recorders at work: 1");
    blind.expect_log("WARN  recorder::report::outage_log] kafka: ");
    all.produce();
    all.expect_all_once();
    assert_eq!(all.shares(), [4]);
    let (_, took, log) = blind.stop();
    assert!(took.as_secs() < 8 && log.matches("WARN").count() == 1, "{took:?} {log}");
    let (_, _, log) = well.stop();
    assert!(!log.contains("WARN"), "{log}");
}

/// Goes red when `Keeper::look` never stands back, when one that stood back does
/// not join again, and when one that is alone lets go.
#[test]
fn who_lost_kafka_for_long_leaves_its_domains_to_who_has_not() {
    let mut all = Domains::new(4);
    let kafka = all.world.services.kafka_plain.clone();
    let proxy = KafkaProxy::start(&kafka).unwrap();
    let address = proxy.addresses();
    let list = all.list();
    let cut = all.world.recorder_with(&[("DOMAIN", &list), ("KAFKA", &address)]);
    all.expect_shares(&[4]);
    all.expect_all_once();
    // Alone it holds on to what it has, though nobody answers it.
    drop(proxy);
    let start = Instant::now();
    while start.elapsed() < KAFKA_IS_AWAY_WITHIN {
        assert_eq!(all.shares(), [4], "after {:?}", start.elapsed());
        std::thread::park_timeout(Duration::from_millis(500));
    }
    let well = all.recorder();
    all.produce();
    all.expect_all_once();
    all.expect_shares(&[4]);
    cut.expect_log("leases: kafka does not answer here: leaving the domains to others");
    let port = TcpListener::bind(&address).unwrap();
    let proxy = KafkaProxy::start_on(vec![port], &kafka).unwrap();
    all.expect_shares(&[2, 2]);
    all.produce();
    all.expect_all_once();
    let (status, _, log) = cut.stop();
    assert!(status.success(), "{log}");
    assert!(log.matches("WARN").count() <= 3, "{log}");
    well.stop();
    drop(proxy);
}

/// Another recorder that holds the leases for 7 s.
pub(crate) const ANOTHER: &str = "insert into availability_recorder values \
    ('00000000-0000-0000-0000-000000000001', 'another', now(), now() + interval '7 s');
    update availability_lease set holder = '00000000-0000-0000-0000-000000000001'";

/// Goes red when `DomainThread::run` does not doubt its lease after it was
/// fenced.
#[test]
fn who_is_fenced_writes_nothing_before_it_knows_of_its_lease() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    // Nobody can look at leases, and ours is not over yet.
    let mut gate = connect(&world.services, &world.uri).unwrap();
    let mut gate = gate.transaction().unwrap();
    gate.batch_execute("lock table availability_lease in access exclusive mode").unwrap();
    world.database.batch_execute("update availability_offset set next_offset = 2").unwrap();
    world.produce([ok(1), ok(2)]);
    recorder.expect_log("another recorder is at work on it");
    let fenced = Instant::now();
    while fenced.elapsed() < Duration::from_secs(2) {
        assert_eq!(world.number("select next_offset from availability_offset"), Some(2));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    gate.rollback().unwrap();
    world.expect_position(3);
    assert_eq!(world.offsets(), [0, 2]);
    recorder.stop();
}

/// Goes red when `Keeper::look` does not end the thread of a lease that is gone.
#[test]
fn nothing_is_read_without_the_lease() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    world.database.batch_execute(ANOTHER).unwrap();
    recorder.expect_log("leases: 0 of 1 domains are ours, recorders at work: 2");
    let start = Instant::now();
    world.produce([ok(1)]);
    world.expect_position(2);
    let took = start.elapsed();
    assert!(took > Duration::from_secs(2), "written under another's lease: {took:?}");
    recorder.stop();
}

/// Leases that ran out because the database was asked by nobody are taken back
/// as they were: the threads go on, and nobody is told of a start. Goes red when
/// `LeaseStore::look` does not start over, or `RENEW` renews what has run out.
#[test]
fn leases_that_ran_out_and_that_nobody_took_are_taken_back() {
    let mut all = Domains::new(3);
    let recorder = all.recorder();
    all.expect_shares(&[3]);
    all.expect_all_once();
    let holders = |all: &mut Domains| {
        let rows = all.world.database.query(HOLDERS, &[]).unwrap();
        rows.iter().map(|row| row.get::<_, String>(1)).collect::<BTreeSet<_>>()
    };
    let before = holders(&mut all);
    let expire = "update availability_recorder set expires_at = now() - interval '1 s'";
    all.world.database.batch_execute(expire).unwrap();
    all.expect_shares(&[3]);
    assert!(before.is_disjoint(&holders(&mut all)), "what ran out was renewed");
    all.produce();
    all.expect_all_once();
    let (_, _, log) = recorder.stop();
    assert_eq!(log.matches("starting at offset").count(), 3, "{log}");
}

/// Goes red when `Wanted::found` refuses instead of leaving out, and when
/// `discovery::run` looks once.
#[test]
fn a_pattern_finds_topics_made_later_and_leaves_out_what_can_not_be() {
    let mut world = World::with_prefix(&shared().unwrap(), &format!("{}-", fresh_name("p")));
    let prefix = world.prefix.clone();
    let produce = |world: &mut World, name: &str| {
        world.topic = format!("{prefix}{name}");
        world.produce([ok(0)]);
    };
    for name in ["x", "url.index.x", "y", "C.d", "--1"] {
        produce(&mut world, name);
    }
    let recorder = world.recorder_with(&[("DOMAIN", "plain.example, *")]);
    let recorded = "select count(*) from availability_offset where next_offset = 1";
    world.expect(recorded, 3);
    recorder.expect_log(
        "x is left out: domains url.index.x and x would share the name \
         web_activity_url_index_x in postgresql",
    );
    recorder.expect_log("C.d is left out: \"C.d\" is not spelt like c.d");
    let start = Instant::now();
    produce(&mut world, "late.example");
    world.expect(recorded, 4);
    let took = start.elapsed();
    eprintln!("found after {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    // The name is waited for, as ever.
    produce(&mut world, "plain.example");
    world.expect(recorded, 5);
    let below = world.recorder_with(&[("DOMAIN", "*.example")]);
    below.expect_log("recording 0 domains and *.example to postgresql");
    below.expect_log("of 2 domains are ours, recorders at work: 2");
    below.stop();
    let (_, _, log) = recorder.stop();
    assert_eq!(log.matches(" is left out: ").count(), 2, "each once: {log}");
    drop(connect(&world.services, &world.uri).unwrap());
}
