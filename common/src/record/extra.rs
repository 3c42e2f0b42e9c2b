//! What a record says beyond the nine keys of 1.1.0, whose reader passes over
//! it: each a further key of the same map, and a further column of the table,
//! of the same name.

use std::collections::BTreeMap;

/// The further keys. One that is not known is left out of the map, and its
/// column is null; so are all of them in what 1.1.0 writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extra {
    /// The target's name: with the URL it says which target this is.
    pub name: Option<String>,
    /// The one answer to "is all well?"; a warning is healthy.
    pub healthy: Option<bool>,
    /// Why not, or the warning: a word of the closed list in README.
    pub reason: Option<String>,
    /// How far the probe had come then.
    pub phase: Option<String>,
    /// Microseconds to resolve names, over all redirects.
    pub resolve_us: Option<i64>,
    /// Microseconds to connect, over all redirects.
    pub connect_us: Option<i64>,
    /// Microseconds of TLS handshakes, over all redirects.
    pub tls_us: Option<i64>,
    /// Microseconds from the request's first byte to the answer's, over all redirects.
    pub first_byte_us: Option<i64>,
    /// Microseconds from the final answer's first byte to its last.
    pub transfer_us: Option<i64>,
    /// Microseconds of the whole attempt.
    pub total_us: Option<i64>,
    /// The address that was connected to last.
    pub address: Option<String>,
    /// As `1.1`.
    pub http_version: Option<String>,
    /// The final answer's status number.
    pub http_status: Option<i64>,
    /// Bytes of the body that were read, decoded.
    pub body_bytes: Option<i64>,
    /// Redirects that were followed.
    pub redirects: Option<i64>,
    /// Where they led, without user and password.
    pub final_url: Option<String>,
    /// When the first certificate of the final host's chain ends, in seconds since 1970.
    pub certificate_end: Option<i64>,
    /// Attempts that were made, this one included.
    pub attempts: Option<i64>,
    /// The reason of the first attempt, when it was not the last.
    pub first_reason: Option<String>,
    /// True on evidence that this tracker had no network.
    pub no_network: Option<bool>,
    /// True when the newest results of other hosts were failures as well.
    pub others_failing: Option<bool>,
    /// The target's period, in milliseconds.
    pub period_ms: Option<i64>,
    /// Which of the target's slots within the tracker's run, from 0.
    pub slot: Option<i64>,
    /// Slots without a result since the last record of the target, by cause.
    pub missed: BTreeMap<String, i64>,
}
