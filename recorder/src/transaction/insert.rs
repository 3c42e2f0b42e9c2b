//! The step that inserts rows. One statement inserts all rows of a batch, with one array for each
//! column.

use std::collections::BTreeMap;
use std::fmt::Write;

use common::record::ExtraValue;
use kafka_client::Uuid;
use postgres_client::PostgresError;

use super::{PendingWrite, Step};
use crate::decode::row::DomainRow;
use crate::postgres::domain_table::{DomainTable, EXTRA_COLUMNS, MERGED_COLUMNS, RESULT_COLUMNS};
use crate::postgres::enums::EnumType;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::Transaction;
use crate::postgres::tables::{Column, MissingColumns};
use crate::postgres::value::SqlValue;

/// Inserts every row of a batch. This is the last step of normal mode, and it remembers nothing.
#[derive(Debug)]
pub(super) struct InsertStep {
    statement: InsertStatement,
}

impl InsertStep {
    /// Creates the step for a table without the columns in `missing`.
    pub(super) fn new(table: &DomainTable, missing: &MissingColumns) -> Self {
        Self { statement: InsertStatement::without(table, missing) }
    }
}

impl Step for InsertStep {
    /// The number of inserted rows.
    type Effect = usize;

    fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        write: &mut PendingWrite<'_>,
    ) -> Result<usize, TransactionError> {
        self.statement.execute(transaction, &write.decoded.rows)?;
        Ok(write.decoded.rows.len())
    }

    fn committed(&mut self, _inserted: usize) {}
}

/// The statement that inserts rows into the table of a domain.
#[derive(Debug)]
pub struct InsertStatement {
    sql: String,
    sql_returning: String,
    /// For each of [`EXTRA_COLUMNS`], whether the table has it.
    has_extra: Vec<bool>,
}

impl InsertStatement {
    /// Creates the statement for the table of a domain.
    pub fn new(table: &DomainTable) -> Self {
        Self::without(table, &MissingColumns::default())
    }

    /// Creates the statement for a table without the columns in `missing`. Their values are left
    /// out.
    pub(crate) fn without(table: &DomainTable, missing: &MissingColumns) -> Self {
        let has = |column: &&Column| missing.has(table.name(), column.name);
        let sql = insert_sql(&table.quoted(), RESULT_COLUMNS.iter().filter(has));
        let with_merged = insert_sql(&table.quoted(), EXTRA_COLUMNS.iter().filter(has));
        let sql_returning = format!(r#"{with_merged} returning "id"::bigint, "topic_offset""#);
        let has_extra = EXTRA_COLUMNS.iter().map(|column| has(&column)).collect();
        Self { sql_returning, sql, has_extra }
    }

    /// Removes the parameters of columns that the table does not have.
    fn present<'a>(&self, mut parameters: Vec<&'a dyn SqlValue>) -> Vec<&'a dyn SqlValue> {
        let mut index = 0;
        parameters.retain(|_| {
            index += 1;
            // The first parameters belong to the columns of 1.1.0, which every table has.
            index < FIRST_EXTRA || *self.has_extra.get(index - FIRST_EXTRA).unwrap_or(&true)
        });
        parameters
    }

    /// The SQL. [`RowArrays::parameters`] returns its parameters.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Inserts rows of one result each. It does not return the ids of the rows, and so takes a
    /// tenth less time than [`InsertStatement::execute_returning`].
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn execute(
        &self,
        transaction: &mut Transaction<'_>,
        rows: &[DomainRow],
    ) -> Result<(), PostgresError> {
        if !rows.is_empty() {
            transaction.execute(&self.sql, &self.present(RowArrays::new(rows).parameters()))?;
        }
        Ok(())
    }

    /// Inserts rows, including merged rows, and returns the offset and the `id` of each row.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn execute_returning(
        &self,
        transaction: &mut Transaction<'_>,
        rows: &[DomainRow],
    ) -> Result<Vec<(i64, i64)>, PostgresError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let columns = RowArrays::new(rows);
        let merged = MergedArrays::new(rows);
        let mut parameters = columns.parameters();
        parameters.extend(merged.parameters());
        let inserted = transaction.query(&self.sql_returning, &self.present(parameters))?;
        let ids = inserted.iter().map(|row| Ok((row.try_get(1)?, row.try_get(0)?)));
        Ok(ids.collect::<Result<_, postgres::Error>>()?)
    }
}

