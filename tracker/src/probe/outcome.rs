//! What a probe found, as it is filled while it goes on.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::record::Status;

use crate::probe::net::socket::Deadline;
use crate::probe::reason::{Failure, Kept, Phase, Severity, Told, milliseconds};

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything answered.
    pub status: Status,
    /// One of [`common::phrase::all`].
    pub phrase: &'static str,
    /// Time spent to resolve names, over all redirects; 0 for an address. None
    /// when a name was not resolved.
    pub dns_ms: Option<u32>,
    /// From the start of the connection to the body's last byte, without DNS,
    /// over all redirects. None when the page was not loaded to its end or
    /// bound.
    pub response_ms: Option<u32>,
    /// For a person, at most 128 characters.
    pub detail: Option<String>,
    /// What is wrong, and in which phase; none when all is well.
    pub failure: Option<Failure>,
    /// How long each phase took.
    pub timings: Timings,
    /// What was seen on the way.
    pub facts: Facts,
}

impl Outcome {
    /// The one answer to "is all well?"; a warning is healthy.
    pub fn healthy(&self) -> bool {
        self.failure.as_ref().is_none_or(|one| one.severity == Severity::Warning)
    }

    /// Whether an answer came to its end, well or not.
    pub fn has_answer(&self) -> bool {
        self.failure.as_ref().is_none_or(|one| matches!(one.phase, Phase::Redirect | Phase::Check))
    }
}

/// How long each phase took, by the monotonic clock. A phase that was not
/// reached has none; one that failed has the time until it did. Each phase is
/// measured by itself at each hop and summed, so that a redirect's connection
/// is never counted as another's TLS, and no phase as a part of another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Looking names up, over all redirects.
    pub resolve: Sum,
    /// Connecting, over all redirects.
    pub connect: Sum,
    /// TLS handshakes, over all redirects.
    pub tls: Sum,
    /// From the request's first byte to the answer's, over all redirects.
    pub first_byte: Sum,
    /// From the final answer's first byte to its last, or to the bound.
    pub transfer: Sum,
    /// The whole of it.
    pub total: Duration,
    /// From the start of a connection to the last byte, over all redirects.
    pub(crate) response: Sum,
}

/// A phase's time over all hops; none when it was not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(pub Option<Duration>);

impl Sum {
    /// Adds the time since then; returns now, where the next phase begins.
    pub(crate) fn add_since(&mut self, begun: Instant) -> Instant {
        let now = Instant::now();
        self.add(now - begun);
        now
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0 = Some(self.0.unwrap_or_default() + time);
    }
}

/// What was seen on the way: of the host that was asked last, all but the
/// number of redirects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The address that was connected to.
    pub address: Option<IpAddr>,
    /// Whether the host has another address, by which another attempt may fare better.
    pub has_other_address: bool,
    /// When its first certificate ends, in seconds since 1970; also of one
    /// that was refused.
    pub certificate_end: Option<i64>,
    /// As `1.1`.
    pub http_version: Option<&'static str>,
    /// The status number of its answer.
    pub http_status: Option<u16>,
    /// Bytes of the body that were read, decoded.
    pub body_bytes: Option<u64>,
    /// Redirects that were followed.
    pub redirects: u32,
    /// Where they led, without user and password.
    pub final_url: Option<String>,
}

impl Facts {
    /// Goes on to another host.
    pub(crate) fn follow(&mut self, url: String) {
        *self = Self { redirects: self.redirects + 1, final_url: Some(url), ..Self::default() };
    }
}

/// A probe under way.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) begun: Instant,
    pub(crate) deadline: Deadline,
    pub(crate) timings: Timings,
    pub(crate) facts: Facts,
}

impl Course {
    pub(crate) fn begin(timeout: Duration) -> Self {
        Self {
            begun: Instant::now(),
            deadline: Deadline::after(timeout),
            timings: Timings::default(),
            facts: Facts::default(),
        }
    }

    /// The end of it: a status with perhaps a warning, or a failure.
    pub(crate) fn end(mut self, result: Result<Option<Failure>, Failure>) -> Outcome {
        self.timings.total = self.begun.elapsed();
        let Self { timings, facts, .. } = self;
        let failure = result.unwrap_or_else(Some);
        let Told { status, phrase, kept, detail } = match &failure {
            Some(failure) => failure.told(facts.http_status),
            None => Told::all_well(facts.http_status.unwrap_or_default()),
        };
        let dns_ms = timings.resolve.0.map(milliseconds).filter(|_| kept != Kept::None);
        let response_ms = timings.response.0.map(milliseconds).filter(|_| kept == Kept::Both);
        Outcome { status, phrase, dns_ms, response_ms, detail, failure, timings, facts }
    }
}

#[cfg(test)]
mod tests {
    use common::phrase;

    use super::*;
    use crate::probe::reason::Reason;

    /// Every reason as a failure and as a warning, at an answer of 200.
    #[test]
    fn a_failure_is_never_called_ok_and_a_warning_by_its_answer_s_name() {
        for reason in Reason::ALL {
            for severity in [Severity::Failure, Severity::Warning] {
                let mut course = Course::begin(Duration::from_secs(1));
                course.facts.http_status = Some(200);
                course.timings.resolve.add(Duration::from_millis(3));
                course.timings.response.add(Duration::from_millis(5));
                let failure = Failure { severity, ..Failure::new(*reason, Phase::Check) };
                let outcome = course.end(Ok(Some(failure)));
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
