//! What many domains lose together, said once for all of them.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::backoff::Outage;

/// One thing that all domains need. It is out from the first domain that
/// misses it until none does.
#[derive(Debug)]
pub struct SharedOutage {
    what: &'static str,
    state: Mutex<State>,
}

/// Shorter outages are no news: a connection that a restart of the server
/// closed, a leader that moved.
pub const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct State {
    outage: Outage,
    missing_it: HashSet<String>,
}

impl SharedOutage {
    /// Nobody misses it.
    pub fn new(what: &'static str) -> Self {
        let state = State { outage: Outage::new(GRACE), missing_it: HashSet::new() };
        Self { what, state: Mutex::new(state) }
    }

    /// `who` misses it; logged when it lasts, and then once a minute.
    pub fn failed(&self, who: &str, error: &dyn fmt::Display) {
        let mut state = self.state();
        if !state.missing_it.contains(who) {
            state.missing_it.insert(who.to_owned());
        }
        if let Some(length) = state.outage.failed() {
            let (what, count) = (self.what, state.missing_it.len());
            let seconds = length.as_secs();
            log::warn!(
                "{what}: {error}; trying again for {seconds} s ({})",
                Waiting { who, count }
            );
        }
    }

    /// `who` has it again; logged when nobody is left who misses it.
    pub fn succeeded(&self, who: &str) {
        let mut state = self.state();
        if state.missing_it.remove(who)
            && state.missing_it.is_empty()
            && let Some(length) = state.outage.succeeded()
        {
            log::info!("{}: well again after {:.1} s", self.what, length.as_secs_f64());
        }
    }

    /// `who` does not need it any more, here; nothing is known of it by that.
    pub fn left(&self, who: &str) {
        let mut state = self.state();
        if state.missing_it.remove(who) && state.missing_it.is_empty() {
            state.outage.succeeded();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits: one by name, and how many others.
struct Waiting<'a> {
    who: &'a str,
    count: usize,
}

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 | 1 => f.write_str(self.who),
            count => write!(f, "{} and {} more", self.who, count - 1),
        }
    }
}
