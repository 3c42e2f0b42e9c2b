//! Reads the position of version 1.1.0 from the rows of a table.

use std::time::Duration;

use common::stop::Stop;

use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::Database;

/// The position of 1.1.0 as the rows of a table show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableCount {
    /// The highest offset in the rows of this topic. `None`: the topic has no rows.
    pub(crate) highest_offset: Option<i64>,
    /// The highest `id` of all rows, or 0 if the table is empty.
    pub(crate) last_id: i64,
}

impl TableCount {
    /// The position of 1.1.0. `None`: the topic has no rows.
    pub(super) fn next_offset(&self) -> Option<i64> {
        self.highest_offset.map(|highest| highest.saturating_add(1))
    }
}

/// Reads the highest offset of the rows with an `id` above `after_id`. The statement reads the
/// whole table, so its time-out is long.
pub(in crate::domain) fn count_table(
    database: &Database,
    stop: &Stop,
    timeout: Duration,
    table: &DomainTable,
    after_id: i64,
) -> Result<TableCount, TransactionError> {
    database.transaction(stop, timeout, |transaction| {
        transaction.batch("set local statement_timeout = '10min'")?;
        let rows = transaction.query(
            &format!(
                r#"select max("topic_offset") filter (where "id" > $1::bigint),
                    coalesce(max("id"), 0)::bigint from {}"#,
                table.quoted()
            ),
            &[&after_id],
        )?;
        let none = TableCount { highest_offset: None, last_id: 0 };
        rows.first().map_or(Ok(none), |row| {
            Ok(TableCount { highest_offset: row.try_get(0)?, last_id: row.try_get(1)? })
        })
    })
}
