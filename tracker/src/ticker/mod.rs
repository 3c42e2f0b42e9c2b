//! The ticker: the thread that enqueues due targets for the workers, and logs missed slots and
//! late starts.

use std::sync::Arc;
use std::time::Duration;

use common::counted::counted;
use common::stop::Stop;
use crossbeam_channel::{Receiver, select};

use crate::schedule::clock::{self, ClockChange, ClockReadings};
use crate::schedule::grid::{DueTarget, Schedule, ScheduleChanges};
use crate::schedule::slot_account::{Enqueue, MissedCause, MissedSlots, ScheduledTarget};
use crate::targets::Target;
use crate::workers::Pool;

/// Longest time between two comparisons of the clocks: a suspension is noticed after that time.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time between two log lines about missed slots.
const MISSED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest time between two log lines about lateness at level info. At level debug they come with
/// each log of missed slots.
const LATENESS_LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// How often the targets are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each target once, immediately.
    Once,
    /// Each target once a period, at its own phase.
    Periodic {
        /// Whether each target is also probed soon after the start, for a user who watches.
        first_round_at_once: bool,
    },
}

/// A new list of targets that replaces the current list.
#[derive(Debug)]
pub(crate) struct Reloaded {
    pub(crate) targets: Vec<Arc<Target>>,
    /// Most workers for these targets.
    pub(crate) workers_max: usize,
}

/// Enqueues due targets until a stop is requested; in [`Mode::Once`], until all targets are
/// enqueued.
///
/// `reloads` delivers new lists. It may also stay silent for ever.
pub(crate) fn run(
    targets: &[Arc<Target>],
    location: &str,
    mode: Mode,
    pool: &mut Pool,
    reloads: &Receiver<Reloaded>,
    stop: &Stop,
) {
    let Mode::Periodic { first_round_at_once } = mode else {
        for target in targets {
            pool.enqueue(&Arc::new(ScheduledTarget::new(Arc::clone(target))), None);
        }
        return;
    };
    let start = ClockReadings::read();
    let mut schedule = Schedule::new(start.now, location, targets);
    if first_round_at_once {
        schedule.schedule_first_round();
    }
    let ticker = Ticker { schedule, clocks: start, missed_log: MissedLog::new(start.now) };
    ticker.run(pool, reloads, stop);
}

struct Ticker {
    schedule: Schedule,
    /// The clocks at the previous pass.
    clocks: ClockReadings,
    missed_log: MissedLog,
}

impl Ticker {
    fn run(mut self, pool: &mut Pool, reloads: &Receiver<Reloaded>, stop: &Stop) {
        loop {
            let due_at = self.schedule.next_due().unwrap_or(Duration::MAX);
            let pause = due_at.saturating_sub(clock::now()).min(CLOCK_CHECK_INTERVAL);
            select! {
                recv(stop.channel()) -> _ => break,
                recv(reloads) -> reloaded => match reloaded {
                    Ok(reloaded) => self.apply_reload(&reloaded, pool),
                    // The reload thread has ended: wait for the stop alone.
                    Err(_) if stop.wait(pause) => break,
                    Err(_) => {}
                },
                default(pause) => {}
            }
            self.enqueue_due(ClockReadings::read(), pool);
        }
        self.missed_log.log(pool.workers_max());
        log::info!("{}", pool.lateness().take_summary());
    }

    fn apply_reload(&mut self, reloaded: &Reloaded, pool: &mut Pool) {
        let Reloaded { targets, workers_max } = reloaded;
        pool.raise_workers_max(*workers_max);
        let changes = self.schedule.apply(targets, clock::now());
        let ScheduleChanges { added, changed, removed } = changes;
        log::info!(
            "reloaded {}: {added} added, {changed} changed, {removed} removed",
            counted(targets.len(), "target")
        );
    }

    /// Enqueues all targets that are due by now.
    fn enqueue_due(&mut self, clocks: ClockReadings, pool: &mut Pool) {
        let change = ClockChange::between(self.clocks, clocks);
        change.log();
        self.clocks = clocks;
        let unnoticed_cause =
            if change.suspended.is_zero() { MissedCause::Stalled } else { MissedCause::Suspended };
        while let Some(due) = self.schedule.pop_due(clocks.now) {
            let missed = &mut self.missed_log.missed;
            enqueue_and_count(&due, unnoticed_cause, missed, || {
                pool.enqueue(&due.target, due.slot)
            });
        }
        self.missed_log.log_if_due(clocks.now, pool);
    }
}

/// Enqueues a due target and counts its missed slots. `unnoticed_cause` is the cause of slots that
/// passed before the ticker ran again.
fn enqueue_and_count(
    due: &DueTarget,
    unnoticed_cause: MissedCause,
    missed: &mut MissedSlots,
    enqueue: impl FnOnce() -> Enqueue,
) {
    if due.missed > 0 {
        due.target.record_missed(unnoticed_cause, due.missed);
        missed.add(unnoticed_cause, due.missed);
    }
    if due.is_probed
        && let Enqueue::Replaced(cause) | Enqueue::Missed(cause) = enqueue()
    {
        missed.add(cause, 1);
    }
}

/// Missed slots of all targets since the last log line.
struct MissedLog {
    missed: MissedSlots,
    next_log_at: Duration,
    next_lateness_log_at: Duration,
}

impl MissedLog {
    fn new(now: Duration) -> Self {
        Self {
            missed: MissedSlots::default(),
            next_log_at: now + MISSED_LOG_INTERVAL,
            next_lateness_log_at: now + LATENESS_LOG_INTERVAL,
        }
    }

    fn log_if_due(&mut self, now: Duration, pool: &Pool) {
        if now < self.next_log_at {
            return;
        }
        self.next_log_at = now + MISSED_LOG_INTERVAL;
        self.log(pool.workers_max());
        if now >= self.next_lateness_log_at {
            self.next_lateness_log_at = now + LATENESS_LOG_INTERVAL;
            log::info!("{}", pool.lateness().take_summary());
        } else {
            log::debug!("{}", pool.lateness().summary());
        }
    }

    /// Logs one line for each cause, with advice for the operator, and starts counting again.
    fn log(&mut self, workers: usize) {
        let missed = std::mem::take(&mut self.missed);
        for cause in MissedCause::ALL {
            let explanation = match cause {
                MissedCause::Workers => format!(
                    "all {workers} workers were busy for a whole period: raise --workers, or use a longer period or a shorter time-out"
                ),
                MissedCause::Running => {
                    "the previous probe of the same target was still running: time-out and retries take longer than the period".to_owned()
                }
                MissedCause::Spool => {
                    "results could not be handed over: the spool's disk or standard output is too slow".to_owned()
                }
                MissedCause::Suspended => {
                    "the machine was suspended when they were due".to_owned()
                }
                MissedCause::Stalled => {
                    "the tracker did not run when they were due: the machine is overloaded, or the process was stopped".to_owned()
                }
                // Logged by the reload, which removed these targets on request.
                MissedCause::Reload => continue,
            };
            match missed.count(cause) {
                0 => {}
                count => log::warn!("skipped {}: {explanation}", counted(count, "probe")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
