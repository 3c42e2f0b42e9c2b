//! What a record says beyond the nine keys of 1.1.0, whose reader passes over
//! it: each a further key of the same map, and a further column of the table,
//! of the same name.

use std::collections::BTreeMap;

use rmp::encode;

use super::DecodeError;
use super::wire::{
    Fault, or_nil, read_bool, read_int, read_map_len, read_str, write_bool, write_key,
    write_number, write_text,
};

/// How many keys there are at most beside the nine.
pub(super) const KEYS: usize = 24;
/// The most causes that [`Extra::missed`] may have; a record with more is
/// refused by who reads it, and who writes it leaves out the last ones.
pub const MISSED_MAX: usize = 16;

/// The further keys. One that is not known is left out of the map, and its
/// column is null; so are all of them in what 1.1.0 writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extra {
    /// The target's name: with the URL it says which target this is.
    pub name: Option<String>,
    /// The one answer to "is all well?"; a warning is healthy.
    pub healthy: Option<bool>,
    /// Why not, or the warning: a word of the closed list in common/RESULTS.md.
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

/// The one list of the keys, in the order in which they are written: each with
/// its field, borrowed as the whole is. A field that is not in it does not compile.
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

/// What a further key holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Text(&'a Option<String>),
    /// An integer.
    Number(&'a Option<i64>),
    /// True or false.
    Flag(&'a Option<bool>),
    /// Integers by text; none is the same as no key.
    Counts(&'a BTreeMap<String, i64>),
}

impl Value<'_> {
    /// Whether the record has the key.
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
                // At most 16, so the length fits.
                let _ = encode::write_map_len(out, counts.len().min(MISSED_MAX) as u32);
                for (cause, count) in counts.iter().take(MISSED_MAX) {
                    write_number(out, cause, Some(*count));
                }
            }
        }
    }
}

impl Extra {
    /// The further keys and what they hold, in the order of the wire; the
    /// columns have the same names and the same order.
    pub fn values(&self) -> [(&'static str, Value<'_>); KEYS] {
        entries!(self, Value)
    }

    /// Whether something is said that must stay to be seen: a warning, more
    /// than one attempt, no network, others that failed too, or missed slots.
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

enum Slot<'a> {
    Text(&'a mut Option<String>),
    Number(&'a mut Option<i64>),
    Flag(&'a mut Option<bool>),
    Counts(&'a mut BTreeMap<String, i64>),
}

/// Reads further keys one by one.
pub(super) struct Reader<'a> {
    slots: [(&'static str, Slot<'a>); KEYS],
    seen: [bool; KEYS],
    /// Where the next key is looked for first: they mostly come in order.
    next: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(extra: &'a mut Extra) -> Self {
        Self { slots: entries!(extra, Slot), seen: [false; KEYS], next: 0 }
    }

    /// Reads the value of `key`; false when that is none of the further keys.
    pub(super) fn take(&mut self, key: &str, rest: &mut &[u8]) -> Result<bool, DecodeError> {
        let places = (self.next..KEYS).chain(0..self.next);
        let Some(place) = places.into_iter().find(|&place| self.slots[place].0 == key) else {
            return Ok(false);
        };
        self.next = place + 1;
        let (key, slot) = &mut self.slots[place];
        if std::mem::replace(&mut self.seen[place], true) {
            return Err(DecodeError::DuplicateKey(key));
        }
        match slot {
            Slot::Text(text) => {
                let read = or_nil(rest, |rest| read_str(rest).map(str::to_owned));
                **text = read.map_err(|fault| fault.at(key, "text or nil"))?;
            }
            Slot::Number(number) => {
                let read = or_nil(rest, read_int);
                **number = read.map_err(|fault| fault.at(key, "integer or nil"))?;
            }
            Slot::Flag(flag) => {
                let read = or_nil(rest, read_bool);
                **flag = read.map_err(|fault| fault.at(key, "true, false or nil"))?;
            }
            Slot::Counts(counts) => **counts = read_counts(key, rest)?,
        }
        Ok(true)
    }
}

fn read_counts(key: &'static str, rest: &mut &[u8]) -> Result<BTreeMap<String, i64>, DecodeError> {
    let wrong = |fault: Fault| fault.at(key, "map of text to integer, or nil");
    let entries = or_nil(rest, read_map_len).map_err(wrong)?.unwrap_or(0);
    if usize::try_from(entries).map_or(true, |entries| entries > MISSED_MAX) {
        return Err(DecodeError::TooManyEntries { key, found: entries, most: MISSED_MAX });
    }
    let mut counts = BTreeMap::new();
    for _ in 0..entries {
        let name = read_str(rest).map_err(wrong)?.to_owned();
        let count = read_int(rest).map_err(wrong)?;
        if counts.insert(name, count).is_some() {
            return Err(DecodeError::DuplicateEntry(key));
        }
    }
    Ok(counts)
}

#[cfg(test)]
pub(super) mod tests;
