//! The ticker: says when each target is due, for ever, without drift.
//!
//! Target *i* is due at `phase_i + k · period` after the start, by the
//! monotonic clock; its phase comes from a hash, so that probes spread evenly
//! and a target keeps its place however the list around it changes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::stop::Stop;

use crate::targets::Target;
use crate::workers::{Pool, Refused};

/// How often skipped slots are logged.
const SAY_AFTER: Duration = Duration::from_secs(60);

/// The span over which a first round of probes spreads.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// When to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rhythm {
    /// Every target once, at once.
    Once,
    /// Every target once a period, each at its own phase; with `look_at_once`
    /// also within the first second, for somebody who watches.
    Period {
        /// The period.
        period: Duration,
        /// Whether a first round runs at once.
        look_at_once: bool,
    },
}

/// Hands due targets to the pool until a stop is asked for, or, for
/// [`Rhythm::Once`], until all were handed over.
pub fn run(targets: &[Arc<Target>], location: &str, rhythm: Rhythm, pool: &mut Pool, stop: &Stop) {
    match rhythm {
        // The pool's queue has room for every target once.
        Rhythm::Once => (0..targets.len()).for_each(|index| {
            let _ = pool.offer(index);
        }),
        Rhythm::Period { period, look_at_once } => {
            let hashes = targets.iter().map(|target| target.phase_hash(location));
            let mut schedule = Schedule::new(Instant::now(), period, look_at_once, hashes);
            keep(&mut schedule, pool, stop);
        }
    }
}

fn keep(schedule: &mut Schedule, pool: &mut Pool, stop: &Stop) {
    let mut skipped = Skipped::default();
    let mut say_at = Instant::now() + SAY_AFTER;
    while let Some(due_at) = schedule.next_due() {
        let now = Instant::now();
        if now < due_at {
            if stop.wait((due_at - now).min(SAY_AFTER)) {
                break;
            }
        } else if stop.requested() {
            break;
        }
        let now = Instant::now();
        while let Some(due) = schedule.pop(now) {
            skipped.late += due.slots_missed;
            match pool.offer(due.target) {
                Ok(()) => {}
                Err(Refused::Waiting) => skipped.waiting += 1,
                Err(Refused::Running) => skipped.running += 1,
            }
        }
        if now >= say_at {
            skipped.say(pool);
            say_at = now + SAY_AFTER;
        }
    }
    skipped.say(pool);
}

/// Slots in which a target was not probed, by reason.
#[derive(Debug, Default)]
struct Skipped {
    waiting: u64,
    running: u64,
    late: u64,
}

impl Skipped {
    fn say(&mut self, pool: &Pool) {
        let Self { waiting, running, late } = std::mem::take(self);
        if waiting > 0 {
            log::warn!(
                "skipped {waiting} probes: all {} workers were busy since the last one was due",
                pool.workers_max()
            );
        }
        if running > 0 {
            log::warn!(
                "skipped {running} probes: the last one of the same target was still running (is the time-out above the period?)"
            );
        }
        if late > 0 {
            log::warn!(
                "skipped {late} probes: this program was not run when they were due (machine suspended or overloaded)"
            );
        }
    }
}

/// The times at which targets are due. It holds no clock, so that tests bring
/// their own.
#[derive(Debug)]
struct Schedule {
    period: Duration,
    /// Due time and target, the earliest on top: one entry a target.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The entries of a first round, in the same form.
    first: BinaryHeap<Reverse<(Instant, usize)>>,
}

/// A target that is due.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    target: usize,
    /// Slots of this target that went by before this one was seen.
    slots_missed: u64,
}

impl Schedule {
    fn new(
        start: Instant,
        period: Duration,
        look_at_once: bool,
        hashes: impl Iterator<Item = u64>,
    ) -> Self {
        let mut due = BinaryHeap::new();
        let mut first = BinaryHeap::new();
        for (target, hash) in hashes.enumerate() {
            let phase = share(period, hash);
            due.push(Reverse((start + phase, target)));
            if look_at_once && phase > FIRST_LOOK {
                first.push(Reverse((start + share(FIRST_LOOK, hash), target)));
            }
        }
        Self { period, due, first }
    }

    fn next_due(&self) -> Option<Instant> {
        [self.first.peek(), self.due.peek()].into_iter().flatten().map(|due| due.0.0).min()
    }

    /// The next target that is due by `now`; its next slot is the first one
    /// after `now`, so that slots which went by are counted and not caught up.
    fn pop(&mut self, now: Instant) -> Option<Due> {
        if self.first.peek().is_some_and(|first| first.0.0 <= now) {
            return self.first.pop().map(|first| Due { target: first.0.1, slots_missed: 0 });
        }
        let Reverse((at, target)) = *self.due.peek()?;
        let late = now.checked_duration_since(at)?;
        self.due.pop();
        let slots_missed = u64::try_from(late.as_nanos() / self.period.as_nanos()).unwrap_or(0);
        let step = u32::try_from(slots_missed + 1).unwrap_or(u32::MAX);
        self.due.push(Reverse((at + self.period * step, target)));
        Some(Due { target, slots_missed })
    }
}

/// The part of `span` that `hash` is of all hashes.
fn share(span: Duration, hash: u64) -> Duration {
    let nanos = (span.as_nanos() * u128::from(hash)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);

    fn drain(schedule: &mut Schedule, now: Instant) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| schedule.pop(now)).map(|due| (due.target, due.slots_missed)).collect()
    }

    #[test]
    fn each_target_keeps_its_phase_for_ever() {
        let start = Instant::now();
        let hashes = [0, u64::MAX / 4, u64::MAX / 2];
        let mut schedule = Schedule::new(start, PERIOD, false, hashes.into_iter());
        for slot in 0..10_000_u32 {
            for (target, phase_s) in [0, 15, 30].into_iter().enumerate() {
                let due_at = schedule.next_due().unwrap();
                let expected = start + PERIOD * slot + Duration::from_secs(phase_s);
                assert!(expected - due_at <= Duration::from_nanos(30));
                // However late a slot is seen within its period, the next one does not move.
                assert_eq!(drain(&mut schedule, due_at + Duration::from_millis(9)), [(target, 0)]);
            }
        }
    }

    #[test]
    fn slots_that_went_by_are_counted_and_not_caught_up() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, PERIOD, false, [0, 1 << 62].into_iter());
        assert_eq!(drain(&mut schedule, start + PERIOD * 10), [(0, 10), (1, 9)]);
        assert_eq!(drain(&mut schedule, start + PERIOD * 10), []);
        assert_eq!(schedule.next_due(), Some(start + PERIOD * 10 + PERIOD / 4));
    }

    #[test]
    fn a_first_look_runs_within_a_second_and_moves_no_slot() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, PERIOD, true, [1 << 63, 1 << 62].into_iter());
        assert_eq!(drain(&mut schedule, start + Duration::from_secs(1)), [(1, 0), (0, 0)]);
        assert_eq!(schedule.next_due(), Some(start + PERIOD / 4));
    }
}
