//! Probes a site by IPv6 and by IPv4, each on its own.
//!
//! A probe that uses the first family to connect does not notice that the other family
//! is broken.

use std::thread::{Builder, scope};

use super::family::Family;
use super::outcome::ProbeOutcome;
use super::reason::sanitize_detail;

/// The stack size of a worker thread.
const STACK_BYTES: usize = 256 * 1024;

/// Runs an attempt by each family at the same time and returns the worse outcome. Its
/// detail begins with the family. Two failures with the same reason become one.
pub(crate) fn probe(attempt: impl Fn(Family) -> ProbeOutcome + Sync) -> ProbeOutcome {
    let [v6, v4] = scope(|scope| {
        let v4_thread = Builder::new()
            .name("ipv4".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || attempt(Family::V4));
        let v6 = attempt(Family::V6);
        let v4 = v4_thread.ok().and_then(|thread| thread.join().ok());
        // If no thread could be started, the IPv4 attempt runs now, with its own
        // deadline.
        [v6, v4.unwrap_or_else(|| attempt(Family::V4))]
    });
    worse(v6, v4)
}

fn worse(v6: ProbeOutcome, v4: ProbeOutcome) -> ProbeOutcome {
    let reason = |outcome: &ProbeOutcome| outcome.failure.as_ref().map(|failure| failure.reason);
    let same_reason = v6.failure.is_some() && reason(&v6) == reason(&v4);
    // A failure is worse than a warning, a warning is worse than success, and of two
    // equal outcomes the slower outcome is worse.
    let rank = |outcome: &ProbeOutcome| {
        (!outcome.healthy(), outcome.failure.is_some(), outcome.timings.total)
    };
    let (mut worse, family) = match rank(&v4) > rank(&v6) && !same_reason {
        true => (v4, Family::V4.name()),
        false => (v6, Family::V6.name()),
    };
    if let Some(failure) = worse.failure.take() {
        let failure = failure.prefix_detail(if same_reason { "ipv6 and ipv4" } else { family });
        worse.detail = failure.detail.as_deref().map(sanitize_detail);
        worse.failure = Some(failure);
    }
    worse
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::outcome::ProbeState;
    use crate::probe::reason::{Failure, Phase, Reason};

    fn outcome(failure: Option<Failure>, total_ms: u64) -> ProbeOutcome {
        let mut state = ProbeState::start(Duration::from_secs(1));
        state.facts.http_status = Some(200);
        let mut outcome = state.finish(failure.map_or(Ok(None), Err));
        outcome.timings.total = Duration::from_millis(total_ms);
        outcome
    }

    #[test]
    fn the_worse_family_is_reported_with_its_name() {
        let ok = |total_ms| outcome(None, total_ms);
        let fails = |reason| outcome(Some(Failure::with_detail(reason, Phase::Tls, "how")), 1);
        let (expired, early) = (Reason::TlsExpired, Reason::TlsNotYetValid);
        let warns = |total_ms| outcome(Some(Failure::new(Reason::TooSlow, Phase::Check)), total_ms);
        for (v6, v4, total_ms, reason, detail) in [
            (ok(5), ok(9), 9, None, None),
            (ok(9), ok(5), 9, None, None),
            (fails(expired), ok(9), 1, Some(expired), Some("ipv6: how")),
            (ok(9), fails(expired), 1, Some(expired), Some("ipv4: how")),
            (fails(expired), fails(early), 1, Some(expired), Some("ipv6: how")),
            (fails(early), fails(early), 1, Some(early), Some("ipv6 and ipv4: how")),
            (ok(9), warns(5), 5, Some(Reason::TooSlow), Some("ipv4")),
            (warns(9), fails(early), 1, Some(early), Some("ipv4: how")),
        ] {
            let worse = worse(v6, v4);
            assert_eq!(worse.timings.total, Duration::from_millis(total_ms), "{worse:?}");
            assert_eq!(worse.failure.as_ref().map(|failure| failure.reason), reason);
            assert_eq!(worse.detail.as_deref(), detail);
        }
    }
}
