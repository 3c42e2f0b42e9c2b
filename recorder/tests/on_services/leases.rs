//! Tests of leases: several recorders share domains.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::domain::Domain;
use recorder::timings::Timings;
use testkit::proxy::KafkaProxy;
use testkit::services::{connect, fresh_name, shared};

use crate::support::{FENCED, Recorder, World, eventually, ok, outage_warnings};

/// The time within which other recorders must acquire the leases of an ended recorder.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

/// The holder of each topic. Expired recorders are left out.
const HOLDERS: &str = "select topic, holder::text from availability_lease \
    join availability_recorder using (holder) where expires_at > clock_timestamp()";

/// Several domains in one database.
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

    /// Produces one more record for each domain.
    fn produce(&mut self) {
        for domain in &self.domains {
            self.world.topic = domain.topic(&self.world.prefix).unwrap();
            self.world.produce([ok(self.second)]);
        }
        self.second += 1;
    }

    /// Waits until all records are recorded, and checks that each was recorded once.
    fn expect_all_once(&mut self) {
        for domain in self.domains.clone() {
            self.world.domain = domain;
            self.world.topic = self.world.domain.topic(&self.world.prefix).unwrap();
            self.world.expect_position(self.second);
            assert_eq!(self.world.offsets(), (0..self.second).collect::<Vec<_>>());
        }
    }

    /// The number of leases of each recorder. Expired recorders are left out.
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

/// Leases are shared equally. The leases of a killed recorder expire. A recorder that stops
/// releases its leases.
#[test]
fn domains_are_shared_and_taken_over_from_killed_and_stopped_recorders() {
    let mut all = Domains::new(7);
    let first = all.recorder();
    all.expect_shares(&[7]);
    let debug = ("RUST_LOG", "info,recorder::lease::store=debug");
    let second = all.world.recorder_with(&[("DOMAIN", &all.list()), debug]);
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
    eprintln!("taken over from a killed recorder: {took:?}");
    assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
    all.expect_shares(&[3, 4]);

    let (status, _, log) = second.stop();
    let start = Instant::now();
    // The leases were valid for a few more seconds. They were released, unless the database was too
    // slow.
    let holders = all.shares().len();
    let expires = "leases: not released, they expire in 5 s";
    assert!(holders == 1 || log.contains(expires), "{holders} holders: {log}");
    assert!(status.success(), "{log}");
    all.produce();
    all.expect_all_once();
    let took = start.elapsed();
    eprintln!("taken over from a stopped recorder: {took:?}");
    assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
    let (_, _, log) = third.stop();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert_eq!(all.world.number("select count(*) from availability_recorder"), Some(3));
    // A later recorder reuses the row of a recorder that expired long ago.
    all.world
        .database
        .batch_execute("update availability_recorder set expires_at = '-infinity'")
        .unwrap();
    let last = all.recorder();
    all.expect_shares(&[7]);
    assert_eq!(all.world.number("select count(*) from availability_recorder"), Some(3));
    last.stop();
}

/// A recorder that was suspended stops the workers of leases that other recorders acquired.
#[test]
fn a_recorder_that_was_suspended_writes_nothing_twice_and_joins_again() {
    let mut all = Domains::new(6);
    let suspended = all.recorder();
    all.expect_shares(&[6]);
    let other = all.recorder();
    all.expect_shares(&[3, 3]);
    suspended.signal("STOP");
    all.produce();
    all.expect_all_once();
    all.expect_shares(&[6]);
    suspended.signal("CONT");
    // For a short time, both recorders may work on the same domains.
    for _ in 0..10 {
        all.produce();
    }
    all.expect_all_once();
    all.expect_shares(&[3, 3]);
    all.produce();
    all.expect_all_once();
    for recorder in [suspended, other] {
        let (status, _, log) = recorder.stop();
        assert!(status.success(), "{log}");
    }
}

#[test]
fn a_fenced_recorder_confirms_its_lease_and_continues_from_the_new_position() {
    let mut world = World::new(&shared().unwrap());
    world.produce((0..3).map(ok));
    let recorder = world.recorder();
    world.expect_position(3);
    // A recorder without a lease writes, while the recorder of the test waits for the same records.
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
    assert_eq!(log.matches(FENCED).count(), 1, "{log}");
}

/// A recorder that has never reached Kafka does not register.
#[test]
fn a_recorder_that_never_reached_kafka_acquires_no_lease() {
    let mut all = Domains::new(4);
    let well = all.recorder();
    all.expect_shares(&[4]);
    let list = all.list();
    let started = Instant::now();
    let blind = all.world.recorder_with(&[("DOMAIN", &list), ("KAFKA", "127.0.0.1:1")]);
    blind.expect_log("leases: holding 0 of 4; active recorders: 1");
    blind.expect_log("WARN  recorder::report::outage_log] kafka: ");
    all.produce();
    all.expect_all_once();
    assert_eq!(all.shares(), [4]);
    let (_, took, log) = blind.stop();
    // A warning at the start of the outage, and one for each minute that it lasts.
    assert!(took.as_secs() < 8 && log.contains("WARN"), "{took:?} {log}");
    assert!(log.matches("WARN").count() <= outage_warnings(started.elapsed()), "{log}");
    let (_, _, log) = well.stop();
    assert!(!log.contains("WARN"), "{log}");
}

