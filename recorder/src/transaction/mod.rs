//! The PostgreSQL transaction that writes one batch of one partition. Each step has its own file,
//! in this order:
//!
//! 1. `position`: the compare-and-set of the position, which excludes every other
//!    recorder until the transaction ends;
//! 2. `dedup`: drops results that are already recorded, and stores marks and gaps;
//! 3. `quarantine`: stores records that can't be stored as rows;
//! 4. [`insert`], or in smart mode `smart` with the rules of `merge`: stores the rows.
//!
//! A position never moves without its rows, quarantined records or gaps, because all are in the
//! same transaction. So each record is recorded exactly once.

pub mod batch_size;
pub(crate) mod dedup;
pub mod insert;
pub(crate) mod mark_cleanup;
pub(crate) mod merge;
mod own_cause;
pub mod position;
pub(crate) mod quarantine;
mod record_timeouts;
pub(crate) mod smart;

use std::cell::Cell;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::stop::Stop;
use postgres_client::PostgresError;

use self::batch_size::BatchSize;
use self::dedup::{DedupOutcome, SequenceTracker};
use self::insert::InsertStep;
use self::position::{Position, TopicPartition, compare_and_set};
use self::quarantine::{QuarantineEffect, QuarantineStep};
use self::record_timeouts::RecordTimeouts;
use self::smart::{SmartEffect, SmartStep};
use crate::decode::batch::{DecodedRecords, WriteBatch};
use crate::decode::identities::Identities;
use crate::decode::labels::Labels;
use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::{Database, Transaction};
use crate::postgres::tables::{MissingColumns, Table};
use crate::report::anomalies::Anomalies;
use crate::report::quarantine_log::QuarantineLog;
use crate::timings::Timings;

/// The tables that the steps write to, in addition to the tables of domains.
pub(crate) const TABLES: &[Table<'static>] =
    &[position::OFFSET_TABLE, position::GAP_TABLE, dedup::MARK_TABLE, quarantine::QUARANTINE_TABLE];

/// A batch that passes through the steps. A step may remove records.
#[derive(Debug)]
pub(crate) struct PendingWrite<'a> {
    /// The partition of the batch.
    pub(crate) partition: &'a TopicPartition,
    /// The position after the batch.
    pub(crate) to: Position,
    /// The identities of all records of the batch.
    pub(crate) identities: &'a Identities,
    /// The decoded records that are not written yet. The step that writes the rows removes them, so
    /// a step that needs the rows must run before.
    pub(crate) decoded: DecodedRecords,
}

/// A step of the transaction that writes a batch.
///
/// A step may remember the values that it stored, so that it need not read them again. They are
/// valid only as long as the compare-and-set of the position succeeds. After any error, another
/// recorder may have written, so the owner of the steps drops them.
pub(crate) trait Step {
    /// The effect of the step in a transaction that is not committed yet.
    type Effect;

    /// Runs the statements of the step. Must not change the remembered values, because the
    /// transaction may be rolled back.
    fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        write: &mut PendingWrite<'_>,
    ) -> Result<Self::Effect, TransactionError>;

    /// Remembers the effect. Called after the transaction was committed.
    fn committed(&mut self, effect: Self::Effect);
}

/// All steps after the compare-and-set, in their order.
///
/// A new step needs a field here, and a line in `Step::apply`, in `Step::committed` and in
/// `Effects`.
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
    quarantined: QuarantineEffect,
    rows: RowsEffect,
}

/// The effect of the step that writes the rows.
#[derive(Debug)]
enum RowsEffect {
    Inserted(usize),
    Smart(SmartEffect),
}

impl Steps {
    /// Creates steps without remembered values, for the table of a domain, in smart mode or in
    /// normal mode.
    pub fn new(table: &DomainTable, is_smart: bool) -> Self {
        Self::without(table, is_smart, &MissingColumns::default())
    }

    /// Like [`Steps::new`], for tables with missing columns. Smart mode needs all columns of the
    /// domain's table. If one is missing, each record is stored as a row of its own.
    pub(crate) fn without(table: &DomainTable, is_smart: bool, missing: &MissingColumns) -> Self {
        let rows = if is_smart && missing.is_complete(table.name()) {
            RowsStep::Smart(Box::new(SmartStep::new(table)))
        } else {
            RowsStep::Insert(InsertStep::new(table, missing))
        };
        Self {
            dedup: SequenceTracker::new(missing),
            quarantine: QuarantineStep::new(missing),
            rows,
        }
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
            quarantined: self.quarantined.stored,
            anomalies: Anomalies {
                duplicates: dedup.count_duplicates(),
                missing: dedup.count_missing(),
                malformed: identities.malformed,
                first_malformed: identities.first_malformed,
            },
        }
    }
}

/// The numbers of records of a batch by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// The number of inserted rows.
    pub inserted: usize,
    /// The number of records that were merged into rows.
    pub merged: usize,
    /// The number of records that went to quarantine.
    pub quarantined: usize,
    /// The irregular identities of the records.
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

/// The state that a worker keeps from batch to batch, also after an error.
#[derive(Debug)]
pub struct WriteState {
    /// The number of records that the next transaction writes.
    pub size: BatchSize,
    /// The log of records that go to quarantine.
    pub quarantine: QuarantineLog,
    timeouts: RecordTimeouts,
}

impl WriteState {
    /// Creates the state of a domain before its first write.
    pub fn new(domain: Domain, timings: &Timings) -> Self {
        Self {
            size: BatchSize::default(),
            quarantine: QuarantineLog::new(domain, timings.anomaly_log_interval),
            timeouts: RecordTimeouts::new(timings.timeout_quarantine_after),
        }
    }
}

