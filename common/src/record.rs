//! The record: one result of a probe, as it lies in Kafka.
//!
//! A msgpack map of nine keys, written in the order of 1.1.0 and read by name
//! in any order; keys that are not known here are passed over.

use std::fmt;

use rmp::Marker;
use rmp::decode::{self, NumValueReadError, ValueReadError};
use rmp::encode;

use crate::phrase;

mod extra;

pub use extra::Extra;

/// Whether anything answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// An HTTP answer came, or TLS failed, which takes somebody to answer.
    Responsive,
    /// Nothing answered.
    Unresponsive,
}

impl Status {
    /// As on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responsive => "responsive",
            Self::Unresponsive => "unresponsive",
        }
    }
}

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where the tracker runs.
    pub from: String,
    /// The target's URL, in lower case.
    pub url: String,
    /// When the probe started: seconds since 1970-01-01 UTC.
    pub timestamp: f64,
    /// Whether anything answered.
    pub status: Status,
    /// One of [`phrase::all`], or what another version wrote.
    pub phrase: String,
    /// Time to resolve the name.
    pub dns_ms: Option<i64>,
    /// From the start of the connection to the body's last byte.
    pub response_ms: Option<i64>,
    /// More about the phrase: the regexp that did not match, for one.
    pub detail: Option<String>,
    /// Always −1 on the wire; kept because readers of 1.1.0 need the key.
    pub offset: i64,
    /// What 1.1.0 does not know.
    pub extra: Extra,
}

impl Record {
    /// True for a result that smart mode may merge: `responsive` and `ok`,
    /// whatever the phrase's case.
    pub fn healthy(&self) -> bool {
        self.status == Status::Responsive && self.phrase.eq_ignore_ascii_case(phrase::OK)
    }

