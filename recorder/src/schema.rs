//! `recorder schema`, and the creation of missing parts of the schema. Both derive from the tables
//! that each module declares.

use std::time::Instant;

use common::domain::Domain;
use common::stop::Stop;
use postgres_client::PostgresError;

use crate::decode::labels::Labels;
use crate::lease;
use crate::postgres::domain_table::DomainTable;
use crate::postgres::enums::EnumType;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::{Database, Transaction};
use crate::postgres::tables::{self, MissingColumns, MissingPart, Table};
use crate::timings::Timings;
use crate::transaction::{self, position, quarantine};

/// Appended to an error if the database user may not create missing parts of the schema.
pub(crate) const SCHEMA_HINT: &str = " (`recorder schema` prints what must be there)";

/// The SQLSTATE for a lock that was not available in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The schema of a domain as it is in the database.
#[derive(Debug, Clone)]
pub struct DomainSchema {
    /// The labels of the enum types.
    pub labels: Labels,
    /// The columns that are missing in the tables.
    pub missing_columns: MissingColumns,
    /// The missing optional parts, and the error of the attempt to create them. `None`: the schema
    /// is complete.
    pub lacking: Option<String>,
}

/// Creates missing parts of the schema for a domain, and returns the schema. (`lease` creates the
/// tables of leases.)
///
/// Labels, columns and indexes of an upgrade are created if the database user has the right.
/// Recording does not wait for them.
///
/// If no part is missing, only the catalog is read, so the rights to read and write the tables are
/// enough. Otherwise one recorder at a time creates the missing parts, under an advisory lock.
///
/// # Errors
/// See [`TransactionError`].
pub fn ensure(
    database: &Database,
    stop: &Stop,
    timings: &Timings,
    domain: &Domain,
) -> Result<DomainSchema, TransactionError> {
    let table = DomainTable::new(domain);
    let read = || {
        database.transaction(stop, timings.schema_read_timeout, |transaction| {
            SchemaStatus::read(transaction, &table)
        })
    };
    let status = read()?;
    if status.missing.is_empty() {
        return Ok(status.into_schema(None));
    }
    // Another recorder may have created the parts during the wait for the lock.
    let timeout = timings.schema_change_timeout;
    let completed = tables::complete(database, stop, timeout, |transaction| {
        Ok(SchemaStatus::read(transaction, &table)?.missing)
    });
    let completion = match completed {
        Ok(completion) => completion,
        Err(TransactionError::Postgres(error)) if !status.lacks_needed() => {
            return Ok(status.into_schema(Some(&error)));
        }
        Err(error) => return Err(error),
    };
    if !completion.created.is_empty() {
        let created = completion.created.join(", ");
        log::info!("{domain}: created missing parts of the schema: {created}");
    }
    Ok(read()?.into_schema(completion.first_refusal.as_ref()))
}

/// The result of [`ensure_target_index`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetIndex {
    /// The index exists.
    Ready,
    /// Another session held a lock on the table. The caller must retry.
    LockBusy,
    /// The index can't be created, with the reason.
    Refused(String),
}

/// Creates the index that smart mode uses to look up targets, if it is missing. Without the index,
/// each look-up reads all rows of a URL.
///
/// The index has a transaction of its own, so that the domains of a recorder do not wait for each
/// other. On a large table it takes minutes, and no session can write to the table meanwhile.
/// (`create index concurrently` does not block writers. But it can't run in a transaction, and a
/// failure would leave an invalid index behind.)
///
/// # Errors
/// See [`TransactionError`]. A refusal by the server is part of the result.
pub(crate) fn ensure_target_index(
    database: &Database,
    stop: &Stop,
    timings: &Timings,
    domain: &Domain,
) -> Result<TargetIndex, TransactionError> {
    let index = DomainTable::new(domain).target_index();
    let name = &index.name;
    let timeout = timings.schema_read_timeout;
    let (is_valid, is_named) = database.transaction(stop, timeout, |transaction| {
        Ok((index.is_valid(transaction)?, index.is_name_free(transaction)?))
    })?;
    match is_valid {
        Some(true) => return Ok(TargetIndex::Ready),
        // Another session is creating the index, or failed to create it.
        Some(false) => return Ok(TargetIndex::Refused(format!("index {name} is not valid"))),
        None => {}
    }
    let started = Instant::now();
    let statement = index.create(is_named);
    let created = database.transaction(stop, timings.schema_change_timeout, |transaction| {
        tables::set_schema_bounds(transaction)?;
        Ok(transaction.batch(&statement)?)
    });
    match created {
        Ok(()) => {
            let seconds = started.elapsed().as_secs_f64();
            log::info!("{domain}: created index {name} in {seconds:.1} s");
            Ok(TargetIndex::Ready)
        }
        Err(TransactionError::Postgres(error)) if error.code() == Some(LOCK_NOT_AVAILABLE) => {
            Ok(TargetIndex::LockBusy)
        }
        Err(TransactionError::Postgres(error)) if !error.is_connection_lost() => {
            Ok(TargetIndex::Refused(format!("{statement}: {error}")))
        }
        Err(error) => Err(error),
    }
}

