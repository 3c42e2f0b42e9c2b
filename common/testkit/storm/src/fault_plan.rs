//! What is done to whom, and when: a pure function of the seed.
//!
//! Each lane is worked through by a thread of its own, one fault after the
//! other, so that a broker that takes long to come back delays no other lane.
//! A lane deals its kinds like cards, so that each comes up early and in its
//! share; everything else about a fault is drawn from the seed.

use testkit::proxy::Direction;

/// How many domains are probed.
pub(crate) const DOMAINS: usize = 20;
/// How many brokers there are.
pub(crate) const BROKERS: usize = 3;
/// The time in which nothing is broken yet, in milliseconds: programs start.
const CALM_MS: u64 = 4_000;

/// A tracker or a recorder, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProgramId {
    /// A tracker.
    Tracker(usize),
    /// A recorder.
    Recorder(usize),
}

impl ProgramId {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::Tracker(0), Self::Tracker(1), Self::Recorder(0), Self::Recorder(1)];

    /// As it is called in logs, counted from 1.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tracker(index) => format!("tracker-{}", index + 1),
            Self::Recorder(index) => format!("recorder-{}", index + 1),
        }
    }
}

/// A kind of request to Kafka that a proxy looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KafkaRequest {
    /// Records written.
    Produce,
    /// Records read.
    Fetch,
    /// Topics and leaders looked up.
    Metadata,
    /// A log's ends looked up.
    ListOffsets,
}

/// One thing that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and a new start after so many milliseconds.
    Kill(ProgramId, u64),
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    Pause(ProgramId, u64),
    /// SIGKILL of a broker, counted from 1, and a new start.
    KillBroker(usize, u64),
    /// SIGSTOP of a broker, and SIGCONT.
    PauseBroker(usize, u64),
    /// An immediate end of PostgreSQL, and a new start.
    CrashPostgres(u64),
    /// A connection to a broker is cut after so many bytes of a frame.
    CutKafka(KafkaRequest, Direction, usize),
    /// A frame is held for so many milliseconds.
    StallKafka(KafkaRequest, Direction, u64),
    /// A frame is left out.
    SwallowKafka(KafkaRequest, Direction),
    /// A connection to PostgreSQL is cut after so many bytes from the beginning
    /// of a transaction on, or of its commit.
    CutPostgres {
        /// From the COMMIT on, not from the transaction's beginning.
        commit: bool,
        /// Which way.
        direction: Direction,
        /// How many bytes pass.
        bytes: usize,
    },
    /// A message of a transaction is held for so many milliseconds.
    StallPostgres {
        /// The COMMIT, not the transaction's beginning.
        commit: bool,
        /// Which way.
        direction: Direction,
        /// How long.
        ms: u64,
    },
    /// The disk of the first tracker's spool is full for so many milliseconds.
    FillDisk(u64),
    /// A domain's topic is deleted, with the recorders stopped for so many
    /// milliseconds before (0: not stopped), and made again by a tracker or us.
    RemakeTopic {
        /// The domain's index.
        domain: usize,
        /// How long recorders lag behind.
        lag_ms: u64,
        /// Not left to the trackers.
        by_us: bool,
    },
}

/// Faults that are done one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// One program.
    Program(ProgramId),
    /// Brokers and PostgreSQL: `scripts/services` takes one command at a time,
    /// and with two brokers away there is no quorum.
    Services,
    /// The proxy before Kafka.
    Kafka,
    /// The proxy before PostgreSQL.
    Postgres,
    /// A disk.
    Disk,
    /// Topics.
    Topics,
}

impl Lane {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let programs = ProgramId::ALL.map(Self::Program);
        let others = [Self::Services, Self::Kafka, Self::Postgres, Self::Disk, Self::Topics];
        programs.into_iter().chain(others).collect()
    }

    /// The shortest and the longest time from one fault to the next.
    fn pause_ms(self) -> (u64, u64) {
        match self {
            Self::Program(_) => (6_000, 14_000),
            Self::Services => (9_000, 18_000),
            Self::Kafka | Self::Postgres => (800, 3_000),
            Self::Disk => (15_000, 30_000),
            Self::Topics => (18_000, 40_000),
        }
    }
}

/// A fault, and when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScheduledFault {
    /// Milliseconds from the storm's beginning.
    pub(crate) at_ms: u64,
    /// What is done.
    pub(crate) fault: Fault,
}

/// How a seed sets the programs up, and what is done to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultPlan {
    /// Recorders merge healthy records: odd seeds.
    pub(crate) smart: bool,
    /// Recorders look for topics themselves, in place of a list of domains.
    pub(crate) any_domain: bool,
    /// Each lane's faults in the order of time.
    pub(crate) lanes: Vec<(Lane, Vec<ScheduledFault>)>,
}

impl FaultPlan {
    /// For a storm of so many seconds.
    pub(crate) fn new(seed: u64, seconds: u64) -> Self {
        let lanes = Lane::all().into_iter().enumerate().map(|(index, lane)| {
            // A lane's own stream, so that a change of one leaves the others.
            let mut random = fastrand::Rng::with_seed(seed ^ (index as u64 + 1) << 48);
            (lane, events(lane, seconds * 1_000, &mut random))
        });
        Self { smart: seed % 2 == 1, any_domain: seed / 2 % 2 == 1, lanes: lanes.collect() }
    }
}

