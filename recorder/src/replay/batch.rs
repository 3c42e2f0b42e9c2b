//! One transaction of a replay. Some records of one topic are stored as rows and deleted from the
//! quarantine.

use std::collections::HashMap;
use std::fmt;

use postgres_client::PostgresError;

use super::quarantine::{self, LockedRecord, RecordRef};
use crate::decode::labels::Labels;
use crate::decode::rejected::Rejected;
use crate::decode::row::DomainRow;
use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::Transaction;
use crate::schema::DomainSchema;
use crate::transaction::insert::InsertStatement;

/// The offset of rows whose own offset must not be stored. It is the default of the column.
const NO_OFFSET: i64 = -1;

/// The result of the replay of one record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ReplayOutcome {
    /// The record was stored as a row and deleted from the quarantine.
    Recorded {
        /// The `id` of the row.
        row_id: i64,
        /// The table of the row.
        table: String,
    },
    /// The record stays in quarantine.
    Rejected(Rejected),
    /// The record is not in quarantine any more, or is locked by another session, such as another
    /// replay or an administrator.
    Taken,
}

impl fmt::Display for ReplayOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded { row_id, table } => write!(f, "recorded as row {row_id} of {table}"),
            Self::Rejected(reason) => write!(f, "still bad: {}", reason.reason()),
            Self::Taken => f.write_str("taken by others"),
        }
    }
}

/// The table of a domain, as a target of a replay.
#[derive(Debug)]
pub(super) struct ReplayTarget {
    table: DomainTable,
    insert: InsertStatement,
    labels: Labels,
    /// Whether rows store the offsets of their records. They do not for the topics of 1.1.0. There
    /// the offsets in the table decide where reading starts, and the offset of an earlier topic
    /// with the same name would make the recorder skip records.
    keeps_offsets: bool,
}

impl ReplayTarget {
    pub(super) fn new(table: DomainTable, schema: DomainSchema, keeps_offsets: bool) -> Self {
        let DomainSchema { labels, missing_columns, .. } = schema;
        let insert = InsertStatement::without(&table, &missing_columns);
        Self { insert, table, labels, keeps_offsets }
    }
}

/// Records that are replayed in one transaction.
#[derive(Debug)]
pub(super) struct ReplayBatch<'a> {
    target: &'a ReplayTarget,
    records: &'a [RecordRef],
    /// The outcomes of the last attempt by `id`. The transaction of this attempt may or may not
    /// have been committed.
    attempted: HashMap<i64, ReplayOutcome>,
}

impl<'a> ReplayBatch<'a> {
    pub(super) fn new(target: &'a ReplayTarget, records: &'a [RecordRef]) -> Self {
        Self { target, records, attempted: HashMap::new() }
    }