/// Writes batches of one domain.
#[derive(Debug)]
pub struct BatchWriter<'a> {
    /// The connections.
    pub database: &'a Database,
    /// Ends the wait for a connection.
    pub stop: &'a Stop,
    /// The time-out of one transaction, including the answer to its commit.
    pub timeout: Duration,
    /// The table of the domain.
    pub table: &'a DomainTable,
    /// The labels in the database.
    pub labels: &'a Labels,
    /// The steps. They must be dropped after an error.
    pub steps: &'a mut Steps,
    /// The state that is kept after an error.
    pub state: &'a mut WriteState,
}

impl BatchWriter<'_> {
    /// Writes a batch, and moves the position from `from` to the end of the batch.
    ///
    /// The database may refuse a row for reasons that the recorder can't detect in its text: a
    /// character that is missing in the encoding of the database, or a constraint or a trigger that
    /// a user has added. The batch is then halved, again and again, until each refused row is alone
    /// and goes to quarantine. Each of these transactions is short, and stays committed. So this
    /// makes progress even if the database is far away or refuses many rows.
    ///
    /// A record that times out alone, several times over some minutes, goes to quarantine, too. The
    /// transaction that stores it there shows that the database accepts other writes.
    ///
    /// # Errors
    /// See [`TransactionError`]. After an error, the caller must first read the stored position,
    /// and drop the steps.
    pub fn write(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        mut batch: WriteBatch,
    ) -> Result<Written, TransactionError> {
        let to = from.after(&batch);
        let decoded = std::mem::take(&mut batch.decoded);
        match self.try_write(partition, from, to, decoded, &batch) {
            Err(TransactionError::Postgres(cause)) => match cause {
                PostgresError::Data(_) => self.write_refused(partition, from, batch, cause),
                PostgresError::Timeout(_) => self.write_timed_out(partition, from, &batch, cause),
                PostgresError::Setup(_) => Err(self.explain(cause)?),
                cause => Err(cause.into()),
            },
            result => result,
        }
    }

    /// Writes the halves of a batch after the database refused a row. A single row goes to
    /// quarantine.
    fn write_refused(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        mut batch: WriteBatch,
        cause: PostgresError,
    ) -> Result<Written, TransactionError> {
        let cause = match self.explain(cause)? {
            TransactionError::Postgres(cause) => cause,
            explained => return Err(explained),
        };
        let Some([head, tail]) = batch.halve(self.labels) else {
            let written = self.quarantine(partition, from, &batch, &cause)?;
            if written.quarantined > 0
                && let (Some(code), Some(record)) = (cause.code(), batch.records.last())
            {
                let (number, offset) = (partition.number, record.offset);
                self.state.quarantine.record_refusal(code, number, offset, Instant::now());
            }
            return Ok(written);
        };
        let middle = from.after(&head);
        let mut written = self.write(partition, from, head)?;
        written += self.write(partition, middle, tail)?;
        Ok(written)
    }

    /// Makes the next batch smaller. A single record goes to quarantine after enough attempts.
    fn write_timed_out(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        batch: &WriteBatch,
        cause: PostgresError,
    ) -> Result<Written, TransactionError> {
        self.state.size.record_timeout(batch.records.len());
        let [record] = batch.records.as_slice() else { return Err(cause.into()) };
        let timeouts = &mut self.state.timeouts;
        if !timeouts.record(partition.number, record.offset, Instant::now()) {
            return Err(cause.into());
        }
        self.quarantine(partition, from, batch, &cause)
    }

    /// Sends the records of a batch to quarantine because of this error of the database.
    fn quarantine(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        batch: &WriteBatch,
        cause: &PostgresError,
    ) -> Result<Written, TransactionError> {
        let to = Position { next_offset: batch.next_offset, ..from };
        let refused = DecodedRecords::refused(&batch.records, &cause.to_string());
        self.try_write(partition, from, to, refused, batch)
    }

    /// Adds the action that an operator must take, if the recorder's own schema is the cause.
    fn explain(&self, cause: PostgresError) -> Result<TransactionError, TransactionError> {
        let Self { database, stop, timeout, table, .. } = *self;
        let remedy = own_cause::find_remedy(database, stop, timeout, table, &cause)?;
        Ok(match remedy {
            Some(remedy) => TransactionError::OwnSchema { cause, remedy },
            None => cause.into(),
        })
    }

    fn try_write(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        to: Position,
        decoded: DecodedRecords,
        WriteBatch { records, identities, .. }: &WriteBatch,
    ) -> Result<Written, TransactionError> {
        let steps = &*self.steps;
        // The wait for a free connection does not depend on the size of the batch.
        let started = Cell::new(None);
        let effects = self.database.transaction(self.stop, self.timeout, |transaction| {
            started.set(Some(Instant::now()));
            // This must be the first statement: it excludes every other recorder until the end.
            compare_and_set(transaction, partition, Some(from), to)?;
            steps.apply(transaction, &mut PendingWrite { partition, to, identities, decoded })
        })?;
        let took = started.get().map_or(Duration::ZERO, |started| started.elapsed());
        let WriteState { size, quarantine, .. } = &mut *self.state;
        size.record_commit(records.len(), took);
        let written = effects.written(identities);
        if written.inserted + written.merged > 0 {
            quarantine.record_row();
        }
        if let Some((offset, reason)) = &effects.quarantined.last {
            quarantine.add(written.quarantined, partition.number, *offset, reason.clone());
        }
        self.steps.committed(effects);
        Ok(written)
    }
}
