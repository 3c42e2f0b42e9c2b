//! The table of failure reasons. A new reason is one more row of `reasons!`.
//!
//! Each row has the name of the reason in records, whether the site responded,
//! the phrase, the times that records report, and the default severity.
//! `common/RESULTS.md` shows the same table.

use std::time::Duration;

use common::phrase;
use common::record::Status;

/// The longest detail, in characters: the width of the column in PostgreSQL.
const DETAIL_CHARS_MAX: usize = 128;

/// The step of a probe in which it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Resolving the host name.
    Resolve,
    /// Connecting to one of the addresses.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request.
    Request,
    /// Waiting for the first byte of the response.
    FirstByte,
    /// Reading the rest of the response's head.
    Head,
    /// Following a redirect.
    Redirect,
    /// Reading the body.
    Body,
    /// Checking the response.
    Check,
}

impl Phase {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Request => "request",
            Self::FirstByte => "first_byte",
            Self::Head => "head",
            Self::Redirect => "redirect",
            Self::Body => "body",
            Self::Check => "check",
        }
    }

    /// The phase as a part of a detail text.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Resolve => "in the look-up",
            Self::Connect => "while connecting",
            Self::Tls => "in the tls handshake",
            Self::Request => "in the request",
            Self::FirstByte => "before the first byte",
            Self::Head => "in the head",
            Self::Redirect => "in the redirect",
            Self::Body => "in the body",
            Self::Check => "in the check",
        }
    }
}

/// Whether a reason makes the target unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The target is not healthy.
    Failure,
    /// The target is healthy, and an operator should look at it.
    Warning,
}

impl Severity {
    /// The name in common/RESULTS.md's table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Warning => "warning",
        }
    }
}

/// Whether a reason means that the site responded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The site responded. A TLS failure needs a responding server, too.
    Yes,
    /// The site did not respond.
    No,
    /// The site responded if the head of the last host's response was complete.
    ByPhase,
}

/// The source of the phrase in the record of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhraseSource {
    /// The phrase of the reason.
    Fixed(&'static str),
    /// The phrase of the HTTP status. A failure with status 200 gets
    /// [`phrase::PAGE_CONTENT_NOT_EXPECTED`] instead of `ok`, because readers of 1.1.0
    /// treat `ok` as success.
    HttpStatus,
}

/// Which of the record keys `dns` and `response` have a value. A time is reported
/// only if it is complete: all names resolved; the body read to its end or limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimesReported {
    /// Neither key.
    None,
    /// `dns` only.
    DnsOnly,
    /// `dns` and `response`.
    Both,
}

/// One row of the table of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonSpec {
    /// The name in records.
    pub name: &'static str,
    /// Whether the site responded.
    pub answered: Answered,
    /// The phrase of a failure. A warning has the phrase of the HTTP status.
    pub phrase: PhraseSource,
    /// The times reported for a failure. A warning reports both.
    pub times: TimesReported,
    /// The severity, unless the target sets another severity.
    pub severity: Severity,
}

/// Generates the enum, the list of its values and the table from one list of rows.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal, $answered:ident, $phrase:expr, $times:ident, $severity:ident;)+) => {
        /// The cause of a failure or of a warning.
        ///
        /// The list is closed: a name that was published keeps its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the phases.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The row of this reason.
            pub fn spec(self) -> ReasonSpec {
                use PhraseSource::{Fixed, HttpStatus};
                match self {
                    $(Self::$variant => ReasonSpec {
                        name: $name,
                        answered: Answered::$answered,
                        phrase: $phrase,
                        times: TimesReported::$times,
                        severity: Severity::$severity,
                    },)+
                }
            }
        }
    };
}

