//! Tables and indexes as data. The statements that create them, the check of
//! what is missing, and the output of `recorder schema` derive from that data.

use std::time::Duration;

use common::stop::Stop;

use super::error::TransactionError;
use super::pool::{Database, Transaction};
use super::quote::quoted;

/// Serializes all changes of the schema.
const SCHEMA_LOCK: &str = "availability schema";

/// A column of a `Table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The name, unquoted.
    pub name: &'static str,
    /// The type, with constraints and default if it has any.
    pub definition: &'static str,
}

/// A column, for lists of columns that fit one line each.
pub(crate) const fn column(name: &'static str, definition: &'static str) -> Column {
    Column { name, definition }
}

impl Column {
    fn sql(&self) -> String {
        format!("{} {}", quoted(self.name), self.definition)
    }
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table<'a> {
    /// The name, unquoted.
    pub(crate) name: &'a str,
    /// The columns of the first version of the table.
    pub(crate) columns: &'static [Column],
    /// Columns that later versions added; they are added to a table that lacks
    /// them. They must be nullable, so that existing rows are not rewritten and
    /// programs that don't know them can still insert.
    pub(crate) added: &'static [Column],
    /// Constraints on several columns.
    pub(crate) constraints: &'static [&'static str],
}

impl Table<'_> {
    /// Creates the table if it does not exist.
    pub(crate) fn create(&self) -> String {
        let columns = self.columns.iter().chain(self.added).map(Column::sql);
        let constraints = self.constraints.iter().map(|constraint| (*constraint).to_owned());
        let body: Vec<String> = columns.chain(constraints).collect();
        format!("create table if not exists {} ({})", quoted(self.name), body.join(", "))
    }

    /// Adds those of the added columns that the table lacks. `None` if no
    /// version added any.
    pub(crate) fn add_columns(&self) -> Option<String> {
        let add = |column: &Column| format!("add column if not exists {}", column.sql());
        let added: Vec<String> = self.added.iter().map(add).collect();
        (!added.is_empty())
            .then(|| format!("alter table {} {}", quoted(self.name), added.join(", ")))
    }
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    /// The name, unquoted.
    pub(crate) name: String,
    /// The name of its table, unquoted.
    pub(crate) table: String,
    /// The indexed columns, unquoted.
    pub(crate) columns: &'static [&'static str],
}

impl Index {
    /// Creates the index if it does not exist.
    pub(crate) fn create(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        let (index, table) = (quoted(&self.name), quoted(&self.table));
        format!("create index if not exists {index} on {table} ({})", columns.join(", "))
    }

    /// Whether the index is valid. `None` if it does not exist.
    pub(crate) fn is_valid(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> Result<Option<bool>, TransactionError> {
        let rows = transaction.query(
            "select indisvalid from pg_catalog.pg_index \
             where indexrelid = pg_catalog.to_regclass(pg_catalog.quote_ident($1::text))",
            &[&self.name],
        )?;
        Ok(rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()?)
    }
}

/// The statements that complete these tables and indexes. Empty if nothing is
/// missing. Reads only the catalog, so that no rights on the tables are needed.
pub(crate) fn missing(
    transaction: &mut Transaction<'_>,
    tables: &[Table<'_>],
    indexes: &[Index],
) -> Result<Vec<String>, TransactionError> {
    let tables_by_name = tables.iter().map(|table| (table.name, table.create()));
    let indexes_by_name = indexes.iter().map(|index| (index.name.as_str(), index.create()));
    let relations: Vec<(&str, String)> = tables_by_name.chain(indexes_by_name).collect();
    let names: Vec<&str> = relations.iter().map(|(name, _)| *name).collect();
    let existing = existing_relations(transaction, &names)?;
    let exists = |name: &str| existing.iter().any(|existing| existing == name);
    let mut missing = Vec::new();
    for table in tables.iter().filter(|table| exists(table.name)) {
        let Some(add_columns) = table.add_columns() else { continue };
        let present = columns_of(transaction, table.name)?;
        let is_present = |column: &Column| present.iter().any(|name| name == column.name);
        if !table.added.iter().all(is_present) {
            missing.push(add_columns);
        }
    }
    let absent = relations.into_iter().filter(|(name, _)| !exists(name));
    missing.extend(absent.map(|(_, create)| create));
    Ok(missing)
}

/// Which of these tables and indexes exist on the search path.
pub(crate) fn existing_relations(
    transaction: &mut Transaction<'_>,
    names: &[&str],
) -> Result<Vec<String>, TransactionError> {
    let rows = transaction.query(
        "select name from unnest($1::text[]) as name \
         where pg_catalog.to_regclass(pg_catalog.quote_ident(name)) is not null",
        &[&names],
    )?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, postgres::Error>>()?)
}

fn columns_of(
    transaction: &mut Transaction<'_>,
    table: &str,
) -> Result<Vec<String>, TransactionError> {
    let rows = transaction.query(
        "select attname::text from pg_catalog.pg_attribute \
         where attrelid = pg_catalog.to_regclass(pg_catalog.quote_ident($1::text)) \
         and attnum > 0 and not attisdropped",
        &[&table],
    )?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, postgres::Error>>()?)
}

/// Runs the statements that `missing` returns, in one transaction, one recorder
/// at a time. Returns how many there were; another recorder may have run them
/// while this one waited for the lock.
///
/// # Errors
/// See [`TransactionError`].
pub(crate) fn complete(
    database: &Database,
    stop: &Stop,
    timeout: Duration,
    missing: impl FnOnce(&mut Transaction<'_>) -> Result<Vec<String>, TransactionError>,
) -> Result<usize, TransactionError> {
    database.transaction(stop, timeout, |transaction| {
        set_schema_bounds(transaction)?;
        transaction.lock(SCHEMA_LOCK)?;
        let statements = missing(transaction)?;
        for statement in &statements {
            transaction.batch(statement)?;
        }
        Ok(statements.len())
    })
}

/// Bounds for a transaction that changes the schema. A session that holds a lock
/// on one of the tables makes it fail soon, and it is retried.
pub(crate) fn set_schema_bounds(transaction: &mut Transaction<'_>) -> Result<(), TransactionError> {
    Ok(transaction.batch("set local lock_timeout = '2s'; set local statement_timeout = '10min'")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table<'static> = Table {
        name: "a\"b",
        columns: &[column("topic", "text not null")],
        added: &[column("run", "uuid"), column("sequence", "bigint")],
        constraints: &["primary key (\"topic\")"],
    };

    #[test]
    fn statements_derive_from_the_data() {
        assert_eq!(
            TABLE.create(),
            r#"create table if not exists "a""b" ("topic" text not null, "run" uuid, "sequence" bigint, primary key ("topic"))"#
        );
        assert_eq!(
            TABLE.add_columns().unwrap(),
            r#"alter table "a""b" add column if not exists "run" uuid, add column if not exists "sequence" bigint"#
        );
        assert_eq!(Table { added: &[], ..TABLE }.add_columns(), None);
        let index = Index { name: "i".into(), table: "t".into(), columns: &["url", "event_time"] };
        assert_eq!(
            index.create(),
            r#"create index if not exists "i" on "t" ("url", "event_time")"#
        );
    }
}
