//! Why bytes are not a record.

use rmp::Marker;

/// Why bytes are not a record. Always permanent: the bytes in Kafka never change, so the recorder
/// quarantines the record with this text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The value is not a map.
    #[error("record: expected map, found {0:?}")]
    NotAMap(Marker),
    /// The bytes end in the middle of a value.
    #[error("record: ends in the middle of a value")]
    Truncated,
    /// Bytes follow the map.
    #[error("record: {0} bytes follow the map")]
    TrailingBytes(usize),
    /// A key of the map is not UTF-8 text.
    #[error("record: a key is not text")]
    KeyNotText,
    /// One of the nine keys is missing.
    #[error("record: key {0} is missing")]
    MissingKey(&'static str),
    /// A key appears twice.
    #[error("record: key {0} appears twice")]
    DuplicateKey(&'static str),
    /// A value has the wrong type.
    #[error("record: key {key}: expected {expected}, found {found:?}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The expected type.
        expected: &'static str,
        /// The type of the value.
        found: Marker,
    },
    /// A number that does not fit a signed 64-bit integer.
    #[error("record: key {0}: number out of range")]
    OutOfRange(&'static str),
    /// A text that is not UTF-8.
    #[error("record: key {0}: text is not utf-8")]
    NotUtf8(&'static str),
    /// An unknown status.
    #[error("record: key status: expected responsive or unresponsive, found {0:?}")]
    UnknownStatus(String),
    /// A map within the record has too many entries.
    #[error("record: key {key}: {found} entries, at most {max} are allowed")]
    TooManyEntries {
        /// The key.
        key: &'static str,
        /// The number of entries.
        found: u32,
        /// The allowed number of entries.
        max: usize,
    },
    /// A map within the record has an entry twice.
    #[error("record: key {0}: an entry appears twice")]
    DuplicateEntry(&'static str),
    /// The marker that msgpack reserves.
    #[error("record: reserved msgpack marker")]
    Reserved,
}
