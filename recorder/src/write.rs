//! One batch of one partition written in one transaction: the new position,
//! the rows, and what goes to quarantine.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use common::kafka::FetchedRecord;
use common::postgres::PostgresError;
use common::stop::Stop;

use crate::columns::Columns;
use crate::database::{Database, Transaction, WorkError};
use crate::marks::{Identities, Irregular, Marks};
use crate::offsets::{Partition, move_position};
use crate::position::Position;
use crate::rows::{Labels, Rejected, Row};
use crate::smart::{self, Memory, Plan};
use crate::sql::{self, TableSql};

/// How long a batch may take, from its first statement to the commit's answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that can't be a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantined {
    /// Their offset.
    pub offset: i64,
    /// The record's value; none when it had none.
    pub bytes: Option<Vec<u8>>,
    /// Why.
    pub reason: Rejected,
}

/// What of a partition is written together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// In the order of their offsets.
    pub rows: Vec<Row>,
    /// In the order of their offsets.
    pub quarantined: Vec<Quarantined>,
}

impl Batch {
    /// From the records of a fetch; those that the database `refused`, by
    /// offset with its words, go to quarantine like those that are no rows.
    pub fn new(records: &[FetchedRecord], labels: &Labels, refused: &HashMap<i64, String>) -> Self {
        let mut batch = Self::default();
        for record in records {
            let row = match refused.get(&record.offset) {
                Some(words) => Err(Rejected::Database(words.clone())),
                None => Row::new(record.offset, record.value.as_deref(), labels),
            };
            match row {
                Ok(row) => batch.rows.push(row),
                Err(reason) => batch.quarantined.push(Quarantined {
                    offset: record.offset,
                    bytes: record.value.as_ref().map(|value| value.to_vec()),
                    reason,
                }),
            }
        }
        batch
    }

    /// Leaves out the records at these offsets.
    fn leave_out(&mut self, offsets: &HashSet<i64>) {
        self.rows.retain(|row| !offsets.contains(&row.topic_offset));
        self.quarantined.retain(|record| !offsets.contains(&record.offset));
    }
}

/// What became of a batch's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// New rows.
    pub inserted: usize,
    /// Records merged into rows.
    pub merged: usize,
    /// Records in quarantine.
    pub quarantined: usize,
    /// What their identities told.
    pub irregular: Irregular,
}

/// Who writes where: the same for all batches of a domain.
#[derive(Debug)]
pub struct Writer<'a> {
    /// The connections.
    pub database: &'a Database,
    /// Ends waiting for a connection.
    pub stop: &'a Stop,
    /// The domain's table.
    pub table: &'a TableSql,
    /// The labels of its enums.
    pub labels: &'a Labels,
    /// What smart mode remembers; none in normal mode.
    pub memory: Option<&'a mut Memory>,
    /// Which results of each run are recorded.
    pub marks: &'a mut Marks,
}

