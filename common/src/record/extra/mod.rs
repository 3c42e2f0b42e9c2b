//! The extra keys of a record, beyond the nine of 1.1.0, whose readers ignore them. Each extra key
//! is also an extra column of the table with the same name.

use std::collections::BTreeMap;

use rmp::encode;

use super::DecodeError;
use super::wire::{
    ValueError, or_nil, read_bool, read_int, read_map_len, read_str, write_bool, write_key,
    write_number, write_text,
};

/// The number of extra keys.
pub(super) const KEYS: usize = 24;
/// The most entries of [`Extra::missed`]. The encoder omits further ones; the decoder refuses a
/// record with more.
pub const MISSED_MAX: usize = 16;

/// The extra keys. A key without a value is omitted from the map, and its column is null. Records
/// of 1.1.0 have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extra {
    /// The target's name. Name and URL identify the target.
    pub name: Option<String>,
    /// Whether the site is healthy. A warning counts as healthy.
    pub healthy: Option<bool>,
    /// The reason why it is not healthy, or the warning: one of the closed list in
    /// common/RESULTS.md.
    pub reason: Option<String>,
    /// The phase of the probe in which the reason occurred.
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
    /// The IP address of the last connection.
    pub address: Option<String>,
    /// The HTTP version, for example `1.1`.
    pub http_version: Option<String>,
    /// The status code of the final response.
    pub http_status: Option<i64>,
    /// Bytes of the body that were read, after content decoding.
    pub body_bytes: Option<i64>,
    /// The number of followed redirects.
    pub redirects: Option<i64>,
    /// The URL after all redirects, without user and password.
    pub final_url: Option<String>,
    /// When the final host's certificate expires, in seconds since 1970.
    pub certificate_end: Option<i64>,
    /// The number of attempts, including the last attempt.
    pub attempts: Option<i64>,
    /// The reason of the first attempt, if there was more than one.
    pub first_reason: Option<String>,
    /// True if there is evidence that the tracker had no network.
    pub no_network: Option<bool>,
    /// True if the latest results of other hosts were failures too.
    pub others_failing: Option<bool>,
    /// The target's period, in milliseconds.
    pub period_ms: Option<i64>,
    /// The number of the target's slot within the tracker's run, from 0.
    pub slot: Option<i64>,
    /// The number of slots without a result since the target's previous record, by cause.
    pub missed: BTreeMap<String, i64>,
}

/// The list of all keys with their fields, in the order in which they are written. A field that is
/// missing here does not compile.
macro_rules! entries {
    ($extra:expr, $kind:ident) => {{
        let Extra {
            name,
            healthy,
            reason,
            phase,
            resolve_us,
            connect_us,
            tls_us,
            first_byte_us,
            transfer_us,
            total_us,
            address,
            http_version,
            http_status,
            body_bytes,
            redirects,
            final_url,
            certificate_end,
            attempts,
            first_reason,
            no_network,
            others_failing,
            period_ms,
            slot,
            missed,
        } = $extra;
        [
            ("name", $kind::Text(name)),
            ("healthy", $kind::Flag(healthy)),
            ("reason", $kind::Text(reason)),
            ("phase", $kind::Text(phase)),
            ("resolve_us", $kind::Number(resolve_us)),
            ("connect_us", $kind::Number(connect_us)),
            ("tls_us", $kind::Number(tls_us)),
            ("first_byte_us", $kind::Number(first_byte_us)),
            ("transfer_us", $kind::Number(transfer_us)),
            ("total_us", $kind::Number(total_us)),
            ("address", $kind::Text(address)),
            ("http_version", $kind::Text(http_version)),
            ("http_status", $kind::Number(http_status)),
            ("body_bytes", $kind::Number(body_bytes)),
            ("redirects", $kind::Number(redirects)),
            ("final_url", $kind::Text(final_url)),
            ("certificate_end", $kind::Number(certificate_end)),
            ("attempts", $kind::Number(attempts)),
            ("first_reason", $kind::Text(first_reason)),
            ("no_network", $kind::Flag(no_network)),
            ("others_failing", $kind::Flag(others_failing)),
            ("period_ms", $kind::Number(period_ms)),
            ("slot", $kind::Number(slot)),
            ("missed", $kind::Counts(missed)),
        ]
    }};
}

