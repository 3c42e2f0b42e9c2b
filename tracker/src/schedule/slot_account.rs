//! The account of a target's slots: each that was due is a record, or is
//! counted by its cause in the first record after it.
//!
//! For every record: its slot + 1 = the target's records of this run so far,
//! this one included, + what they count as missed. What was lost after its probe
//! is a hole in the run's numbers, and so in the slots as well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::targets::Target;

/// Why a slot has no record: a closed list, documented in README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// All workers were busy until the next slot was due.
    Workers,
    /// The target's last probe was still running.
    Running,
    /// Workers could not hand their results over: to the spool's disk, or to
    /// standard output.
    Spool,
    /// The machine slept.
    Suspended,
    /// This program was not run: the machine was overloaded, or it was stopped.
    Stalled,
    /// It waited for a worker when the target was taken off the list.
    Reload,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Workers, Self::Running, Self::Spool, Self::Suspended, Self::Stalled, Self::Reload];

    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workers => "workers",
            Self::Running => "running",
            Self::Spool => "spool",
            Self::Suspended => "suspended",
            Self::Stalled => "stalled",
            Self::Reload => "reload",
        }
    }
}

/// Slots without a record, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missed([u64; Cause::ALL.len()]);

impl Missed {
    /// Counts some more.
    pub fn add(&mut self, cause: Cause, slots: u64) {
        self.0[cause as usize] += slots;
    }

    /// How many are counted for a cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// How many are counted.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn merge(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// As records carry it.
    pub fn by_name(&self) -> BTreeMap<String, i64> {
        Cause::ALL
            .into_iter()
            .filter(|cause| self.of(*cause) > 0)
            .map(|cause| {
                (cause.as_str().to_owned(), i64::try_from(self.of(cause)).unwrap_or(i64::MAX))
            })
            .collect()
    }
}

/// One time at which a target is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Which of the target's in this run, from 0.
    pub number: u64,
    /// When, by the grid's clock.
    pub due_at: Duration,
}

/// What a worker is to do.
#[derive(Debug)]
pub struct Job {
    /// What to probe.
    pub target: Arc<Target>,
    /// For which slot; none for a look beside the grid.
    pub slot: Option<Slot>,
    /// Slots that were missed before it, since the target's last job.
    pub missed: Missed,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// The target waits now, and is to be put into the queue.
    Queue,
    /// It waited already, and now does so for the new slot; the old one is
    /// missed for this cause.
    Replaced(Cause),
    /// It waited for no slot, and now does so for this one.
    Joined,
    /// It is still being probed, so that the new slot is missed for this cause.
    Missed(Cause),
}

/// A target on the schedule: what is asked of it, where it stands, its account.
///
/// Ticker and workers share it. A lock is held for some instructions at a time.
#[derive(Debug)]
pub struct Entry(Mutex<State>);

#[derive(Debug)]
struct State {
    target: Arc<Target>,
    stage: Stage,
    /// Missed slots that the waiting one tells of.
    before: Missed,
    /// Those since.
    since: Missed,
    removed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Waiting(Option<Slot>),
    Running,
}

impl Entry {
    /// A target without a past.
    pub fn new(target: Arc<Target>) -> Self {
        Self(Mutex::new(State {
            target,
            stage: Stage::Idle,
            before: Missed::default(),
            since: Missed::default(),
            removed: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked of it now.
    pub fn target(&self) -> Arc<Target> {
        Arc::clone(&self.state().target)
    }

    /// Asks this of it from now on, also where it was taken off the list before.
    pub fn change(&self, target: Arc<Target>) {
        let mut state = self.state();
        state.target = target;
        state.removed = false;
    }

    /// Takes it from the schedule: if it waits, no worker begins any more.
    pub fn remove(&self) {
        self.state().removed = true;
    }

    /// Counts slots that went by without an offer.
    pub fn miss(&self, cause: Cause, slots: u64) {
        self.state().since.add(cause, slots);
    }

    /// The slot is due. `full` says that workers wait to hand their results over.
    pub fn offer(&self, slot: Option<Slot>, full: bool) -> Offer {
        let mut guard = self.state();
        let state = &mut *guard;
        match (state.stage, slot) {
            (Stage::Idle, _) => {
                state.stage = Stage::Waiting(slot);
                state.gather(slot);
                Offer::Queue
            }
            (Stage::Waiting(Some(_)), Some(_)) => {
                let cause = if full { Cause::Spool } else { Cause::Workers };
                state.since.add(cause, 1);
                state.stage = Stage::Waiting(slot);
                state.gather(slot);
                Offer::Replaced(cause)
            }
            (Stage::Waiting(None), Some(_)) => {
                state.stage = Stage::Waiting(slot);
                state.gather(slot);
                Offer::Joined
            }
            (Stage::Running, Some(_)) => {
                let cause = if full { Cause::Spool } else { Cause::Running };
                state.since.add(cause, 1);
                Offer::Missed(cause)
            }
            // A look beside the grid is no slot, so that nothing is missed.
            (Stage::Waiting(_) | Stage::Running, None) => Offer::Joined,
        }
    }

    /// A worker begins; none when there is nothing to do any more.
    pub fn take(&self) -> Option<Job> {
        let mut state = self.state();
        let Stage::Waiting(slot) = state.stage else { return None };
        if state.removed {
            // Told of if the target comes back.
            let before = std::mem::take(&mut state.before);
            state.since.merge(before);
            state.since.add(Cause::Reload, u64::from(slot.is_some()));
            state.stage = Stage::Idle;
            return None;
        }
        state.stage = Stage::Running;
        let missed = std::mem::take(&mut state.before);
        Some(Job { target: Arc::clone(&state.target), slot, missed })
    }

    /// The worker has handed its result over.
    pub fn done(&self) {
        self.state().stage = Stage::Idle;
    }
}

impl State {
    /// The account so far goes with the slot that waits now.
    fn gather(&mut self, slot: Option<Slot>) {
        if slot.is_some() {
            self.before.merge(std::mem::take(&mut self.since));
        }
    }
}
