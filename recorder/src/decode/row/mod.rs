//! A record from Kafka turned into a row for its domain's table, or the reason
//! why it can't be one.

mod extra;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use common::identity::Identity;
use common::record::{DecodeError, Extra, Record, Status};

use crate::transaction::merge::Kind;

/// The most characters of `test_from`, `url` and `detail` in the tables of 1.1.0.
const FROM_CHARS_MAX: usize = 32;
const URL_CHARS_MAX: usize = 256;
const DETAIL_CHARS_MAX: usize = 128;
/// What 1.1.0 writes for a time that is not known.
const UNKNOWN_MS: i32 = -1;
/// The most characters of a reason: an unknown status may be a megabyte long.
const REASON_CHARS_MAX: usize = 400;

/// One row of a domain's table, without what the database adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its record's offset in the partition.
    pub topic_offset: i64,
    /// Where the tracker runs.
    pub test_from: String,
    /// The target.
    pub url: String,
    /// Whole seconds since 1970, rounded down.
    pub event_time: i64,
    /// As the database spells it.
    pub status: String,
    /// As the database spells it.
    pub phrase: Arc<str>,
    /// Milliseconds, −1 when not known.
    pub dns: i32,
    /// Milliseconds, −1 when not known.
    pub response: i32,
    /// At most 128 characters.
    pub detail: Option<String>,
    /// What is known beyond that, cut to what the columns hold.
    pub extra: Extra,
    /// Which result it is, if its record's headers say so.
    pub identity: Option<Identity>,
    /// How many results it stands for.
    pub results: i64,
    /// Whether all is well.
    pub healthy: bool,
}

/// The labels of the enums in the database by their lower-case form.
///
/// 1.1.0 creates `page content not expected`, its README says `Page content
/// not expected`: a database may hold either, and rows must use what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    statuses: HashMap<String, Arc<str>>,
    phrases: HashMap<String, Arc<str>>,
}

impl Labels {
    /// From the labels as they are in the database.
    pub fn new(statuses: Vec<String>, phrases: Vec<String>) -> Self {
        Self { statuses: by_lower_case(statuses), phrases: by_lower_case(phrases) }
    }

    /// The database's spelling of a status.
    pub fn status(&self, status: &str) -> Option<&str> {
        self.statuses.get(&status.to_lowercase()).map(|label| &**label)
    }

    /// The database's spelling of a phrase.
    pub fn phrase(&self, phrase: &str) -> Option<&Arc<str>> {
        self.phrases.get(&phrase.to_lowercase())
    }
}

fn by_lower_case(labels: Vec<String>) -> HashMap<String, Arc<str>> {
    let mut found = HashMap::with_capacity(labels.len());
    for label in labels {
        let lower = label.to_lowercase();
        // Where several differ in case only, the one in lower case is meant.
        if label == lower || !found.contains_key(&lower) {
            found.insert(lower, label.into());
        }
    }
    found
}

impl Row {
    /// The row of a record's bytes, and of what its headers say that it is.
    ///
    /// # Errors
    /// [`Rejected`]: the bytes belong in quarantine.
    pub fn new(
        topic_offset: i64,
        value: Option<&[u8]>,
        identity: Option<Identity>,
        labels: &Labels,
    ) -> Result<Self, Rejected> {
        let record = Record::decode(value.ok_or(Rejected::NoValue)?).map_err(Rejected::Decode)?;
        let healthy = record.healthy();
        let detail = record
            .detail
            .map(|detail| fitting("detail", detail.chars().take(DETAIL_CHARS_MAX).collect(), None))
            .transpose()?;
        Ok(Self {
            topic_offset,
            test_from: fitting("from", record.from, Some(FROM_CHARS_MAX))?,
            url: fitting("url", record.url, Some(URL_CHARS_MAX))?,
            event_time: whole_seconds(record.timestamp)?,
            status: status_label(record.status, labels)?,
            phrase: match labels.phrase(&record.phrase) {
                Some(label) => Arc::clone(label),
                None => return Err(Rejected::UnknownPhrase(record.phrase)),
            },
            dns: milliseconds("dns", record.dns_ms)?,
            response: milliseconds("response", record.response_ms)?,
            detail,
            extra: extra::fitting(record.extra)?,
            identity,
            results: 1,
            healthy,
        })
    }

