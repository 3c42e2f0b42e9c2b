//! The ticker: the thread that hands due targets to the workers, for ever, and
//! says how punctual they are.

use std::sync::Arc;
use std::time::Duration;

use common::stop::Stop;
use crossbeam_channel::{Receiver, select};

use crate::schedule::clock::{self, Change, Look};
use crate::schedule::grid::{Difference, Due, Schedule};
use crate::schedule::slot_account::{Cause, Entry, Missed, Offer};
use crate::targets::Target;
use crate::workers::Pool;

/// How often the clocks are compared at least: so long after the machine slept
/// it is noticed at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often missed slots are logged.
const SAY_AFTER: Duration = Duration::from_secs(60);

/// How often the lateness is logged for everybody; at level debug it is each
/// time that missed slots would be.
const SUMMARY_AFTER: Duration = Duration::from_secs(3600);

/// When to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rhythm {
    /// Every target once, at once.
    Once,
    /// Every target once a period, each at its own phase.
    Grid {
        /// Whether a first round runs at once, for somebody who watches.
        look_at_once: bool,
    },
}

/// Targets in the place of those until now.
#[derive(Debug)]
pub struct List {
    /// All of them.
    pub targets: Vec<Arc<Target>>,
    /// The most workers that may probe them.
    pub workers: usize,
}

/// Hands due targets to the pool until a stop is asked for, or, for
/// [`Rhythm::Once`], until all were handed over.
///
/// `lists` brings other targets in the place of those; it may never do so.
pub fn run(
    targets: &[Arc<Target>],
    location: &str,
    rhythm: Rhythm,
    pool: &mut Pool,
    lists: &Receiver<List>,
    stop: &Stop,
) {
    let Rhythm::Grid { look_at_once } = rhythm else {
        for target in targets {
            pool.offer(&Arc::new(Entry::new(Arc::clone(target))), None);
        }
        return;
    };
    let start = Look::take();
    let mut schedule = Schedule::new(start.now, location, targets);
    if look_at_once {
        schedule.look_at_once();
    }
    Ticker { schedule, last: start, report: Report::new(start.now) }.run(pool, lists, stop);
}

struct Ticker {
    schedule: Schedule,
    /// The clocks, when they were looked at last.
    last: Look,
    report: Report,
}

impl Ticker {
    fn run(mut self, pool: &mut Pool, lists: &Receiver<List>, stop: &Stop) {
        loop {
            let due_at = self.schedule.next_due().unwrap_or(Duration::MAX);
            let pause = due_at.saturating_sub(clock::now()).min(LOOK_EVERY);
            select! {
                recv(stop.channel()) -> _ => break,
                recv(lists) -> list => match list {
                    Ok(list) => self.take(list, pool),
                    // Nobody is left to bring one.
                    Err(_) if stop.wait(pause) => break,
                    Err(_) => {}
                },
                default(pause) => {}
            }
            self.look(Look::take(), pool);
        }
        self.report.say(pool.workers_max());
        log::info!("{}", pool.lateness().take());
    }

    fn take(&mut self, List { targets, workers }: List, pool: &mut Pool) {
        pool.allow(workers);
        let Difference { added, changed, removed } = self.schedule.apply(&targets, clock::now());
        let count = targets.len();
        log::info!("{count} targets now: {added} added, {changed} changed, {removed} removed");
    }

    /// Offers what is due by now.
    fn look(&mut self, look: Look, pool: &mut Pool) {
        let change = Change::between(self.last, look);
        change.say();
        self.last = look;
        let unseen = if change.slept.is_zero() { Cause::Stalled } else { Cause::Suspended };
        while let Some(due) = self.schedule.pop(look.now) {
            let missed = &mut self.report.missed;
            offer(&due, unseen, missed, || pool.offer(&due.entry, due.slot));
        }
        self.report.say_if_due(look.now, pool);
    }
}

/// Offers a target that is due, and counts what is missed of it; `unseen` is why
/// slots went by before they were seen.
fn offer(due: &Due, unseen: Cause, missed: &mut Missed, offer: impl FnOnce() -> Offer) {
    if due.missed > 0 {
        due.entry.miss(unseen, due.missed);
        missed.add(unseen, due.missed);
    }
    if due.probe
        && let Offer::Replaced(cause) | Offer::Missed(cause) = offer()
    {
        missed.add(cause, 1);
    }
}

/// What is to be logged of all targets.
struct Report {
    missed: Missed,
    say_at: Duration,
    sum_up_at: Duration,
}

impl Report {
    fn new(now: Duration) -> Self {
        Self { missed: Missed::default(), say_at: now + SAY_AFTER, sum_up_at: now + SUMMARY_AFTER }
    }

    fn say_if_due(&mut self, now: Duration, pool: &Pool) {
        if now < self.say_at {
            return;
        }
        self.say_at = now + SAY_AFTER;
        self.say(pool.workers_max());
        if now >= self.sum_up_at {
            self.sum_up_at = now + SUMMARY_AFTER;
            log::info!("{}", pool.lateness().take());
        } else {
            log::debug!("{}", pool.lateness().summary());
        }
    }

    /// Says what was missed since it was said last, and what was short.
    fn say(&mut self, workers: usize) {
        let missed = std::mem::take(&mut self.missed);
        for cause in Cause::ALL {
            let why = match cause {
                Cause::Workers => format!("all {workers} workers were busy for a whole period"),
                Cause::Running => {
                    "the last one of the same target was still running (are time-out and retries longer than the period?)".to_owned()
                }
                Cause::Spool => {
                    "results were not taken: the spool's disk, or standard output, is too slow"
                        .to_owned()
                }
                Cause::Suspended => "the machine slept when they were due".to_owned(),
                Cause::Stalled => {
                    "this program was not run when they were due (machine overloaded, or program stopped)".to_owned()
                }
                // Counted by the target alone; whoever took it off the list knows.
                Cause::Reload => continue,
            };
            match missed.of(cause) {
                0 => {}
                count => log::warn!("skipped {count} probes: {why}"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
