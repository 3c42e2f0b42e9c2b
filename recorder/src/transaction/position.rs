//! Positions and gaps in the database. The stored position is authoritative: it decides which
//! records count as recorded.

use std::borrow::Cow;
use std::time::Duration;

use common::stop::Stop;
use kafka_client::Uuid;

use crate::decode::batch::WriteBatch;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::{Database, Transaction};
use crate::postgres::tables::{Table, column};

/// The stored position of each partition. Rows of a domain's table with an `id` up to
/// `counted_after_id` belong to an earlier topic of the same name, or to records that Kafka has
/// lost.
///
/// `leader_epoch` is the leader epoch of the last batch before the position, and
/// `leader_epoch_offset` is the offset after this batch. The epoch is valid only while this offset
/// equals `next_offset`, because recorders of earlier versions move only `next_offset`. Both are
/// null after a gap.
pub(crate) const OFFSET_TABLE: Table<'static> = Table {
    name: "availability_offset",
    columns: &[
        column("topic", "text not null"),
        column("partition", "integer not null"),
        column("topic_id", "uuid not null"),
        column("next_offset", "bigint not null"),
        column("counted_after_id", "bigint not null default 0"),
        column("updated_at", "timestamp with time zone not null default current_timestamp"),
    ],
    added: &[column("leader_epoch", "integer"), column("leader_epoch_offset", "bigint")],
    constraints: &[r#"primary key ("topic", "partition")"#],
};

/// Records that were never recorded, from `from_offset` inclusive to `to_offset` exclusive.
/// `to_offset` is null if the number of records is unknown. For missing sequence numbers both are
/// the offset of the next record.
pub(crate) const GAP_TABLE: Table<'static> = Table {
    name: "availability_gap",
    columns: &[
        column("id", "bigserial primary key"),
        column("topic", "text not null"),
        column("topic_id", "uuid not null"),
        column("partition", "integer not null"),
        column("from_offset", "bigint not null"),
        column("to_offset", "bigint"),
        column("reason", "text not null"),
        column("at", "timestamp with time zone not null default current_timestamp"),
    ],
    added: &[
        column("run", "uuid"),
        column("from_sequence", "bigint"),
        column("to_sequence", "bigint"),
    ],
    constraints: &[],
};

/// A partition, identified as in the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The name of the topic.
    pub topic: String,
    /// The number of the partition.
    pub number: i32,
}

/// The position in one partition, as stored in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The id of the topic that `next_offset` belongs to. A topic that was deleted and recreated
    /// has the same name but another id.
    pub topic_id: Uuid,
    /// The offset of the first record that is not recorded yet.
    pub next_offset: i64,
    /// Rows of the table up to this `id` belong to an earlier topic, or to records that Kafka has
    /// lost.
    pub counted_after_id: i64,
    /// The leader epoch of the last batch before `next_offset`. `None`: the epoch is unknown.
    pub leader_epoch: Option<i32>,
    /// Whether the table has the columns for the leader epoch. Earlier versions did not create
    /// them.
    pub stores_epoch: bool,
}

impl Position {
    /// Creates the position of a partition without any recorded record.
    pub fn unread(topic_id: Uuid, next_offset: i64, counted_after_id: i64) -> Self {
        Self { topic_id, next_offset, counted_after_id, leader_epoch: None, stores_epoch: false }
    }

    /// The position after a batch that begins at this position or later.
    ///
    /// # Panics
    /// The batch ends before the position. Its records would then be written twice.
    pub(crate) fn after(self, batch: &WriteBatch) -> Self {
        let (from, to) = (self.next_offset, batch.next_offset);
        assert!(from <= to, "a position never moves back: from {from} to {to}");
        // The epoch of an empty batch is unknown. The old epoch stays valid if the position does
        // not move.
        let leader_epoch = if from == to { self.leader_epoch } else { batch.leader_epoch };
        Self { next_offset: to, leader_epoch, ..self }
    }
}

/// Records that will not be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The topic of the records.
    pub topic_id: Uuid,
    /// The offset of the first missing record.
    pub from_offset: i64,
    /// The offset after the last missing record. `None`: the offset is unknown.
    pub to_offset: Option<i64>,
    /// The reason why the records are missing.
    pub reason: Cow<'static, str>,
}