    /// Whose result it is: location, URL and name.
    pub fn target(&self) -> (&str, &str, Option<&str>) {
        (&self.test_from, &self.url, self.extra.name.as_deref())
    }

    /// What smart mode may merge it with; none: it is to be seen by itself.
    pub fn kind(&self) -> Option<Kind> {
        (self.healthy && !self.extra.is_marked()).then(|| Kind {
            phrase: Arc::clone(&self.phrase),
            run: self.identity.map(|identity| identity.run),
            period_ms: self.extra.period_ms,
        })
    }
}

fn status_label(status: Status, labels: &Labels) -> Result<String, Rejected> {
    let label = labels.status(status.as_str());
    label.map(str::to_owned).ok_or(Rejected::StatusNotInDatabase(status.as_str()))
}

fn fitting(key: &'static str, text: String, chars_max: Option<usize>) -> Result<String, Rejected> {
    if text.contains('\0') {
        return Err(Rejected::Nul(key));
    }
    match chars_max {
        Some(max) if text.chars().count() > max => {
            Err(Rejected::TooLong { key, chars: text.chars().count(), max })
        }
        _ => Ok(text),
    }
}

fn whole_seconds(timestamp: f64) -> Result<i64, Rejected> {
    let seconds = timestamp.floor();
    // 2^63 is exact in a double and the first number that i64 can't hold.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&seconds) { Ok(seconds as i64) } else { Err(Rejected::Timestamp) }
}

fn milliseconds(key: &'static str, value: Option<i64>) -> Result<i32, Rejected> {
    value.map_or(Ok(UNKNOWN_MS), |ms| i32::try_from(ms).map_err(|_| Rejected::Number(key)))
}

/// Why a record can't be a row. Always permanent with this version and this
/// database; the bytes go to quarantine.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejected {
    /// A record without a value (a tombstone).
    NoValue,
    /// The bytes are no record.
    Decode(DecodeError),
    /// The database's enum has no such label.
    UnknownPhrase(String),
    /// The database's enum has no such label, so it is none of ours.
    StatusNotInDatabase(&'static str),
    /// A text holds the one character that PostgreSQL can't.
    Nul(&'static str),
    /// A text is longer than its column.
    TooLong {
        /// Whose text.
        key: &'static str,
        /// Its characters.
        chars: usize,
        /// Those of the column.
        max: usize,
    },
    /// The timestamp is not a number, or too far away.
    Timestamp,
    /// A number is too large for its column.
    Number(&'static str),
    /// The database refused the row, with these words.
    Database(String),
}

impl Rejected {
    /// The reason as the quarantine holds it.
    pub fn reason(&self) -> String {
        one_line(&self.to_string())
    }
}

/// A reason as the database holds it: one line, at most 400 characters, and in
/// ASCII, others as `\u{..}`. What a database can't hold, as its encoding lacks a
/// character, could not be in quarantine otherwise, and would stop its domain for
/// ever.
pub fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let ascii = plain.flat_map(|c| {
        let escaped = (!c.is_ascii()).then(|| c.escape_unicode());
        escaped.into_iter().flatten().chain(c.is_ascii().then_some(c))
    });
    ascii.take(REASON_CHARS_MAX).collect()
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue => f.write_str("record: no value"),
            Self::Decode(cause) => write!(f, "{cause}"),
            Self::UnknownPhrase(phrase) => {
                write!(f, "record: key phrase: {phrase:?} is not a label of phrase_status")
            }
            Self::StatusNotInDatabase(status) => {
                write!(f, "record: key status: {status:?} is not a label of response_status")
            }
            Self::Nul(key) => write!(f, "record: key {key}: holds a NUL character"),
            Self::TooLong { key, chars, max } => {
                write!(f, "record: key {key}: {chars} characters, the column holds {max}")
            }
            Self::Timestamp => f.write_str("record: key timestamp: not a time that can be stored"),
            Self::Number(key) => write!(f, "record: key {key}: the column holds 32 bits"),
            Self::Database(words) => write!(f, "postgresql: {words}"),
        }
    }
}

impl std::error::Error for Rejected {}

#[cfg(test)]
mod tests;
