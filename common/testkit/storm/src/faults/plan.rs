//! The plan of faults: a pure function of the seed.
//!
//! Each lane has its own thread and runs its faults in sequence, so that a broker that restarts
//! slowly delays no other lane. A lane draws its kinds of faults from a shuffled list, so that
//! each kind occurs early and in its proportion. All other parameters of a fault are drawn from
//! the seed.

use testkit::proxy::Direction;

use super::{Fault, RequestKind};
use crate::testbed::managed_program::ProgramId;
use crate::testbed::storm_site::DOMAINS;
use crate::testbed::{BROKERS, RecorderMode};

/// Time without faults at the start, in milliseconds, while the programs start.
const START_MS: u64 = 4_000;

/// A group of faults that run in sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Faults of one program.
    Program(ProgramId),
    /// Brokers and PostgreSQL: `scripts/services` runs one command at a time, and without two
    /// brokers there is no quorum.
    Services,
    /// The proxy in front of Kafka.
    Kafka,
    /// The proxy in front of PostgreSQL.
    Postgres,
    /// The disk of the spool.
    Disk,
    /// Deletion of topics.
    Topics,
}

impl Lane {
    pub(crate) fn all() -> Vec<Self> {
        let programs = ProgramId::ALL.map(Self::Program);
        let others = [Self::Services, Self::Kafka, Self::Postgres, Self::Disk, Self::Topics];
        programs.into_iter().chain(others).collect()
    }

    /// The minimum and maximum time from one fault to the next.
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

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScheduledFault {
    /// Milliseconds since the start of the storm.
    pub(crate) at_ms: u64,
    pub(crate) fault: Fault,
}

/// The configuration of the programs and all faults, derived from a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultPlan {
    /// How the recorders run. Odd seeds use smart mode.
    pub(crate) recorders: RecorderMode,
    /// The faults of each lane, in the order of time.
    pub(crate) lanes: Vec<(Lane, Vec<ScheduledFault>)>,
}

impl FaultPlan {
    /// Plans a storm of this many seconds.
    pub(crate) fn new(seed: u64, seconds: u64) -> Self {
        let lanes = Lane::all().into_iter().enumerate().map(|(index, lane)| {
            // Each lane has its own random stream, so that a change to one lane does not change
            // the others.
            let mut random = fastrand::Rng::with_seed(seed ^ (index as u64 + 1) << 48);
            (lane, events(lane, seconds * 1_000, &mut random))
        });
        let recorders = RecorderMode { smart: seed % 2 == 1, any_domain: seed / 2 % 2 == 1 };
        Self { recorders, lanes: lanes.collect() }
    }
}

fn events(lane: Lane, end_ms: u64, random: &mut fastrand::Rng) -> Vec<ScheduledFault> {
    let (shortest, longest) = lane.pause_ms();
    let mut remaining = Vec::new();
    let mut events = Vec::new();
    // The first fault comes sooner, so that a short storm has some of each lane.
    let mut at_ms = START_MS + random.u64(0..=shortest);
    while at_ms < end_ms {
        if remaining.is_empty() {
            remaining = generators(lane);
            random.shuffle(&mut remaining);
        }
        if let Some(generator) = remaining.pop() {
            events.push(ScheduledFault { at_ms, fault: generator(random) });
        }
        at_ms += random.u64(shortest..=longest);
    }
    events
}

type FaultGenerator = Box<dyn Fn(&mut fastrand::Rng) -> Fault>;

