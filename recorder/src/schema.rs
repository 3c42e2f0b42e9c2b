//! What must be in the database, what of it is missing, and making that.

use std::time::{Duration, Instant};

use common::domain::{Domain, stable_hash};

use crate::decode::row::Labels;
use crate::lease::sql as leases;
use crate::postgres::domain_table as table;
use crate::postgres::pool::{Database, Transaction, WorkError};
use crate::postgres::sql;
use common::stop::Stop;

/// The longest that making the schema may take: an index on a large table of
/// 1.1.0, if somebody dropped it, takes minutes.
const MAKE_TIMEOUT: Duration = Duration::from_secs(660);
/// The longest that looking at it may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// The SQLSTATE of a lock that was not free in time.
const LOCK_NOT_FREE: &str = "55P03";

/// The tables of all domains.
const OWN_TABLES: [&str; 4] =
    [sql::OFFSET_TABLE, sql::GAP_TABLE, sql::MARK_TABLE, sql::QUARANTINE_TABLE];

/// What earlier versions made without some of their columns.
const OWN_COLUMNS_ADDED: [(&str, &[(&str, &str)]); 2] = [
    (sql::GAP_TABLE, sql::GAP_COLUMNS_ADDED),
    (sql::QUARANTINE_TABLE, sql::QUARANTINE_COLUMNS_ADDED),
];

/// Makes what is missing for a domain and returns the labels of the enums.
///
/// When nothing is missing only the catalog is read, so that rights to read
/// and write are enough. Else one recorder at a time makes it, under an
/// advisory lock.
///
/// # Errors
/// See [`WorkError`].
pub fn ensure(database: &Database, stop: &Stop, domain: &Domain) -> Result<Labels, WorkError> {
    let found =
        database.transaction(stop, LOOK_TIMEOUT, |transaction| look(transaction, domain))?;
    if found.missing.is_empty() {
        return Ok(found.labels);
    }
    let made = database.transaction(stop, MAKE_TIMEOUT, |transaction| {
        transaction.batch(sql::SCHEMA_BOUNDS)?;
        transaction.execute(sql::ADVISORY_LOCK, &[&lock_key("availability schema")])?;
        // Another recorder may have made it while this one waited.
        let missing = look(transaction, domain)?.missing;
        for statement in &missing {
            transaction.batch(statement)?;
        }
        Ok(missing.len())
    })?;
    if made > 0 {
        log::info!("{domain}: made {made} parts of the schema");
    }
    let found =
        database.transaction(stop, LOOK_TIMEOUT, |transaction| look(transaction, domain))?;
    Ok(found.labels)
}

/// Makes the index that smart mode looks targets up by, if it is not there:
/// without, each look reads all rows of a URL. What it could not make it says,
/// unless only somebody's lock was in the way.
///
/// It is a transaction of its own, so that the domains of a recorder do not wait
/// for each other's: on a large table it takes minutes, in which nobody writes
/// to that table. (Without blocking writers it can't be made in a transaction,
/// and a failure would leave a broken one behind.)
///
/// # Errors
/// See [`WorkError`]; but what the server refuses is in the result.
pub fn ensure_target_index(
    database: &Database,
    stop: &Stop,
    domain: &Domain,
) -> Result<TargetIndex, WorkError> {
    let name = domain.target_index();
    let is_valid = |transaction: &mut Transaction<'_>| {
        let rows = transaction.query(sql::INDEX_STATE, &[&name])?;
        Ok(rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()?)
    };
    match database.transaction(stop, LOOK_TIMEOUT, is_valid)? {
        Some(true) => return Ok(TargetIndex::There),
        // One that is being made, or failed to be, by somebody.
        Some(false) => return Ok(TargetIndex::Refused(format!("index {name} is not valid"))),
        None => {}
    }
    let started = Instant::now();
    let statement = table::create_target_index(domain);
    let made = database.transaction(stop, MAKE_TIMEOUT, |transaction| {
        transaction.batch(sql::SCHEMA_BOUNDS)?;
        Ok(transaction.batch(&statement)?)
    });
    match made {
        Ok(()) => {
            log::info!("{domain}: made index {name} in {:.1} s", started.elapsed().as_secs_f64());
            Ok(TargetIndex::There)
        }
        Err(WorkError::Postgres(error)) if error.code() == Some(LOCK_NOT_FREE) => {
            Ok(TargetIndex::NotNow)
        }
        Err(WorkError::Postgres(error)) if !error.is_connection_lost() => {
            Ok(TargetIndex::Refused(format!("{statement}: {error}")))
        }
        Err(error) => Err(error),
    }
}

/// What became of the index of smart mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetIndex {
    /// It is there.
    There,
    /// Somebody wrote to the table all the time: to be tried again.
    NotNow,
    /// It can't be made, and why.
    Refused(String),
}

