use std::time::{Duration, Instant};

use fastrand::Rng;

use super::*;
use crate::lease::offers::{OfferCause, Offers};
use crate::lease::reach::{LeaderReach, Leaders};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn topics(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t{number:03}")).collect()
}

fn free_lease(topic: &str) -> Lease {
    Lease { topic: topic.to_owned(), holder: None, wanted_by: None, offered_by: None }
}

/// The move of a lease to another holder.
#[derive(Debug, PartialEq, Eq)]
struct Move {
    topic: String,
    /// Whether the former holder offered the lease.
    is_offered: bool,
    to: Uuid,
}

/// The tables of leases, to which plans are applied by compare-and-set. A recorder that
/// ends is removed from `snapshot.recorders`.
struct LeaseTable {
    snapshot: LeaseSnapshot,
    deferred: BTreeMap<Uuid, HashSet<String>>,
    moves: usize,
}

impl LeaseTable {
    fn new(recorders: impl IntoIterator<Item = u128>) -> Self {
        let recorders = recorders.into_iter().map(id).collect();
        let snapshot = LeaseSnapshot { leases: vec![], recorders };
        Self { snapshot, deferred: BTreeMap::new(), moves: 0 }
    }

    /// Lets one recorder plan and change the table.
    fn apply_plan_of(&mut self, number: u128, topics: &[String]) -> LeasePlan {
        let holder = Holder { id: id(number), previous_id: id(0) };
        let topics = topics.iter().map(|topic| (topic.as_str(), Access::Request)).collect();
        let snapshot = self.snapshot.clone();
        let (plan, _) = self.plan_and_apply(&snapshot, holder, &topics, &BTreeSet::new());
        plan
    }

    /// Lets one recorder plan from a snapshot, and change the leases that have not changed since
    /// the snapshot. Also returns the moves.
    fn plan_and_apply(
        &mut self,
        read: &LeaseSnapshot,
        holder: Holder,
        topics: &BTreeMap<&str, Access>,
        offers: &BTreeSet<&str>,
    ) -> (LeasePlan, Vec<Move>) {
        let deferred = self.deferred.get(&holder.id).cloned().unwrap_or_default();
        let offered_requests_max = OFFERED_REQUESTS_MAX;
        let own = OwnState { holder, topics, deferred: &deferred, offers, offered_requests_max };
        let plan = plan_changes(read, &own);
        for topic in &plan.insert {
            if self.snapshot.leases.iter().all(|lease| lease.topic != *topic) {
                self.snapshot.leases.push(free_lease(topic));
            }
        }
        let mut moved = Vec::new();
        for lease in &mut self.snapshot.leases {
            let is_as_read = |read: &&Lease| {
                read.topic == lease.topic
                    && read.holder == lease.holder
                    && read.wanted_by == lease.wanted_by
            };
            let hand_over = plan.hand_over.iter().find(|(topic, to)| {
                *topic == lease.topic
                    && lease.holder == Some(holder.id)
                    && lease.wanted_by == Some(*to)
            });
            let is_acquired = plan.acquire.iter().any(|read| is_as_read(&read));
            let is_requested = plan.request.iter().any(|read| is_as_read(&read));
            if lease.holder == Some(holder.id) {
                if plan.offer.contains(&lease.topic) {
                    lease.offered_by = Some(holder.id);
                } else if plan.withdraw.contains(&lease.topic) {
                    lease.offered_by = None;
                }
            }
            let new_holder = match hand_over {
                _ if is_acquired => Some(holder.id),
                Some((_, to)) => Some(*to),
                None => None,
            };
            if let Some(to) = new_holder {
                moved.push(Move { topic: lease.topic.clone(), is_offered: lease.is_offered(), to });
                (lease.holder, lease.wanted_by) = (Some(to), None);
                lease.offered_by = lease.offered_by.filter(|by| *by != to);
            } else if is_requested {
                lease.wanted_by = Some(holder.id);
            }
        }
        self.moves += moved.len();
        self.snapshot
            .leases
            .sort_by_key(|lease| moved.iter().all(|moved| moved.topic != lease.topic));
        self.deferred.insert(holder.id, plan.deferred.clone());
        (plan, moved)
    }