/// Reads the stored position of a partition.
///
/// # Errors
/// See [`TransactionError`].
pub fn read_position(
    database: &Database,
    stop: &Stop,
    timeout: Duration,
    partition: &TopicPartition,
) -> Result<Option<Position>, TransactionError> {
    database.transaction(stop, timeout, |transaction| {
        // The row is read as JSON, because a table of an earlier version may lack the columns of
        // the epoch.
        let rows = transaction.query(
            r#"select "topic_id", "next_offset", "counted_after_id",
                (pg_catalog.to_jsonb(stored) ->> 'leader_epoch')::integer,
                (pg_catalog.to_jsonb(stored) ->> 'leader_epoch_offset')::bigint,
                pg_catalog.to_jsonb(stored) ?& array['leader_epoch', 'leader_epoch_offset']
            from "availability_offset" as stored where "topic" = $1 and "partition" = $2"#,
            &[&partition.topic, &partition.number],
        )?;
        let Some(row) = rows.first() else { return Ok(None) };
        let next_offset = row.try_get(1)?;
        let leader_epoch: Option<i32> = row.try_get(3)?;
        let leader_epoch_offset: Option<i64> = row.try_get(4)?;
        Ok(Some(Position {
            topic_id: row.try_get(0)?,
            next_offset,
            counted_after_id: row.try_get(2)?,
            leader_epoch: leader_epoch.filter(|_| leader_epoch_offset == Some(next_offset)),
            stores_epoch: row.try_get(5)?,
        }))
    })
}

/// Moves the position without writing rows, and stores the skipped gaps, in one transaction.
///
/// # Errors
/// [`TransactionError::Fenced`] if the stored position is not `from`.
pub fn skip_to(
    database: &Database,
    stop: &Stop,
    timeout: Duration,
    partition: &TopicPartition,
    from: Option<Position>,
    to: Position,
    gaps: &[Gap],
) -> Result<(), TransactionError> {
    database.transaction(stop, timeout, |transaction| {
        compare_and_set(transaction, partition, from, to)?;
        for Gap { topic_id, from_offset, to_offset, reason } in gaps {
            let TopicPartition { topic, number } = partition;
            transaction.execute(
                r#"insert into "availability_gap"
                ("topic", "partition", "topic_id", "from_offset", "to_offset", "reason")
                values ($1, $2, $3, $4, $5, $6)"#,
                &[topic, number, topic_id, from_offset, to_offset, reason],
            )?;
        }
        Ok(())
    })
}

/// Inserts the first position of a partition: $1 topic, $2 partition, $3 topic id, $4 next offset,
/// $5 `counted_after_id`. Changes no row if the partition has a position.
pub const POSITION_INSERT: &str = r#"insert into "availability_offset"
    ("topic", "partition", "topic_id", "next_offset", "counted_after_id")
    values ($1, $2, $3, $4, $5) on conflict ("topic", "partition") do nothing"#;

/// Moves the position of topic $1, partition $2 from topic id $3 and next offset $4 to topic id $5,
/// next offset $6 and `counted_after_id` $7. Changes no row if the stored position is another.
pub const POSITION_MOVE: &str = r#"update "availability_offset"
    set "topic_id" = $5, "next_offset" = $6, "counted_after_id" = $7,
        "updated_at" = pg_catalog.now()
    where "topic" = $1 and "partition" = $2 and "topic_id" = $3 and "next_offset" = $4"#;

/// [`POSITION_MOVE`] with the leader epoch $8, or null.
pub const POSITION_MOVE_WITH_EPOCH: &str = r#"update "availability_offset"
    set "topic_id" = $5, "next_offset" = $6, "counted_after_id" = $7, "leader_epoch" = $8,
        "leader_epoch_offset" = case when $8::integer is null then null else $6::bigint end,
        "updated_at" = pg_catalog.now()
    where "topic" = $1 and "partition" = $2 and "topic_id" = $3 and "next_offset" = $4"#;

/// Moves the stored position from `from` to `to`. No other function moves a position. The statement
/// locks the row of the position, so it excludes every other recorder until the transaction ends.
///
/// # Errors
/// [`TransactionError::Fenced`] if the stored position is not `from`.
pub(crate) fn compare_and_set(
    transaction: &mut Transaction<'_>,
    TopicPartition { topic, number }: &TopicPartition,
    from: Option<Position>,
    to: Position,
) -> Result<(), TransactionError> {
    let Position { topic_id, next_offset, counted_after_id, leader_epoch, stores_epoch } = &to;
    let moved = match &from {
        None => transaction
            .execute(POSITION_INSERT, &[topic, number, topic_id, next_offset, counted_after_id])?,
        Some(from) if *stores_epoch => transaction.execute(
            POSITION_MOVE_WITH_EPOCH,
            &[
                topic,
                number,
                &from.topic_id,
                &from.next_offset,
                topic_id,
                next_offset,
                counted_after_id,
                leader_epoch,
            ],
        )?,
        Some(from) => transaction.execute(
            POSITION_MOVE,
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
    if moved == 1 { Ok(()) } else { Err(TransactionError::Fenced) }
}