/// A recorder that loses Kafka keeps its leases while it is alone. It offers them to a recorder
/// that reaches Kafka, and requests its share again when Kafka is back.
#[test]
fn a_recorder_that_lost_kafka_offers_its_leases_to_others() {
    let mut all = Domains::new(4);
    let kafka = all.world.services.kafka_plain.clone();
    let proxy = KafkaProxy::start(&kafka).unwrap();
    let address = proxy.addresses();
    let list = all.list();
    let unreachable_after = Duration::from_secs(4);
    let timings = Timings {
        kafka_unreachable_after: unreachable_after,
        discovery_interval: Duration::from_secs(1),
        discovery_retry_delay: Duration::from_millis(500),
        ..Timings::default()
    };
    let cut = all.world.recorder_in_process(timings, &[("DOMAIN", &list), ("KAFKA", &address)]);
    all.expect_shares(&[4]);
    all.expect_all_once();
    // The only recorder keeps its leases while Kafka is unreachable.
    drop(proxy);
    let start = Instant::now();
    while start.elapsed() < unreachable_after + Duration::from_secs(4) {
        assert_eq!(all.shares(), [4], "after {:?}", start.elapsed());
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let well = all.recorder();
    well.expect_log("leases: holding 4 of 4; active recorders: 2");
    all.produce();
    all.expect_all_once();
    all.expect_shares(&[4]);
    let port = TcpListener::bind(&address).unwrap();
    let proxy = KafkaProxy::start_on(vec![port], &kafka).unwrap();
    all.expect_shares(&[2, 2]);
    all.produce();
    all.expect_all_once();
    cut.stop();
    well.stop();
    drop(proxy);
}

/// Another recorder acquires all leases for 7 s.
pub(crate) const ANOTHER_ACQUIRES_ALL: &str = "insert into availability_recorder values \
    ('00000000-0000-0000-0000-000000000001', 'another', now(), now() + interval '7 s');
    update availability_lease set holder = '00000000-0000-0000-0000-000000000001'";

/// A fenced recorder waits until a later read of the leases confirms its lease.
#[test]
fn a_fenced_recorder_writes_nothing_before_its_lease_is_confirmed() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    // No recorder can read the leases, and the recorder of the test has not expired yet.
    let mut gate = connect(&world.services, &world.uri).unwrap();
    let mut gate = gate.transaction().unwrap();
    gate.batch_execute("lock table availability_lease in access exclusive mode").unwrap();
    world.database.batch_execute("update availability_offset set next_offset = 2").unwrap();
    world.produce([ok(1), ok(2)]);
    recorder.expect_log(FENCED);
    let fenced_at = Instant::now();
    while fenced_at.elapsed() < Duration::from_secs(2) {
        assert_eq!(world.number("select next_offset from availability_offset"), Some(2));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    gate.rollback().unwrap();
    world.expect_position(3);
    assert_eq!(world.offsets(), [0, 2]);
    recorder.stop();
}

/// The worker of a lease that another recorder acquired is stopped.
#[test]
fn nothing_is_written_without_the_lease() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    world.database.batch_execute(ANOTHER_ACQUIRES_ALL).unwrap();
    recorder.expect_log("leases: holding 0 of 1; active recorders: 2");
    let start = Instant::now();
    world.produce([ok(1)]);
    world.expect_position(2);
    let took = start.elapsed();
    assert!(took > Duration::from_secs(2), "written under the lease of another recorder: {took:?}");
    recorder.stop();
}

/// A recorder acquires its expired leases again under a new id, if no other recorder has acquired
/// them. Its workers continue. An expired lease is never renewed.
#[test]
fn expired_leases_are_acquired_again_and_their_workers_go_on() {
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
    assert!(before.is_disjoint(&holders(&mut all)), "an expired lease was renewed");
    all.produce();
    all.expect_all_once();
    let (_, _, log) = recorder.stop();
    assert_eq!(log.matches("starting at offset").count(), 3, "{log}");
}

/// Creates a role with exactly the rights in README, in the database of a world. Returns its URI.
fn limited_role(world: &mut World) -> String {
    let role = fresh_name("limited").replace('-', "_");
    let make = format!(
        "set scram_iterations = 1; create role {role} login password 'limited'; \
         grant select, insert, update on all tables in schema public to {role}; \
         grant usage on all sequences in schema public to {role}; \
         grant delete on availability_mark, availability_quarantine to {role}"
    );
    world.database.batch_execute(&make).unwrap();
    let port = world.services.postgres_port;
    let name = world.uri.split('?').next().unwrap().rsplit('/').next().unwrap();
    format!("postgres://{role}:limited@127.0.0.1:{port}/{name}?sslmode=disable")
}