    fn count_of(&self, number: u128) -> usize {
        self.snapshot.leases.iter().filter(|lease| lease.holder == Some(id(number))).count()
    }

    /// Lets all recorders plan in turn until no plan makes a change.
    fn settle(&mut self, recorders: &[(u128, &[String])]) {
        for _ in 0..60 {
            let mut changes = 0;
            for (number, topics) in recorders {
                let plan = self.apply_plan_of(*number, topics);
                changes += plan.acquire.len() + plan.request.len() + plan.hand_over.len();
            }
            if changes == 0 {
                return;
            }
        }
        panic!("leases still move after 60 rounds: {:?}", self.snapshot);
    }
}

#[test]
fn any_number_of_recorders_even_out_and_then_no_lease_moves() {
    for (domains, recorders) in [(6, 1), (6, 2), (7, 3), (1000, 4), (2, 5), (0, 2)] {
        let topics = topics(domains);
        let mut table = LeaseTable::new(1..=recorders);
        let all: Vec<_> = (1..=recorders).map(|number| (number, topics.as_slice())).collect();
        table.settle(&all[..1]);
        table.settle(&all);
        let counts: Vec<_> = (1..=recorders).map(|number| table.count_of(number)).collect();
        let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
        assert!(spread <= 1, "{domains} domains: {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), domains);
        assert!(table.moves <= 2 * domains, "{} moves for {domains} domains", table.moves);
    }
}

/// A fair share is no upper bound: a domain that only one recorder lists is recorded.
#[test]
fn recorders_with_different_lists_record_all_domains() {
    let all = topics(9);
    let (eight, one) = (&all[..8], &all[8..]);
    let mut table = LeaseTable::new([1, 2]);
    table.settle(&[(1, eight), (2, one)]);
    assert_eq!((table.count_of(1), table.count_of(2)), (8, 1));
    // A domain on both lists goes to the recorder with fewer leases.
    table.settle(&[(1, &all), (2, &all[4..])]);
    assert_eq!((table.count_of(1), table.count_of(2)), (5, 4));
}

/// A recorder defers free leases above its fair share once.
#[test]
fn leases_of_an_expired_recorder_are_shared_equally() {
    let topics = topics(9);
    let mut table = LeaseTable::new([1, 2, 3]);
    let all = [(1, topics.as_slice()), (2, topics.as_slice()), (3, topics.as_slice())];
    table.settle(&all);
    table.snapshot.recorders.remove(&id(3));
    table.moves = 0;
    table.settle(&all[..2]);
    let mut counts = [table.count_of(1), table.count_of(2)];
    counts.sort_unstable();
    assert_eq!((counts, table.moves), ([4, 5], 3));
}

#[test]
fn no_lease_is_handed_over_to_an_expired_recorder() {
    let topics = topics(4);
    let mut table = LeaseTable::new([1, 2]);
    table.settle(&[(1, topics.as_slice())]);
    assert_eq!(table.apply_plan_of(2, &topics).request.len(), 2);
    table.snapshot.recorders.remove(&id(2));
    table.settle(&[(1, topics.as_slice())]);
    assert_eq!((table.count_of(1), table.moves), (4, 4));
}

/// A recorder knows its leases by its previous id, and defers none of them.
#[test]
fn a_recorder_whose_leases_expired_acquires_them_again_at_once() {
    let topics = topics(4);
    let mut table = LeaseTable::new([1, 2]);
    table.settle(&[(1, topics.as_slice())]);
    table.snapshot.recorders.remove(&id(1));
    table.snapshot.recorders.insert(id(7));
    let holder = Holder { id: id(7), previous_id: id(1) };
    let topics = topics.iter().map(|topic| (topic.as_str(), Access::Request)).collect();
    let snapshot = table.snapshot.clone();
    let (plan, _) = table.plan_and_apply(&snapshot, holder, &topics, &BTreeSet::new());
    assert_eq!((plan.acquire.len(), plan.deferred.len()), (4, 0));
}

/// A recorder of the simulation: the state of its supervisor, its discovery thread and its workers.
struct SimulatedRecorder {
    holder: Holder,
    list: Vec<String>,
    /// The brokers that the recorder does not reach.
    unreached: Leaders,
    reach: LeaderReach,
    offers: Offers,
    /// The second of every 15 seconds in which the discovery thread asks the brokers.
    discovers_at: u64,
    /// The start time of the worker of each held lease.
    started: BTreeMap<String, u64>,
    /// The topics for which a right is missing.
    refused: BTreeSet<String>,
}

/// N recorders that share one table of leases, simulated second by second.
struct Simulation {
    random: Rng,
    start: Instant,
    second: u64,
    table: LeaseTable,
    /// The time of the last move of each lease.
    moved_at: BTreeMap<String, u64>,
    /// The leaders of each topic.
    leaders: BTreeMap<String, Leaders>,
    recorders: Vec<SimulatedRecorder>,
    /// The moves since the list was last cleared.
    moved: Vec<Move>,
}

/// The time without an answer after which the lease of a worker is offered.
const NO_ANSWER_SECONDS: u64 = 30;

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let topics = topics(random.usize(1..30));
        let brokers = random.i32(1..5);
        let led = |topic: &String, random: &mut Rng| {
            let leader = if random.u8(..20) == 0 { None } else { Some(random.i32(0..brokers)) };
            (topic.clone(), leader.into_iter().collect::<Leaders>())
        };
        let leaders = topics.iter().map(|topic| led(topic, &mut random)).collect();
        let count = random.u128(1..5);
        let recorder = |number: u128, random: &mut Rng| {
            let all = random.bool();
            let list = topics.iter().filter(|_| all || random.u8(..4) > 0).cloned().collect();
            SimulatedRecorder {
                holder: Holder { id: id(number), previous_id: id(0) },
                list,
                unreached: Leaders::new(),
                reach: LeaderReach::default(),
                offers: Offers::new(Duration::from_secs(300)),
                discovers_at: random.u64(..15),
                started: BTreeMap::new(),
                refused: BTreeSet::new(),
            }
        };
        let recorders = (1..=count).map(|number| recorder(number, &mut random)).collect();
        let (start, table) = (Instant::now(), LeaseTable::new(1..=count));
        let moved_at = BTreeMap::new();
        Self { random, start, second: 0, table, moved_at, leaders, recorders, moved: Vec::new() }
    }

    /// Cuts each recorder off from some brokers.
    fn cut(&mut self) {
        for recorder in &mut self.recorders {
            let brokers = 0..5;
            recorder.unreached = brokers.filter(|_| self.random.u8(..3) == 0).collect();
        }
    }

    fn heal(&mut self) {
        self.recorders.iter_mut().for_each(|recorder| recorder.unreached.clear());
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let mut order: Vec<usize> = (0..self.recorders.len()).collect();
            self.random.shuffle(&mut order);
            // Some recorders read the table before other recorders have changed it.
            let read = self.read();
            for index in order {
                let read = if self.random.bool() { read.clone() } else { self.read() };
                self.update(index, &read);
            }
        }
    }

    /// The rows as a recorder reads them now. An offer counts for five minutes after the lease has
    /// moved.
    fn read(&self) -> LeaseSnapshot {
        let mut read = self.table.snapshot.clone();
        for lease in read.leases.iter_mut().filter(|lease| !lease.is_offered()) {
            let moved_at = self.moved_at.get(&lease.topic).copied().unwrap_or(0);
            lease.offered_by = lease.offered_by.filter(|_| self.second - moved_at < 300);
        }
        read
    }

    /// One turn of a supervisor, and of its discovery thread if its time has come.
    fn update(&mut self, index: usize, read: &LeaseSnapshot) {
        let now = self.start + Duration::from_secs(self.second);
        let (second, leaders) = (self.second, &self.leaders);
        let recorder = &mut self.recorders[index];
        if second % 15 == recorder.discovers_at {
            let unreached = recorder.unreached.iter().map(|broker| (*broker, String::new()));
            recorder.reach.update(leaders, unreached.collect(), now);
        }
        let holder = recorder.holder;
        let own = read.leases.iter().filter(|lease| lease.holder == Some(holder.id));
        let held: BTreeSet<&str> = own.map(|lease| lease.topic.as_str()).collect();
        recorder.started.retain(|topic, _| held.contains(topic.as_str()));
        let mut failing = BTreeMap::new();
        for topic in &held {
            let started = *recorder.started.entry((*topic).to_owned()).or_insert(second);
            let is_cut = leaders[*topic].iter().any(|leader| recorder.unreached.contains(leader));
            if !is_cut {
                // The worker fetches successfully, so the time of failures restarts.
                recorder.started.insert((*topic).to_owned(), second);
            }
            if is_cut && second - started >= NO_ANSWER_SECONDS {
                failing.insert((*topic).to_owned(), OfferCause::NoAnswer);
            }
            if recorder.refused.contains(*topic) {
                failing.insert((*topic).to_owned(), OfferCause::Refused);
            }
        }
        recorder.offers.update(&held, &failing, now);
        let list = recorder.list.iter().map(String::as_str);
        let reach = recorder.reach.of(list, now).into_iter();
        let access = |(topic, reach)| (topic, recorder.offers.access(topic, reach, now));
        let access = reach.map(access).collect();
        let (_, moved) =
            self.table.plan_and_apply(read, holder, &access, &recorder.offers.topics());
        self.moved_at.extend(moved.iter().map(|moved| (moved.topic.clone(), second)));
        self.moved.extend(moved);
    }

    fn holder_of(&self, topic: &str) -> Option<Uuid> {
        self.table.snapshot.leases.iter().find(|lease| lease.topic == topic)?.holder
    }

    fn reaches(&self, recorder: &SimulatedRecorder, topic: &str) -> bool {
        recorder.list.iter().any(|listed| listed == topic)
            && self.leaders[topic].iter().all(|leader| !recorder.unreached.contains(leader))
    }

    /// Checks each topic that some recorder can record. Its holder must be able to record it.
    fn expect_nothing_left(&self, seed: u64) {
        for topic in self.leaders.keys() {
            let able: Vec<_> = self.recorders.iter().filter(|it| self.reaches(it, topic)).collect();
            let holder = self.holder_of(topic);
            let is_recorded = able.iter().any(|it| Some(it.holder.id) == holder);
            assert!(able.is_empty() || is_recorded, "seed {seed}: {topic} is held by {holder:?}");
        }
    }

    /// Checks that no lease moves any more.
    fn expect_rest(&mut self, seed: u64) {
        self.moved.clear();
        let before = self.table.snapshot.clone();
        self.run(310);
        assert_eq!(self.moved, [], "seed {seed}: leases still move");
        assert_eq!(self.table.snapshot, before, "seed {seed}");
    }
}

