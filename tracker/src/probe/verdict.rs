//! The one table that turns what happened into a verdict: status, phrase, and
//! which timings are kept.

use common::phrase;
use common::record::Status;

use super::{Outcome, Timings};

/// The longest detail, in characters: the column's width.
pub const DETAIL_CHARS_MAX: usize = 128;

/// How far a probe had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Looking the host up.
    Resolve,
    /// Connecting to one of its addresses.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request and waiting for the answer's head.
    Head,
    /// Reading the body, or following what the head says.
    Body,
    /// Looking at what came.
    Check,
}

/// Why a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// NXDOMAIN.
    DnsNoSuchDomain,
    /// The name exists; it has neither an A nor an AAAA record.
    DnsNoAddress,
    /// Servers answered, and none usefully.
    DnsServerFailure,
    /// No server answered.
    DnsTimeout,
    /// Refused by every address.
    ConnectRefused,
    /// No answer from an address, and success at none.
    ConnectTimeout,
    /// No route to any address.
    ConnectUnreachable,
    /// Anything else that connect(2) says.
    ConnectFailed,
    /// The certificate's time is over.
    TlsExpired,
    /// The certificate's time has not begun.
    TlsNotYetValid,
    /// The certificate is signed by nobody that is trusted here.
    TlsUnknownIssuer,
    /// The certificate is signed by itself alone.
    TlsSelfSigned,
    /// The certificate is for another host.
    TlsWrongHost,
    /// Any other fault of a certificate.
    TlsCertificate,
    /// TLS failed in another way: no common version, an alert, no TLS at all.
    TlsProtocol,
    /// A TCP reset after the connection stood.
    ConnectionReset,
    /// An end of the connection where more was due.
    ConnectionClosed,
    /// The system failed the connection in another way.
    ConnectionFailed,
    /// The deadline came after the connection stood.
    ResponseTimeout,
    /// Not HTTP, or a body that is not coded as declared.
    ResponseMalformed,
    /// More redirects than are followed.
    TooManyRedirects,
    /// A redirect to what can't be asked for.
    RedirectRefused,
    /// The regexp is not in the page.
    BodyNotExpected,
}

impl Reason {
    /// The table: the phrase, and whether the time of DNS and of the response
    /// are kept. They are kept when they are known whole: all names resolved,
    /// the page loaded to its end or bound.
    fn verdict(self) -> (&'static str, bool, bool) {
        match self {
            Self::DnsNoSuchDomain => (phrase::DOMAIN_NOT_EXIST, false, false),
            Self::DnsNoAddress => (phrase::DOMAIN_WITHOUT_ADDRESS, false, false),
            Self::DnsServerFailure | Self::DnsTimeout => (phrase::DNS_FAILURE, false, false),
            Self::ConnectRefused => (phrase::CONNECTION_REFUSED, true, false),
            Self::ConnectTimeout => (phrase::CONNECTION_TIMEOUT, true, false),
            Self::ConnectUnreachable => (phrase::NETWORK_UNREACHABLE, true, false),
            Self::ConnectFailed | Self::ConnectionFailed => {
                (phrase::CONNECTION_FAILED, true, false)
            }
            Self::TlsExpired
            | Self::TlsNotYetValid
            | Self::TlsUnknownIssuer
            | Self::TlsSelfSigned
            | Self::TlsWrongHost
            | Self::TlsCertificate
            | Self::TlsProtocol => (phrase::SSL_ERROR, true, false),
            Self::ConnectionReset => (phrase::CONNECTION_RESET, true, false),
            Self::ConnectionClosed => (phrase::CONNECTION_CLOSED, true, false),
            Self::ResponseTimeout => (phrase::RESPONSE_TIMEOUT, true, false),
            Self::ResponseMalformed => (phrase::INVALID_RESPONSE, true, false),
            Self::TooManyRedirects => (phrase::TOO_MANY_REDIRECTS, true, false),
            Self::RedirectRefused => (phrase::INVALID_REDIRECT, true, false),
            Self::BodyNotExpected => (phrase::PAGE_CONTENT_NOT_EXPECTED, true, true),
        }
    }

    /// TLS that fails takes somebody to answer, so it counts as an answer.
    fn is_tls(self) -> bool {
        self.verdict().0 == phrase::SSL_ERROR
    }
}

/// A probe's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// When.
    pub phase: Phase,
    /// For a person; none when the phrase says it all.
    pub detail: Option<String>,
}

impl Failure {
    /// A failure whose phrase says it all.
    pub(super) fn new(reason: Reason, phase: Phase) -> Self {
        Self { reason, phase, detail: None }
    }

    /// A failure with a word on how.
    pub(super) fn with(reason: Reason, phase: Phase, detail: impl Into<String>) -> Self {
        Self { reason, phase, detail: Some(detail.into()) }
    }

    /// Adds the host, which after a redirect is not the target's own.
    #[must_use]
    pub(super) fn at_host(mut self, host: &str) -> Self {
        self.detail = Some(match self.detail {
            Some(detail) => format!("{host}: {detail}"),
            None => host.to_owned(),
        });
        self
    }

    /// `responsive` takes the head of an HTTP answer from the host that was
    /// asked last, or a failure of TLS.
    fn status(&self) -> Status {
        match self.phase >= Phase::Body || self.reason.is_tls() {
            true => Status::Responsive,
            false => Status::Unresponsive,
        }
    }
}

/// The outcome of a probe that ended with this HTTP status, or failed.
pub(super) fn outcome(result: Result<u16, Failure>, timings: &Timings) -> Outcome {
    let (dns_ms, response_ms) = (milliseconds(timings.dns), milliseconds(timings.response));
    match result {
        Ok(number) => {
            let known = phrase::of_status(number);
            Outcome {
                status: Status::Responsive,
                phrase: known.unwrap_or(phrase::UNKNOWN_STATUS),
                dns_ms: Some(dns_ms),
                response_ms: Some(response_ms),
                detail: known.is_none().then(|| number.to_string()),
                failure: None,
            }
        }
        Err(mut failure) => {
            let (phrase, keeps_dns, keeps_response) = failure.reason.verdict();
            failure.detail = failure.detail.map(|text| cut(&text));
            Outcome {
                status: failure.status(),
                phrase,
                dns_ms: keeps_dns.then_some(dns_ms),
                response_ms: keeps_response.then_some(response_ms),
                detail: failure.detail.clone(),
                failure: Some((failure.reason, failure.phase)),
            }
        }
    }
}

fn milliseconds(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// At most [`DETAIL_CHARS_MAX`] characters, none of which moves a terminal's cursor:
/// some of a detail comes from the site.
fn cut(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(DETAIL_CHARS_MAX).collect()
}