fn events(lane: Lane, end_ms: u64, random: &mut fastrand::Rng) -> Vec<ScheduledFault> {
    let (shortest, longest) = lane.pause_ms();
    let mut deck = Vec::new();
    let mut events = Vec::new();
    // The first one comes sooner, so that a short storm has some of each.
    let mut at_ms = CALM_MS + random.u64(0..=shortest);
    while at_ms < end_ms {
        if deck.is_empty() {
            deck = cards(lane);
            random.shuffle(&mut deck);
        }
        if let Some(card) = deck.pop() {
            events.push(ScheduledFault { at_ms, fault: card(random) });
        }
        at_ms += random.u64(shortest..=longest);
    }
    events
}

type Card = Box<dyn Fn(&mut fastrand::Rng) -> Fault>;

/// A deck: one card for each time that a kind comes up before it is shuffled.
fn cards(lane: Lane) -> Vec<Card> {
    fn card(deal: impl Fn(&mut fastrand::Rng) -> Fault + 'static) -> Card {
        Box::new(deal)
    }
    match lane {
        Lane::Program(who) => {
            let kill = || card(move |random| Fault::Kill(who, random.u64(50..2_500)));
            vec![
                kill(),
                kill(),
                kill(),
                kill(),
                card(move |random| Fault::Pause(who, random.u64(500..4_000))),
                // Longer than a lease, which is 5 s.
                card(move |random| Fault::Pause(who, random.u64(6_000..9_000))),
            ]
        }
        Lane::Services => {
            let broker = || {
                card(|random| Fault::KillBroker(random.usize(1..=BROKERS), random.u64(300..4_000)))
            };
            let crash = || card(|random| Fault::CrashPostgres(random.u64(0..4_000)));
            let pause = card(|random| {
                Fault::PauseBroker(random.usize(1..=BROKERS), random.u64(1_000..9_000))
            });
            vec![broker(), broker(), crash(), crash(), pause]
        }
        Lane::Kafka => vec![
            card(|random| {
                Fault::CutKafka(exchange(random), direction(random), random.usize(0..600))
            }),
            card(|random| {
                Fault::CutKafka(exchange(random), direction(random), random.usize(0..60))
            }),
            card(|random| {
                Fault::CutKafka(KafkaRequest::Produce, direction(random), random.usize(0..400))
            }),
            card(|random| {
                Fault::StallKafka(exchange(random), direction(random), random.u64(100..3_000))
            }),
            card(|random| Fault::SwallowKafka(exchange(random), direction(random))),
        ],
        Lane::Postgres => vec![
            card(|random| Fault::CutPostgres {
                commit: false,
                direction: direction(random),
                bytes: random.usize(0..3_000),
            }),
            card(|random| Fault::CutPostgres {
                commit: true,
                direction: direction(random),
                bytes: random.usize(0..24),
            }),
            card(|random| Fault::StallPostgres {
                commit: random.bool(),
                direction: direction(random),
                ms: random.u64(100..3_000),
            }),
        ],
        Lane::Disk => vec![card(|random| Fault::FillDisk(random.u64(4_000..12_000)))],
        Lane::Topics => vec![
            remade(|_| 0, true),
            remade(|_| 0, false),
            remade(|random| random.u64(500..4_000), true),
            remade(|random| random.u64(500..4_000), false),
        ],
    }
}

fn remade(lag_ms: impl Fn(&mut fastrand::Rng) -> u64 + 'static, by_us: bool) -> Card {
    Box::new(move |random| Fault::RemakeTopic {
        domain: random.usize(0..DOMAINS),
        lag_ms: lag_ms(random),
        by_us,
    })
}

fn direction(random: &mut fastrand::Rng) -> Direction {
    if random.bool() { Direction::Request } else { Direction::Response }
}

fn exchange(random: &mut fastrand::Rng) -> KafkaRequest {
    use KafkaRequest::{Fetch, ListOffsets, Metadata, Produce};
    // What carries records comes up more often.
    let all = [Produce, Produce, Produce, Fetch, Fetch, Metadata, ListOffsets];
    all[random.usize(0..all.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(FaultPlan::new(7, 600), FaultPlan::new(7, 600));
        assert_ne!(FaultPlan::new(7, 600).lanes, FaultPlan::new(9, 600).lanes);
        // A longer storm begins as the shorter one does.
        for ((_, short), (_, long)) in
            FaultPlan::new(7, 60).lanes.iter().zip(FaultPlan::new(7, 600).lanes)
        {
            assert_eq!(short[..], long[..short.len()]);
        }
    }

    #[test]
    fn seeds_take_turns_with_modes() {
        let modes: Vec<_> = (0..4)
            .map(|seed| FaultPlan::new(seed, 0))
            .map(|it| (it.smart, it.any_domain))
            .collect();
        assert_eq!(modes, [(false, false), (true, false), (false, true), (true, true)]);
    }

    #[test]
    fn every_minute_has_some_of_each_lane_and_ten_kills() {
        for seed in 0..200 {
            let plan = FaultPlan::new(seed, 600);
            let mut kills = 0;
            for (lane, events) in &plan.lanes {
                assert!(events.iter().any(|event| event.at_ms < 60_000), "{seed}: {lane:?}");
                let is_kill = |event: &&ScheduledFault| {
                    use Fault::{CrashPostgres, Kill, KillBroker};
                    matches!(event.fault, Kill(..) | KillBroker(..) | CrashPostgres(_))
                };
                kills += events.iter().filter(is_kill).count();
                assert!(events.is_sorted_by_key(|event| event.at_ms));
            }
            assert!(kills >= 100, "{seed}: {kills}");
        }
    }
}
