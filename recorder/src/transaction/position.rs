//! The positions in the database, which are the only truth.

use std::time::Duration;

use common::stop::Stop;

use crate::domain::resume::{Gap, Position, Start, TableCount};
use crate::postgres::domain_table::TableSql;
use crate::postgres::pool::{Database, Transaction, WorkError};
use crate::postgres::sql;

/// How long reading or storing a position may take.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long counting a table of 1.1.0 may take.
const COUNT_TIMEOUT: Duration = Duration::from_secs(660);

/// A partition as the database names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub number: i32,
}

/// The position stored for a partition.
///
/// # Errors
/// See [`WorkError`].
pub fn read_position(
    database: &Database,
    stop: &Stop,
    partition: &Partition,
) -> Result<Option<Position>, WorkError> {
    database.transaction(stop, READ_TIMEOUT, |transaction| {
        let found = transaction.query(sql::POSITION, &[&partition.topic, &partition.number])?;
        let Some(row) = found.first() else { return Ok(None) };
        Ok(Some(Position {
            topic_id: row.try_get(0)?,
            next_offset: row.try_get(1)?,
            counted_after_id: row.try_get(2)?,
        }))
    })
}

/// What a table of 1.1.0 tells of the rows after an `id`.
///
/// # Errors
/// See [`WorkError`].
pub fn count_table(
    database: &Database,
    stop: &Stop,
    table: &TableSql,
    after_id: i64,
) -> Result<TableCount, WorkError> {
    database.transaction(stop, COUNT_TIMEOUT, |transaction| {
        transaction.batch(sql::COUNT_BOUNDS)?;
        let found = transaction.query(&table.count, &[&after_id])?;
        let none = TableCount { highest_offset: None, last_id: 0 };
        found.first().map_or(Ok(none), |row| {
            Ok(TableCount { highest_offset: row.try_get(0)?, last_id: row.try_get(1)? })
        })
    })
}

/// Stores where reading starts or goes on, with the gaps before it.
///
/// # Errors
/// [`WorkError::Fenced`] when the stored position is not `from` any more.
pub fn store_start(
    database: &Database,
    stop: &Stop,
    partition: &Partition,
    from: Option<Position>,
    start: &Start,
) -> Result<(), WorkError> {
    database.transaction(stop, READ_TIMEOUT, |transaction| {
        move_position(transaction, partition, from, start.position)?;
        for Gap { topic_id, from_offset, to_offset, reason } in &start.gaps {
            let Partition { topic, number } = partition;
            transaction.execute(
                sql::GAP_INSERT,
                &[topic, number, topic_id, from_offset, to_offset, reason],
            )?;
        }
        Ok(())
    })
}

/// The one way in which a position moves: exactly one row, from exactly where
/// it was left, or not at all.
///
/// # Errors
/// [`WorkError::Fenced`] when it was not there.
pub fn move_position(
    transaction: &mut Transaction<'_>,
    Partition { topic, number }: &Partition,
    from: Option<Position>,
    to: Position,
) -> Result<(), WorkError> {
    let Position { topic_id, next_offset, counted_after_id } = &to;
    let moved = match &from {
        None => transaction.execute(
            sql::POSITION_INSERT,
            &[topic, number, topic_id, next_offset, counted_after_id],
        )?,
        Some(from) => transaction.execute(
            sql::POSITION_MOVE,
            &[
                topic,
                number,
                &from.topic_id,
                &from.next_offset,
                topic_id,
                next_offset,
                counted_after_id,
            ],
        )?,
    };
    if moved == 1 { Ok(()) } else { Err(WorkError::Fenced) }
}
