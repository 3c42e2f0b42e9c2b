//! Errors that look like errors of a row, but are caused by the recorder's own schema: a sequence
//! that is behind after a restore, or a sequence that has passed 32 bits. No record goes to
//! quarantine for these errors. An operator must run a statement, which the error names.

use std::time::Duration;

use common::stop::Stop;
use postgres_client::PostgresError;

use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::{Database, Transaction};
use crate::postgres::quote::literal;

/// The prefix of the names of the recorder's own tables.
const OWN_TABLES: &str = "availability_";

/// The SQLSTATEs for a value that is not unique, a number that is out of range, and a sequence that
/// has reached its end.
const UNIQUE_VIOLATION: &str = "23505";
const OUT_OF_RANGE: &str = "22003";
const SEQUENCE_AT_END: &str = "2200H";

/// Returns the table of a primary key and the sequence of its column `id`. Parameters: $1 the
/// primary key, $2 its table, $3 the schema, $4 the domain's table. The key must hold the column
/// `id`. The table must be the domain's table, a partition of it, or one of the recorder's own
/// tables.
const KEY_SQL: &str = r"
    select root::text, pg_catalog.pg_get_serial_sequence(root::text, 'id')
    from (select coalesce(pg_catalog.pg_partition_root(t.oid), t.oid)::regclass as root, t.relname
        from pg_catalog.pg_constraint as c
        join pg_catalog.pg_class as t on t.oid = c.conrelid
        join pg_catalog.pg_namespace as n on n.oid = t.relnamespace
        where c.contype = 'p' and c.conname = $1::text and t.relname = $2::text
            and n.nspname = $3::text and exists (select from pg_catalog.pg_attribute as a
                where a.attrelid = t.oid and a.attname = 'id' and a.attnum = any(c.conkey))
        ) as keys
    where relname like 'availability\_%'
        or root = pg_catalog.to_regclass(pg_catalog.quote_ident($4::text))";

/// Returns the table $1 if its column `id` is an integer, the sequence of `id`, and whether the
/// sequence has reached the highest integer.
const ID_SQL: &str = r"
    select root::text, seq, coalesce(
        pg_catalog.pg_sequence_last_value(seq::regclass) >= 2147483647, false)
    from (select root, pg_catalog.pg_get_serial_sequence(root::text, 'id') as seq
        from (select pg_catalog.to_regclass(pg_catalog.quote_ident($1::text)) as root) as named
        join pg_catalog.pg_attribute as a on a.attrelid = root and a.attname = 'id'
            and a.atttypid = 'pg_catalog.int4'::regtype) as ids";

/// Returns the action that an operator must take if the recorder's own schema is the cause of the
/// error. `None`: the schema is not the cause.
///
/// # Errors
/// See [`TransactionError`].
pub(super) fn find_remedy(
    database: &Database,
    stop: &Stop,
    timeout: Duration,
    table: &DomainTable,
    error: &PostgresError,
) -> Result<Option<String>, TransactionError> {
    let is_own_table = error.table().is_some_and(|name| name.starts_with(OWN_TABLES));
    let remedy = match error.code() {
        Some(UNIQUE_VIOLATION) => {
            database.transaction(stop, timeout, |it| sequence_behind(it, table, error))?
        }
        Some(code @ (OUT_OF_RANGE | SEQUENCE_AT_END)) => {
            let is_at_end = code == SEQUENCE_AT_END;
            database.transaction(stop, timeout, |it| id_used_up(it, table, is_at_end))?
        }
        _ => None,
    };
    let own = || format!("table {} refuses this", error.table().unwrap_or_default());
    Ok(remedy.or_else(|| is_own_table.then(own)))
}

fn sequence_behind(
    transaction: &mut Transaction<'_>,
    table: &DomainTable,
    error: &PostgresError,
) -> Result<Option<String>, TransactionError> {
    let (Some(constraint), Some(name), Some(schema)) =
        (error.constraint(), error.table(), error.schema())
    else {
        return Ok(None);
    };
    let rows = transaction.query(KEY_SQL, &[&constraint, &name, &schema, &table.name()])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let table: String = row.try_get(0)?;
    let sequence: Option<String> = row.try_get(1)?;
    let sequence = match sequence {
        Some(sequence) => literal(&sequence),
        None => format!("pg_get_serial_sequence({}, 'id')", literal(&table)),
    };
    Ok(Some(format!(
        "the sequence of column id is behind the rows of the table, as after a restore: run \
         `select setval({sequence}, (select max(id) from {table}))`"
    )))
}

fn id_used_up(
    transaction: &mut Transaction<'_>,
    table: &DomainTable,
    is_at_end: bool,
) -> Result<Option<String>, TransactionError> {
    let rows = transaction.query(ID_SQL, &[&table.name()])?;
    let Some(row) = rows.first() else { return Ok(None) };
    if !is_at_end && !row.try_get::<_, bool>(2)? {
        return Ok(None);
    }
    let (table, sequence): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let widen = sequence.map(|name| format!("; alter sequence {name} as bigint"));
    Ok(Some(format!(
        "the numbers of column id are used up: run `alter table {table} alter column id type \
         bigint{}`",
        widen.unwrap_or_default()
    )))
}
