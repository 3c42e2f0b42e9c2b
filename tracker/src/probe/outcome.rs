//! The outcome of one attempt, and its state while it runs.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::record::Status;

use super::net::deadline::Deadline;
use super::reason::{Failure, OutcomeSummary, Phase, Severity, TimesReported, whole_milliseconds};

/// The outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Whether the site responded.
    pub status: Status,
    /// One of [`common::phrase::all`].
    pub phrase: &'static str,
    /// Time to resolve all names, redirects included; 0 if the host is an address.
    /// `None` if a name was not resolved.
    pub dns_ms: Option<u32>,
    /// Time from the start of the connection to the last byte of the body, redirects
    /// included, DNS excluded. `None` if the body was not read to its end or limit.
    pub response_ms: Option<u32>,
    /// Text for people, at most 128 characters.
    pub detail: Option<String>,
    /// The failure or the warning.
    pub failure: Option<Failure>,
    /// The duration of each phase.
    pub timings: ProbeTimings,
    /// Details of the connection and the response.
    pub facts: Facts,
}

impl ProbeOutcome {
    /// Whether the target is healthy. A warning counts as healthy.
    pub fn healthy(&self) -> bool {
        self.failure.as_ref().is_none_or(|failure| failure.severity == Severity::Warning)
    }

    /// Whether a complete response was received, independent of the checks.
    pub fn has_response(&self) -> bool {
        self.failure
            .as_ref()
            .is_none_or(|failure| matches!(failure.phase, Phase::Redirect | Phase::Check))
    }
}

/// The duration of each phase, by the monotonic clock.
///
/// A phase that was not reached has no time. The phase that failed has the time until
/// the failure. Each phase is measured at each redirect on its own and summed, so no
/// time is counted in two phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeTimings {
    /// Resolving host names, over all redirects.
    pub resolve: PhaseTime,
    /// Connecting, over all redirects.
    pub connect: PhaseTime,
    /// TLS handshakes, over all redirects.
    pub tls: PhaseTime,
    /// From the first byte of the request to the first byte of the response, over all
    /// redirects.
    pub first_byte: PhaseTime,
    /// From the first byte of the final response to its last byte or limit.
    pub transfer: PhaseTime,
    /// The whole attempt.
    pub total: Duration,
    /// From the start of the connection to the last byte, over all redirects.
    pub(crate) response: PhaseTime,
}

/// The duration of a phase, summed over all redirects. `None` if it was not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhaseTime(pub Option<Duration>);

impl PhaseTime {
    /// Adds the time since `start`. Returns the current time: the start of the next phase.
    pub(crate) fn add_since(&mut self, start: Instant) -> Instant {
        let now = Instant::now();
        self.add(now - start);
        now
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0 = Some(self.0.unwrap_or_default() + time);
    }
}

/// Details of the last connection and response. `redirects` and `final_url` describe
/// the whole attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The address of the connection.
    pub address: Option<IpAddr>,
    /// Whether the host has another address for a retry.
    pub has_other_address: bool,
    /// When the server certificate expires, in seconds since 1970. Set for a rejected
    /// certificate, too.
    pub certificate_end: Option<i64>,
    /// For example `1.1`.
    pub http_version: Option<&'static str>,
    /// The status of the response.
    pub http_status: Option<u16>,
    /// Bytes of the body that were read, after decoding.
    pub body_bytes: Option<u64>,
    /// The number of redirects that were followed.
    pub redirects: u32,
    /// The URL of the last redirect, without user and password.
    pub final_url: Option<String>,
}

impl Facts {
    /// Counts a redirect to `url` and clears the details of the previous connection.
    pub(crate) fn start_redirect(&mut self, url: String) {
        *self = Self { redirects: self.redirects + 1, final_url: Some(url), ..Self::default() };
    }
}

/// The state of a running attempt.
#[derive(Debug)]
pub(crate) struct ProbeState {
    pub(crate) started_at: Instant,
    pub(crate) deadline: Deadline,
    pub(crate) timings: ProbeTimings,
    pub(crate) facts: Facts,
}

impl ProbeState {
    pub(crate) fn start(timeout: Duration) -> Self {
        Self {
            started_at: Instant::now(),
            deadline: Deadline::after(timeout),
            timings: ProbeTimings::default(),
            facts: Facts::default(),
        }
    }

    /// Builds the outcome. `Ok` holds a warning or nothing, `Err` the failure.
    pub(crate) fn finish(mut self, result: Result<Option<Failure>, Failure>) -> ProbeOutcome {
        self.timings.total = self.started_at.elapsed();
        let Self { timings, facts, .. } = self;
        let failure = result.unwrap_or_else(Some);
        let OutcomeSummary { status, phrase, times, detail } = match &failure {
            Some(failure) => failure.summary(facts.http_status),
            None => OutcomeSummary::success(facts.http_status.unwrap_or_default()),
        };
        let dns_ms =
            timings.resolve.0.map(whole_milliseconds).filter(|_| times != TimesReported::None);
        let response_ms =
            timings.response.0.map(whole_milliseconds).filter(|_| times == TimesReported::Both);
        ProbeOutcome { status, phrase, dns_ms, response_ms, detail, failure, timings, facts }
    }
}

#[cfg(test)]
mod tests {
    use common::phrase;

    use super::*;
    use crate::probe::reason::Reason;

    #[test]
    fn only_a_warning_can_have_the_phrase_ok() {
        for reason in Reason::ALL {
            for severity in [Severity::Failure, Severity::Warning] {
                let mut state = ProbeState::start(Duration::from_secs(1));
                state.facts.http_status = Some(200);
                state.timings.resolve.add(Duration::from_millis(3));
                state.timings.response.add(Duration::from_millis(5));
                let failure = Failure { severity, ..Failure::new(*reason, Phase::Check) };
                let outcome = state.finish(Ok(Some(failure)));
                let is_warning = severity == Severity::Warning;
                assert_eq!(outcome.healthy(), is_warning);
                assert_eq!(outcome.phrase == phrase::OK, is_warning, "{reason:?} {outcome:?}");
                if is_warning {
                    assert_eq!((outcome.dns_ms, outcome.response_ms), (Some(3), Some(5)));
                }
            }
        }
    }
}
