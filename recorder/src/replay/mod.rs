//! `recorder replay`: tries the records in quarantine again, with the labels of the database and
//! the rules of this version.
//!
//! One transaction stores a record as a row and deletes it from the quarantine (`batch`). So the
//! record is recorded once, even if processes are killed or several replays run. A replay moves no
//! position and stores no mark, because the recorder did both when it put the record into
//! quarantine.

mod batch;
mod quarantine;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use common::backoff::Backoff;
use common::domain::{Domain, TOPIC_PREFIX_OF_1_1_0};
use common::log_throttle::LogThrottle;
use common::stop::{SignalThread, Stop};
use postgres_client::{ConnectError, PostgresError};

use crate::decode::rejected::Rejected;
use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::{Database, Transaction};
use crate::report::outage_log::{GRACE, SharedOutage};
use crate::schema::{self, SCHEMA_HINT};
use crate::settings::ReplaySettings;
use crate::settings::domains::DomainSelection;
use crate::timings::Timings;
use crate::transaction::quarantine::QUARANTINE_TABLE;

use batch::{ReplayBatch, ReplayOutcome, ReplayTarget};
use quarantine::RecordRef;

/// The maximum number of records in one transaction, and the maximum size of their values in bytes.
/// A recorder in smart mode waits until the transaction has ended.
const BATCH_RECORDS_MAX: i64 = 500;
const BATCH_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// Replays all records that are in quarantine at the start. The exit code is 0 if none of these
/// records is left in quarantine. It is 1 if records are left or the replay failed.
pub fn run(settings: ReplaySettings) -> ExitCode {
    match replay(settings, &mut io::stdout().lock()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Replays the records, and returns how many records are left in quarantine.
fn replay(settings: ReplaySettings, output: &mut dyn Write) -> Result<i64, ReplayError> {
    let (signals, stop) = SignalThread::start().map_err(ReplayError::Signals)?;
    if let Some(warning) = settings.postgres.warning() {
        log::warn!("{warning}");
    }
    // An operator waits for the result. So an unreachable server at the start is an error. Only a
    // connection that is lost later is retried.
    drop(settings.postgres.connect()?);
    let timings = Timings::default();
    let outage = Arc::new(SharedOutage::new("postgresql"));
    let mut replayer = Replayer {
        database: Database::new(settings.postgres, 1, outage),
        stop,
        backoff: Backoff::new(timings.retry_delay_min, timings.retry_delay_max),
        outage: LogThrottle::new(GRACE),
        timings,
        keeps_offsets: settings.topic_prefix != TOPIC_PREFIX_OF_1_1_0,
        totals: ReplayTotals::default(),
        output,
    };
    let left = replayer.replay_all(settings.selection);
    let ReplayTotals { recorded, rejected, taken } = &replayer.totals;
    let others = if *taken > 0 { format!(", {taken} taken by others") } else { String::new() };
    let remainder = match &left {
        Ok(left) => format!("{left} left in quarantine"),
        Err(_) => "not all records were tried".to_owned(),
    };
    let summary = format!("{recorded} recorded, {rejected} still bad{others}; {remainder}");
    let printed = replayer.print(format_args!("{summary}"));
    signals.join();
    let left = left?;
    printed?;
    Ok(left)
}

/// The number of records with each outcome so far.
#[derive(Debug, Default)]
struct ReplayTotals {
    recorded: usize,
    rejected: usize,
    taken: usize,
}

struct Replayer<'a> {
    database: Database,
    stop: Stop,
    backoff: Backoff,
    outage: LogThrottle,
    timings: Timings,
    keeps_offsets: bool,
    totals: ReplayTotals,
    output: &'a mut dyn Write,
}

impl Replayer<'_> {
    fn replay_all(&mut self, mut selection: DomainSelection) -> Result<i64, ReplayError> {
        let topics = self.transaction(quarantine::topics)?.ok_or(ReplayError::NothingRecorded)?;
        if selection.has_patterns() {
            selection.add_topics(topics.clone(), |_| true);
        }
        let mut left = 0;
        for (topic, domain) in selection.domains() {
            if topics.contains(topic) {
                left += self.replay_domain(topic, domain)?;
            }
        }
        Ok(left)
    }

    /// Replays the records that are in quarantine at the start. A recorder may add more records
    /// meanwhile. They are not replayed, because the replay might never end. Returns how many
    /// records are left.
    fn replay_domain(&mut self, topic: &str, domain: &Domain) -> Result<i64, ReplayError> {
        let last_id = self.transaction(|transaction| quarantine::last_id(transaction, topic))?;
        let Some(last_id) = last_id else { return Ok(0) };
        let timings = self.timings.clone();
        let schema =
            self.with_retries(|database, stop| schema::ensure(database, stop, &timings, domain))?;
        let target = ReplayTarget::new(DomainTable::new(domain), schema, self.keeps_offsets);
        let (mut after_id, mut count) = (0, BATCH_RECORDS_MAX);
        loop {
            let ids = (after_id, last_id);
            let records = self.transaction(|transaction| {
                quarantine::next_records(transaction, topic, ids, count, BATCH_BYTES_MAX)
            })?;
            let Some(last) = records.last() else { break };
            let outcomes = match self.write_batch(&mut ReplayBatch::new(&target, &records))? {
                Ok(outcomes) => outcomes,
                Err(_) if records.len() > 1 => {
                    count = (records.len() / 2) as i64;
                    continue;
                }
                Err(timeout) => {
                    vec![ReplayOutcome::Rejected(Rejected::Database(timeout.to_string()))]
                }
            };
            after_id = last.id;
            count = (count * 2).min(BATCH_RECORDS_MAX);
            for (RecordRef { partition, offset, .. }, outcome) in records.iter().zip(outcomes) {
                self.totals.add(&outcome);
                self.print(format_args!("{topic}/{partition}@{offset}: {outcome}"))?;
            }
        }
        Ok(self.transaction(|transaction| quarantine::count_up_to(transaction, topic, last_id))?)
    }

    /// Replays a batch. The inner error is the error of a statement that exceeded the time-out of
    /// the server. It is not retried, because it would take as long each time.
    fn write_batch(
        &mut self,
        batch: &mut ReplayBatch<'_>,
    ) -> Result<Result<Vec<ReplayOutcome>, PostgresError>, TransactionError> {
        let timeout = self.timings.write_timeout;
        self.with_retries(|database, stop| {
            match database.transaction(stop, timeout, |transaction| batch.write(transaction)) {
                Err(TransactionError::Postgres(error @ PostgresError::Timeout(_)))
                    if !error.is_connection_lost() =>
                {
                    Ok(Err(error))
                }
                result => result.map(Ok),
            }
        })
    }

    /// Runs `work` in a transaction. Retries after a retryable error.
    fn transaction<T>(
        &mut self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let timeout = self.timings.write_timeout;
        self.with_retries(|database, stop| database.transaction(stop, timeout, &mut work))
    }

    /// Runs `work` until it succeeds or fails permanently, with growing delays. A long
    /// outage is logged.
    fn with_retries<T>(
        &mut self,
        mut work: impl FnMut(&Database, &Stop) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        loop {
            match work(&self.database, &self.stop) {
                Err(TransactionError::Postgres(error)) if error.is_retryable() => {
                    if let Some(length) = self.outage.record_failure() {
                        log::warn!("postgresql: {error}; retrying for {} s", length.as_secs());
                    }
                    let delay = self.backoff.next_delay();
                    self.stop.wait(delay);
                }
                result => {
                    self.backoff.reset();
                    if let Some(length) = self.outage.record_success() {
                        log::info!("postgresql: recovered after {:.1} s", length.as_secs_f64());
                    }
                    return result;
                }
            }
        }
    }

    fn print(&mut self, line: fmt::Arguments<'_>) -> Result<(), ReplayError> {
        writeln!(self.output, "{line}").map_err(ReplayError::Output)
    }
}

impl ReplayTotals {
    fn add(&mut self, outcome: &ReplayOutcome) {
        match outcome {
            ReplayOutcome::Recorded { .. } => self.recorded += 1,
            ReplayOutcome::Rejected(_) => self.rejected += 1,
            ReplayOutcome::Taken => self.taken += 1,
        }
    }
}

/// The reason why a replay ended before all records were tried. The lines printed before remain
/// correct.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    /// The signal handlers can't be installed.
    #[error("signals: {0}")]
    Signals(#[source] io::Error),
    /// PostgreSQL is not reachable at the start.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The database has no table of records in quarantine.
    #[error("no table {} in this database: nothing was recorded here", QUARANTINE_TABLE.name)]
    NothingRecorded,
    /// The database refused a statement, or a stop was requested.
    #[error("{0}{hint}", hint = if .0.is_denied() { SCHEMA_HINT } else { "" })]
    Transaction(#[from] TransactionError),
    /// Standard output is closed.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}
