//! The rows of the table `availability_quarantine`, as a replay reads and changes them.
//!
//! A replay locks a row before it changes or deletes the row. A row that another session has locked
//! is skipped.

use common::identity::Identity;

use crate::postgres::error::TransactionError;
use crate::postgres::pool::Transaction;
use crate::postgres::tables::existing_relations;
use crate::transaction::quarantine::QUARANTINE_TABLE;

/// The partition and the offset of a record in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordRef {
    /// The `id` of the row in quarantine.
    pub(super) id: i64,
    /// The partition of the record.
    pub(super) partition: i32,
    /// The offset of the record.
    pub(super) offset: i64,
}

/// A record in quarantine, locked until the end of the transaction.
#[derive(Debug)]
pub(super) struct LockedRecord {
    pub(super) id: i64,
    pub(super) offset: i64,
    pub(super) value: Option<Vec<u8>>,
    pub(super) reason: String,
    pub(super) identity: Option<Identity>,
}

/// The topics that have records in quarantine. `None`: the table does not exist.
pub(super) fn topics(
    transaction: &mut Transaction<'_>,
) -> Result<Option<Vec<String>>, TransactionError> {
    if existing_relations(transaction, &[QUARANTINE_TABLE.name])?.is_empty() {
        return Ok(None);
    }
    let rows =
        transaction.query(r#"select distinct "topic" from "availability_quarantine""#, &[])?;
    Ok(Some(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?))
}

/// The highest `id` of the records of a topic. `None`: the topic has no records in quarantine.
pub(super) fn last_id(
    transaction: &mut Transaction<'_>,
    topic: &str,
) -> Result<Option<i64>, TransactionError> {
    let rows = transaction.query(
        r#"select max("id") from "availability_quarantine" where "topic" = $1"#,
        &[&topic],
    )?;
    Ok(rows.first().map_or(Ok(None), |row| row.try_get(0))?)
}

/// The next records of a topic with an `id` above `after_id` and up to `last_id`. Returns at most
/// `count_max` records. Their values have at most `bytes_max` together, unless the first value
/// alone is larger.
pub(super) fn next_records(
    transaction: &mut Transaction<'_>,
    topic: &str,
    (after_id, last_id): (i64, i64),
    count_max: i64,
    bytes_max: i64,
) -> Result<Vec<RecordRef>, TransactionError> {
    let rows = transaction.query(
        r#"select "id", "partition", "offset", coalesce(octet_length("bytes"), 0)::bigint
        from "availability_quarantine" where "topic" = $1 and "id" > $2 and "id" <= $3
        order by "id" limit $4"#,
        &[&topic, &after_id, &last_id, &count_max],
    )?;
    let mut records = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for row in &rows {
        bytes += row.try_get::<_, i64>(3)?;
        if bytes > bytes_max && !records.is_empty() {
            break;
        }
        records.push(RecordRef {
            id: row.try_get(0)?,
            partition: row.try_get(1)?,
            offset: row.try_get(2)?,
        });
    }
    Ok(records)
}

/// Locks the records with these `id`s. Skips records that no longer exist or that another session
/// has locked.
pub(super) fn lock(
    transaction: &mut Transaction<'_>,
    ids: &[i64],
) -> Result<Vec<LockedRecord>, TransactionError> {
    let rows = transaction.query(
        r#"select "id", "offset", "bytes", "reason", "run", "sequence"
        from "availability_quarantine" where "id" = any($1::bigint[])
        order by "id" for update skip locked"#,
        &[&ids],
    )?;
    let record = |row: &postgres::Row| {
        Ok(LockedRecord {
            id: row.try_get(0)?,
            offset: row.try_get(1)?,
            value: row.try_get(2)?,
            reason: row.try_get(3)?,
            identity: match (row.try_get(4)?, row.try_get(5)?) {
                (Some(run), Some(sequence)) => Some(Identity { run, sequence }),
                _ => None,
            },
        })
    };
    Ok(rows.iter().map(record).collect::<Result<_, postgres::Error>>()?)
}

/// The number of existing records with these `id`s.
pub(super) fn count(
    transaction: &mut Transaction<'_>,
    ids: &[i64],
) -> Result<i64, TransactionError> {
    let rows = transaction.query(
        r#"select count(*) from "availability_quarantine" where "id" = any($1::bigint[])"#,
        &[&ids],
    )?;
    Ok(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
}

/// The number of records of a topic with an `id` up to `last_id`.
pub(super) fn count_up_to(
    transaction: &mut Transaction<'_>,
    topic: &str,
    last_id: i64,
) -> Result<i64, TransactionError> {
    let rows = transaction.query(
        r#"select count(*) from "availability_quarantine" where "topic" = $1 and "id" <= $2"#,
        &[&topic, &last_id],
    )?;
    Ok(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
}

/// Deletes records. Fails if one of the records does not exist.
pub(super) fn delete(
    transaction: &mut Transaction<'_>,
    ids: &[i64],
) -> Result<(), TransactionError> {
    if ids.is_empty() {
        return Ok(());
    }
    let deleted = transaction.execute(
        r#"delete from "availability_quarantine" where "id" = any($1::bigint[])"#,
        &[&ids],
    )?;
    if deleted == ids.len() as u64 { Ok(()) } else { Err(TransactionError::MergeTargetMissing) }
}

/// Sets the reasons of records. `reasons` has one reason for each `id`.
pub(super) fn set_reasons(
    transaction: &mut Transaction<'_>,
    ids: &[i64],
    reasons: &[String],
) -> Result<(), TransactionError> {
    if !ids.is_empty() {
        transaction.execute(
            r#"update "availability_quarantine" as old set "reason" = new.r
            from unnest($1::bigint[], $2::text[]) as new(i, r) where old."id" = new.i"#,
            &[&ids, &reasons],
        )?;
    }
    Ok(())
}