/// The value of an extra key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExtraValue<'a> {
    /// Text.
    Text(&'a Option<String>),
    /// An integer.
    Number(&'a Option<i64>),
    /// True or false.
    Flag(&'a Option<bool>),
    /// Integers by text. Empty is the same as no key.
    Counts(&'a BTreeMap<String, i64>),
}

impl ExtraValue<'_> {
    /// Whether the key has a value.
    pub fn is_some(&self) -> bool {
        match self {
            Self::Text(text) => text.is_some(),
            Self::Number(number) => number.is_some(),
            Self::Flag(flag) => flag.is_some(),
            Self::Counts(counts) => !counts.is_empty(),
        }
    }

    fn write(self, out: &mut Vec<u8>, key: &str) {
        match self {
            Self::Text(text) => write_text(out, key, text.as_deref()),
            Self::Number(number) => write_number(out, key, *number),
            Self::Flag(flag) => write_bool(out, key, *flag),
            Self::Counts(counts) => {
                write_key(out, key);
                // At most 16 entries, so the length fits.
                let _ = encode::write_map_len(out, counts.len().min(MISSED_MAX) as u32);
                for (cause, count) in counts.iter().take(MISSED_MAX) {
                    write_number(out, cause, Some(*count));
                }
            }
        }
    }
}

impl Extra {
    /// Returns the extra keys and their values, in the order of the record. The columns have the
    /// same names and order.
    pub fn values(&self) -> [(&'static str, ExtraValue<'_>); KEYS] {
        entries!(self, ExtraValue)
    }

    /// Whether the record has a mark, so that smart mode must not merge it: a reason or warning,
    /// more than one attempt, no network, failures of other hosts, or missed slots.
    pub fn is_marked(&self) -> bool {
        self.reason.is_some()
            || self.attempts.is_some_and(|attempts| attempts > 1)
            || self.first_reason.is_some()
            || self.no_network == Some(true)
            || self.others_failing == Some(true)
            || !self.missed.is_empty()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (key, value) in self.values() {
            if value.is_some() {
                value.write(out, key);
            }
        }
    }
}

/// A field to read into.
enum ExtraField<'a> {
    Text(&'a mut Option<String>),
    Number(&'a mut Option<i64>),
    Flag(&'a mut Option<bool>),
    Counts(&'a mut BTreeMap<String, i64>),
}

/// Reads the extra keys one by one.
pub(super) struct ExtraReader<'a> {
    fields: [(&'static str, ExtraField<'a>); KEYS],
    seen: [bool; KEYS],
    /// The first field to compare with the next key, because keys mostly come in order.
    next: usize,
}

impl<'a> ExtraReader<'a> {
    pub(super) fn new(extra: &'a mut Extra) -> Self {
        Self { fields: entries!(extra, ExtraField), seen: [false; KEYS], next: 0 }
    }

    /// Reads the value of `key`. Returns `false` for a key that is not an extra key.
    pub(super) fn read(&mut self, key: &str, rest: &mut &[u8]) -> Result<bool, DecodeError> {
        let indexes = (self.next..KEYS).chain(0..self.next);
        let Some(index) = indexes.into_iter().find(|&index| self.fields[index].0 == key) else {
            return Ok(false);
        };
        self.next = index + 1;
        let (key, field) = &mut self.fields[index];
        if std::mem::replace(&mut self.seen[index], true) {
            return Err(DecodeError::DuplicateKey(key));
        }
        match field {
            ExtraField::Text(text) => {
                let read = or_nil(rest, |rest| read_str(rest).map(str::to_owned));
                **text = read.map_err(|error| error.at(key, "text or nil"))?;
            }
            ExtraField::Number(number) => {
                let read = or_nil(rest, read_int);
                **number = read.map_err(|error| error.at(key, "integer or nil"))?;
            }
            ExtraField::Flag(flag) => {
                let read = or_nil(rest, read_bool);
                **flag = read.map_err(|error| error.at(key, "true, false or nil"))?;
            }
            ExtraField::Counts(counts) => **counts = read_counts(key, rest)?,
        }
        Ok(true)
    }
}

fn read_counts(key: &'static str, rest: &mut &[u8]) -> Result<BTreeMap<String, i64>, DecodeError> {
    let in_key = |error: ValueError| error.at(key, "map of text to integer, or nil");
    let entries = or_nil(rest, read_map_len).map_err(in_key)?.unwrap_or(0);
    if usize::try_from(entries).map_or(true, |entries| entries > MISSED_MAX) {
        return Err(DecodeError::TooManyEntries { key, found: entries, max: MISSED_MAX });
    }
    let mut counts = BTreeMap::new();
    for _ in 0..entries {
        let name = read_str(rest).map_err(in_key)?.to_owned();
        let count = read_int(rest).map_err(in_key)?;
        if counts.insert(name, count).is_some() {
            return Err(DecodeError::DuplicateEntry(key));
        }
    }
    Ok(counts)
}

#[cfg(test)]
pub(super) mod tests;
