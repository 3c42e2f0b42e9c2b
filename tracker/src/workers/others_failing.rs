//! [`OthersFailing`]: whether all other hosts fail at the same time as the probed host.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Fewer other hosts are no sign of a common cause.
const OTHER_HOSTS_MIN: usize = 3;

/// The newest result of each host, shared by all workers. Results older than a period are removed
/// before the map grows, so the map is no larger than the list of hosts.
#[derive(Debug, Default)]
pub(crate) struct OthersFailing(Mutex<HashMap<String, HostResult>>);

#[derive(Debug, Clone, Copy)]
struct HostResult {
    healthy: bool,
    /// One period after the result.
    valid_until: Duration,
}

impl OthersFailing {
    /// Records a result at `now`, a time of the schedule's clock.
    ///
    /// Returns true if the result is a failure, at least three other hosts have results that are at
    /// most one period old, and all of these are failures.
    pub(crate) fn record(
        &self,
        host: &str,
        healthy: bool,
        now: Duration,
        period: Duration,
    ) -> bool {
        let newest = HostResult { healthy, valid_until: now + period };
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get_mut(host) {
            Some(known) => *known = newest,
            None => {
                if hosts.len() == hosts.capacity() {
                    hosts.retain(|_, result| result.valid_until >= now);
                }
                hosts.insert(host.to_owned(), newest);
            }
        }
        if healthy {
            return false;
        }
        let mut failing = 0;
        let others =
            hosts.iter().filter(|(other, result)| *other != host && result.valid_until >= now);
        for (_, result) in others {
            // Usually one of the first hosts is healthy, so the loop is short.
            if result.healthy {
                return false;
            }
            failing += 1;
        }
        failing >= OTHER_HOSTS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);

    #[test]
    fn others_fail_if_three_other_hosts_have_valid_results_and_all_are_failures() {
        let others_failing = OthersFailing::default();
        let at = |s: u64| Duration::from_secs(1_000 + s);
        let record = |host, healthy, s| others_failing.record(host, healthy, at(s), PERIOD);
        assert!(!record("a", true, 0));
        assert!(!record("b", false, 1));
        // Results of the same host do not count.
        assert!(!record("b", false, 2));
        assert!(!record("c", false, 3));
        assert!(!record("d", false, 4));
        // The healthy result of a is valid until 60.
        assert!(!record("e", false, 60));
        assert!(record("e", false, 61));
        // The failures of b, c and d expire one after the other.
        assert!(!record("e", false, 63));
        assert!(!record("b", false, 64));
        assert!(record("c", false, 64));
        assert!(!record("a", true, 64));
        assert!(!record("c", false, 64));
        assert!(record("a", false, 65));
        assert!(record("c", false, 123));
        assert!(!record("c", false, 124));
    }

    #[test]
    fn expired_results_are_removed() {
        let others_failing = OthersFailing::default();
        for index in 0..100_000_u64 {
            others_failing.record(&index.to_string(), true, Duration::from_secs(index), PERIOD);
        }
        assert!(others_failing.0.lock().unwrap().len() < 500);
    }
}
