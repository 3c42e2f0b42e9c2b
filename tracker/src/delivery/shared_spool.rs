//! The spool that the saver fills and the producer empties, and the counts of
//! results that either of them lost.
//!
//! One lock guards the spool and the counts. The saver holds the lock while it adds
//! results and syncs them. The producer holds it while it dequeues a batch and while it
//! records the outcome of a batch, and never during an exchange with Kafka. Writes and
//! syncs happen under the lock, so every result that the producer finds is already on
//! disk (if the disk accepts writes). The cost: a batch waits some milliseconds for a
//! sync, and a sync waits some ten milliseconds while a backlog is read back.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::delivery::RunTotals;
use crate::delivery::loss_log::LossLog;
use crate::delivery::spool::{EndedRuns, Spool};

/// The spool with its lock, and the condition variable that signals a change.
#[derive(Debug)]
pub(crate) struct SharedSpool {
    state: Mutex<SpoolState>,
    changed: Condvar,
}

/// The data that the lock guards.
#[derive(Debug)]
pub(crate) struct SpoolState {
    /// Results that wait for Kafka.
    pub(crate) spool: Spool,
    /// The ends of earlier runs that Kafka does not have yet.
    pub(crate) ended_runs: EndedRuns,
    pub(crate) totals: RunTotals,
    /// Lost results that are not logged yet.
    pub(crate) losses: LossLog,
    /// Set when no more results will come. The producer must end by this time.
    pub(crate) drain_deadline: Option<Instant>,
}

impl SpoolState {
    /// Returns a function that counts a result dropped to make room for others.
    pub(crate) fn count_dropped<'a>(
        totals: &'a mut RunTotals,
        losses: &'a mut LossLog,
    ) -> impl FnMut(&Arc<str>) + use<'a> {
        |topic| {
            totals.lost += 1;
            losses.add(topic, "the spool is full", 1);
        }
    }
}

impl SharedSpool {
    /// Creates an empty spool that uses at most `bytes_max` bytes of memory.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let state = SpoolState {
            spool: Spool::new(bytes_max),
            ended_runs: EndedRuns::default(),
            totals: RunTotals::default(),
            losses: LossLog::default(),
            drain_deadline: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Locks the spool. The caller must not hold the lock during an exchange with Kafka.
    pub(crate) fn lock(&self) -> MutexGuard<'_, SpoolState> {
        // A thread that panicked with the lock has ended the program, or is a test.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the producer.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Blocks until the producer has work to do and `not_before` has passed: results
    /// in the spool, or batches in flight (`has_pending`). Returns the deadline of the
    /// drain once no more results will come.
    pub(crate) fn wait_for_work(
        &self,
        has_pending: bool,
        not_before: Option<Instant>,
    ) -> Option<Instant> {
        let mut state = self.lock();
        loop {
            if state.drain_deadline.is_some() {
                return state.drain_deadline;
            }
            let pause = not_before.and_then(|at| at.checked_duration_since(Instant::now()));
            let has_work = has_pending || !state.spool.is_empty();
            state = match pause.filter(|pause| !pause.is_zero()) {
                None if has_work => return None,
                Some(pause) if has_work => {
                    let waited = self.changed.wait_timeout(state, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                _ => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
