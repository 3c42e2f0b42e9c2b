//! One batch of one partition written in one transaction: the new position,
//! the rows, and what goes to quarantine.

pub mod dedup;
pub mod insert;
pub mod merge;
pub mod position;
pub mod smart;

use std::collections::HashMap;
use std::ops::AddAssign;
use std::time::Duration;

use common::stop::Stop;
use kafka_client::Uuid;
use postgres_client::PostgresError;

use crate::decode::batch::{Batch, Part, Quarantined};
use crate::decode::row::{Labels, Row};
use crate::domain::resume::Position;
use crate::postgres::domain_table::TableSql;
use crate::postgres::pool::{Database, Transaction, WorkError};
use crate::postgres::sql;
use crate::transaction::dedup::{Identities, Irregular, Marks};
use crate::transaction::insert::Columns;
use crate::transaction::position::{Partition, move_position};
use crate::transaction::smart::{Memory, Plan};

/// How long a batch may take, from its first statement to the commit's answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

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

impl AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.merged += other.merged;
        self.quarantined += other.quarantined;
        self.irregular += other.irregular;
    }
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
    /// Writes a part and moves the position behind it.
    ///
    /// When the database refuses a row, which its text alone can't foretell (a
    /// character that its encoding lacks, a constraint that somebody added), the
    /// halves are written by themselves, and their halves, until each refused
    /// row is alone and goes to quarantine. However far away the database is and
    /// however much it refuses, each of these transactions is short and what it
    /// wrote stays.
    ///
    /// # Errors
    /// See [`WorkError`]; after any, the position is to be read back before
    /// anything else, with the marks forgotten, as smart mode's memory is then.
    pub fn write(
        &mut self,
        partition: &Partition,
        from: Position,
        part: Part,
    ) -> Result<Written, WorkError> {
        let result = self.write_or_halve(partition, from, part);
        if result.is_err()
            && let Some(memory) = &mut self.memory
        {
            **memory = Memory::default();
        }
        result
    }

    fn write_or_halve(
        &mut self,
        partition: &Partition,
        from: Position,
        Part { mut records, batch, identities, next_offset }: Part,
    ) -> Result<Written, WorkError> {
        let to = Position { next_offset, ..from };
        let result = self.try_write(partition, from, to, batch, &identities);
        let Err(WorkError::Postgres(cause @ PostgresError::Data(_))) = &result else {
            return result;
        };
        if records.len() < 2 {
            let refused = Batch::new(&records, self.labels, Some(&cause.to_string()));
            return self.try_write(partition, from, to, refused, &identities);
        }
        let tail = records.split_off(records.len() / 2);
        let middle = tail.first().map_or(next_offset, |first| first.offset);
        let head = Part::new(records, self.labels, middle);
        let tail = Part::new(tail, self.labels, next_offset);
        let mut written = self.write_or_halve(partition, from, head)?;
        let from = Position { next_offset: middle, ..from };
        written += self.write_or_halve(partition, from, tail)?;
        Ok(written)
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
            let ids = match memory {
                Some(_) => insert(transaction, table, &plan.inserts)?.into_iter().collect(),
                None => {
                    insert_only(transaction, table, &plan.inserts)?;
                    HashMap::new()
                }
            };
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
    let inserted = transaction.query(&table.insert_returning, &Columns::new(rows).parameters())?;
    let ids = inserted.iter().map(|row| Ok((row.try_get(1)?, row.try_get(0)?)));
    Ok(ids.collect::<Result<_, postgres::Error>>()?)
}

/// As [`insert`], for who does not need to know: an answer for each row is a
/// tenth of the work.
fn insert_only(
    transaction: &mut Transaction<'_>,
    table: &TableSql,
    rows: &[Row],
) -> Result<(), PostgresError> {
    if !rows.is_empty() {
        transaction.execute(&table.insert, &Columns::new(rows).parameters())?;
    }
    Ok(())
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
    let merges = || plan.merges.values();
    let times: Vec<i64> = merges().map(|merge| merge.place.event_time).collect();
    let offsets: Vec<i64> = merges().map(|merge| merge.place.topic_offset).collect();
    let results: Vec<i64> = merges().map(|merge| merge.results).collect();
    let slots: Vec<Option<i64>> = merges().map(|merge| merge.slot).collect();
    let sequences: Vec<Option<i64>> = merges().map(|merge| merge.sequence).collect();
    let merged = transaction
        .execute(&table.merge, &[&ids, &times, &offsets, &results, &slots, &sequences])?;
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
    let identities = || quarantined.iter().map(|record| record.identity);
    let runs: Vec<Option<Uuid>> = identities().map(|it| it.map(|it| it.run)).collect();
    let sequences: Vec<Option<i64>> = identities().map(|it| it.map(|it| it.sequence)).collect();
    transaction.execute(
        sql::QUARANTINE_INSERT,
        &[topic, number, &position.topic_id, &offsets, &bytes, &reasons, &runs, &sequences],
    )?;
    Ok(())
}