impl Writer<'_> {
    /// Writes records and moves the position.
    ///
    /// When the database refuses a row, which its text alone can't foretell (a
    /// character that its encoding lacks, a constraint that somebody added),
    /// the refused rows go to quarantine and the others are written.
    ///
    /// # Errors
    /// See [`WorkError`]; after any, the position is to be read back before
    /// anything else, with the marks forgotten, as smart mode's memory is then.
    pub fn write(
        &mut self,
        partition: &Partition,
        from: Position,
        to: Position,
        records: &[FetchedRecord],
    ) -> Result<Written, WorkError> {
        let labels = self.labels;
        let batch = |refused: &HashMap<i64, String>| Batch::new(records, labels, refused);
        let identities = Identities::new(records);
        let mut result = self.try_write(partition, from, to, batch(&HashMap::new()), &identities);
        if let Err(WorkError::Postgres(PostgresError::Data(_))) = result {
            result = self.refused(batch(&HashMap::new()).rows).and_then(|refused| {
                self.try_write(partition, from, to, batch(&refused), &identities)
            });
        }
        if result.is_err()
            && let Some(memory) = &mut self.memory
        {
            **memory = Memory::default();
        }
        result
    }

    fn try_write(
        &mut self,
        partition: &Partition,
        from: Position,
        to: Position,
        mut batch: Batch,
        identities: &Identities,
    ) -> Result<Written, WorkError> {
        let (table, memory) = (self.table, self.memory.as_deref());
        let marks = &*self.marks;
        let work = |transaction: &mut Transaction<'_>| {
            // First of all: it excludes every other recorder until the end.
            move_position(transaction, partition, Some(from), to)?;
            // What goes to quarantine moves the marks like what becomes a row.
            let judged = marks.judge(transaction, partition, to.topic_id, identities)?;
            batch.leave_out(&judged.dropped);
            quarantine(transaction, partition, to, &batch.quarantined)?;
            let plan = match memory {
                Some(memory) => smart::plan(transaction, table, memory, batch.rows)?,
                None => Plan::without_merging(batch.rows),
            };
            merge(transaction, table, &plan)?;
            let ids = insert(transaction, table, &plan.inserts)?.into_iter().collect();
            Ok((plan, ids, judged, batch.quarantined.len()))
        };
        let (plan, ids, judged, quarantined) =
            self.database.transaction(self.stop, WRITE_TIMEOUT, work)?;
        self.marks.keep(partition.number, &judged);
        let irregular = judged.irregular(identities);
        let (inserted, merged) = (plan.inserts.len(), plan.merged);
        let written = Written { inserted, merged, quarantined, irregular };
        if let Some(memory) = &mut self.memory {
            memory.keep(plan, &ids);
        }
        Ok(written)
    }

    /// The rows that the database refuses, by offset with its words: each is
    /// tried by itself and undone.
    fn refused(&self, rows: Vec<Row>) -> Result<HashMap<i64, String>, WorkError> {
        self.database.transaction(self.stop, WRITE_TIMEOUT, |transaction| {
            let mut refused = HashMap::new();
            for row in rows {
                let one = std::slice::from_ref(&row);
                match transaction.probe(|nested| insert(nested, self.table, one))? {
                    Ok(_) => {}
                    Err(error @ PostgresError::Data(_)) => {
                        refused.insert(row.topic_offset, error.to_string());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(refused)
        })
    }
}

/// Adds rows; the offset and the `id` of each.
///
/// # Errors
/// See [`PostgresError`].
pub fn insert(
    transaction: &mut Transaction<'_>,
    table: &TableSql,
    rows: &[Row],
) -> Result<Vec<(i64, i64)>, PostgresError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let inserted = transaction.query(&table.insert, &Columns::new(rows).parameters())?;
    let ids = inserted.iter().map(|row| Ok((row.try_get(1)?, row.try_get(0)?)));
    Ok(ids.collect::<Result<_, postgres::Error>>()?)
}

fn merge(
    transaction: &mut Transaction<'_>,
    table: &TableSql,
    plan: &Plan,
) -> Result<(), WorkError> {
    if plan.merges.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = plan.merges.keys().copied().collect();
    let times: Vec<i64> = plan.merges.values().map(|place| place.event_time).collect();
    let offsets: Vec<i64> = plan.merges.values().map(|place| place.topic_offset).collect();
    let merged = transaction.execute(&table.merge, &[&ids, &times, &offsets])?;
    if merged == ids.len() as u64 { Ok(()) } else { Err(WorkError::RowGone) }
}

fn quarantine(
    transaction: &mut Transaction<'_>,
    Partition { topic, number }: &Partition,
    position: Position,
    quarantined: &[Quarantined],
) -> Result<(), WorkError> {
    if quarantined.is_empty() {
        return Ok(());
    }
    let offsets: Vec<i64> = quarantined.iter().map(|record| record.offset).collect();
    let bytes: Vec<Option<&[u8]>> = quarantined.iter().map(|r| r.bytes.as_deref()).collect();
    let reasons: Vec<String> = quarantined.iter().map(|r| r.reason.reason()).collect();
    transaction.execute(
        sql::QUARANTINE_INSERT,
        &[topic, number, &position.topic_id, &offsets, &bytes, &reasons],
    )?;
    Ok(())
}
