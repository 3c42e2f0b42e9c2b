//! The one table that says what a reason is called: its word, whether anything
//! answered, the phrase, which of the two times of 1.1.0 are kept, and how bad
//! it is. README shows the same table.

use std::time::Duration;

use common::phrase;
use common::record::Status;

/// The longest detail, in characters: the column's width.
pub const DETAIL_CHARS_MAX: usize = 128;

/// How far a probe had come when something was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Looking the host up.
    Resolve,
    /// Connecting to one of its addresses.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request.
    Request,
    /// Waiting for the answer's first byte.
    FirstByte,
    /// Reading the rest of the answer's head.
    Head,
    /// Following what the head says.
    Redirect,
    /// Reading the body.
    Body,
    /// Looking at what came.
    Check,
}

impl Phase {
    /// The word in the record.
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

    /// Where a connection that stood failed, for a person.
    pub(crate) fn place(self) -> &'static str {
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

/// How bad a reason is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The target is not healthy.
    Failure,
    /// The target is healthy, and somebody should look at it.
    Warning,
}

impl Severity {
    /// The word in README's table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Warning => "warning",
        }
    }
}

/// Whether anything answered, as a reason tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Something did: a failure of TLS takes somebody to answer, too.
    Yes,
    /// Nothing did.
    No,
    /// The host that was asked last did if the head of its answer came whole.
    ByPhase,
}

/// Where a reason's phrase comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// It has one of its own.
    Own(&'static str),
    /// The status of the HTTP answer has it. A failure is never called `ok`,
    /// so that a reader of 1.1.0 is not told that all is well: one with that
    /// status is [`phrase::PAGE_CONTENT_NOT_EXPECTED`].
    Http,
}

/// Which of the times `dns` and `response` are kept: those that are known
/// whole, all names resolved, the page loaded to its end or bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Neither.
    None,
    /// That of the resolver.
    Dns,
    /// Both.
    Both,
}

/// What the table says of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The word in the record.
    pub word: &'static str,
    /// Whether anything answered.
    pub answered: Answered,
    /// The phrase of a failure; that of a warning is HTTP's.
    pub words: Words,
    /// The times that are kept of a failure; of a warning both are.
    pub kept: Kept,
    /// How bad it is, unless the target says otherwise.
    pub severity: Severity,
}

/// Makes the enum, the list of all of it, and the table, so that no reason can
/// be in one and not in the others.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $word:literal, $answered:ident, $words:expr, $kept:ident, $severity:ident;)+) => {
        /// Why a probe failed, or what it warns of. A closed list: a word that
        /// was once written keeps its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the phases.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The table's line.
            pub fn verdict(self) -> Verdict {
                use Words::{Http, Own};
                match self {
                    $(Self::$name => Verdict {
                        word: $word,
                        answered: Answered::$answered,
                        words: $words,
                        kept: Kept::$kept,
                        severity: Severity::$severity,
                    },)+
                }
            }
        }
    };
}

