//! Some records of one topic, put through again in one transaction.

use std::collections::HashMap;
use std::fmt;

use common::identity::Identity;
use postgres_client::PostgresError;

use super::quarantine;
use crate::decode::row::{Labels, Rejected, Row};
use crate::postgres::domain_table::TableSql;
use crate::postgres::pool::{Transaction, WorkError};
use crate::postgres::sql;
use crate::schema::lock_key;
use crate::transaction::insert;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The row in quarantine.
    pub id: i64,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It is a row now, and no longer in quarantine.
    Recorded {
        /// The row.
        id: i64,
        /// Its table.
        table: String,
    },
    /// It stays where it was.
    Bad(Rejected),
    /// It is not there any more, or somebody else has it under lock: another
    /// replay, or whoever cleans up.
    Taken,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded { id, table } => write!(f, "recorded as row {id} of {table}"),
            Self::Bad(reason) => write!(f, "still bad: {}", reason.reason()),
            Self::Taken => f.write_str("taken by others"),
        }
    }
}

/// The offset of a row whose own is not to be counted: the column's default.
const NO_OFFSET: i64 = -1;

/// Records that are replayed together.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    table: &'a TableSql,
    labels: &'a Labels,
    keeps_offsets: bool,
    places: &'a [Place],
    /// What was last done, in a transaction whose outcome may be unknown.
    tried: HashMap<i64, Outcome>,
}

impl<'a> Batch<'a> {
    /// From quarantine to this table. Without `keeps_offsets` rows get -1 for
    /// their offset: with 1.1.0's own topics the table tells where reading
    /// starts, and the offset of an earlier topic of the same name would make
    /// that pass over records.
    pub(crate) fn new(
        table: &'a TableSql,
        labels: &'a Labels,
        keeps_offsets: bool,
        places: &'a [Place],
    ) -> Self {
        Self { table, labels, keeps_offsets, places, tried: HashMap::new() }
    }

    /// What becomes of each, once the transaction is committed. After a failure
    /// the same is to be called again, in a new transaction.
    ///
    /// # Errors
    /// See [`WorkError`].
    pub(crate) fn write(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> Result<Vec<Outcome>, WorkError> {
        // A recorder in smart mode takes the table's highest `id` for a sign that
        // nobody else wrote, which holds only for who has this lock. And whoever
        // has it finds that its own last transaction is over.
        transaction.execute(sql::ADVISORY_LOCK, &[&lock_key(&self.table.name)])?;
        if !self.took_place(transaction)? {
            self.tried = self.replay(transaction)?;
        }
        let outcome = |place: &Place| self.tried.get(&place.id).cloned();
        Ok(self.places.iter().map(|place| outcome(place).unwrap_or(Outcome::Taken)).collect())
    }

    /// Whether the last transaction was committed: all that it took out of
    /// quarantine is gone, and is in the table. (If another replay took that
    /// meanwhile, it is gone as well.)
    fn took_place(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, WorkError> {
        let recorded = self.tried.iter().filter_map(|(id, outcome)| match outcome {
            Outcome::Recorded { id: row, .. } => Some((*id, *row)),
            _ => None,
        });
        let (ids, rows): (Vec<i64>, Vec<i64>) = recorded.unzip();
        if ids.is_empty() {
            return Ok(false);
        }
        let left = transaction.query(quarantine::COUNT, &[&ids])?;
        let there = transaction.query(&self.table.there, &[&rows])?;
        let left: i64 = left.first().map_or(Ok(0), |row| row.try_get(0))?;
        Ok(left == 0 && there.len() == rows.len())
    }

    fn replay(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> Result<HashMap<i64, Outcome>, WorkError> {
        let ids: Vec<i64> = self.places.iter().map(|place| place.id).collect();
        let mut outcomes = HashMap::new();
        let mut reasons: HashMap<i64, String> = HashMap::new();
        let (mut good, mut rows) = (Vec::new(), Vec::new());
        for found in transaction.query(quarantine::LOCK, &[&ids])? {
            let id = found.try_get(0)?;
            reasons.insert(id, found.try_get(3)?);
            let identity = match (found.try_get(4)?, found.try_get(5)?) {
                (Some(run), Some(sequence)) => Some(Identity { run, sequence }),
                _ => None,
            };
            match Row::new(found.try_get(1)?, found.try_get(2)?, identity, self.labels) {
                Ok(row) => {
                    let kept = if self.keeps_offsets { row.topic_offset } else { NO_OFFSET };
                    good.push(id);
                    rows.push(Row { topic_offset: kept, ..row });
                }
                Err(reason) => drop(outcomes.insert(id, Outcome::Bad(reason))),
            }
        }
        let inserted = self.insert(transaction, &rows)?;
        outcomes.extend(good.into_iter().zip(inserted));
        settle(transaction, &outcomes, &reasons)?;
        Ok(outcomes)
    }

    /// Adds the rows that the database takes; in their order.
    fn insert(
        &self,
        transaction: &mut Transaction<'_>,
        rows: &[Row],
    ) -> Result<Vec<Outcome>, WorkError> {
        if let Ok(inserted) = self.attempt(transaction, rows)? {
            return Ok(inserted);
        }
        let mut outcomes = Vec::with_capacity(rows.len());
        for row in rows {
            match self.attempt(transaction, std::slice::from_ref(row))? {
                Ok(inserted) => outcomes.extend(inserted),
                Err(words) => outcomes.push(Outcome::Bad(Rejected::Database(words))),
            }
        }
        Ok(outcomes)
    }

    /// Adds all of the rows or none; none with the words of a database that
    /// refuses one for what is in it.
    fn attempt(
        &self,
        transaction: &mut Transaction<'_>,
        rows: &[Row],
    ) -> Result<Result<Vec<Outcome>, String>, WorkError> {
        match transaction.attempt(|nested| insert(nested, self.table, rows))? {
            Ok(inserted) => {
                // They were added in their order.
                let mut ids: Vec<i64> = inserted.into_iter().map(|(_, id)| id).collect();
                ids.sort_unstable();
                let recorded = |id| Outcome::Recorded { id, table: self.table.name.clone() };
                Ok(Ok(ids.into_iter().map(recorded).collect()))
            }
            Err(error @ PostgresError::Data(_)) => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes out of quarantine what is recorded, and says of the rest why it is
/// there by today's rules.
fn settle(
    transaction: &mut Transaction<'_>,
    outcomes: &HashMap<i64, Outcome>,
    reasons: &HashMap<i64, String>,
) -> Result<(), WorkError> {
    let mut recorded = Vec::new();
    let (mut bad, mut new_reasons) = (Vec::new(), Vec::new());
    for (id, outcome) in outcomes {
        match outcome {
            Outcome::Recorded { .. } => recorded.push(*id),
            Outcome::Bad(reason) if reasons.get(id) != Some(&reason.reason()) => {
                bad.push(*id);
                new_reasons.push(reason.reason());
            }
            _ => {}
        }
    }
    if !recorded.is_empty() {
        let removed = transaction.execute(quarantine::REMOVE, &[&recorded])?;
        if removed != recorded.len() as u64 {
            return Err(WorkError::RowGone);
        }
    }
    if !bad.is_empty() {
        transaction.execute(quarantine::REASONS, &[&bad, &new_reasons])?;
    }
    Ok(())
}
