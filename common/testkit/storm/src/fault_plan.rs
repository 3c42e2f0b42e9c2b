//! What is done to whom, and when: a pure function of the seed.
//!
//! Each lane is worked through by a thread of its own, one fault after the
//! other, so that a broker that takes long to come back delays no other lane.
//! A lane deals its kinds like cards, so that each comes up early and in its
//! share; everything else about a fault is drawn from the seed.

use crate::proxy::Side;

/// How many domains are probed.
pub(super) const DOMAINS: usize = 20;
/// How many brokers there are.
pub(super) const BROKERS: usize = 3;
/// The time in which nothing is broken yet, in milliseconds: programs start.
const CALM_MS: u64 = 4_000;

/// A tracker or a recorder, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Who {
    /// A tracker.
    Tracker(usize),
    /// A recorder.
    Recorder(usize),
}

impl Who {
    /// All of them.
    pub(super) const ALL: [Self; 4] =
        [Self::Tracker(0), Self::Tracker(1), Self::Recorder(0), Self::Recorder(1)];

    /// As it is called in logs, counted from 1.
    pub(super) fn name(self) -> String {
        match self {
            Self::Tracker(index) => format!("tracker-{}", index + 1),
            Self::Recorder(index) => format!("recorder-{}", index + 1),
        }
    }
}

/// A kind of request to Kafka that a proxy looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchange {
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
pub(super) enum Fault {
    /// SIGKILL, and a new start after so many milliseconds.
    Kill(Who, u64),
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    Pause(Who, u64),
    /// SIGKILL of a broker, counted from 1, and a new start.
    KillBroker(usize, u64),
    /// SIGSTOP of a broker, and SIGCONT.
    PauseBroker(usize, u64),
    /// An immediate end of PostgreSQL, and a new start.
    CrashPostgres(u64),
    /// A connection to a broker is cut after so many bytes of a frame.
    CutKafka(Exchange, Side, usize),
    /// A frame is held for so many milliseconds.
    StallKafka(Exchange, Side, u64),
    /// A frame is left out.
    SwallowKafka(Exchange, Side),
    /// A connection to PostgreSQL is cut after so many bytes from the beginning
    /// of a transaction on, or of its commit.
    CutPostgres {
        /// From the COMMIT on, not from the transaction's beginning.
        commit: bool,
        /// Which way.
        side: Side,
        /// How many bytes pass.
        bytes: usize,
    },
    /// A message of a transaction is held for so many milliseconds.
    StallPostgres {
        /// The COMMIT, not the transaction's beginning.
        commit: bool,
        /// Which way.
        side: Side,
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
pub(super) enum Lane {
    /// One program.
    Program(Who),
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
    pub(super) fn all() -> Vec<Self> {
        let programs = Who::ALL.map(Self::Program);
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
pub(super) struct Event {
    /// Milliseconds from the storm's beginning.
    pub(super) at_ms: u64,
    /// What is done.
    pub(super) fault: Fault,
}

/// How a seed sets the programs up, and what is done to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Recorders merge healthy records: odd seeds.
    pub(super) smart: bool,
    /// Recorders look for topics themselves, in place of a list of domains.
    pub(super) any_domain: bool,
    /// Each lane's faults in the order of time.
    pub(super) lanes: Vec<(Lane, Vec<Event>)>,
}

impl Plan {
    /// For a storm of so many seconds.
    pub(super) fn new(seed: u64, seconds: u64) -> Self {
        let lanes = Lane::all().into_iter().enumerate().map(|(index, lane)| {
            // A lane's own stream, so that a change of one leaves the others.
            let mut random = fastrand::Rng::with_seed(seed ^ (index as u64 + 1) << 48);
            (lane, events(lane, seconds * 1_000, &mut random))
        });
        Self { smart: seed % 2 == 1, any_domain: seed / 2 % 2 == 1, lanes: lanes.collect() }
    }
}

fn events(lane: Lane, end_ms: u64, random: &mut fastrand::Rng) -> Vec<Event> {
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
            events.push(Event { at_ms, fault: card(random) });
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
            card(|random| Fault::CutKafka(exchange(random), side(random), random.usize(0..600))),
            card(|random| Fault::CutKafka(exchange(random), side(random), random.usize(0..60))),
            card(|random| Fault::CutKafka(Exchange::Produce, side(random), random.usize(0..400))),
            card(|random| {
                Fault::StallKafka(exchange(random), side(random), random.u64(100..3_000))
            }),
            card(|random| Fault::SwallowKafka(exchange(random), side(random))),
        ],
        Lane::Postgres => vec![
            card(|random| Fault::CutPostgres {
                commit: false,
                side: side(random),
                bytes: random.usize(0..3_000),
            }),
            card(|random| Fault::CutPostgres {
                commit: true,
                side: side(random),
                bytes: random.usize(0..24),
            }),
            card(|random| Fault::StallPostgres {
                commit: random.bool(),
                side: side(random),
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

fn side(random: &mut fastrand::Rng) -> Side {
    if random.bool() { Side::Request } else { Side::Answer }
}

fn exchange(random: &mut fastrand::Rng) -> Exchange {
    use Exchange::{Fetch, ListOffsets, Metadata, Produce};
    // What carries records comes up more often.
    let all = [Produce, Produce, Produce, Fetch, Fetch, Metadata, ListOffsets];
    all[random.usize(0..all.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(Plan::new(7, 600), Plan::new(7, 600));
        assert_ne!(Plan::new(7, 600).lanes, Plan::new(9, 600).lanes);
        // A longer storm begins as the shorter one does.
        for ((_, short), (_, long)) in Plan::new(7, 60).lanes.iter().zip(Plan::new(7, 600).lanes) {
            assert_eq!(short[..], long[..short.len()]);
        }
    }

    #[test]
    fn seeds_take_turns_with_modes() {
        let modes: Vec<_> =
            (0..4).map(|seed| Plan::new(seed, 0)).map(|it| (it.smart, it.any_domain)).collect();
        assert_eq!(modes, [(false, false), (true, false), (false, true), (true, true)]);
    }

    #[test]
    fn every_minute_has_some_of_each_lane_and_ten_kills() {
        for seed in 0..200 {
            let plan = Plan::new(seed, 600);
            let mut kills = 0;
            for (lane, events) in &plan.lanes {
                assert!(events.iter().any(|event| event.at_ms < 60_000), "{seed}: {lane:?}");
                let is_kill = |event: &&Event| {
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
