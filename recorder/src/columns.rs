//! Rows as the arrays that one statement inserts.

use postgres::types::ToSql;

use crate::rows::Row;

/// A value for each row in each column, as [`crate::sql::TableSql::insert`]
/// takes them.
#[derive(Debug)]
pub struct Columns<'a> {
    offsets: Vec<i64>,
    froms: Vec<&'a str>,
    urls: Vec<&'a str>,
    times: Vec<i64>,
    statuses: Vec<&'a str>,
    phrases: Vec<&'a str>,
    dns: Vec<i32>,
    responses: Vec<i32>,
    details: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    /// Of these rows, in their order.
    pub fn new(rows: &'a [Row]) -> Self {
        Self {
            offsets: rows.iter().map(|row| row.topic_offset).collect(),
            froms: rows.iter().map(|row| row.test_from.as_str()).collect(),
            urls: rows.iter().map(|row| row.url.as_str()).collect(),
            times: rows.iter().map(|row| row.event_time).collect(),
            statuses: rows.iter().map(|row| row.status.as_str()).collect(),
            phrases: rows.iter().map(|row| row.phrase.as_str()).collect(),
            dns: rows.iter().map(|row| row.dns).collect(),
            responses: rows.iter().map(|row| row.response).collect(),
            details: rows.iter().map(|row| row.detail.as_deref()).collect(),
        }
    }

    /// The statement's parameters.
    pub fn parameters(&self) -> [&(dyn ToSql + Sync); 9] {
        [
            &self.offsets,
            &self.froms,
            &self.urls,
            &self.times,
            &self.statuses,
            &self.phrases,
            &self.dns,
            &self.responses,
            &self.details,
        ]
    }
}
