//! Logs outages of services that many domains share.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::log_throttle::LogThrottle;

/// Shorter outages are not logged, such as a connection that a restart of the server closed, or a
/// new leader of a partition.
pub const GRACE: Duration = Duration::from_secs(2);

/// The outage of one service that all domains use. The outage begins with the first user that
/// fails, and ends when no user fails any more. It is logged at its beginning, once a minute, and
/// at its end, for all affected domains together.
#[derive(Debug)]
pub struct SharedOutage {
    service: &'static str,
    state: Mutex<OutageState>,
}

#[derive(Debug)]
struct OutageState {
    outage: LogThrottle,
    failing: HashSet<String>,
}

impl SharedOutage {
    /// Creates the log for `service`, without an outage. Log lines begin with `service`.
    pub fn new(service: &'static str) -> Self {
        let state = OutageState { outage: LogThrottle::new(GRACE), failing: HashSet::new() };
        Self { service, state: Mutex::new(state) }
    }

    /// Records a failure of `user`. Logs it if the outage lasts longer than
    /// [`GRACE`], and then once a minute.
    pub fn record_failure(&self, user: &str, error: &dyn fmt::Display) {
        let mut state = self.state();
        if !state.failing.contains(user) {
            state.failing.insert(user.to_owned());
        }
        if let Some(length) = state.outage.record_failure() {
            let (service, count) = (self.service, state.failing.len());
            let seconds = length.as_secs();
            log::warn!(
                "{service}: {error}; retrying for {seconds} s ({})",
                FailingUsers { user, count }
            );
        }
    }

    /// Records a success of `user`. Logs the end of the outage if no other user
    /// fails.
    pub fn record_success(&self, user: &str) {
        let mut state = self.state();
        if state.failing.remove(user)
            && state.failing.is_empty()
            && let Some(length) = state.outage.record_success()
        {
            log::info!("{}: recovered after {:.1} s", self.service, length.as_secs_f64());
        }
    }

    /// Removes `user`, which does not use the service any more. This does not
    /// show that the service recovered, so nothing is logged.
    pub fn remove_user(&self, user: &str) {
        let mut state = self.state();
        if state.failing.remove(user) && state.failing.is_empty() {
            state.outage.record_success();
        }
    }

    fn state(&self) -> MutexGuard<'_, OutageState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The refusals of one service, separately for each cause. The first domain that is refused for a
/// cause is logged at once. After that, one line a minute is logged for each cause, for all
/// affected domains together.
#[derive(Debug)]
pub struct SharedRefusals {
    service: &'static str,
    by_cause: Mutex<HashMap<String, SharedOutage>>,
}

/// The maximum number of causes with log lines of their own. Further causes share a line.
const CAUSES_MAX: usize = 64;

impl SharedRefusals {
    /// Creates the log for `service`, without a refusal. Log lines begin with `service`.
    pub fn new(service: &'static str) -> Self {
        Self { service, by_cause: Mutex::default() }
    }

    /// Records that the service refused a request of `user`. `cause` is an SQLSTATE, for example.
    pub fn record_failure(&self, user: &str, cause: &str, error: &dyn fmt::Display) {
        let mut by_cause = self.by_cause();
        for (other, refusals) in &*by_cause {
            if other != cause {
                refusals.remove_user(user);
            }
        }
        let is_full = by_cause.len() >= CAUSES_MAX && !by_cause.contains_key(cause);
        let cause = if is_full { String::new() } else { cause.to_owned() };
        let refusals = by_cause.entry(cause).or_insert_with(|| SharedOutage::new(self.service));
        refusals.record_failure(user, error);
    }

    /// Records a success of `user`. Logs the end of each refusal that affects no other user.
    pub fn record_success(&self, user: &str) {
        for refusals in self.by_cause().values() {
            refusals.record_success(user);
        }
    }

    /// Removes `user`, which does not use the service any more.
    pub fn remove_user(&self, user: &str) {
        for refusals in self.by_cause().values() {
            refusals.remove_user(user);
        }
    }

    fn by_cause(&self) -> MutexGuard<'_, HashMap<String, SharedOutage>> {
        self.by_cause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of one failing user, and the number of the other failing users.
struct FailingUsers<'a> {
    user: &'a str,
    count: usize,
}

impl fmt::Display for FailingUsers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 | 1 => f.write_str(self.user),
            count => write!(f, "{} and {} more", self.user, count - 1),
        }
    }
}
