//! Everything that one PostgreSQL transaction writes for one batch of one
//! partition. A file for each step, in this order:
//!
//! 1. `position`: the compare-and-set of the position, which excludes every other
//!    recorder until the transaction ends;
//! 2. `dedup`: drops results that are recorded already, stores marks and gaps;
//! 3. `quarantine`: stores records that can't be rows;
//! 4. [`insert`], or in smart mode `smart` with the rules of `merge`: the rows.
//!
//! A position never moves without its rows, quarantined records or gaps: all are in
//! the same transaction. That makes recording exactly-once.

pub(crate) mod dedup;
pub mod insert;
pub(crate) mod mark_cleanup;
pub(crate) mod merge;
pub mod position;
pub(crate) mod quarantine;
pub(crate) mod smart;

use std::ops::AddAssign;
use std::time::Duration;

use common::stop::Stop;
use postgres_client::PostgresError;

use self::dedup::{DedupOutcome, SequenceTracker};
use self::insert::InsertStep;
use self::position::{Position, TopicPartition, compare_and_set};
use self::quarantine::QuarantineStep;
use self::smart::{SmartEffect, SmartStep};
use crate::decode::batch::{DecodedRecords, WriteBatch};
use crate::decode::identities::Identities;
use crate::decode::labels::Labels;
use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::{Database, Transaction};
use crate::postgres::tables::Table;
use crate::report::anomalies::Anomalies;

/// The tables that the steps write to, beside those of domains.
pub(crate) const TABLES: &[Table<'static>] =
    &[position::OFFSET_TABLE, position::GAP_TABLE, dedup::MARK_TABLE, quarantine::QUARANTINE_TABLE];

/// A batch on its way through the steps. A step may remove records.
#[derive(Debug)]
pub(crate) struct PendingWrite<'a> {
    /// The partition of the batch.
    pub(crate) partition: &'a TopicPartition,
    /// The position after the batch.
    pub(crate) to: Position,
    /// The identities of all records of the batch.
    pub(crate) identities: &'a Identities,
    /// What is still to be written. The step that writes the rows takes them out, so a
    /// step that needs them runs before it.
    pub(crate) decoded: DecodedRecords,
}

/// A step of the transaction that writes a batch.
///
/// A step may remember what it stored, in order not to read it again. That is valid
/// only as long as the compare-and-set of the position succeeds: after any error,
/// another recorder may have written. The owner of the steps drops them then.
pub(crate) trait Step {
    /// What the step did, in a transaction that is not committed yet.
    type Effect;

    /// Runs the statements of the step. It can't change what the step remembers,
    /// because the transaction may be rolled back.
    fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        write: &mut PendingWrite<'_>,
    ) -> Result<Self::Effect, TransactionError>;

    /// Remembers the effect after the transaction was committed.
    fn committed(&mut self, effect: Self::Effect);
}

/// All steps after the compare-and-set, in their order.
///
/// To add a step, add a field here, and a line in `Step::apply`, in
/// `Step::committed` and in `Effects`.
#[derive(Debug)]
pub struct Steps {
    dedup: SequenceTracker,
    quarantine: QuarantineStep,
    rows: RowsStep,
}

/// The step that writes the rows.
#[derive(Debug)]
enum RowsStep {
    Insert(InsertStep),
    Smart(Box<SmartStep>),
}

/// The effects of all steps.
#[derive(Debug)]
pub(crate) struct Effects {
    dedup: (i32, DedupOutcome),
    quarantined: usize,
    rows: RowsEffect,
}

/// The effect of the step that writes the rows.
#[derive(Debug)]
enum RowsEffect {
    Inserted(usize),
    Smart(SmartEffect),
}

impl Steps {
    /// Steps that remember nothing yet, for the table of a domain, in smart mode or
    /// in normal mode.
    pub fn new(table: &DomainTable, is_smart: bool) -> Self {
        let rows = if is_smart {
            RowsStep::Smart(Box::new(SmartStep::new(table)))
        } else {
            RowsStep::Insert(InsertStep::new(table))
        };
        Self { dedup: SequenceTracker::default(), quarantine: QuarantineStep, rows }
    }
}

impl Step for Steps {
    type Effect = Effects;

    fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        write: &mut PendingWrite<'_>,
    ) -> Result<Effects, TransactionError> {
        Ok(Effects {
            dedup: self.dedup.apply(transaction, write)?,
            quarantined: self.quarantine.apply(transaction, write)?,
            rows: match &self.rows {
                RowsStep::Insert(step) => RowsEffect::Inserted(step.apply(transaction, write)?),
                RowsStep::Smart(step) => RowsEffect::Smart(step.apply(transaction, write)?),
            },
        })
    }

    fn committed(&mut self, Effects { dedup, quarantined, rows }: Effects) {
        self.dedup.committed(dedup);
        self.quarantine.committed(quarantined);
        match (&mut self.rows, rows) {
            (RowsStep::Insert(step), RowsEffect::Inserted(count)) => step.committed(count),
            (RowsStep::Smart(step), RowsEffect::Smart(effect)) => step.committed(effect),
            // A step returns its own kind of effect.
            (RowsStep::Insert(_), RowsEffect::Smart(_))
            | (RowsStep::Smart(_), RowsEffect::Inserted(_)) => {}
        }
    }
}

impl Effects {
    fn written(&self, identities: &Identities) -> Written {
        let (_, dedup) = &self.dedup;
        let (inserted, merged) = match &self.rows {
            RowsEffect::Inserted(count) => (*count, 0),
            RowsEffect::Smart(effect) => (effect.inserted(), effect.merged()),
        };
        Written {
            inserted,
            merged,
            quarantined: self.quarantined,
            anomalies: Anomalies {
                duplicates: dedup.count_duplicates(),
                missing: dedup.count_missing(),
                malformed: identities.malformed,
                first_malformed: identities.first_malformed,
            },
        }
    }
}

/// What became of the records of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows that were inserted.
    pub inserted: usize,
    /// Records that were merged into rows.
    pub merged: usize,
    /// Records that went to quarantine.
    pub quarantined: usize,
    /// What was irregular in the identities of the records.
    pub anomalies: Anomalies,
}

impl AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.merged += other.merged;
        self.quarantined += other.quarantined;
        self.anomalies += other.anomalies;
    }
}

/// Writes batches of one domain.
#[derive(Debug)]
pub struct BatchWriter<'a> {
    /// The connections.
    pub database: &'a Database,
    /// Ends the wait for a connection.
    pub stop: &'a Stop,
    /// The longest that one transaction may take, with the answer to its commit.
    pub timeout: Duration,
    /// The labels in the database.
    pub labels: &'a Labels,
    /// The steps. They must be dropped after an error.
    pub steps: &'a mut Steps,
}

impl BatchWriter<'_> {
    /// Writes a batch and moves the position from `from` to the end of the batch.
    ///
    /// The database may refuse a row for reasons that can't be seen in its text: a
    /// character that the database's encoding lacks, a constraint that somebody
    /// added. The batch is then halved, and its halves again, until each refused row
    /// is alone and goes to quarantine. Each of these transactions is short, and what
    /// it wrote stays, however far away the database is and however much it refuses.
    ///
    /// # Errors
    /// See [`TransactionError`]. After an error, read the stored position before
    /// anything else, and drop the steps.
    pub fn write(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        mut batch: WriteBatch,
    ) -> Result<Written, TransactionError> {
        let to = from.after(&batch);
        let decoded = std::mem::take(&mut batch.decoded);
        let result = self.try_write(partition, from, to, decoded, &batch.identities);
        let Err(TransactionError::Postgres(cause @ PostgresError::Data(_))) = &result else {
            return result;
        };
        let Some([head, tail]) = batch.halve(self.labels) else {
            let refused = DecodedRecords::refused(&batch.records, &cause.to_string());
            return self.try_write(partition, from, to, refused, &batch.identities);
        };
        let middle = from.after(&head);
        let mut written = self.write(partition, from, head)?;
        written += self.write(partition, middle, tail)?;
        Ok(written)
    }

    fn try_write(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        to: Position,
        decoded: DecodedRecords,
        identities: &Identities,
    ) -> Result<Written, TransactionError> {
        let steps = &*self.steps;
        let effects = self.database.transaction(self.stop, self.timeout, |transaction| {
            // The first statement: it excludes every other recorder until the end.
            compare_and_set(transaction, partition, Some(from), to)?;
            steps.apply(transaction, &mut PendingWrite { partition, to, identities, decoded })
        })?;
        let written = effects.written(identities);
        self.steps.committed(effects);
        Ok(written)
    }
}