    /// Replays the records. Returns the outcome of each record, which is final once the transaction
    /// is committed. After an error, the caller calls this again in a new transaction.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub(super) fn write(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> Result<Vec<ReplayOutcome>, TransactionError> {
        // A recorder in smart mode acquires the same lock. Under this lock, the highest `id` of the
        // table shows whether another session has written. The lock also shows that the transaction
        // of the last attempt has ended.
        transaction.lock(self.target.table.name())?;
        if !self.was_committed(transaction)? {
            self.attempted = self.replay(transaction)?;
        }
        let outcome = |record: &RecordRef| {
            self.attempted.get(&record.id).cloned().unwrap_or(ReplayOutcome::Taken)
        };
        Ok(self.records.iter().map(outcome).collect())
    }

    /// Whether the last attempt was committed. This is so if all of its recorded records have left
    /// the quarantine and their rows are in the table.
    fn was_committed(&self, transaction: &mut Transaction<'_>) -> Result<bool, TransactionError> {
        let recorded = self.attempted.iter().filter_map(|(id, outcome)| match outcome {
            ReplayOutcome::Recorded { row_id, .. } => Some((*id, *row_id)),
            _ => None,
        });
        let (ids, row_ids): (Vec<i64>, Vec<i64>) = recorded.unzip();
        if ids.is_empty() {
            return Ok(false);
        }
        let in_quarantine = quarantine::count(transaction, &ids)?;
        let table = self.target.table.quoted();
        let rows = transaction.query(
            &format!(r#"select "id"::bigint from {table} where "id" = any($1::bigint[])"#),
            &[&row_ids],
        )?;
        Ok(in_quarantine == 0 && rows.len() == row_ids.len())
    }

    fn replay(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> Result<HashMap<i64, ReplayOutcome>, TransactionError> {
        let ids: Vec<i64> = self.records.iter().map(|record| record.id).collect();
        let mut outcomes = HashMap::new();
        let mut old_reasons = HashMap::new();
        let (mut decoded_ids, mut rows) = (Vec::new(), Vec::new());
        for LockedRecord { id, offset, value, reason, identity } in
            quarantine::lock(transaction, &ids)?
        {
            old_reasons.insert(id, reason);
            match DomainRow::new(offset, value.as_deref(), identity, &self.target.labels) {
                Ok(row) => {
                    let topic_offset = if self.target.keeps_offsets { offset } else { NO_OFFSET };
                    decoded_ids.push(id);
                    rows.push(DomainRow { topic_offset, ..row });
                }
                Err(reason) => drop(outcomes.insert(id, ReplayOutcome::Rejected(reason))),
            }
        }
        let inserted = self.insert(transaction, &rows)?;
        outcomes.extend(decoded_ids.into_iter().zip(inserted));
        update_quarantine(transaction, &outcomes, &old_reasons)?;
        Ok(outcomes)
    }

    /// Inserts the rows that the database accepts. Returns the outcomes in the order of the rows.
    fn insert(
        &self,
        transaction: &mut Transaction<'_>,
        rows: &[DomainRow],
    ) -> Result<Vec<ReplayOutcome>, TransactionError> {
        if let Ok(outcomes) = self.try_insert(transaction, rows)? {
            return Ok(outcomes);
        }
        let mut outcomes = Vec::with_capacity(rows.len());
        for row in rows {
            match self.try_insert(transaction, std::slice::from_ref(row))? {
                Ok(inserted) => outcomes.extend(inserted),
                Err(refusal) => {
                    outcomes.push(ReplayOutcome::Rejected(Rejected::Database(refusal)));
                }
            }
        }
        Ok(outcomes)
    }

    /// Inserts all rows or none. The inner error is the message of the database if it refuses a row
    /// because of its values.
    fn try_insert(
        &self,
        transaction: &mut Transaction<'_>,
        rows: &[DomainRow],
    ) -> Result<Result<Vec<ReplayOutcome>, String>, TransactionError> {
        let insert = &self.target.insert;
        match transaction.with_savepoint(|nested| insert.execute_returning(nested, rows))? {
            Ok(inserted) => {
                // The ids ascend in the order of the rows.
                let mut row_ids: Vec<i64> = inserted.into_iter().map(|(_, id)| id).collect();
                row_ids.sort_unstable();
                let table = self.target.table.name();
                let recorded = |row_id| ReplayOutcome::Recorded { row_id, table: table.to_owned() };
                Ok(Ok(row_ids.into_iter().map(recorded).collect()))
            }
            Err(error @ PostgresError::Data(_)) => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Deletes recorded records from the quarantine, and updates the reasons of the other records if
/// they have changed.
fn update_quarantine(
    transaction: &mut Transaction<'_>,
    outcomes: &HashMap<i64, ReplayOutcome>,
    old_reasons: &HashMap<i64, String>,
) -> Result<(), TransactionError> {
    let mut recorded = Vec::new();
    let (mut rejected, mut reasons) = (Vec::new(), Vec::new());
    for (id, outcome) in outcomes {
        match outcome {
            ReplayOutcome::Recorded { .. } => recorded.push(*id),
            ReplayOutcome::Rejected(reason) if old_reasons.get(id) != Some(&reason.reason()) => {
                rejected.push(*id);
                reasons.push(reason.reason());
            }
            ReplayOutcome::Rejected(_) | ReplayOutcome::Taken => {}
        }
    }
    quarantine::delete(transaction, &recorded)?;
    quarantine::set_reasons(transaction, &rejected, &reasons)
}
