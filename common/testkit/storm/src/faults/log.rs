//! The log of injected faults.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::identity::Identity;
use kafka_client::Uuid;
use testkit::proxy::RuleHandle;
use testkit::spool_counts::{self, RunCount};

use crate::testbed::StormTestbed;

/// Time-out for the request that a proxy rule waits for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The injected faults and the errors that they revealed.
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Intervals in which the first tracker's disk was full, in seconds since 1970.
    disk_full: Mutex<Vec<(f64, f64)>>,
    /// Results that were in a spool when its tracker was killed, by topic.
    spooled: Mutex<Vec<(String, Identity)>>,
    /// The issued sequence numbers, from the trackers' spools.
    issued: Mutex<Vec<RunCount>>,
    errors: Mutex<Vec<String>>,
}

impl FaultLog {
    pub(super) fn count(&self, kind: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// The number of faults of each kind.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of kills.
    pub(crate) fn kills(&self) -> u64 {
        let is_kill = |kind: &&'static str| kind.starts_with("kill ");
        self.counts().iter().filter(|(kind, _)| is_kill(kind)).map(|(_, count)| count).sum()
    }

    /// Intervals in which the first tracker's disk was full, in seconds since 1970.
    pub(crate) fn disk_full(&self) -> Vec<(f64, f64)> {
        self.disk_full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds results that were on disk when their tracker was killed.
    pub(super) fn add_spooled(&self, results: Vec<(String, Identity)>) {
        self.spooled.lock().unwrap_or_else(PoisonError::into_inner).extend(results);
    }

    /// Adds an interval in which the disk was full, in seconds since 1970.
    pub(super) fn add_disk_full(&self, from_s: f64, to_s: f64) {
        self.disk_full.lock().unwrap_or_else(PoisonError::into_inner).push((from_s, to_s));
    }

    /// Results that were on disk when their tracker was killed, by topic.
    pub(crate) fn spooled(&self) -> Vec<(String, Identity)> {
        self.spooled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the issued sequence numbers of a tracker that has just ended.
    pub(crate) fn read_issued_counts(
        &self,
        testbed: &StormTestbed,
        tracker: usize,
    ) -> std::io::Result<()> {
        match spool_counts::read_counts(&testbed.spool(tracker)) {
            Ok(counted) => {
                self.issued.lock().unwrap_or_else(PoisonError::into_inner).extend(counted);
                Ok(())
            }
            // The tracker was killed before it created the file.
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// For each run, the number of sequence numbers issued in a topic.
    pub(crate) fn issued_counts(&self, topic: &str) -> HashMap<Uuid, i64> {
        let mut counts = HashMap::new();
        let counted = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        for counted in counted.iter().filter(|it| it.topic == topic) {
            let count = counts.entry(counted.run).or_insert(0);
            *count = counted.count.max(*count);
        }
        counts
    }

    /// Failed faults, and programs that ended unexpectedly.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count_if_fired(&self, rule: &RuleHandle, kind: &'static str) {
        // A request after the time-out still triggers the rule, except that a stall is released
        // earlier.
        if rule.wait_until_fired(REQUEST_TIMEOUT) {
            self.count(kind);
        }
    }

    /// Logs and records an error.
    pub(crate) fn add_error(&self, error: String) {
        log::error!("{error}");
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }
}
