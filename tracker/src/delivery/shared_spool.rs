//! What the saver hands over to the producer: the spool, which both work on, and
//! the account of what was lost in either's hands.
//!
//! One lock guards it all. The saver holds it to put results in and make them
//! safe, the producer to take a batch out and to say what became of it, and never
//! while it speaks to Kafka. Writing and syncing happens under the lock: so what
//! the producer finds is safe, if the disk takes anything at all, and there is no
//! state between that it could see. The price is that a batch waits for a sync,
//! some milliseconds, and a sync for the reading back of a backlog, some ten.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::delivery::Account;
use crate::delivery::loss_log::Lost;
use crate::delivery::spool::{Spool, Untold};

/// The spool, shared.
#[derive(Debug)]
pub struct Handover {
    state: Mutex<State>,
    changed: Condvar,
}

/// What the lock guards.
#[derive(Debug)]
pub struct State {
    /// The results that wait.
    pub spool: Spool,
    /// How earlier runs ended, as long as Kafka is not told.
    pub untold: Untold,
    /// What became of all so far.
    pub account: Account,
    /// What was lost of them and is not said yet.
    pub lost: Lost,
    /// Set once no more results will come: by when all must be over.
    pub no_more: Option<Instant>,
}

impl State {
    /// Counts a result that had to go for others.
    pub(crate) fn dropped<'a>(
        account: &'a mut Account,
        lost: &'a mut Lost,
    ) -> impl FnMut(&std::sync::Arc<str>) + use<'a> {
        |topic| {
            account.lost += 1;
            lost.add(topic, "no room to wait for kafka", 1);
        }
    }
}

impl Handover {
    /// An empty spool in at most so many bytes of memory.
    pub fn new(bytes_max: usize) -> Self {
        let state = State {
            spool: Spool::new(bytes_max),
            untold: Untold::default(),
            account: Account::default(),
            lost: Lost::default(),
            no_more: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The spool, for one thread. To be held for no exchange with Kafka.
    pub fn state(&self) -> MutexGuard<'_, State> {
        // Who panicked has ended the program, or is a test.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the producer.
    pub fn changed(&self) {
        self.changed.notify_all();
    }

    /// Waits until there is something to do, which is not before `not_before`, or
    /// no more results will come: by when all must be over then. What is pending
    /// elsewhere is something to do, too.
    pub fn wait(&self, pending: bool, not_before: Option<Instant>) -> Option<Instant> {
        let mut state = self.state();
        loop {
            if state.no_more.is_some() {
                return state.no_more;
            }
            let pause = not_before.and_then(|at| at.checked_duration_since(Instant::now()));
            let has_work = pending || !state.spool.is_empty();
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
