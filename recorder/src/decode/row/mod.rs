//! Decodes one record into a row of its domain's table, or returns the reason for a rejection.

mod extra;

use std::sync::Arc;

use common::identity::Identity;
use common::record::{Extra, Record, Status};
use kafka_client::Uuid;

use super::labels::Labels;
use super::rejected::Rejected;

/// The maximum lengths in characters of `test_from`, `url` and `detail` in the tables of 1.1.0.
const FROM_CHARS_MAX: usize = 32;
const URL_CHARS_MAX: usize = 256;
const DETAIL_CHARS_MAX: usize = 128;
/// The highest `total_us` of a result that may be merged: 36 minutes. With this bound no sum in a
/// row overflows.
pub(crate) const MERGED_TOTAL_US_MAX: i64 = i32::MAX as i64;
/// The value for an unknown time, as 1.1.0 writes it.
const UNKNOWN_MS: i32 = -1;

/// One row of a domain's table. The columns with a default in the database are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRow {
    /// The offset of the record in its partition.
    pub topic_offset: i64,
    /// The location of the tracker.
    pub test_from: String,
    /// The URL of the target.
    pub url: String,
    /// Whole seconds since 1970, rounded down.
    pub event_time: i64,
    /// The status, in the spelling of the database.
    pub status: String,
    /// The phrase, in the spelling of the database.
    pub phrase: Arc<str>,
    /// Milliseconds; −1 if unknown.
    pub dns: i32,
    /// Milliseconds; −1 if unknown.
    pub response: i32,
    /// At most 128 characters.
    pub detail: Option<String>,
    /// The extra keys of the record, fitted to their columns.
    pub extra: Extra,
    /// The identity of the result. `None`: the headers have no valid identity.
    pub identity: Option<Identity>,
    /// The number of results in the row.
    pub results: i64,
    /// The columns of a row of several results. `None` for a row of one result.
    pub merged: Option<MergedColumns>,
    /// Whether the target was healthy.
    pub healthy: bool,
}

/// The columns that only rows of several results fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergedColumns {
    /// The event time of the earliest result.
    pub first_event_time: i64,
    /// The offset of the earliest result.
    pub first_offset: i64,
    /// The `total_us` of all results. `None`: the results have no `total_us`.
    pub total_us: Option<TotalTimes>,
}

/// The sum and the extremes of `total_us` of several results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotalTimes {
    /// The sum of all results in microseconds.
    pub sum: i64,
    /// The fastest result in microseconds.
    pub min: i64,
    /// The slowest result in microseconds.
    pub max: i64,
}

impl TotalTimes {
    /// The times of one result.
    pub fn of_one(total_us: i64) -> Self {
        Self { sum: total_us, min: total_us, max: total_us }
    }

    /// The times of these results and of `other` together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sum: self.sum.saturating_add(other.sum),
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// The properties that all results of one row share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKind {
    /// The phrase, in the spelling of the database.
    pub phrase: Arc<str>,
    /// The run of the tracker. Slots of different runs can't be compared.
    pub run: Option<Uuid>,
    /// The period of the target, which is the length of its slots.
    pub period_ms: Option<i64>,
    /// Whether the results have `total_us`. The mean of a row is its sum divided by its number of
    /// results.
    pub has_total_us: bool,
}

impl DomainRow {
    /// Decodes the value of a record into a row.
    ///
    /// # Errors
    /// [`Rejected`]: the record belongs in quarantine.
    pub fn new(
        topic_offset: i64,
        value: Option<&[u8]>,
        identity: Option<Identity>,
        labels: &Labels,
    ) -> Result<Self, Rejected> {
        let record = Record::decode(value.ok_or(Rejected::NoValue)?).map_err(Rejected::Decode)?;
        let healthy = record.is_healthy();
        let detail = record
            .detail
            .map(|detail| {
                checked_text("detail", detail.chars().take(DETAIL_CHARS_MAX).collect(), None)
            })
            .transpose()?;
        Ok(Self {
            topic_offset,
            test_from: checked_text("from", record.from, Some(FROM_CHARS_MAX))?,
            url: checked_text("url", record.url, Some(URL_CHARS_MAX))?,
            event_time: whole_seconds(record.timestamp)?,
            status: status_label(record.status, labels)?,
            phrase: match labels.phrase(&record.phrase) {
                Some(label) => Arc::clone(label),
                None => return Err(Rejected::UnknownPhrase(record.phrase)),
            },
            dns: milliseconds("dns", record.dns_ms)?,
            response: milliseconds("response", record.response_ms)?,
            detail,
            extra: extra::fit_to_columns(record.extra)?,
            identity,
            results: 1,
            merged: None,
            healthy,
        })
    }

    /// The target of the result: location, URL and name.
    pub fn target(&self) -> (&str, &str, Option<&str>) {
        (&self.test_from, &self.url, self.extra.name.as_deref())
    }

    /// The kind of rows that smart mode may merge this row with. `None`: smart mode must not merge
    /// this row.
    pub fn kind(&self) -> Option<RowKind> {
        let total_us = self.extra.total_us;
        let can_add = total_us.is_none_or(|us| (0..=MERGED_TOTAL_US_MAX).contains(&us));
        (self.healthy && !self.extra.is_marked() && can_add).then(|| RowKind {
            phrase: Arc::clone(&self.phrase),
            run: self.identity.map(|identity| identity.run),
            period_ms: self.extra.period_ms,
            has_total_us: total_us.is_some(),
        })
    }
}

fn status_label(status: Status, labels: &Labels) -> Result<String, Rejected> {
    let label = labels.status(status.as_str());
    label.map(str::to_owned).ok_or(Rejected::StatusNotInDatabase(status.as_str()))
}

fn checked_text(
    key: &'static str,
    text: String,
    chars_max: Option<usize>,
) -> Result<String, Rejected> {
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
    // 2^63 is exact in a double. It is the lowest positive number that does not fit an i64.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&seconds) { Ok(seconds as i64) } else { Err(Rejected::Timestamp) }
}

fn milliseconds(key: &'static str, value: Option<i64>) -> Result<i32, Rejected> {
    value.map_or(Ok(UNKNOWN_MS), |ms| i32::try_from(ms).map_err(|_| Rejected::Number(key)))
}

#[cfg(test)]
mod tests;
