//! Descriptions of tables and indexes. The statements that create them, the check for missing
//! parts, and the output of `recorder schema` derive from these descriptions.

use std::collections::BTreeSet;
use std::time::Duration;

use common::stop::Stop;
use postgres_client::PostgresError;

use super::error::TransactionError;
use super::pool::{Database, Transaction};
use super::quote::{literal, quoted};

/// Serializes all changes of the schema.
const SCHEMA_LOCK: &str = "availability schema";

/// A column of a `Table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The name without quotes.
    pub name: &'static str,
    /// The type, with its constraints and its default.
    pub definition: &'static str,
}

/// Creates a column. Short, so that each column of a list fits into one line.
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
    /// The name without quotes.
    pub(crate) name: &'a str,
    /// The columns of the first version of the table.
    pub(crate) columns: &'static [Column],
    /// The columns of later versions. They are added to a table that does not have them. They must
    /// be nullable, so that existing rows are not rewritten, and earlier programs can still insert.
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

    /// Adds the missing columns of later versions. `None`: no later version added a column.
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
    /// The name without quotes.
    pub(crate) name: String,
    /// The name of the table without quotes.
    pub(crate) table: String,
    /// The indexed columns without quotes.
    pub(crate) columns: &'static [&'static str],
}

impl Index {
    /// Creates the index. Without a name in the statement, PostgreSQL chooses a name. This is
    /// needed if an index of another table has the name, such as an archived table.
    pub(crate) fn create(&self, is_named: bool) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        let (index, table) = (quoted(&self.name), quoted(&self.table));
        let name = if is_named { format!("if not exists {index} ") } else { String::new() };
        format!("create index {name}on {table} ({})", columns.join(", "))
    }

    /// Creates the index unless the table has one on these columns.
    pub(crate) fn create_if_missing(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| literal(name)).collect();
        let columns = format!("array[{}]", columns.join(", "));
        format!(
            "do $do$ begin if not exists ({}) then \
             if pg_catalog.to_regclass({}) is null then {}; else {}; end if; end if; end $do$",
            index_query(&literal(&quoted(&self.table)), &columns),
            literal(&quoted(&self.name)),
            self.create(true),
            self.create(false)
        )
    }

    /// Whether no other table has an index with this name.
    pub(crate) fn is_name_free(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> Result<bool, TransactionError> {
        Ok(existing_relations(transaction, &[&self.name])?.is_empty())
    }

    /// Whether an index of the table on these columns is valid. `None`: there is no such index. The
    /// index may have any name, because a renamed table keeps its indexes with their old names.
    pub(crate) fn is_valid(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> Result<Option<bool>, TransactionError> {
        let sql = index_query("pg_catalog.quote_ident($1::text)", "$2::text[]");
        let rows = transaction.query(&sql, &[&self.table, &self.columns])?;
        let valid = rows.iter().map(|row| row.try_get::<_, bool>(0));
        let valid: Vec<bool> = valid.collect::<Result<_, postgres::Error>>()?;
        Ok(valid.into_iter().reduce(|any, valid| any || valid))
    }
}

/// A query for the indexes of a table whose first columns are these columns. It returns for each
/// index whether it is valid. `table` and `columns` are SQL.
fn index_query(table: &str, columns: &str) -> String {
    format!(
        "select i.indisvalid from pg_catalog.pg_index as i \
         where i.indrelid = pg_catalog.to_regclass({table}) and i.indpred is null \
         and (select pg_catalog.array_agg(a.attname::text order by key.place) \
         from unnest(i.indkey) with ordinality as key(attnum, place) \
         left join pg_catalog.pg_attribute as a \
         on a.attrelid = i.indrelid and a.attnum = key.attnum and key.attnum > 0 \
         where key.place <= pg_catalog.cardinality({columns})) = {columns}"
    )
}

/// A missing part of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MissingPart {
    /// A description for log lines.
    pub(crate) name: String,
    /// The statement that creates the part.
    pub(crate) statement: String,
    /// Whether recording needs the part. The other parts come from an upgrade. Without them, fewer
    /// records or columns are recorded.
    pub(crate) is_needed: bool,
    /// The table and its missing columns. `None`: the part is not a list of columns.
    pub(crate) columns: Option<(String, Vec<&'static str>)>,
}

/// The missing columns of all tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingColumns(BTreeSet<(String, &'static str)>);

impl MissingColumns {
    /// Collects the missing columns from these parts.
    pub(crate) fn new(parts: &[MissingPart]) -> Self {
        let columns = parts.iter().filter_map(|part| part.columns.as_ref());
        let names =
            columns.flat_map(|(table, names)| names.iter().map(|name| (table.clone(), *name)));
        Self(names.collect())
    }

    /// Whether the table has this column.
    pub(crate) fn has(&self, table: &str, column: &'static str) -> bool {
        // The list has a few columns at most, and is usually empty.
        !self.0.iter().any(|(other, name)| other == table && *name == column)
    }

    /// Whether the table has all of its columns.
    pub(crate) fn is_complete(&self, table: &str) -> bool {
        !self.0.iter().any(|(other, _)| other == table)
    }
}

/// The missing parts of these tables and indexes. Reads only the catalog, so no rights on the
/// tables are needed.
pub(crate) fn missing(
    transaction: &mut Transaction<'_>,
    tables: &[Table<'_>],
    indexes: &[Index],
) -> Result<Vec<MissingPart>, TransactionError> {
    let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
    let existing = existing_relations(transaction, &names)?;
    let exists = |name: &str| existing.iter().any(|existing| existing == name);
    let mut missing = Vec::new();
    for table in tables.iter().filter(|table| exists(table.name)) {
        let Some(add_columns) = table.add_columns() else { continue };
        let present = columns_of(transaction, table.name)?;
        let is_present = |column: &Column| present.iter().any(|name| name == column.name);
        let absent = table.added.iter().filter(|column| !is_present(column));
        let absent: Vec<&str> = absent.map(|column| column.name).collect();
        if !absent.is_empty() {
            missing.push(MissingPart {
                name: format!("column {} of table {}", absent.join(", "), table.name),
                statement: add_columns,
                is_needed: true,
                columns: Some((table.name.to_owned(), absent)),
            });
        }
    }
    missing.extend(tables.iter().filter(|table| !exists(table.name)).map(|table| MissingPart {
        name: format!("table {}", table.name),
        statement: table.create(),
        is_needed: true,
        columns: None,
    }));
    for index in indexes {
        if exists(&index.table) && index.is_valid(transaction)?.is_some() {
            continue;
        }
        missing.push(MissingPart {
            name: format!("index on {} of table {}", index.columns.join(", "), index.table),
            statement: index.create(index.is_name_free(transaction)?),
            is_needed: false,
            columns: None,
        });
    }
    Ok(missing)
}

/// Returns which of these tables and indexes exist on the search path.
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

/// The result of [`complete`].
#[derive(Debug, Default)]
pub(crate) struct Completion {
    /// The names of the parts that were created.
    pub(crate) created: Vec<String>,
    /// The first error of an optional part that was refused.
    pub(crate) first_refusal: Option<PostgresError>,
}

/// Creates the parts that `missing` returns, in one transaction, in one recorder at a time. Another
/// recorder may have created them during the wait for the lock. An error of an optional part is not
/// an error of the whole.
///
/// # Errors
/// See [`TransactionError`].
pub(crate) fn complete(
    database: &Database,
    stop: &Stop,
    timeout: Duration,
    missing: impl FnOnce(&mut Transaction<'_>) -> Result<Vec<MissingPart>, TransactionError>,
) -> Result<Completion, TransactionError> {
    database.transaction(stop, timeout, |transaction| {
        set_schema_bounds(transaction)?;
        transaction.lock(SCHEMA_LOCK)?;
        let (needed, wanted): (Vec<_>, Vec<_>) =
            missing(transaction)?.into_iter().partition(|part| part.is_needed);
        let mut completion = Completion::default();
        for MissingPart { name, statement, .. } in needed {
            transaction.batch(&statement)?;
            completion.created.push(name);
        }
        for MissingPart { name, statement, .. } in wanted {
            match transaction.with_savepoint(|nested| nested.batch(&statement))? {
                Ok(()) => completion.created.push(name),
                Err(error) => {
                    completion.first_refusal.get_or_insert(error);
                }
            }
        }
        Ok(completion)
    })
}

/// Sets the time-outs of a transaction that changes the schema. If another session locks one of the
/// tables, the transaction fails soon and is retried.
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
            index.create(true),
            r#"create index if not exists "i" on "t" ("url", "event_time")"#
        );
        assert_eq!(index.create(false), r#"create index on "t" ("url", "event_time")"#);
    }
}