/// The number of the parameter of the first extra column.
const FIRST_EXTRA: usize = 10;

/// The statement. Its parameters are the arrays of [`RowArrays::parameters`] and, if `extra`
/// includes the merged columns, the arrays of [`MergedArrays::parameters`]. An extra column is
/// passed as an array of the widest type of its kind, which PostgreSQL then assigns to the type of
/// the column.
fn insert_sql<'a>(table: &str, extra: impl Iterator<Item = &'a Column>) -> String {
    let (mut names, mut arrays, mut aliases, mut values) =
        (String::new(), String::new(), String::new(), String::new());
    for (index, column) in extra.enumerate() {
        let (array, cast) = match column.definition {
            "integer" | "bigint" => ("bigint", ""),
            "boolean" => ("boolean", ""),
            "uuid" => ("uuid", ""),
            "jsonb" => ("text", "::jsonb"),
            _ => ("text", ""),
        };
        names.push_str(&format!(", \"{}\"", column.name));
        arrays.push_str(&format!(", ${}::{array}[]", FIRST_EXTRA + index));
        aliases.push_str(&format!(", c{index}"));
        values.push_str(&format!(", c{index}{cast}"));
    }
    let (status, phrase) = (EnumType::Status.name(), EnumType::Phrase.name());
    format!(
        r#"insert into {table} ("topic_offset", "test_from", "url", "event_time", "status",
            "phrase", "dns", "response", "detail"{names})
        select o, f, u, e, s::"{status}", p::"{phrase}", d, r, x{values}
        from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[],
            $5::text[], $6::text[], $7::integer[], $8::integer[], $9::text[]{arrays})
            with ordinality as new(o, f, u, e, s, p, d, r, x{aliases}, nr)
        order by nr"#
    )
}

/// The values of rows as one array for each column.
#[derive(Debug)]
pub struct RowArrays<'a> {
    offsets: Vec<i64>,
    froms: Vec<&'a str>,
    urls: Vec<&'a str>,
    times: Vec<i64>,
    statuses: Vec<&'a str>,
    phrases: Vec<&'a str>,
    dns: Vec<i32>,
    responses: Vec<i32>,
    details: Vec<Option<&'a str>>,
    extra: Vec<ExtraColumn<'a>>,
    runs: Vec<Option<Uuid>>,
    sequences: Vec<Option<i64>>,
    results: Vec<i64>,
}

/// The values of one extra key in all rows.
#[derive(Debug)]
enum ExtraColumn<'a> {
    Texts(Vec<Option<&'a str>>),
    Numbers(Vec<Option<i64>>),
    Flags(Vec<Option<bool>>),
    /// Counts as JSON.
    Counts(Vec<Option<String>>),
}

impl<'a> RowArrays<'a> {
    /// Creates the arrays of these rows, in the same order.
    pub fn new(rows: &'a [DomainRow]) -> Self {
        Self {
            offsets: rows.iter().map(|row| row.topic_offset).collect(),
            froms: rows.iter().map(|row| row.test_from.as_str()).collect(),
            urls: rows.iter().map(|row| row.url.as_str()).collect(),
            times: rows.iter().map(|row| row.event_time).collect(),
            statuses: rows.iter().map(|row| row.status.as_str()).collect(),
            phrases: rows.iter().map(|row| &*row.phrase).collect(),
            dns: rows.iter().map(|row| row.dns).collect(),
            responses: rows.iter().map(|row| row.response).collect(),
            details: rows.iter().map(|row| row.detail.as_deref()).collect(),
            extra: extra_columns(rows),
            runs: rows.iter().map(|row| row.identity.map(|identity| identity.run)).collect(),
            sequences: rows.iter().map(|row| row.identity.map(|it| it.sequence)).collect(),
            results: rows.iter().map(|row| row.results).collect(),
        }
    }

