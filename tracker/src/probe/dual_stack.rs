//! A site by IPv6 and by IPv4, each by itself: a dual-stack site of which one
//! family is broken looks well to whoever takes the first that connects.

use std::thread::{Builder, scope};

use super::Prober;
use super::family::Family;
use super::spec::Ask;
use crate::probe::outcome::Outcome;
use crate::probe::reason::plain;

/// As a worker's.
const STACK_BYTES: usize = 256 * 1024;

/// Probes by both families at the same time, so that they share the deadline:
/// what came of the worse. Its detail begins with the family; two that fail for
/// the same reason are told as one.
pub(crate) fn probe(prober: &Prober, ask: &Ask<'_>) -> Outcome {
    let by = |family| {
        let ask = Ask { family, ..*ask };
        move || prober.attempt(&ask)
    };
    let [six, four] = scope(|scope| {
        let beside = Builder::new()
            .name("ipv4".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, by(Family::V4));
        let six = by(Family::V6)();
        let four = beside.ok().and_then(|thread| thread.join().ok());
        // Without a thread it comes after, with a deadline of its own.
        [six, four.unwrap_or_else(by(Family::V4))]
    });
    worse(six, four)
}

fn worse(six: Outcome, four: Outcome) -> Outcome {
    let reason = |one: &Outcome| one.failure.as_ref().map(|failure| failure.reason);
    let is_same = six.failure.is_some() && reason(&six) == reason(&four);
    // A failure is worse than a warning, that than nothing; then the slower one.
    let badness = |one: &Outcome| (!one.healthy(), one.failure.is_some(), one.timings.total);
    let (mut worse, family) = match badness(&four) > badness(&six) && !is_same {
        true => (four, Family::V4.name()),
        false => (six, Family::V6.name()),
    };
    if let Some(failure) = worse.failure.take() {
        let failure = failure.at_host(if is_same { "ipv6 and ipv4" } else { family });
        worse.detail = failure.detail.as_deref().map(plain);
        worse.failure = Some(failure);
    }
    worse
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::outcome::Course;
    use crate::probe::reason::{Failure, Phase, Reason};

    fn outcome(failure: Option<Failure>, total_ms: u64) -> Outcome {
        let mut course = Course::begin(Duration::from_secs(1));
        course.facts.http_status = Some(200);
        let mut outcome = course.end(failure.map_or(Ok(None), Err));
        outcome.timings.total = Duration::from_millis(total_ms);
        outcome
    }

    #[test]
    fn the_family_that_is_worse_is_told_by_name() {
        let well = |total_ms| outcome(None, total_ms);
        let fails = |reason| outcome(Some(Failure::with(reason, Phase::Tls, "how")), 1);
        let (expired, early) = (Reason::TlsExpired, Reason::TlsNotYetValid);
        let warns = |total_ms| outcome(Some(Failure::new(Reason::TooSlow, Phase::Check)), total_ms);
        for (six, four, total_ms, reason, detail) in [
            (well(5), well(9), 9, None, None),
            (well(9), well(5), 9, None, None),
            (fails(expired), well(9), 1, Some(expired), Some("ipv6: how")),
            (well(9), fails(expired), 1, Some(expired), Some("ipv4: how")),
            (fails(expired), fails(early), 1, Some(expired), Some("ipv6: how")),
            (fails(early), fails(early), 1, Some(early), Some("ipv6 and ipv4: how")),
            (well(9), warns(5), 5, Some(Reason::TooSlow), Some("ipv4")),
            (warns(9), fails(early), 1, Some(early), Some("ipv4: how")),
        ] {
            let worse = worse(six, four);
            assert_eq!(worse.timings.total, Duration::from_millis(total_ms), "{worse:?}");
            assert_eq!(worse.failure.as_ref().map(|failure| failure.reason), reason);
            assert_eq!(worse.detail.as_deref(), detail);
        }
    }
}
