//! Targets: WEBSITES and TARGETS, parsed and checked at start, so that a probe never meets an
//! invalid option.
//!
//! [`TargetSource`] reads both settings. `websites.rs` parses the short list, `file.rs` the TOML
//! file, whose options are defined in [`options::OPTIONS`]. Both add [`Target`]s to one
//! `TargetList`, which rejects duplicates.

mod builder;
mod context;
mod error;
mod file;
pub mod options;
mod share;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod url;
mod values;
mod websites;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use common::domain::{Domain, RelationNames};

use error::TargetError;
pub(crate) use share::SHARES_MAX;
pub use share::Share;
pub use source::{Selection, TargetSource};
pub use target::Target;
#[cfg(test)]
pub(crate) use websites::parse_websites;

/// Allowed period of a target.
pub(crate) const PERIODS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);
/// Allowed time-out of one attempt.
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);
/// Allowed number of retries after a failed attempt.
pub(crate) const RETRIES: RangeInclusive<u64> = 0..=10;

/// Values of the options that a target does not set itself.
#[derive(Debug, Clone, Copy)]
pub struct TargetDefaults {
    /// Time from one probe of a target to the next.
    pub period: Duration,
    /// Longest duration of one attempt.
    pub timeout: Duration,
    /// Further attempts after a failed attempt.
    pub retries: u32,
    /// Most bytes that are read of a response body, after decoding.
    pub body_bytes_max: u64,
}

impl Default for TargetDefaults {
    /// 300 s, 10 s, 1 retry and 1 MiB.
    fn default() -> Self {
        Self {
            period: Duration::from_secs(300),
            timeout: Duration::from_secs(10),
            retries: 1,
            body_bytes_max: 1024 * 1024,
        }
    }
}

/// The targets of WEBSITES and TARGETS together. No two have the same URL and name, and no two
/// domains share a table in PostgreSQL.
#[derive(Debug, Default)]
pub(crate) struct TargetList {
    targets: Vec<Target>,
    urls_and_names: HashSet<(String, Option<String>)>,
    domains: HashSet<Domain>,
    tables: RelationNames,
}

impl TargetList {
    fn add(&mut self, target: Target) -> Result<(), TargetError> {
        if !self.domains.contains(&target.domain) {
            self.tables.claim(&target.domain)?;
            self.domains.insert(target.domain.clone());
        }
        if !self.urls_and_names.insert((target.url.to_string(), target.name.clone())) {
            return Err(TargetError::Duplicate);
        }
        self.targets.push(target);
        Ok(())
    }

    /// Returns the targets in the order in which they were added.
    fn into_targets(self) -> Vec<Target> {
        self.targets
    }
}
