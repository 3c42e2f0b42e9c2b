//! What can be wrong with the bytes of a record.

use std::fmt;

use rmp::Marker;

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
    /// A key is there twice.
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
    /// A map within the record has more entries than are taken.
    TooManyEntries {
        /// Whose value.
        key: &'static str,
        /// How many entries it has.
        found: u32,
        /// How many it may have.
        most: usize,
    },
    /// A map within the record has an entry twice.
    DuplicateEntry(&'static str),
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
            Self::TooManyEntries { key, found, most } => {
                write!(f, "record: key {key}: {found} entries, at most {most} are taken")
            }
            Self::DuplicateEntry(key) => write!(f, "record: key {key}: an entry is there twice"),
            Self::Reserved => f.write_str("record: reserved msgpack marker"),
        }
    }
}

impl std::error::Error for DecodeError {}
