//! A failure is confirmed before it is told: another attempt, by another address
//! where there is one, and a second later where there is none.

use std::time::Duration;

use common::stop::Stop;

use crate::probe::reason::Reason;
use crate::probe::{Outcome, Prober};
use crate::targets::Target;

/// The pause in front of an attempt at the address that has failed.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A target's result after all its attempts.
#[derive(Debug)]
pub struct Attempted {
    /// What the last attempt found.
    pub outcome: Outcome,
    /// How many were made.
    pub attempts: u32,
    /// Why the first failed, when it was not the last.
    pub first_reason: Option<Reason>,
}

/// Probes until an attempt is healthy, the target's retries are used up, or a
/// stop is asked for. Each attempt has the target's time-out to itself.
///
/// A stop cuts the pause short and not the confirmation: else each restart would
/// tell of failures that a second look had not found. When that takes longer
/// than a stop has time, there is no record.
///
/// The first retry goes at once where the address that failed is one of several,
/// and tries that one last; nothing else hurries, so that what fails quickly is
/// not asked ten times in a moment.
pub fn run(target: &Target, prober: &Prober, stop: &Stop) -> Attempted {
    let mut ask = target.ask();
    let mut done = Attempted { outcome: prober.probe(&ask), attempts: 1, first_reason: None };
    while !done.outcome.healthy() && done.attempts <= target.retries {
        let facts = &done.outcome.facts;
        ask.last_resort = facts.address.filter(|_| facts.has_other_address);
        let at_once = ask.last_resort.is_some() && done.attempts == 1;
        let stopping = stop.wait(if at_once { Duration::ZERO } else { RETRY_PAUSE });
        if stopping && done.attempts > 1 {
            break;
        }
        let reason = done.outcome.failure.as_ref().map(|failure| failure.reason);
        done = Attempted {
            outcome: prober.probe(&ask),
            attempts: done.attempts + 1,
            first_reason: done.first_reason.or(reason),
        };
    }
    done
}

#[cfg(test)]
mod tests;
