//! What many domains lose together, said once for all of them.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::backoff::Outage;

/// One thing that all domains need. It is out from the first domain that
/// misses it until none does.
#[derive(Debug)]
pub struct SharedOutage {
    what: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outage: Outage,
    missing_it: HashSet<String>,
}

impl SharedOutage {
    /// Nobody misses it.
    pub fn new(what: &'static str) -> Self {
        Self { what, state: Mutex::default() }
    }

    /// `who` misses it; logged at the start and once a minute.
    pub fn failed(&self, who: &str, error: &dyn fmt::Display) {
        let mut state = self.state();
        if !state.missing_it.contains(who) {
            state.missing_it.insert(who.to_owned());
        }
        if let Some(length) = state.outage.failed() {
            let (what, seconds) = (self.what, length.as_secs());
            match (seconds, state.missing_it.len()) {
                (0, _) => log::warn!("{what}: {error}; trying again ({who})"),
                (_, 1) => log::warn!("{what}: {error}; for {seconds} s ({who})"),
                (_, count) => log::warn!("{what}: {error}; for {seconds} s, {count} domains wait"),
            }
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