    /// The record's bytes. `from`, `url` and the phrase go out in lower case,
    /// as 1.1.0 writes them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        // Writing to a Vec can't fail, so the results carry nothing.
        let _ = encode::write_map_len(&mut out, 9);
        write_text(&mut out, "from", Some(&self.from.to_lowercase()));
        write_text(&mut out, "url", Some(&self.url.to_lowercase()));
        write_key(&mut out, "timestamp");
        let _ = encode::write_f64(&mut out, self.timestamp);
        write_text(&mut out, "status", Some(self.status.as_str()));
        write_text(&mut out, "phrase", Some(&self.phrase.to_lowercase()));
        write_number(&mut out, "dns", self.dns_ms);
        write_number(&mut out, "response", self.response_ms);
        write_text(&mut out, "detail", self.detail.as_deref());
        write_number(&mut out, "offset", Some(self.offset));
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError`], which names the key at fault. Bytes behind the map
    /// are an error too: they would be lost.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let entries = decode::read_map_len(&mut rest).map_err(|cause| match cause {
            ValueReadError::TypeMismatch(marker) => DecodeError::NotAMap(marker),
            _ => DecodeError::Truncated,
        })?;
        let mut fields = Fields::default();
        for _ in 0..entries {
            let key = read_str(&mut rest).map_err(|fault| match fault {
                Fault::Type(_) => DecodeError::KeyNotText,
                Fault::Utf8 => DecodeError::KeyNotText,
                Fault::Range | Fault::Truncated => DecodeError::Truncated,
            })?;
            fields.take(key, &mut rest)?;
        }
        if !rest.is_empty() {
            return Err(DecodeError::TrailingBytes(rest.len()));
        }
        fields.into_record()
    }
}

fn write_key(out: &mut Vec<u8>, key: &str) {
    let _ = encode::write_str(out, key);
}

fn write_text(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    write_key(out, key);
    let _ = match value {
        Some(text) => encode::write_str(out, text).map_err(drop),
        None => encode::write_nil(out).map_err(drop),
    };
}

fn write_number(out: &mut Vec<u8>, key: &str, value: Option<i64>) {
    write_key(out, key);
    let _ = match value {
        Some(number) => encode::write_sint(out, number).map(drop).map_err(drop),
        None => encode::write_nil(out).map_err(drop),
    };
}

#[derive(Default)]
struct Fields {
    from: Option<String>,
    url: Option<String>,
    timestamp: Option<f64>,
    status: Option<Status>,
    phrase: Option<String>,
    dns_ms: Option<Option<i64>>,
    response_ms: Option<Option<i64>>,
    detail: Option<Option<String>>,
    offset: Option<i64>,
}

impl Fields {
    fn take(&mut self, key: &str, rest: &mut &[u8]) -> Result<(), DecodeError> {
        match key {
            "from" => set("from", &mut self.from, read_str(rest).map(str::to_owned), "text"),
            "url" => set("url", &mut self.url, read_str(rest).map(str::to_owned), "text"),
            "timestamp" => set("timestamp", &mut self.timestamp, read_timestamp(rest), "number"),
            "status" => {
                let status = match read_str(rest).map_err(|f| f.at("status", "text"))? {
                    text if text.eq_ignore_ascii_case("responsive") => Status::Responsive,
                    text if text.eq_ignore_ascii_case("unresponsive") => Status::Unresponsive,
                    other => return Err(DecodeError::UnknownStatus(other.to_owned())),
                };
                set("status", &mut self.status, Ok(status), "text")
            }
            "phrase" => set("phrase", &mut self.phrase, read_str(rest).map(str::to_owned), "text"),
            "dns" => set("dns", &mut self.dns_ms, or_nil(rest, read_int), "integer or nil"),
            "response" => {
                set("response", &mut self.response_ms, or_nil(rest, read_int), "integer or nil")
            }
            "detail" => {
                let detail = or_nil(rest, |rest| read_str(rest).map(str::to_owned));
                set("detail", &mut self.detail, detail, "text or nil")
            }
            "offset" => set("offset", &mut self.offset, read_int(rest), "integer"),
            _ => skip(rest),
        }
    }

    fn into_record(self) -> Result<Record, DecodeError> {
        let missing = DecodeError::MissingKey;
        Ok(Record {
            from: self.from.ok_or(missing("from"))?,
            url: self.url.ok_or(missing("url"))?,
            timestamp: self.timestamp.ok_or(missing("timestamp"))?,
            status: self.status.ok_or(missing("status"))?,
            phrase: self.phrase.ok_or(missing("phrase"))?,
            dns_ms: self.dns_ms.ok_or(missing("dns"))?,
            response_ms: self.response_ms.ok_or(missing("response"))?,
            detail: self.detail.ok_or(missing("detail"))?,
            offset: self.offset.ok_or(missing("offset"))?,
            extra: Extra::default(),
        })
    }
}

fn set<T>(
    key: &'static str,
    slot: &mut Option<T>,
    value: Result<T, Fault>,
    expected: &'static str,
) -> Result<(), DecodeError> {
    if slot.replace(value.map_err(|fault| fault.at(key, expected))?).is_some() {
        return Err(DecodeError::DuplicateKey(key));
    }
    Ok(())
}

/// What is wrong with one value, before it is known whose value it is.
enum Fault {
    Type(Marker),
    Range,
    Utf8,
    Truncated,
}

impl Fault {
    fn at(self, key: &'static str, expected: &'static str) -> DecodeError {
        match self {
            Self::Type(found) => DecodeError::WrongType { key, expected, found },
            Self::Range => DecodeError::OutOfRange(key),
            Self::Utf8 => DecodeError::NotUtf8(key),
            Self::Truncated => DecodeError::Truncated,
        }
    }
}

fn read_str<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Fault> {
    match decode::read_str_from_slice(*rest) {
        Ok((text, tail)) => {
            *rest = tail;
            Ok(text)
        }
        Err(decode::DecodeStringError::TypeMismatch(marker)) => Err(Fault::Type(marker)),
        Err(decode::DecodeStringError::InvalidUtf8(..)) => Err(Fault::Utf8),
        Err(_) => Err(Fault::Truncated),
    }
}

fn read_int(rest: &mut &[u8]) -> Result<i64, Fault> {
    decode::read_int(rest).map_err(|cause| match cause {
        NumValueReadError::TypeMismatch(marker) => Fault::Type(marker),
        NumValueReadError::OutOfRange => Fault::Range,
        _ => Fault::Truncated,
    })
}

fn read_timestamp(rest: &mut &[u8]) -> Result<f64, Fault> {
    let fault = |cause| match cause {
        ValueReadError::TypeMismatch(marker) => Fault::Type(marker),
        _ => Fault::Truncated,
    };
    match rest.first().copied().map(Marker::from_u8) {
        Some(Marker::F64) => decode::read_f64(rest).map_err(fault),
        Some(Marker::F32) => decode::read_f32(rest).map(f64::from).map_err(fault),
        // Whole seconds are exact in a double for the next 285 million years.
        Some(_) => read_int(rest).map(|seconds| seconds as f64),
        None => Err(Fault::Truncated),
    }
}

fn or_nil<T>(
    rest: &mut &[u8],
    read: impl Fn(&mut &[u8]) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    match rest.split_first() {
        Some((&first, tail)) if Marker::from_u8(first) == Marker::Null => {
            *rest = tail;
            Ok(None)
        }
        _ => read(rest).map(Some),
    }
}

/// Passes over one value of any type: with a count of the values still open
/// and not by recursion, so that no nesting can exhaust the stack. Each turn
/// takes at least one byte.
fn skip(rest: &mut &[u8]) -> Result<(), DecodeError> {
    let mut open = 1_u64;
    while open > 0 {
        open -= 1;
        let marker = decode::read_marker(rest).map_err(|_| DecodeError::Truncated)?;
        let mut length = |bytes: usize| -> Result<u64, DecodeError> {
            let (head, tail) = rest.split_at_checked(bytes).ok_or(DecodeError::Truncated)?;
            *rest = tail;
            Ok(head.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let (bytes, values) = match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                (0, 0)
            }
            Marker::Reserved => return Err(DecodeError::Reserved),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(bytes) => (u64::from(bytes), 0),
            Marker::Str8 | Marker::Bin8 => (length(1)?, 0),
            Marker::Str16 | Marker::Bin16 => (length(2)?, 0),
            Marker::Str32 | Marker::Bin32 => (length(4)?, 0),
            // An extension has a byte for its type in front of its data.
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (length(1)? + 1, 0),
            Marker::Ext16 => (length(2)? + 1, 0),
            Marker::Ext32 => (length(4)? + 1, 0),
            Marker::FixArray(values) => (0, u64::from(values)),
            Marker::Array16 => (0, length(2)?),
            Marker::Array32 => (0, length(4)?),
            Marker::FixMap(pairs) => (0, 2 * u64::from(pairs)),
            Marker::Map16 => (0, 2 * length(2)?),
            Marker::Map32 => (0, 2 * length(4)?),
        };
        let bytes = usize::try_from(bytes).map_err(|_| DecodeError::Truncated)?;
        *rest = rest.get(bytes..).ok_or(DecodeError::Truncated)?;
        open += values;
    }
    Ok(())
}

/// Why bytes are not a record. Always permanent: the bytes in Kafka never
/// change, so the recorder puts them into quarantine with this text.
#[derive(Debug, Clone, PartialEq)]
pub enum DecodeError {
    /// The value is something else than a map.
    NotAMap(Marker),
    /// The bytes end in the middle of a value.
    Truncated,
    /// Bytes follow the map.
    TrailingBytes(usize),
    /// A key of the map is not UTF-8 text.
    KeyNotText,
    /// One of the nine keys is not there.
    MissingKey(&'static str),
    /// One of the nine keys is there twice.
    DuplicateKey(&'static str),
    /// A value has another type than its key asks for.
    WrongType {
        /// Whose value.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: Marker,
    },
    /// A number that 64 bits with a sign can't hold.
    OutOfRange(&'static str),
    /// A text that is not UTF-8.
    NotUtf8(&'static str),
    /// A status other than the two that exist.
    UnknownStatus(String),
    /// The marker that msgpack never uses.
    Reserved,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAMap(found) => write!(f, "record: expected map, found {found:?}"),
            Self::Truncated => f.write_str("record: ends in the middle of a value"),
            Self::TrailingBytes(count) => write!(f, "record: {count} bytes follow the map"),
            Self::KeyNotText => f.write_str("record: a key is not text"),
            Self::MissingKey(key) => write!(f, "record: key {key} is missing"),
            Self::DuplicateKey(key) => write!(f, "record: key {key} is there twice"),
            Self::WrongType { key, expected, found } => {
                write!(f, "record: key {key}: expected {expected}, found {found:?}")
            }
            Self::OutOfRange(key) => write!(f, "record: key {key}: number out of range"),
            Self::NotUtf8(key) => write!(f, "record: key {key}: text is not utf-8"),
            Self::UnknownStatus(text) => {
                write!(f, "record: key status: expected responsive or unresponsive, found {text:?}")
            }
            Self::Reserved => f.write_str("record: reserved msgpack marker"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