#[test]
fn a_lease_whose_leader_is_not_reached_moves_once_to_a_recorder_that_reaches_it() {
    for seed in 0..25 {
        let mut simulation = Simulation::new(seed);
        simulation.run(120);
        simulation.expect_nothing_left(seed);
        simulation.expect_rest(seed);
        let before: BTreeMap<String, Option<Uuid>> = simulation
            .leaders
            .keys()
            .map(|topic| (topic.clone(), simulation.holder_of(topic)))
            .collect();
        simulation.cut();
        simulation.moved.clear();
        simulation.run(200);
        let moved = std::mem::take(&mut simulation.moved);
        for topic in simulation.leaders.keys() {
            let moves: Vec<_> = moved.iter().filter(|moved| moved.topic == *topic).collect();
            let offered = moves.iter().filter(|moved| moved.is_offered).count();
            assert!(offered <= 1, "seed {seed}: {topic} was offered twice: {moves:?}");
            let mut holders = vec![before[topic]];
            for Move { to, .. } in &moves {
                assert!(
                    !holders.contains(&Some(*to)),
                    "seed {seed}: {topic} moved back: {moves:?}"
                );
                holders.push(Some(*to));
            }
            let is_reached = simulation.recorders.iter().any(|it| simulation.reaches(it, topic));
            assert!(is_reached || moves.is_empty(), "seed {seed}: {topic}, which nobody reaches");
        }
        simulation.expect_nothing_left(seed);
        simulation.run(300);
        simulation.expect_nothing_left(seed);
        simulation.expect_rest(seed);
        simulation.heal();
        simulation.run(400);
        simulation.expect_nothing_left(seed);
        simulation.expect_rest(seed);
    }
}
