//! The newest result of each host: when one fails, do all others as well?

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Fewer hosts than this say nothing about what they have in common.
const OTHERS_MIN: usize = 3;

/// What all workers note their results on. Its size is that of the list of
/// hosts: what is older than a period goes before it grows.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<HashMap<String, Newest>>);

#[derive(Debug, Clone, Copy)]
struct Newest {
    healthy: bool,
    /// A period after it came: until when it counts.
    until: Duration,
}

impl Board {
    /// Notes a result that came `now`, by the grid's clock.
    ///
    /// True when it is a failure, and the newest results of at least three other
    /// hosts are at most a period old and failures, all of them.
    pub(crate) fn note(&self, host: &str, healthy: bool, now: Duration, period: Duration) -> bool {
        let newest = Newest { healthy, until: now + period };
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get_mut(host) {
            Some(known) => *known = newest,
            None => {
                if hosts.len() == hosts.capacity() {
                    hosts.retain(|_, newest| newest.until >= now);
                }
                hosts.insert(host.to_owned(), newest);
            }
        }
        if healthy {
            return false;
        }
        let mut others = 0;
        for (_, newest) in
            hosts.iter().filter(|(other, newest)| *other != host && newest.until >= now)
        {
            // Nearly always one of the first, so that this is no long search.
            if newest.healthy {
                return false;
            }
            others += 1;
        }
        others >= OTHERS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);

    #[test]
    fn others_fail_when_all_that_were_seen_of_late_do_and_there_are_three() {
        let board = Board::default();
        let at = |s: u64| Duration::from_secs(1_000 + s);
        let note = |host, healthy, s| board.note(host, healthy, at(s), PERIOD);
        assert!(!note("a", true, 0));
        assert!(!note("b", false, 1));
        // Its own results, of whatever target, are not another's.
        assert!(!note("b", false, 2));
        assert!(!note("c", false, 3));
        assert!(!note("d", false, 4));
        // As long as the good one counts.
        assert!(!note("e", false, 60));
        assert!(note("e", false, 61));
        // Then the bad ones count no more either.
        assert!(!note("e", false, 63));
        assert!(!note("b", false, 64));
        assert!(note("c", false, 64));
        assert!(!note("a", true, 64));
        assert!(!note("c", false, 64));
        assert!(note("a", false, 65));
        assert!(note("c", false, 123));
        assert!(!note("c", false, 124));
    }

    #[test]
    fn hosts_that_are_gone_are_forgotten() {
        let board = Board::default();
        for index in 0..100_000_u64 {
            board.note(&index.to_string(), true, Duration::from_secs(index), PERIOD);
        }
        assert!(board.0.lock().unwrap().len() < 500);
    }
}
