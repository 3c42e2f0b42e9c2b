//! The counters of the recorder.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only grows. Any thread may add to it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of a process. All workers share one.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Rows inserted into the tables of domains.
    pub rows_inserted: Counter,
    /// Records that smart mode merged into a row.
    pub records_merged: Counter,
    /// Records written to quarantine.
    pub records_quarantined: Counter,
    /// Records dropped because their results are recorded already.
    pub duplicates_dropped: Counter,
    /// Results that never arrived, counted by the gaps in sequence numbers.
    pub results_missing: Counter,
    /// Records with a malformed identity, recorded without it.
    pub identities_malformed: Counter,
    /// Panics that were caught.
    pub panics: Counter,
}
