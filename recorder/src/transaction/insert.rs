//! Rows as the arrays that one statement inserts.

use std::collections::BTreeMap;
use std::fmt::Write;

use common::record::Value;
use kafka_client::Uuid;
use postgres::types::ToSql;

use crate::decode::row::Row;

/// A value for each row in each column, as [`crate::postgres::domain_table::TableSql::insert`]
/// takes them.
#[derive(Debug)]
pub struct Columns<'a> {
    offsets: Vec<i64>,
    froms: Vec<&'a str>,
    urls: Vec<&'a str>,
    times: Vec<i64>,
    statuses: Vec<&'a str>,
    phrases: Vec<&'a str>,
    dns: Vec<i32>,
    responses: Vec<i32>,
    details: Vec<Option<&'a str>>,
    further: Vec<Column<'a>>,
    runs: Vec<Option<Uuid>>,
    sequences: Vec<Option<i64>>,
    results: Vec<i64>,
}

/// A further key of all rows.
#[derive(Debug)]
enum Column<'a> {
    Texts(Vec<Option<&'a str>>),
    Numbers(Vec<Option<i64>>),
    Flags(Vec<Option<bool>>),
    /// As JSON.
    Counts(Vec<Option<String>>),
}

impl<'a> Columns<'a> {
    /// Of these rows, in their order.
    pub fn new(rows: &'a [Row]) -> Self {
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
            further: further(rows),
            runs: rows.iter().map(|row| row.identity.map(|identity| identity.run)).collect(),
            sequences: rows.iter().map(|row| row.identity.map(|it| it.sequence)).collect(),
            results: rows.iter().map(|row| row.results).collect(),
        }
    }

    /// The statement's parameters.
    pub fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![
            &self.offsets,
            &self.froms,
            &self.urls,
            &self.times,
            &self.statuses,
            &self.phrases,
            &self.dns,
            &self.responses,
            &self.details,
        ];
        parameters.extend(self.further.iter().map(|column| match column {
            Column::Texts(texts) => texts as &(dyn ToSql + Sync),
            Column::Numbers(numbers) => numbers,
            Column::Flags(flags) => flags,
            Column::Counts(counts) => counts,
        }));
        let last: [&(dyn ToSql + Sync); 3] = [&self.runs, &self.sequences, &self.results];
        parameters.extend(last);
        parameters
    }
}

fn further(rows: &[Row]) -> Vec<Column<'_>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for row in rows {
        let values = row.extra.values();
        if columns.is_empty() {
            let count = rows.len();
            columns.extend(values.iter().map(|(_, value)| match value {
                Value::Text(_) => Column::Texts(Vec::with_capacity(count)),
                Value::Number(_) => Column::Numbers(Vec::with_capacity(count)),
                Value::Flag(_) => Column::Flags(Vec::with_capacity(count)),
                Value::Counts(_) => Column::Counts(Vec::with_capacity(count)),
            }));
        }
        for (column, (_, value)) in columns.iter_mut().zip(values) {
            match (column, value) {
                (Column::Texts(texts), Value::Text(text)) => texts.push(text.as_deref()),
                (Column::Numbers(numbers), Value::Number(number)) => numbers.push(*number),
                (Column::Flags(flags), Value::Flag(flag)) => flags.push(*flag),
                (Column::Counts(all), Value::Counts(counts)) => all.push(json(counts)),
                // A key has the same kind in every record.
                _ => {}
            }
        }
    }
    columns
}

/// A JSON object; none for no counts, which is null.
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