/// Makes the tables of leases that are missing; as [`ensure`].
///
/// # Errors
/// See [`WorkError`].
pub fn ensure_leases(database: &Database, stop: &Stop) -> Result<(), WorkError> {
    let look = |transaction: &mut Transaction<'_>| {
        let tables = leases::create_tables();
        let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
        let rows = transaction.query(sql::RELATIONS, &[&names])?;
        let there = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        let absent = tables.into_iter().filter(|(name, _)| !there.iter().any(|t| t == name));
        Ok(absent.map(|(_, statement)| statement).collect::<Vec<_>>())
    };
    if database.transaction(stop, LOOK_TIMEOUT, look)?.is_empty() {
        return Ok(());
    }
    database.transaction(stop, MAKE_TIMEOUT, |transaction| {
        transaction.batch(sql::SCHEMA_BOUNDS)?;
        transaction.execute(sql::ADVISORY_LOCK, &[&lock_key("availability schema")])?;
        for statement in look(transaction)? {
            transaction.batch(&statement)?;
        }
        Ok(())
    })
}

/// The key of an advisory lock: what it is for, so that nobody else's is hit.
pub fn lock_key(purpose: &str) -> i64 {
    i64::from_be_bytes(stable_hash(purpose.as_bytes()).to_be_bytes())
}

/// The whole schema for these domains as a script that changes nothing that is
/// there already, for those who run it themselves; with what smart mode needs.
pub fn script(domains: &[Domain], smart: bool) -> String {
    let mut script = String::from(
        "-- A recorder that may not make these needs of them: select, insert and update on the\n\
         -- tables, usage on their sequences, and delete on availability_mark, without which the\n\
         -- marks of old runs stay. A replay needs delete on availability_quarantine.\n\
         -- PostgreSQL 12 or newer.\n\
         begin;\n",
    );
    let types = [sql::STATUS_TYPE, sql::PHRASE_TYPE];
    for name in types {
        script.push_str(&format!("{};\n", sql::create_type(name)));
    }
    for name in types {
        for label in sql::labels(name) {
            script.push_str(&format!("{};\n", sql::add_label(name, label)));
        }
    }
    for name in OWN_TABLES {
        script.push_str(&format!("{};\n", sql::create_own_table(name)));
    }
    for (name, columns) in OWN_COLUMNS_ADDED {
        script.push_str(&format!("{};\n", sql::add_columns(name, columns)));
    }
    for (_, statement) in leases::create_tables() {
        script.push_str(&format!("{statement};\n"));
    }
    for domain in domains {
        script.push_str(&format!("{};\n", table::create_domain_table(domain)));
        let added = sql::add_columns(&domain.table(), table::FURTHER_COLUMNS);
        script.push_str(&format!("{added};\n"));
        script.push_str(&format!("{};\n", table::create_url_index(domain)));
        if smart {
            script.push_str(&format!("{};\n", table::create_target_index(domain)));
        }
    }
    script.push_str("commit;\n");
    script
}

struct Found {
    labels: Labels,
    missing: Vec<String>,
}

fn look(transaction: &mut Transaction<'_>, domain: &Domain) -> Result<Found, WorkError> {
    let mut missing = Vec::new();
    let mut found_labels = Vec::new();
    for name in [sql::STATUS_TYPE, sql::PHRASE_TYPE] {
        let rows = transaction.query(sql::LABELS, &[&name])?;
        let there = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        if there.is_empty() {
            missing.push(sql::create_type(name));
        } else {
            let has = |label: &&str| there.iter().any(|found| found.to_lowercase() == **label);
            let lacking = sql::labels(name).into_iter().filter(|label| !has(label));
            missing.extend(lacking.map(|label| sql::add_label(name, label)));
        }
        found_labels.push(there);
    }
    let own = OWN_TABLES.iter().map(|name| ((*name).to_owned(), sql::create_own_table(name)));
    let mut relations: Vec<(String, String)> = own.collect();
    relations.push((domain.table(), table::create_domain_table(domain)));
    relations.push((domain.url_index(), table::create_url_index(domain)));
    let names: Vec<&str> = relations.iter().map(|(name, _)| name.as_str()).collect();
    let rows = transaction.query(sql::RELATIONS, &[&names])?;
    let there = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    let mut grown = OWN_COLUMNS_ADDED.map(|(name, columns)| (name.to_owned(), columns)).to_vec();
    grown.push((domain.table(), table::FURTHER_COLUMNS));
    for (name, columns) in grown.into_iter().filter(|(name, _)| there.contains(name)) {
        let rows = transaction.query(sql::COLUMNS, &[&name])?;
        let found = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        if !columns.iter().all(|(column, _)| found.iter().any(|found| found == column)) {
            missing.push(sql::add_columns(&name, columns));
        }
    }
    let absent = relations.into_iter().filter(|(name, _)| !there.contains(name));
    missing.extend(absent.map(|(_, statement)| statement));
    let phrases = found_labels.pop().unwrap_or_default();
    let statuses = found_labels.pop().unwrap_or_default();
    Ok(Found { labels: Labels::new(statuses, phrases), missing })
}
