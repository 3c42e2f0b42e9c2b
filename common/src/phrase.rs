//! The closed list of phrases: the result of a probe in a few lower-case words.
//!
//! The phrase of an HTTP response comes from its status code and this table only. The reason phrase
//! in the response can be any text, and the texts of crates differ from the phrases of 1.1.0
//! ("payload too large" for 413).

/// The phrase of status 200, and the only phrase of a healthy probe.
pub const OK: &str = "ok";

/// HTTP status codes and their phrases: the codes in the README of 1.1.0 in its order, then the
/// codes that it lacks and Python's `http.HTTPStatus` of version 3.14 has. A tracker of 1.1.0
/// writes the phrases of Python. 306 is registered as unused and has no phrase.
pub const HTTP: &[(u16, &str)] = &[
    (100, "continue"),
    (101, "switching protocols"),
    (102, "processing"),
    (200, OK),
    (201, "created"),
    (202, "accepted"),
    (203, "non-authoritative information"),
    (204, "no content"),
    (205, "reset content"),
    (206, "partial content"),
    (207, "multi-status"),
    (208, "already reported"),
    (226, "im used"),
    (300, "multiple choices"),
    (301, "moved permanently"),
    (302, "found"),
    (303, "see other"),
    (304, "not modified"),
    (305, "use proxy"),
    (307, "temporary redirect"),
    (308, "permanent redirect"),
    (400, "bad request"),
    (401, "unauthorized"),
    (402, "payment required"),
    (403, "forbidden"),
    (404, "not found"),
    (405, "method not allowed"),
    (406, "not acceptable"),
    (407, "proxy authentication required"),
    (408, "request timeout"),
    (409, "conflict"),
    (410, "gone"),
    (411, "length required"),
    (412, "precondition failed"),
    (413, "request entity too large"),
    (414, "request-uri too long"),
    (415, "unsupported media type"),
    (416, "requested range not satisfiable"),
    (417, "expectation failed"),
    (421, "misdirected request"),
    (422, "unprocessable entity"),
    (423, "locked"),
    (424, "failed dependency"),
    (426, "upgrade required"),
    (428, "precondition required"),
    (429, "too many requests"),
    (431, "request header fields too large"),
    (451, "unavailable for legal reasons"),
    (500, "internal server error"),
    (501, "not implemented"),
    (502, "bad gateway"),
    (503, "service unavailable"),
    (504, "gateway timeout"),
    (505, "http version not supported"),
    (506, "variant also negotiates"),
    (507, "insufficient storage"),
    (508, "loop detected"),
    (510, "not extended"),
    (511, "network authentication required"),
    (103, "early hints"),
    (425, "too early"),
    (418, "i'm a teapot"),
];

/// Spellings of newer versions of Python, and the phrases above for the same status codes.
const SPELLINGS: &[(&str, &str)] = &[
    ("content too large", "request entity too large"),
    ("uri too long", "request-uri too long"),
    ("range not satisfiable", "requested range not satisfiable"),
    ("unprocessable content", "unprocessable entity"),
];

/// The resolver answered that the name does not exist.
pub const DOMAIN_NOT_EXIST: &str = "domain not exist";
/// TLS failed; the detail is the reason.
pub const SSL_ERROR: &str = "ssl error";
/// No connection within the time-out.
pub const CONNECTION_TIMEOUT: &str = "connection timeout";
/// The body does not match the regexp; the detail is the regexp.
pub const PAGE_CONTENT_NOT_EXPECTED: &str = "page content not expected";
/// Every address refused the connection.
pub const CONNECTION_REFUSED: &str = "connection refused";
/// The connection was reset after it was established.
pub const CONNECTION_RESET: &str = "connection reset";
/// The site closed the connection before the response was complete.
pub const CONNECTION_CLOSED: &str = "connection closed";
/// The connection failed for a reason without a phrase of its own.
pub const CONNECTION_FAILED: &str = "connection failed";
/// The resolver failed, so it is unknown whether the name exists.
pub const DNS_FAILURE: &str = "dns failure";
/// The name exists but has no address.
pub const DOMAIN_WITHOUT_ADDRESS: &str = "domain without address";
/// There is no route to any address of the site.
pub const NETWORK_UNREACHABLE: &str = "network unreachable";
/// The connection was established, but the response was not complete within the time-out.
pub const RESPONSE_TIMEOUT: &str = "response timeout";
/// More redirects than the limit.
pub const TOO_MANY_REDIRECTS: &str = "too many redirects";
/// A redirect to a URL that can't be requested, for example with another scheme.
pub const INVALID_REDIRECT: &str = "invalid redirect";
/// The response is not valid HTTP, or its body does not match its content encoding.
pub const INVALID_RESPONSE: &str = "invalid response";
/// An HTTP status code without a phrase; the detail is the code.
pub const UNKNOWN_STATUS: &str = "unknown status";

/// The phrases of failures without an HTTP status code: the four of 1.1.0 first.
pub const FAILURES: &[&str] = &[
    DOMAIN_NOT_EXIST,
    SSL_ERROR,
    CONNECTION_TIMEOUT,
    PAGE_CONTENT_NOT_EXPECTED,
    CONNECTION_REFUSED,
    CONNECTION_RESET,
    CONNECTION_CLOSED,
    CONNECTION_FAILED,
    DNS_FAILURE,
    DOMAIN_WITHOUT_ADDRESS,
    NETWORK_UNREACHABLE,
    RESPONSE_TIMEOUT,
    TOO_MANY_REDIRECTS,
    INVALID_REDIRECT,
    INVALID_RESPONSE,
    UNKNOWN_STATUS,
];