    /// The parameters of [`InsertStatement`].
    pub fn parameters(&self) -> Vec<&dyn SqlValue> {
        let mut parameters: Vec<&dyn SqlValue> = vec![
            &self.offsets,   // $1
            &self.froms,     // $2
            &self.urls,      // $3
            &self.times,     // $4
            &self.statuses,  // $5
            &self.phrases,   // $6
            &self.dns,       // $7
            &self.responses, // $8
            &self.details,   // $9
        ];
        // The parameters from $10 on, in the order of `RESULT_COLUMNS`.
        parameters.extend(self.extra.iter().map(|column| match column {
            ExtraColumn::Texts(texts) => texts as &dyn SqlValue,
            ExtraColumn::Numbers(numbers) => numbers,
            ExtraColumn::Flags(flags) => flags,
            ExtraColumn::Counts(counts) => counts,
        }));
        let last: [&dyn SqlValue; 3] = [&self.runs, &self.sequences, &self.results];
        parameters.extend(last);
        parameters
    }
}

/// The values of [`MERGED_COLUMNS`] as one array for each column.
#[derive(Debug)]
struct MergedArrays {
    first_times: Vec<Option<i64>>,
    first_offsets: Vec<Option<i64>>,
    sums: Vec<Option<i64>>,
    minima: Vec<Option<i64>>,
    maxima: Vec<Option<i64>>,
}

impl MergedArrays {
    fn new(rows: &[DomainRow]) -> Self {
        let merged = || rows.iter().map(|row| row.merged);
        let totals = || merged().map(|merged| merged.and_then(|merged| merged.total_us));
        Self {
            first_times: merged().map(|merged| Some(merged?.first_event_time)).collect(),
            first_offsets: merged().map(|merged| Some(merged?.first_offset)).collect(),
            sums: totals().map(|total| Some(total?.sum)).collect(),
            minima: totals().map(|total| Some(total?.min)).collect(),
            maxima: totals().map(|total| Some(total?.max)).collect(),
        }
    }

    /// The parameters that follow [`RowArrays::parameters`].
    fn parameters(&self) -> [&dyn SqlValue; MERGED_COLUMNS.len()] {
        [&self.first_times, &self.first_offsets, &self.sums, &self.minima, &self.maxima]
    }
}

fn extra_columns(rows: &[DomainRow]) -> Vec<ExtraColumn<'_>> {
    let mut columns: Vec<ExtraColumn<'_>> = Vec::new();
    for row in rows {
        let values = row.extra.values();
        if columns.is_empty() {
            let count = rows.len();
            columns.extend(values.iter().map(|(_, value)| match value {
                ExtraValue::Text(_) => ExtraColumn::Texts(Vec::with_capacity(count)),
                ExtraValue::Number(_) => ExtraColumn::Numbers(Vec::with_capacity(count)),
                ExtraValue::Flag(_) => ExtraColumn::Flags(Vec::with_capacity(count)),
                ExtraValue::Counts(_) => ExtraColumn::Counts(Vec::with_capacity(count)),
            }));
        }
        for (column, (_, value)) in columns.iter_mut().zip(values) {
            match (column, value) {
                (ExtraColumn::Texts(texts), ExtraValue::Text(text)) => texts.push(text.as_deref()),
                (ExtraColumn::Numbers(numbers), ExtraValue::Number(number)) => {
                    numbers.push(*number)
                }
                (ExtraColumn::Flags(flags), ExtraValue::Flag(flag)) => flags.push(*flag),
                (ExtraColumn::Counts(all), ExtraValue::Counts(counts)) => all.push(json(counts)),
                // The values of a key have the same type in every record.
                _ => {}
            }
        }
    }
    columns
}

/// A JSON object. `None`: there are no counts, and the column is null.
fn json(counts: &BTreeMap<String, i64>) -> Option<String> {
    let mut object = String::new();
    for (name, count) in counts {
        object.push(if object.is_empty() { '{' } else { ',' });
        object.push('"');
        for c in name.chars() {
            // Writing to a String can't fail.
            let _ = match c {
                '"' | '\\' => write!(object, "\\{c}"),
                c if c.is_control() => write!(object, "\\u{:04x}", u32::from(c)),
                c => write!(object, "{c}"),
            };
        }
        let _ = write!(object, "\":{count}");
    }
    (!object.is_empty()).then(|| object + "}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_json() {
        assert_eq!(json(&BTreeMap::new()), None);
        let counts = [("a\"b\\\n\u{85}".to_owned(), -1), ("clock".to_owned(), 2)];
        let expected = r#"{"a\"b\\\u000a\u0085":-1,"clock":2}"#;
        assert_eq!(json(&counts.into()).as_deref(), Some(expected));
    }
}
