//! The closed list of phrases: what a result says in a few lower-case words.
//!
//! An HTTP answer's phrase comes from its status number and this table alone:
//! never from the wire, where a site may write what it likes, and never from a
//! crate, whose words differ ("payload too large" for 413).

/// What an answer of status 200 is called, and the only phrase of a good probe.
pub const OK: &str = "ok";

/// Status numbers and their phrases: those of the README of 1.1.0 in its
/// order, then the permanently registered codes that it lacks (RFC 8297,
/// RFC 8470). 306 and 418 are registered as unused and so have no name.
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
];

/// The resolver's answer: there is no such name.
pub const DOMAIN_NOT_EXIST: &str = "domain not exist";
/// TLS failed; the detail says how.
pub const SSL_ERROR: &str = "ssl error";
/// No connection within the time-out.
pub const CONNECTION_TIMEOUT: &str = "connection timeout";
/// The page came and the regexp is not in it; the detail is the regexp.
pub const PAGE_CONTENT_NOT_EXPECTED: &str = "page content not expected";
/// Every address refused the connection.
pub const CONNECTION_REFUSED: &str = "connection refused";
/// The connection was reset after it stood.
pub const CONNECTION_RESET: &str = "connection reset";
/// The site closed the connection before its answer was complete.
pub const CONNECTION_CLOSED: &str = "connection closed";
/// The connection failed in a way that has no phrase of its own.
pub const CONNECTION_FAILED: &str = "connection failed";
/// The resolver failed, which says nothing about whether the name exists.
pub const DNS_FAILURE: &str = "dns failure";
/// The name exists and has no address.
pub const DOMAIN_WITHOUT_ADDRESS: &str = "domain without address";
/// No route to any address of the site.
pub const NETWORK_UNREACHABLE: &str = "network unreachable";
/// Connected, and the answer was not complete within the time-out.
pub const RESPONSE_TIMEOUT: &str = "response timeout";
/// More redirects than are followed.
pub const TOO_MANY_REDIRECTS: &str = "too many redirects";
/// A redirect to what can't be asked for, such as another scheme.
pub const INVALID_REDIRECT: &str = "invalid redirect";
/// The answer is not HTTP, or its body is not coded as it declares.
pub const INVALID_RESPONSE: &str = "invalid response";
/// An HTTP status without a registered name; the detail is its number.
pub const UNKNOWN_STATUS: &str = "unknown status";

/// The phrases that are not HTTP's: the four of 1.1.0 first.
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

/// The phrase of an HTTP status number; none for a number without a name,
/// whose phrase is [`UNKNOWN_STATUS`].
pub fn of_status(status: u16) -> Option<&'static str> {
    HTTP.iter().find(|(number, _)| *number == status).map(|(_, phrase)| *phrase)
}

/// Every phrase there is, in the order in which the database's enum is made.
pub fn all() -> impl Iterator<Item = &'static str> {
    HTTP.iter().map(|(_, phrase)| *phrase).chain(FAILURES.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The labels as the README of 1.1.0 gives them, but for its capital P.
    const SEED: &str = "'continue', 'switching protocols', 'processing', 'ok', 'created', 'accepted', 'non-authoritative information', 'no content', 'reset content', 'partial content', 'multi-status', 'already reported', 'im used', 'multiple choices', 'moved permanently', 'found', 'see other', 'not modified', 'use proxy', 'temporary redirect', 'permanent redirect', 'bad request', 'unauthorized', 'payment required', 'forbidden', 'not found', 'method not allowed', 'not acceptable', 'proxy authentication required', 'request timeout', 'conflict', 'gone', 'length required', 'precondition failed', 'request entity too large', 'request-uri too long', 'unsupported media type', 'requested range not satisfiable', 'expectation failed', 'misdirected request', 'unprocessable entity', 'locked', 'failed dependency', 'upgrade required', 'precondition required', 'too many requests', 'request header fields too large', 'unavailable for legal reasons', 'internal server error', 'not implemented', 'bad gateway', 'service unavailable', 'gateway timeout', 'http version not supported', 'variant also negotiates', 'insufficient storage', 'loop detected', 'not extended', 'network authentication required', 'domain not exist', 'ssl error', 'connection timeout', 'page content not expected'";

    #[test]
    fn every_phrase_of_the_first_version_is_here_and_none_twice() {
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
    fn a_number_has_the_words_of_the_first_version_or_none() {
        for (status, phrase) in [
            (200, Some("ok")),
            (413, Some("request entity too large")),
            (414, Some("request-uri too long")),
            (425, Some("too early")),
            (418, None),
            (299, None),
            (999, None),
        ] {
            assert_eq!(of_status(status), phrase, "{status}");
        }
    }
}
