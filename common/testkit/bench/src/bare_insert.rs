//! The baseline for the recorder: a loop that only inserts rows.

use std::time::Instant;

use common::domain::Domain;
use common::identity::Identity;
use common::record::ExtraValue;
use kafka_client::{ProduceRecord, Uuid};
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::types::{ToSql, Type};
use recorder::decode::labels::Labels;
use recorder::decode::row::DomainRow;
use recorder::postgres::domain_table::{DomainTable, RESULT_COLUMNS};
use recorder::postgres::enums::EnumType;
use recorder::schema;
use recorder::transaction::insert::{InsertStatement, RowArrays};
use recorder::transaction::position::{POSITION_INSERT, POSITION_MOVE};

use crate::BenchError;
use crate::testbed::BenchDatabase;

/// Converts records to rows with the recorder's own code.
pub(crate) fn make_rows(
    records: impl Iterator<Item = ProduceRecord>,
) -> Result<Vec<DomainRow>, BenchError> {
    let all = |enum_type: EnumType| enum_type.labels().into_iter().map(str::to_owned).collect();
    let labels = Labels::new(all(EnumType::Status), all(EnumType::Phrase));
    let row = |(offset, record): (usize, ProduceRecord)| {
        let headers: Vec<_> = record.headers.into_iter().map(|(k, v)| (k, Some(v))).collect();
        let identity = Identity::from_headers(&headers)?;
        Ok(DomainRow::new(offset as i64, Some(&record.value), identity, &labels)?)
    };
    records.enumerate().map(row).collect()
}

/// Creates the tables of a domain, without notices for tables that exist.
pub(crate) fn create_tables(
    database: &mut BenchDatabase,
    domain: &Domain,
) -> Result<(), BenchError> {
    database.client.batch_execute("set client_min_messages = 'warning'")?;
    Ok(database.client.batch_execute(&schema::script(std::slice::from_ref(domain), false))?)
}

/// How rows are inserted in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InsertMethod {
    /// As arrays, with `insert … select … from unnest(…)`.
    Arrays,
    /// With `copy … from stdin (format binary)`.
    Copy,
}

/// The number of rows of one transaction.
const BATCH_RECORDS: usize = 2_000;

/// Inserts rows with the recorder's statement or with `copy`, in transactions of the recorder's
/// size. With `moves_position` each transaction also moves the position. All values are prepared
/// before the clock starts. Returns rows per second.
pub(crate) fn insert(
    database: &mut BenchDatabase,
    domain: &Domain,
    rows: &[DomainRow],
    method: InsertMethod,
    moves_position: bool,
) -> Result<f64, BenchError> {
    let batches: Vec<_> =
        rows.chunks(BATCH_RECORDS).map(|rows| (rows, RowArrays::new(rows))).collect();
    let client = &mut database.client;
    let (topic, topic_id) = (domain.as_str(), Uuid::nil());
    client.execute(POSITION_INSERT, &[&topic, &0, &topic_id, &0_i64, &0_i64])?;
    let compare_and_set = client.prepare(POSITION_MOVE)?;
    let arrays = client.prepare(InsertStatement::new(&DomainTable::new(domain)).sql())?;
    let extra: String =
        RESULT_COLUMNS.iter().map(|column| format!(", \"{}\"", column.name)).collect();
    let copy = client.prepare(&format!(
        r#"copy "{}" ("topic_offset", "test_from", "url", "event_time", "status", "phrase", "dns", "response", "detail"{extra}) from stdin (format binary)"#,
        domain.table()
    ))?;
    let types = copy_types();
    let started = Instant::now();
    let mut position = 0_i64;
    for (rows, columns) in &batches {
        let mut transaction = client.transaction()?;
        if moves_position {
            let next = position + rows.len() as i64;
            transaction.execute(
                &compare_and_set,
                &[&topic, &0, &topic_id, &position, &topic_id, &next, &0_i64],
            )?;
            position = next;
        }
        match method {
            InsertMethod::Arrays => {
                let values = columns.parameters();
                let values: Vec<_> =
                    values.iter().map(|value| *value as &(dyn ToSql + Sync)).collect();
                transaction.execute(&arrays, &values)?;
            }
            InsertMethod::Copy => {
                let mut writer = BinaryCopyInWriter::new(transaction.copy_in(&copy)?, &types);
                for row in *rows {
                    copy_row(&mut writer, row)?;
                }
                writer.finish()?;
            }
        }
        transaction.commit()?;
    }
    Ok(rows.len() as f64 / started.elapsed().as_secs_f64())
}

/// The types of the columns. In binary format the value of an enum is its label.
fn copy_types() -> Vec<Type> {
    let (number, text) = (Type::INT8, Type::TEXT);
    let own = [&number, &text, &text, &number, &text, &text, &Type::INT4, &Type::INT4, &text];
    let extra = RESULT_COLUMNS.iter().map(|column| match column.definition {
        "bigint" => Type::INT8,
        "integer" => Type::INT4,
        "boolean" => Type::BOOL,
        "uuid" => Type::UUID,
        // The JSON column is null in all rows of the measurement.
        _ => Type::TEXT,
    });
    own.into_iter().cloned().chain(extra).collect()
}

fn copy_row(writer: &mut BinaryCopyInWriter<'_>, row: &DomainRow) -> Result<(), postgres::Error> {
    let to_i32 = |number: i64| i32::try_from(number).ok();
    let extra = row.extra.values();
    let as_i32 = extra.map(|(_, value)| match value {
        ExtraValue::Number(number) => number.and_then(to_i32),
        _ => None,
    });
    let (run, sequence) = row.identity.map(|it| (it.run, it.sequence)).unzip();
    let (phrase, results) = (&*row.phrase, to_i32(row.results));
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![
        &row.topic_offset,
        &row.test_from,
        &row.url,
        &row.event_time,
        &row.status,
        &phrase,
        &row.dns,
        &row.response,
        &row.detail,
    ];
    for (((_, value), as_i32), column) in extra.into_iter().zip(&as_i32).zip(RESULT_COLUMNS) {
        values.push(match value {
            ExtraValue::Text(text) => text,
            ExtraValue::Number(_) if column.definition == "integer" => as_i32,
            ExtraValue::Number(number) => number,
            ExtraValue::Flag(flag) => flag,
            ExtraValue::Counts(_) => &None::<&str>,
        });
    }
    let last: [&(dyn ToSql + Sync); 3] = [&run, &sequence, &results];
    values.extend(last);
    writer.write(&values)
}