/// Creates the tables of all domains: starts a recorder that records the first results.
fn record_first(all: &mut Domains) {
    let recorder = all.recorder();
    all.expect_all_once();
    recorder.stop();
}

/// A recorder may lack a right on one table. It keeps the domain while it is alone, and hands it
/// over to a recorder that has the right. The domain does not come back at once.
#[test]
fn a_domain_is_taken_over_from_a_recorder_that_lacks_a_right() {
    let mut all = Domains::new(2);
    record_first(&mut all);
    let uri = limited_role(&mut all.world);
    let role = uri.split(['/', ':']).nth(3).unwrap().to_owned();
    let table = all.domains[0].table();
    let revoke = format!("revoke insert on \"{table}\" from {role}");
    all.world.database.batch_execute(&revoke).unwrap();
    let list = all.list();
    let limited = all.world.recorder_with(&[("DOMAIN", &list), ("POSTGRES", &uri)]);
    all.expect_shares(&[2]);
    all.produce();
    limited.expect_log("permission denied");
    let offered = "select count(*) from availability_lease where offered_by = holder";
    all.world.expect(offered, 1);
    assert_eq!(all.shares(), [2]);
    let full = all.recorder();
    all.expect_all_once();
    limited.expect_log("leases: handing over 1 of the domains");
    all.expect_shares(&[1, 1]);
    let leases = "select topic, holder::text from availability_lease order by topic";
    let holders = |all: &mut Domains| {
        let rows = all.world.database.query(leases, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, String)>>()
    };
    let before = holders(&mut all);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        assert_eq!(holders(&mut all), before, "leases still move");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    all.produce();
    all.expect_all_once();
    limited.stop();
    full.stop();
}

/// A recorder of this version uses tables of an earlier version that it may not change.
#[test]
fn a_recorder_that_may_not_add_the_column_for_offers_records_without_it() {
    let mut all = Domains::new(2);
    record_first(&mut all);
    let uri = limited_role(&mut all.world);
    let drop = "alter table availability_lease drop column offered_by";
    all.world.database.batch_execute(drop).unwrap();
    let list = all.list();
    let limited = all.world.recorder_with(&[("DOMAIN", &list), ("POSTGRES", &uri)]);
    all.produce();
    all.expect_all_once();
    let (status, _, log) = limited.stop();
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("has no column offered_by").count(), 1, "{log}");
    // The owner adds the column.
    let owner = all.recorder();
    all.produce();
    all.expect_all_once();
    assert_eq!(all.world.number("select count(offered_by) from availability_lease"), Some(0));
    owner.stop();
}

/// Leases may be renewed in time, but read so slowly that they expire meanwhile. It is logged that
/// their domains are not recorded.
#[test]
fn slow_look_ups_of_leases_are_logged() {
    let mut all = Domains::new(2);
    let recorder = all.recorder();
    all.expect_shares(&[2]);
    all.expect_all_once();
    let mut gate = connect(&all.world.services, &all.world.uri).unwrap();
    let start = Instant::now();
    let line = "leases: not recording all the time";
    // Each statement on leases waits for more than two seconds.
    while !recorder.log().contains(line) {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", recorder.log());
        let mut gate = gate.transaction().unwrap();
        gate.batch_execute("lock table availability_recorder in access exclusive mode").unwrap();
        std::thread::park_timeout(Duration::from_millis(2_200));
        gate.rollback().unwrap();
    }
    recorder.expect_log("leases: looked up in time again after ");
    all.produce();
    all.expect_all_once();
    recorder.stop();
}

/// A topic that can't be recorded is rejected, and logged once. The other topics are recorded.
#[test]
fn a_pattern_selects_topics_created_later_and_rejects_unusable_topics() {
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
        "x is not recorded: domains url.index.x and x would share the name \
         web_activity_url_index_x in postgresql",
    );
    recorder.expect_log("C.d is not recorded: \"C.d\" is not the normal spelling, c.d");
    let start = Instant::now();
    produce(&mut world, "late.example");
    world.expect(recorded, 4);
    let took = start.elapsed();
    eprintln!("discovered after {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    // A domain given by name is recorded once its topic exists.
    produce(&mut world, "plain.example");
    world.expect(recorded, 5);
    let below = world.recorder_with(&[("DOMAIN", "*.example")]);
    below.expect_log("recording 0 domains and *.example to postgresql");
    below.expect_log("of 2; active recorders: 2");
    below.stop();
    let (_, _, log) = recorder.stop();
    assert_eq!(log.matches(" is not recorded: ").count(), 2, "each once: {log}");
    drop(connect(&world.services, &world.uri).unwrap());
}