/// The whole schema for these domains, as a script that administrators can run. `smart` adds the
/// index of smart mode. The script changes no existing part.
pub fn script(domains: &[Domain], smart: bool) -> String {
    let mut statements = vec!["begin".to_owned()];
    // Suppresses notices about existing parts.
    statements.push("set local client_min_messages = 'warning'".to_owned());
    for enum_type in EnumType::ALL {
        statements.push(format!("-- type {}\n{}", enum_type.name(), enum_type.create()));
        let labels = enum_type.labels().into_iter();
        statements.extend(labels.map(|label| enum_type.add_label(label)));
    }
    let own_tables = transaction::TABLES.iter().chain(lease::TABLES.iter());
    statements.extend(own_tables.flat_map(table_statements));
    for table in domains.iter().map(DomainTable::new) {
        statements.extend(table_statements(&table.table()));
        let target_index = smart.then(|| table.target_index());
        for index in [table.url_index()].into_iter().chain(target_index) {
            let (columns, create) = (index.columns.join(", "), index.create_if_missing());
            statements.push(format!("-- index on {columns} of table {}\n{create}", table.name()));
        }
    }
    statements.push("commit".to_owned());
    let mut script = String::from(
        "-- A recorder that may not create these tables needs: select, insert and update on the\n\
         -- tables, usage on their sequences, and delete on availability_mark (without it, marks of\n\
         -- old runs stay). `recorder replay` needs delete on availability_quarantine.\n\
         -- PostgreSQL 12 or newer.\n",
    );
    for statement in statements {
        script.push_str(&statement);
        script.push_str(";\n");
    }
    script
}

/// The statements for one table.
fn table_statements(table: &Table<'_>) -> Vec<String> {
    let create = format!("-- table {}\n{}", table.name, table.create());
    [create].into_iter().chain(table.add_columns()).collect()
}

/// The tables that may lack added columns. The statements then leave out these columns.
const OPTIONAL_COLUMNS: [&str; 3] =
    [position::OFFSET_TABLE.name, position::GAP_TABLE.name, quarantine::QUARANTINE_TABLE.name];

/// The schema as it is in the database.
struct SchemaStatus {
    labels: Labels,
    /// The parts that complete the schema.
    missing: Vec<MissingPart>,
}

impl SchemaStatus {
    fn read(
        transaction: &mut Transaction<'_>,
        table: &DomainTable,
    ) -> Result<Self, TransactionError> {
        let statuses = EnumType::Status.stored_labels(transaction)?;
        let phrases = EnumType::Phrase.stored_labels(transaction)?;
        let mut missing = EnumType::Status.missing(&statuses);
        missing.extend(EnumType::Phrase.missing(&phrases));
        let mut expected = transaction::TABLES.to_vec();
        expected.push(table.table());
        missing.extend(tables::missing(transaction, &expected, &[table.url_index()])?);
        for part in &mut missing {
            if let Some((name, _)) = &part.columns {
                part.is_needed = name != table.name() && !OPTIONAL_COLUMNS.contains(&name.as_str());
            }
        }
        Ok(Self { labels: Labels::new(statuses, phrases), missing })
    }

    fn lacks_needed(&self) -> bool {
        self.missing.iter().any(|part| part.is_needed)
    }

    fn into_schema(self, refusal: Option<&PostgresError>) -> DomainSchema {
        let names: Vec<&str> = self.missing.iter().map(|part| part.name.as_str()).collect();
        let refusal = refusal.map_or_else(String::new, |error| format!(": {error}"));
        DomainSchema {
            missing_columns: MissingColumns::new(&self.missing),
            lacking: (!names.is_empty()).then(|| format!("{}{refusal}", names.join(", "))),
            labels: self.labels,
        }
    }
}
