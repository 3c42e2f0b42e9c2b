//! The reasons why a record can't be stored as a row.

use common::record::DecodeError;

/// The maximum length of a reason in characters. An unknown phrase may be a megabyte long.
const REASON_CHARS_MAX: usize = 400;

/// The reason why a record can't be stored as a row. All reasons are permanent for this version and
/// this database, so the record goes to quarantine.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// The record has no value (a tombstone).
    #[error("record: no value")]
    NoValue,
    /// The value is not a record.
    #[error("{0}")]
    Decode(DecodeError),
    /// The phrase is not a label of the database's enum type.
    #[error("record: key phrase: {0:?} is not a label of phrase_status")]
    UnknownPhrase(String),
    /// The status is not a label of the database's enum type, because this program did not create
    /// that type.
    #[error("record: key status: {0:?} is not a label of response_status")]
    StatusNotInDatabase(&'static str),
    /// The text holds a NUL character, which PostgreSQL can't store.
    #[error("record: key {0}: holds a NUL character")]
    Nul(&'static str),
    /// The text is longer than its column.
    #[error("record: key {key}: {chars} characters, the column holds {max}")]
    TooLong {
        /// The key of the text.
        key: &'static str,
        /// The length of the text in characters.
        chars: usize,
        /// The length of the column in characters.
        max: usize,
    },
    /// The timestamp is not a number, or does not fit its column.
    #[error("record: key timestamp: not a time that can be stored")]
    Timestamp,
    /// The number does not fit its column.
    #[error("record: key {0}: the column holds 32 bits")]
    Number(&'static str),
    /// The database refused the row, with this message.
    #[error("postgresql: {0}")]
    Database(String),
}

impl Rejected {
    /// The text for the column `reason` of the quarantine.
    pub fn reason(&self) -> String {
        reason_text(&self.to_string())
    }
}

/// Converts a text into a reason that every database can store: one line of ASCII with at most 400
/// characters. Other characters are escaped as `\u{..}`. Without the escapes, a character that is
/// missing in the encoding of the database would fail in the quarantine too, and the domain would
/// stop for ever.
pub fn reason_text(text: &str) -> String {
    let one_line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let ascii = one_line.flat_map(|c| {
        let escaped = (!c.is_ascii()).then(|| c.escape_unicode());
        escaped.into_iter().flatten().chain(c.is_ascii().then_some(c))
    });
    ascii.take(REASON_CHARS_MAX).collect()
}