reasons! {
    /// NXDOMAIN.
    DnsNoSuchDomain = "dns_no_such_domain", No, Own(phrase::DOMAIN_NOT_EXIST), None, Failure;
    /// The name exists, and has no address, or none of the family asked for.
    DnsNoAddress = "dns_no_address", No, Own(phrase::DOMAIN_WITHOUT_ADDRESS), None, Failure;
    /// Servers answered, and none usefully.
    DnsServerFailure = "dns_server_failure", No, Own(phrase::DNS_FAILURE), None, Failure;
    /// No server answered.
    DnsTimeout = "dns_timeout", No, Own(phrase::DNS_FAILURE), None, Failure;
    /// Refused by every address.
    ConnectRefused = "connect_refused", No, Own(phrase::CONNECTION_REFUSED), Dns, Failure;
    /// No answer from an address, and success at none.
    ConnectTimeout = "connect_timeout", No, Own(phrase::CONNECTION_TIMEOUT), Dns, Failure;
    /// No route to any address.
    ConnectUnreachable = "connect_unreachable", No, Own(phrase::NETWORK_UNREACHABLE), Dns, Failure;
    /// Anything else that connect(2) says.
    ConnectFailed = "connect_failed", No, Own(phrase::CONNECTION_FAILED), Dns, Failure;
    /// The proxy answers, and makes no connection to the site.
    ProxyRefused = "proxy_refused", No, Own(phrase::CONNECTION_FAILED), Dns, Failure;
    /// The deadline came while connecting to the proxy, or waiting for its answer.
    ProxyTimeout = "proxy_timeout", No, Own(phrase::CONNECTION_TIMEOUT), Dns, Failure;
    /// No connection to the proxy, or none that speaks HTTP.
    ProxyFailed = "proxy_failed", No, Own(phrase::CONNECTION_FAILED), Dns, Failure;
    /// The certificate's time is over.
    TlsExpired = "tls_expired", Yes, Own(phrase::SSL_ERROR), Dns, Failure;
    /// The certificate's time has not begun.
    TlsNotYetValid = "tls_not_yet_valid", Yes, Own(phrase::SSL_ERROR), Dns, Failure;
    /// The certificate is signed by nobody that is trusted here.
    TlsUnknownIssuer = "tls_unknown_issuer", Yes, Own(phrase::SSL_ERROR), Dns, Failure;
    /// The certificate is signed by itself alone.
    TlsSelfSigned = "tls_self_signed", Yes, Own(phrase::SSL_ERROR), Dns, Failure;
    /// The certificate is for another host.
    TlsWrongHost = "tls_wrong_host", Yes, Own(phrase::SSL_ERROR), Dns, Failure;
    /// Any other fault of a certificate.
    TlsCertificate = "tls_certificate", Yes, Own(phrase::SSL_ERROR), Dns, Failure;
    /// TLS failed in another way: no common version, an alert, no TLS at all.
    TlsProtocol = "tls_protocol", Yes, Own(phrase::SSL_ERROR), Dns, Failure;
    /// The deadline came in the TLS handshake.
    TlsTimeout = "tls_timeout", No, Own(phrase::RESPONSE_TIMEOUT), Dns, Failure;
    /// The deadline came while the request was being sent: the site reads too slowly.
    SendTimeout = "send_timeout", No, Own(phrase::RESPONSE_TIMEOUT), Dns, Failure;
    /// The connection broke while the request was being sent.
    SendFailed = "send_failed", No, Own(phrase::CONNECTION_FAILED), Dns, Failure;
    /// The deadline came before the answer's first byte.
    FirstByteTimeout = "first_byte_timeout", No, Own(phrase::RESPONSE_TIMEOUT), Dns, Failure;
    /// The deadline came between the answer's first byte and the end of its head.
    HeadTimeout = "head_timeout", No, Own(phrase::RESPONSE_TIMEOUT), Dns, Failure;
    /// The deadline came in the body.
    BodyTimeout = "body_timeout", Yes, Own(phrase::RESPONSE_TIMEOUT), Dns, Failure;
    /// A TCP reset after the connection stood.
    ConnectionReset = "connection_reset", ByPhase, Own(phrase::CONNECTION_RESET), Dns, Failure;
    /// An end of the connection where more was due.
    ClosedEarly = "closed_early", ByPhase, Own(phrase::CONNECTION_CLOSED), Dns, Failure;
    /// The system failed the connection in another way.
    ConnectionFailed = "connection_failed", ByPhase, Own(phrase::CONNECTION_FAILED), Dns, Failure;
    /// Not HTTP, or a body that is not coded as declared.
    MalformedResponse = "malformed_response", ByPhase, Own(phrase::INVALID_RESPONSE), Dns, Failure;
    /// The answer's head is longer than is read.
    HeadTooLarge = "head_too_large", No, Own(phrase::INVALID_RESPONSE), Dns, Failure;
    /// More redirects than are followed.
    TooManyRedirects = "too_many_redirects", Yes, Own(phrase::TOO_MANY_REDIRECTS), Dns, Failure;
    /// A redirect to what can't be asked for.
    RedirectRefused = "redirect_refused", Yes, Own(phrase::INVALID_REDIRECT), Dns, Failure;
    /// The page is not as it should be: a regexp is not in it, or is and should not be.
    BodyNotExpected = "body_not_expected", Yes, Own(phrase::PAGE_CONTENT_NOT_EXPECTED), Both, Failure;
    /// The final answer's status is none of those expected: 200 to 399, unless the target says otherwise.
    StatusNotExpected = "status_not_expected", Yes, Http, Both, Failure;
    /// A header of the final answer is not as the target says.
    HeaderNotExpected = "header_not_expected", Yes, Own(phrase::PAGE_CONTENT_NOT_EXPECTED), Both, Failure;
    /// The page is no JSON, or a value in it is not as the target says.
    JsonNotExpected = "json_not_expected", Yes, Own(phrase::PAGE_CONTENT_NOT_EXPECTED), Both, Failure;
    /// The certificate ends in fewer days than the target asks for.
    CertificateExpiresSoon = "certificate_expires_soon", Yes, Own(phrase::SSL_ERROR), Both, Warning;
    /// The answer took longer than the target asks for.
    TooSlow = "too_slow", Yes, Own(phrase::RESPONSE_TIMEOUT), Both, Warning;
}