reasons! {
    /// NXDOMAIN.
    DnsNoSuchDomain = "dns_no_such_domain", No, Fixed(phrase::DOMAIN_NOT_EXIST), None, Failure;
    /// The name exists but has no address, or none of the requested family.
    DnsNoAddress = "dns_no_address", No, Fixed(phrase::DOMAIN_WITHOUT_ADDRESS), None, Failure;
    /// At least one server answered, and no answer was usable.
    DnsServerFailure = "dns_server_failure", No, Fixed(phrase::DNS_FAILURE), None, Failure;
    /// No server answered in time.
    DnsTimeout = "dns_timeout", No, Fixed(phrase::DNS_FAILURE), None, Failure;
    /// Every address refused the connection.
    ConnectRefused = "connect_refused", No, Fixed(phrase::CONNECTION_REFUSED), DnsOnly, Failure;
    /// At least one address did not answer, and no address connected.
    ConnectTimeout = "connect_timeout", No, Fixed(phrase::CONNECTION_TIMEOUT), DnsOnly, Failure;
    /// There is no route to any address.
    ConnectUnreachable = "connect_unreachable", No, Fixed(phrase::NETWORK_UNREACHABLE), DnsOnly, Failure;
    /// Any other error of connect(2).
    ConnectFailed = "connect_failed", No, Fixed(phrase::CONNECTION_FAILED), DnsOnly, Failure;
    /// The proxy answered, and did not connect to the site.
    ProxyRefused = "proxy_refused", No, Fixed(phrase::CONNECTION_FAILED), DnsOnly, Failure;
    /// The deadline passed while connecting to the proxy or waiting for its answer.
    ProxyTimeout = "proxy_timeout", No, Fixed(phrase::CONNECTION_TIMEOUT), DnsOnly, Failure;
    /// The proxy can't be reached, or it does not speak HTTP.
    ProxyFailed = "proxy_failed", No, Fixed(phrase::CONNECTION_FAILED), DnsOnly, Failure;
    /// The certificate has expired.
    TlsExpired = "tls_expired", Yes, Fixed(phrase::SSL_ERROR), DnsOnly, Failure;
    /// The certificate is not valid yet.
    TlsNotYetValid = "tls_not_yet_valid", Yes, Fixed(phrase::SSL_ERROR), DnsOnly, Failure;
    /// No trusted root issued the certificate.
    TlsUnknownIssuer = "tls_unknown_issuer", Yes, Fixed(phrase::SSL_ERROR), DnsOnly, Failure;
    /// The certificate is self-signed.
    TlsSelfSigned = "tls_self_signed", Yes, Fixed(phrase::SSL_ERROR), DnsOnly, Failure;
    /// The certificate is for another host.
    TlsWrongHost = "tls_wrong_host", Yes, Fixed(phrase::SSL_ERROR), DnsOnly, Failure;
    /// Any other error of a certificate.
    TlsCertificate = "tls_certificate", Yes, Fixed(phrase::SSL_ERROR), DnsOnly, Failure;
    /// Any other TLS error: no common version, an alert, a server without TLS.
    TlsProtocol = "tls_protocol", Yes, Fixed(phrase::SSL_ERROR), DnsOnly, Failure;
    /// The deadline passed during the TLS handshake.
    TlsTimeout = "tls_timeout", No, Fixed(phrase::RESPONSE_TIMEOUT), DnsOnly, Failure;
    /// The deadline passed while the request was sent: the site reads too slowly.
    SendTimeout = "send_timeout", No, Fixed(phrase::RESPONSE_TIMEOUT), DnsOnly, Failure;
    /// The connection failed while the request was sent.
    SendFailed = "send_failed", No, Fixed(phrase::CONNECTION_FAILED), DnsOnly, Failure;
    /// The deadline passed before the first byte of the response.
    FirstByteTimeout = "first_byte_timeout", No, Fixed(phrase::RESPONSE_TIMEOUT), DnsOnly, Failure;
    /// The deadline passed between the first byte of the response and the end of its head.
    HeadTimeout = "head_timeout", No, Fixed(phrase::RESPONSE_TIMEOUT), DnsOnly, Failure;
    /// The deadline passed while the body was read.
    BodyTimeout = "body_timeout", Yes, Fixed(phrase::RESPONSE_TIMEOUT), DnsOnly, Failure;
    /// A TCP reset on an established connection.
    ConnectionReset = "connection_reset", ByPhase, Fixed(phrase::CONNECTION_RESET), DnsOnly, Failure;
    /// The site closed the connection before the response was complete.
    ClosedEarly = "closed_early", ByPhase, Fixed(phrase::CONNECTION_CLOSED), DnsOnly, Failure;
    /// Any other I/O error on an established connection.
    ConnectionFailed = "connection_failed", ByPhase, Fixed(phrase::CONNECTION_FAILED), DnsOnly, Failure;
    /// The response is not HTTP, or the body is not encoded as declared.
    MalformedResponse = "malformed_response", ByPhase, Fixed(phrase::INVALID_RESPONSE), DnsOnly, Failure;
    /// The head of the response is larger than the limit.
    HeadTooLarge = "head_too_large", No, Fixed(phrase::INVALID_RESPONSE), DnsOnly, Failure;
    /// More redirects than the limit.
    TooManyRedirects = "too_many_redirects", Yes, Fixed(phrase::TOO_MANY_REDIRECTS), DnsOnly, Failure;
    /// A redirect to a URL that the probe does not request.
    RedirectRefused = "redirect_refused", Yes, Fixed(phrase::INVALID_REDIRECT), DnsOnly, Failure;
    /// An expected regexp does not match the body, or an unwanted regexp matches it.
    BodyNotExpected = "body_not_expected", Yes, Fixed(phrase::PAGE_CONTENT_NOT_EXPECTED), Both, Failure;
    /// The status of the final response is not expected. Expected by default: 200 to 399.
    StatusNotExpected = "status_not_expected", Yes, HttpStatus, Both, Failure;
    /// A header of the final response is not as the target expects.
    HeaderNotExpected = "header_not_expected", Yes, Fixed(phrase::PAGE_CONTENT_NOT_EXPECTED), Both, Failure;
    /// The body is not JSON, or a value in it is not as the target expects.
    JsonNotExpected = "json_not_expected", Yes, Fixed(phrase::PAGE_CONTENT_NOT_EXPECTED), Both, Failure;
    /// The certificate expires in fewer days than the target requires.
    CertificateExpiresSoon = "certificate_expires_soon", Yes, Fixed(phrase::SSL_ERROR), Both, Warning;
    /// The attempt took longer than the target allows.
    TooSlow = "too_slow", Yes, Fixed(phrase::RESPONSE_TIMEOUT), Both, Warning;
}