/// The kinds of faults of a lane, each as often as it occurs before the list is shuffled again.
fn generators(lane: Lane) -> Vec<FaultGenerator> {
    fn generator(generate: impl Fn(&mut fastrand::Rng) -> Fault + 'static) -> FaultGenerator {
        Box::new(generate)
    }
    match lane {
        Lane::Program(program) => {
            let kill = || generator(move |random| Fault::Kill(program, random.u64(50..2_500)));
            vec![
                kill(),
                kill(),
                kill(),
                kill(),
                generator(move |random| Fault::Pause(program, random.u64(500..4_000))),
                // Longer than a lease, which is 5 s.
                generator(move |random| Fault::Pause(program, random.u64(6_000..9_000))),
            ]
        }
        Lane::Services => {
            let broker = || {
                generator(|random| {
                    Fault::KillBroker(random.usize(1..=BROKERS), random.u64(300..4_000))
                })
            };
            let crash = || generator(|random| Fault::CrashPostgres(random.u64(0..4_000)));
            let pause = generator(|random| {
                Fault::PauseBroker(random.usize(1..=BROKERS), random.u64(1_000..9_000))
            });
            vec![broker(), broker(), crash(), crash(), pause]
        }
        Lane::Kafka => vec![
            generator(|random| {
                Fault::CutKafka(kafka_request(random), direction(random), random.usize(0..600))
            }),
            generator(|random| {
                Fault::CutKafka(kafka_request(random), direction(random), random.usize(0..60))
            }),
            generator(|random| {
                Fault::CutKafka(RequestKind::Produce, direction(random), random.usize(0..400))
            }),
            generator(|random| {
                Fault::StallKafka(kafka_request(random), direction(random), random.u64(100..3_000))
            }),
            generator(|random| Fault::DiscardKafka(kafka_request(random), direction(random))),
        ],
        Lane::Postgres => vec![
            generator(|random| Fault::CutPostgres {
                commit: false,
                direction: direction(random),
                bytes: random.usize(0..3_000),
            }),
            generator(|random| Fault::CutPostgres {
                commit: true,
                direction: direction(random),
                bytes: random.usize(0..24),
            }),
            generator(|random| Fault::StallPostgres {
                commit: random.bool(),
                direction: direction(random),
                ms: random.u64(100..3_000),
            }),
        ],
        Lane::Disk => vec![generator(|random| Fault::FillDisk(random.u64(4_000..12_000)))],
        Lane::Topics => vec![
            recreate(|_| 0, true),
            recreate(|_| 0, false),
            recreate(|random| random.u64(500..4_000), true),
            recreate(|random| random.u64(500..4_000), false),
        ],
    }
}

fn recreate(
    lag_ms: impl Fn(&mut fastrand::Rng) -> u64 + 'static,
    recreated_by_storm: bool,
) -> FaultGenerator {
    Box::new(move |random| Fault::RecreateTopic {
        domain: random.usize(0..DOMAINS),
        lag_ms: lag_ms(random),
        recreated_by_storm,
    })
}

fn direction(random: &mut fastrand::Rng) -> Direction {
    if random.bool() { Direction::Request } else { Direction::Response }
}

fn kafka_request(random: &mut fastrand::Rng) -> RequestKind {
    use RequestKind::{Fetch, ListOffsets, Metadata, Produce};
    // Requests that carry records occur more often.
    let all = [Produce, Produce, Produce, Fetch, Fetch, Metadata, ListOffsets];
    all[random.usize(0..all.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_plan() {
        assert_eq!(FaultPlan::new(7, 600), FaultPlan::new(7, 600));
        assert_ne!(FaultPlan::new(7, 600).lanes, FaultPlan::new(9, 600).lanes);
        // A longer storm starts with the faults of the shorter one.
        for ((_, short), (_, long)) in
            FaultPlan::new(7, 60).lanes.iter().zip(FaultPlan::new(7, 600).lanes)
        {
            assert_eq!(short[..], long[..short.len()]);
        }
    }

    #[test]
    fn seeds_alternate_between_modes() {
        let modes: Vec<_> = (0..4)
            .map(|seed| FaultPlan::new(seed, 0))
            .map(|it| (it.recorders.smart, it.recorders.any_domain))
            .collect();
        assert_eq!(modes, [(false, false), (true, false), (false, true), (true, true)]);
    }

    #[test]
    fn every_minute_has_faults_of_each_lane_and_ten_kills() {
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