/// Returns the phrase of an HTTP status code. `None`: it has none, so [`UNKNOWN_STATUS`] applies.
pub fn from_status(status: u16) -> Option<&'static str> {
    HTTP.iter().find(|(number, _)| *number == status).map(|(_, phrase)| *phrase)
}

/// Returns the phrase for another spelling of it in lower case, so that one status code has one
/// phrase. A text that is no such spelling is returned as it is.
pub fn from_spelling(text: &str) -> &str {
    SPELLINGS.iter().find(|(spelling, _)| *spelling == text).map_or(text, |(_, phrase)| phrase)
}

/// All phrases, in the order of the enum type in PostgreSQL.
pub fn all() -> impl Iterator<Item = &'static str> {
    HTTP.iter().map(|(_, phrase)| *phrase).chain(FAILURES.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The enum labels in the README of 1.1.0, in lower case.
    const SEED: &str = "'continue', 'switching protocols', 'processing', 'ok', 'created', 'accepted', 'non-authoritative information', 'no content', 'reset content', 'partial content', 'multi-status', 'already reported', 'im used', 'multiple choices', 'moved permanently', 'found', 'see other', 'not modified', 'use proxy', 'temporary redirect', 'permanent redirect', 'bad request', 'unauthorized', 'payment required', 'forbidden', 'not found', 'method not allowed', 'not acceptable', 'proxy authentication required', 'request timeout', 'conflict', 'gone', 'length required', 'precondition failed', 'request entity too large', 'request-uri too long', 'unsupported media type', 'requested range not satisfiable', 'expectation failed', 'misdirected request', 'unprocessable entity', 'locked', 'failed dependency', 'upgrade required', 'precondition required', 'too many requests', 'request header fields too large', 'unavailable for legal reasons', 'internal server error', 'not implemented', 'bad gateway', 'service unavailable', 'gateway timeout', 'http version not supported', 'variant also negotiates', 'insufficient storage', 'loop detected', 'not extended', 'network authentication required', 'domain not exist', 'ssl error', 'connection timeout', 'page content not expected'";

    #[test]
    fn all_phrases_of_1_1_0_exist_once() {
        let phrases: Vec<_> = all().collect();
        let distinct: HashSet<_> = phrases.iter().copied().collect();
        assert_eq!(distinct.len(), phrases.len());
        for label in SEED.split(", ") {
            assert!(distinct.contains(label.trim_matches('\'')), "{label} is missing");
        }
        for phrase in phrases {
            assert_eq!(phrase, phrase.to_lowercase());
        }
    }

    #[test]
    fn status_code_has_the_phrase_of_1_1_0_or_none() {
        for (status, phrase) in [
            (200, Some("ok")),
            (413, Some("request entity too large")),
            (414, Some("request-uri too long")),
            (425, Some("too early")),
            (418, Some("i'm a teapot")),
            (306, None),
            (299, None),
            (999, None),
        ] {
            assert_eq!(from_status(status), phrase, "{status}");
        }
    }

    /// The status codes and phrases of Python's `http.HTTPStatus`, version 3.14.
    const PYTHON: &[(u16, &str)] = &[
        (100, "Continue"),
        (101, "Switching Protocols"),
        (102, "Processing"),
        (103, "Early Hints"),
        (200, "OK"),
        (201, "Created"),
        (202, "Accepted"),
        (203, "Non-Authoritative Information"),
        (204, "No Content"),
        (205, "Reset Content"),
        (206, "Partial Content"),
        (207, "Multi-Status"),
        (208, "Already Reported"),
        (226, "IM Used"),
        (300, "Multiple Choices"),
        (301, "Moved Permanently"),
        (302, "Found"),
        (303, "See Other"),
        (304, "Not Modified"),
        (305, "Use Proxy"),
        (307, "Temporary Redirect"),
        (308, "Permanent Redirect"),
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (402, "Payment Required"),
        (403, "Forbidden"),
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (406, "Not Acceptable"),
        (407, "Proxy Authentication Required"),
        (408, "Request Timeout"),
        (409, "Conflict"),
        (410, "Gone"),
        (411, "Length Required"),
        (412, "Precondition Failed"),
        (413, "Content Too Large"),
        (414, "URI Too Long"),
        (415, "Unsupported Media Type"),
        (416, "Range Not Satisfiable"),
        (417, "Expectation Failed"),
        (418, "I'm a Teapot"),
        (421, "Misdirected Request"),
        (422, "Unprocessable Content"),
        (423, "Locked"),
        (424, "Failed Dependency"),
        (425, "Too Early"),
        (426, "Upgrade Required"),
        (428, "Precondition Required"),
        (429, "Too Many Requests"),
        (431, "Request Header Fields Too Large"),
        (451, "Unavailable For Legal Reasons"),
        (500, "Internal Server Error"),
        (501, "Not Implemented"),
        (502, "Bad Gateway"),
        (503, "Service Unavailable"),
        (504, "Gateway Timeout"),
        (505, "HTTP Version Not Supported"),
        (506, "Variant Also Negotiates"),
        (507, "Insufficient Storage"),
        (508, "Loop Detected"),
        (510, "Not Extended"),
        (511, "Network Authentication Required"),
    ];

    #[test]
    fn every_phrase_of_python_is_the_phrase_of_its_status_code() {
        for (status, phrase) in PYTHON {
            assert_eq!(from_status(*status), Some(from_spelling(&phrase.to_lowercase())));
        }
        assert_eq!(PYTHON.len(), HTTP.len());
    }
}