impl Reason {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        self.spec().name
    }

    /// The severity, unless the target sets another severity.
    pub fn severity(self) -> Severity {
        self.spec().severity
    }
}

/// A failure or a warning, by its severity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub reason: Reason,
    /// The phase in which it occurred.
    pub phase: Phase,
    /// The default severity of the reason, or the severity that the target sets.
    pub severity: Severity,
    /// Text for people. `None` if the phrase is enough.
    pub detail: Option<String>,
}

impl Failure {
    pub(crate) fn new(reason: Reason, phase: Phase) -> Self {
        Self { reason, phase, severity: reason.severity(), detail: None }
    }

    pub(crate) fn with_detail(reason: Reason, phase: Phase, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(reason, phase) }
    }

    /// Puts a host name or an address family in front of the detail.
    #[must_use]
    pub(crate) fn prefix_detail(mut self, prefix: &str) -> Self {
        self.detail = Some(match self.detail {
            Some(detail) => format!("{prefix}: {detail}"),
            None => prefix.to_owned(),
        });
        self
    }

    /// The values for the record. `http_status` is the status of the last response.
    pub(crate) fn summary(&self, http_status: Option<u16>) -> OutcomeSummary {
        let spec = self.reason.spec();
        let is_warning = self.severity == Severity::Warning;
        let has_answered = match spec.answered {
            Answered::Yes => true,
            Answered::No => false,
            Answered::ByPhase => self.phase > Phase::Head,
        };
        let phrase = match spec.phrase {
            PhraseSource::Fixed(phrase) if !is_warning => phrase,
            _ => match http_status.map_or(phrase::UNKNOWN_STATUS, phrase_of_status) {
                phrase::OK if !is_warning => phrase::PAGE_CONTENT_NOT_EXPECTED,
                phrase => phrase,
            },
        };
        OutcomeSummary {
            status: if has_answered { Status::Responsive } else { Status::Unresponsive },
            phrase,
            times: if is_warning { TimesReported::Both } else { spec.times },
            detail: self.detail.as_deref().map(sanitize_detail),
        }
    }
}

/// The part of an outcome that the record format of 1.1.0 has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutcomeSummary {
    pub(crate) status: Status,
    pub(crate) phrase: &'static str,
    pub(crate) times: TimesReported,
    pub(crate) detail: Option<String>,
}

impl OutcomeSummary {
    /// The summary of a probe without failure or warning. `http_status` is the status of
    /// the final response.
    pub(crate) fn success(http_status: u16) -> Self {
        let is_known = phrase::from_status(http_status).is_some();
        Self {
            status: Status::Responsive,
            phrase: phrase_of_status(http_status),
            times: TimesReported::Both,
            detail: (!is_known).then(|| http_status.to_string()),
        }
    }
}

fn phrase_of_status(http_status: u16) -> &'static str {
    phrase::from_status(http_status).unwrap_or(phrase::UNKNOWN_STATUS)
}

/// Whole milliseconds, rounded down, as 1.1.0 reports them.
pub(crate) fn whole_milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Cuts a detail to [`DETAIL_CHARS_MAX`] characters and replaces control characters:
/// parts of a detail come from the site, and must not control a terminal.
pub(crate) fn sanitize_detail(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(printable).take(DETAIL_CHARS_MAX).collect()
}