impl Reason {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        self.verdict().word
    }

    /// How bad it is, unless the target says otherwise.
    pub fn severity(self) -> Severity {
        self.verdict().severity
    }
}

/// What is wrong: a failure, or a warning where its severity says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// When.
    pub phase: Phase,
    /// The table's, or what the target says.
    pub severity: Severity,
    /// For a person; none when the phrase says it all.
    pub detail: Option<String>,
}

impl Failure {
    /// One whose phrase says it all.
    pub(crate) fn new(reason: Reason, phase: Phase) -> Self {
        Self { reason, phase, severity: reason.severity(), detail: None }
    }

    /// One with a word on how.
    pub(crate) fn with(reason: Reason, phase: Phase, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(reason, phase) }
    }

    /// Adds the host, which after a redirect is not the target's own.
    #[must_use]
    pub(crate) fn at_host(mut self, host: &str) -> Self {
        self.detail = Some(match self.detail {
            Some(detail) => format!("{host}: {detail}"),
            None => host.to_owned(),
        });
        self
    }

    /// What records and people are told of it.
    pub(crate) fn told(&self, http_status: Option<u16>) -> Told {
        let verdict = self.reason.verdict();
        let is_warning = self.severity == Severity::Warning;
        let has_answered = match verdict.answered {
            Answered::Yes => true,
            Answered::No => false,
            Answered::ByPhase => self.phase > Phase::Head,
        };
        let phrase = match verdict.words {
            Words::Own(phrase) if !is_warning => phrase,
            _ => match http_status.map_or(phrase::UNKNOWN_STATUS, phrase_of_status) {
                phrase::OK if !is_warning => phrase::PAGE_CONTENT_NOT_EXPECTED,
                phrase => phrase,
            },
        };
        Told {
            status: if has_answered { Status::Responsive } else { Status::Unresponsive },
            phrase,
            kept: if is_warning { Kept::Both } else { verdict.kept },
            detail: self.detail.as_deref().map(plain),
        }
    }
}

/// The contract's part of a result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: Status,
    pub(crate) phrase: &'static str,
    pub(crate) kept: Kept,
    pub(crate) detail: Option<String>,
}

impl Told {
    /// Of a probe in which nothing was wrong, that ended with this status.
    pub(crate) fn all_well(http_status: u16) -> Self {
        let is_known = phrase::from_status(http_status).is_some();
        Self {
            status: Status::Responsive,
            phrase: phrase_of_status(http_status),
            kept: Kept::Both,
            detail: (!is_known).then(|| http_status.to_string()),
        }
    }
}

fn phrase_of_status(number: u16) -> &'static str {
    phrase::from_status(number).unwrap_or(phrase::UNKNOWN_STATUS)
}

/// Whole milliseconds, as 1.1.0 counts.
pub(crate) fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// At most [`DETAIL_CHARS_MAX`] characters, none of which moves a terminal's cursor:
/// some of a detail comes from the site.
pub(crate) fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(DETAIL_CHARS_MAX).collect()
}
