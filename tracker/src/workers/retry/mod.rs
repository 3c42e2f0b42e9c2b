//! Confirms a failure by further attempts before it is reported.

use std::time::Duration;

use common::stop::Stop;

use crate::probe::reason::Reason;
use crate::probe::{ProbeOutcome, Prober};
use crate::targets::Target;

/// Pause before an attempt at an address that has failed.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The outcome of a probe after all its attempts.
#[derive(Debug)]
pub(crate) struct RetriedProbe {
    /// Outcome of the last attempt.
    pub(crate) outcome: ProbeOutcome,
    /// Number of attempts, from 1.
    pub(crate) attempts: u32,
    /// Reason of the first attempt, if more attempts followed.
    pub(crate) first_reason: Option<Reason>,
}

/// Probes until an attempt is healthy, the target's retries are used up, or a stop is requested.
/// Each attempt has the full time-out of the target.
///
/// The first retry starts immediately if the host has several addresses, and tries the failed
/// address last. All other retries wait for `retry_pause` first.
///
/// A stop ends the pause, and the first retry is still made: without it, each restart would report
/// failures that a retry disproves. A retry that outlasts the stop produces no record.
pub(crate) fn probe_with_retries(
    target: &Target,
    prober: &Prober,
    retry_pause: Duration,
    stop: &Stop,
) -> RetriedProbe {
    let mut request = target.probe_request();
    let outcome = prober.probe(&request);
    let mut probe = RetriedProbe { outcome, attempts: 1, first_reason: None };
    while !probe.outcome.healthy() && probe.attempts <= target.retries {
        let facts = &probe.outcome.facts;
        request.last_resort = facts.address.filter(|_| facts.has_other_address);
        let retries_now = request.last_resort.is_some() && probe.attempts == 1;
        let is_stopping = stop.wait(if retries_now { Duration::ZERO } else { retry_pause });
        if is_stopping && probe.attempts > 1 {
            break;
        }
        let reason = probe.outcome.failure.as_ref().map(|failure| failure.reason);
        probe = RetriedProbe {
            outcome: prober.probe(&request),
            attempts: probe.attempts + 1,
            first_reason: probe.first_reason.or(reason),
        };
    }
    probe
}

#[cfg(test)]
mod tests;
