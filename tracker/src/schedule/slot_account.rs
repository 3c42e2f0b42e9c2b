//! The account of a target's slots: each slot either has a record, or is counted by its cause in
//! the next record of the target.
//!
//! For each record, slot + 1 = number of records of the target in this run so far, this one
//! included, + sum of their missed slots. A result that is lost after its probe leaves a gap in
//! the run's sequence numbers and in the slots.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::targets::Target;

/// Why a slot has no record. Closed list; its words are documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissedCause {
    /// All workers were busy until the next slot was due.
    Workers,
    /// The previous probe of the target was still running.
    Running,
    /// Workers were blocked on delivery: the spool's disk or standard output was too slow.
    Spool,
    /// The machine was suspended.
    Suspended,
    /// The program did not run: the machine was overloaded, or the process was stopped.
    Stalled,
    /// The target was removed from the list while it waited for a worker.
    Reload,
}

impl MissedCause {
    pub(crate) const ALL: [Self; 6] =
        [Self::Workers, Self::Running, Self::Spool, Self::Suspended, Self::Stalled, Self::Reload];

    /// Returns the word in records.
    pub(crate) fn as_str(self) -> &'static str {
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

/// Numbers of slots without a record, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MissedSlots([u64; MissedCause::ALL.len()]);

impl MissedSlots {
    pub(crate) fn add(&mut self, cause: MissedCause, slots: u64) {
        self.0[cause as usize] += slots;
    }

    pub(crate) fn count(&self, cause: MissedCause) -> u64 {
        self.0[cause as usize]
    }

    #[cfg(test)]
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn add_all(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// Returns the counts above 0 by the words in records.
    pub(crate) fn by_word(&self) -> BTreeMap<String, i64> {
        MissedCause::ALL
            .into_iter()
            .filter(|cause| self.count(*cause) > 0)
            .map(|cause| {
                (cause.as_str().to_owned(), i64::try_from(self.count(cause)).unwrap_or(i64::MAX))
            })
            .collect()
    }
}

/// One time at which a target is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Number of the slot within the target and the run, from 0.
    pub(crate) number: u64,
    /// Due time by the schedule's clock.
    pub(crate) due_at: Duration,
}

/// One probe for a worker.
#[derive(Debug)]
pub(crate) struct ProbeJob {
    pub(crate) target: Arc<Target>,
    /// `None`: a probe of the first round, outside the schedule.
    pub(crate) slot: Option<Slot>,
    /// Slots that were missed since the previous job of the target.
    pub(crate) missed: MissedSlots,
}

/// Result of [`ScheduledTarget::enqueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enqueue {
    /// The target waits now. The caller has to dispatch it.
    Queued,
    /// The target was already waiting. It waits for the new slot now; the old slot is missed.
    Replaced(MissedCause),
    /// The target was already waiting for the first round, or this call was for the first round.
    /// No slot is missed.
    Joined,
    /// The target is being probed: the new slot is missed.
    Missed(MissedCause),
}

/// A target on the schedule and the account of its slots. Shared by ticker and workers, which hold
/// its lock for a few instructions at a time.
///
/// A target is idle, waiting for a worker, or being probed: it is in the dispatcher at most once,
/// and two workers never probe it at the same time.
#[derive(Debug)]
pub(crate) struct ScheduledTarget(Mutex<TargetState>);

#[derive(Debug)]
struct TargetState {
    target: Arc<Target>,
    stage: ProbeStage,
    /// Missed slots that the waiting job reports.
    missed_before_job: MissedSlots,
    /// Later missed slots. The job after the waiting or running job reports them.
    missed_since: MissedSlots,
    is_removed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbeStage {
    Idle,
    Waiting(Option<Slot>),
    Running,
}

impl ScheduledTarget {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self(Mutex::new(TargetState {
            target,
            stage: ProbeStage::Idle,
            missed_before_job: MissedSlots::default(),
            missed_since: MissedSlots::default(),
            is_removed: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, TargetState> {
        // No code under this lock panics between two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.state().target)
    }

    /// Replaces the options of the target, and puts it back on the list if it was removed.
    pub(crate) fn set_target(&self, target: Arc<Target>) {
        let mut state = self.state();
        state.target = target;
        state.is_removed = false;
    }

    /// Marks the target as removed from the list. A waiting job is not started any more.
    pub(crate) fn remove(&self) {
        self.state().is_removed = true;
    }

    /// Counts slots that were missed before [`Self::enqueue`] could be called for them.
    pub(crate) fn record_missed(&self, cause: MissedCause, slots: u64) {
        self.state().missed_since.add(cause, slots);
    }

    /// Makes the target wait for a worker, because `slot` is due. `is_delivery_blocked` is true if
    /// workers wait to hand over their results; it decides the cause of a missed slot.
    pub(crate) fn enqueue(&self, slot: Option<Slot>, is_delivery_blocked: bool) -> Enqueue {
        let mut guard = self.state();
        let state = &mut *guard;
        match (state.stage, slot) {
            (ProbeStage::Idle, _) => {
                state.wait_for(slot);
                Enqueue::Queued
            }
            (ProbeStage::Waiting(Some(_)), Some(_)) => {
                let cause =
                    if is_delivery_blocked { MissedCause::Spool } else { MissedCause::Workers };
                state.missed_since.add(cause, 1);
                state.wait_for(slot);
                Enqueue::Replaced(cause)
            }
            (ProbeStage::Waiting(None), Some(_)) => {
                state.wait_for(slot);
                Enqueue::Joined
            }
            (ProbeStage::Running, Some(_)) => {
                let cause =
                    if is_delivery_blocked { MissedCause::Spool } else { MissedCause::Running };
                state.missed_since.add(cause, 1);
                Enqueue::Missed(cause)
            }
            (ProbeStage::Waiting(_) | ProbeStage::Running, None) => Enqueue::Joined,
        }
    }

    /// Starts the waiting job. `None` if the target was removed from the list.
    pub(crate) fn start_job(&self) -> Option<ProbeJob> {
        let mut state = self.state();
        let ProbeStage::Waiting(slot) = state.stage else { return None };
        if state.is_removed {
            // The next record reports these slots if the target comes back.
            let missed = std::mem::take(&mut state.missed_before_job);
            state.missed_since.add_all(missed);
            state.missed_since.add(MissedCause::Reload, u64::from(slot.is_some()));
            state.stage = ProbeStage::Idle;
            return None;
        }
        state.stage = ProbeStage::Running;
        let missed = std::mem::take(&mut state.missed_before_job);
        Some(ProbeJob { target: Arc::clone(&state.target), slot, missed })
    }

    /// Ends the job, after its result was handed over.
    pub(crate) fn finish_job(&self) {
        self.state().stage = ProbeStage::Idle;
    }
}

impl TargetState {
    fn wait_for(&mut self, slot: Option<Slot>) {
        self.stage = ProbeStage::Waiting(slot);
        if slot.is_some() {
            // The record of this slot reports all slots missed so far.
            self.missed_before_job.add_all(std::mem::take(&mut self.missed_since));
        }
    }
}
