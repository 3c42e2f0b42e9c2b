//! `recorder replay`: what went to quarantine is put through again, by the
//! labels and the rules of today.
//!
//! A record becomes a row and leaves the quarantine in one transaction ([`batch`]),
//! so that it does so once, whatever is killed, and however many replay it at a
//! time. No position moves: that of a record in quarantine was passed long ago,
//! and its identity is in the marks already.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use common::backoff::{Backoff, Outage};
use common::domain::{Domain, TOPIC_PREFIX_OF_1_1_0};
use common::stop::{SignalThread, Stop};
use postgres_client::ConnectError;

use crate::domain::HINT;
use crate::postgres::domain_table::TableSql;
use crate::postgres::pool::{Database, WorkError};
use crate::postgres::sql;
use crate::report::outage_log::{GRACE, SharedOutage};
use crate::schema;
use crate::settings::ReplaySettings;
use crate::settings::domains::Wanted;

pub(crate) mod batch;
pub(crate) mod quarantine;

use batch::{Batch, Outcome, Place};

/// The most rows, and bytes of values unless a single one has more, that are
/// replayed in one transaction: a recorder in smart mode waits for its end.
const BATCH_ROWS_MAX: i64 = 500;
const BATCH_BYTES_MAX: i64 = 4 * 1024 * 1024;
/// How long a transaction may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The first and the longest wait between two tries.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Replays all that is in quarantine at the start: 0 when none of it is left
/// there, 1 when some is, and when it could not be done.
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

/// How many records are left in quarantine.
fn replay(settings: ReplaySettings, out: &mut dyn Write) -> Result<i64, ReplayError> {
    let (signals, stop) = SignalThread::start().map_err(ReplayError::Signals)?;
    if let Some(warning) = settings.postgres.warning() {
        log::warn!("{warning}");
    }
    // Somebody waits for the end: a server that can't be reached at the start is
    // an error, and only one that is lost later is waited for.
    drop(settings.postgres.connect().map_err(ReplayError::Connect)?);
    let mut replay = Replay {
        database: Database::new(settings.postgres, 1, Arc::new(SharedOutage::new("postgresql"))),
        stop,
        backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
        outage: Outage::new(GRACE),
        keeps_offsets: settings.topic_prefix != TOPIC_PREFIX_OF_1_1_0,
        totals: Totals::default(),
        out,
    };
    let left = replay.all(settings.wanted);
    let Totals { recorded, bad, taken } = &replay.totals;
    let others = if *taken > 0 { format!(", {taken} taken by others") } else { String::new() };
    let left_text = match &left {
        Ok(left) => format!("{left} left in quarantine"),
        Err(_) => "not all was tried".to_owned(),
    };
    let line = format!("{recorded} recorded, {bad} still bad{others}; {left_text}");
    let said = replay.say(format_args!("{line}"));
    signals.join();
    left.and_then(|left| said.map(|()| left))
}

/// What became of the records so far.
#[derive(Debug, Default)]
struct Totals {
    recorded: usize,
    bad: usize,
    taken: usize,
}

/// A replay under way.
struct Replay<'a> {
    database: Database,
    stop: Stop,
    backoff: Backoff,
    outage: Outage,
    keeps_offsets: bool,
    totals: Totals,
    out: &'a mut dyn Write,
}

impl Replay<'_> {
    fn all(&mut self, mut wanted: Wanted) -> Result<i64, ReplayError> {
        let topics = self.topics()?;
        if wanted.has_patterns() {
            wanted.found(topics.clone(), |_| true);
        }
        let mut left = 0;
        for (topic, domain) in wanted.domains() {
            if topics.contains(topic) {
                left += self.domain(topic, domain)?;
            }
        }
        Ok(left)
    }

    fn topics(&mut self) -> Result<Vec<String>, ReplayError> {
        let found = self.patiently(|database, stop| {
            database.transaction(stop, TIMEOUT, |transaction| {
                if transaction
                    .query(sql::RELATIONS, &[&[sql::QUARANTINE_TABLE].as_slice()])?
                    .is_empty()
                {
                    return Ok(None);
                }
                let rows = transaction.query(quarantine::TOPICS, &[])?;
                let topics = rows.iter().map(|row| row.try_get(0));
                Ok(Some(topics.collect::<Result<Vec<String>, _>>()?))
            })
        })?;
        found.ok_or(ReplayError::NothingRecorded)
    }

    /// How many are left of those that were there at the start: not of those
    /// that a recorder goes on to add, after which this would run for ever.
    fn domain(&mut self, topic: &str, domain: &Domain) -> Result<i64, ReplayError> {
        let Some(last) = self.last(topic)? else { return Ok(0) };
        let labels = self.patiently(|database, stop| schema::ensure(database, stop, domain))?;
        let table = TableSql::new(domain);
        let keeps_offsets = self.keeps_offsets;
        let mut after = 0;
        loop {
            let places = self.next(topic, after, last)?;
            let Some(highest) = places.last() else { break };
            after = highest.id;
            let mut batch = Batch::new(&table, &labels, keeps_offsets, &places);
            let outcomes = self.patiently(|database, stop| {
                database.transaction(stop, TIMEOUT, |transaction| batch.write(transaction))
            })?;
            for (Place { partition, offset, .. }, outcome) in places.iter().zip(outcomes) {
                match &outcome {
                    Outcome::Recorded { .. } => self.totals.recorded += 1,
                    Outcome::Bad(_) => self.totals.bad += 1,
                    Outcome::Taken => self.totals.taken += 1,
                }
                self.say(format_args!("{topic}/{partition}@{offset}: {outcome}"))?;
            }
        }
        self.left(topic, last)
    }

    /// The `id` of the last row of a topic; none when it has none.
    fn last(&mut self, topic: &str) -> Result<Option<i64>, ReplayError> {
        Ok(self.patiently(|database, stop| {
            database.transaction(stop, TIMEOUT, |transaction| {
                let rows = transaction.query(quarantine::LAST, &[&topic])?;
                Ok(rows.first().map_or(Ok(None), |row| row.try_get(0))?)
            })
        })?)
    }

    /// The next rows of a topic: as many as one transaction takes.
    fn next(&mut self, topic: &str, after: i64, last: i64) -> Result<Vec<Place>, ReplayError> {
        Ok(self.patiently(|database, stop| {
            database.transaction(stop, TIMEOUT, |transaction| {
                let values = transaction
                    .query(quarantine::NEXT, &[&topic, &after, &last, &BATCH_ROWS_MAX])?;
                let mut places = Vec::with_capacity(values.len());
                let mut bytes = 0;
                for row in &values {
                    bytes += row.try_get::<_, i64>(3)?;
                    if bytes > BATCH_BYTES_MAX && !places.is_empty() {
                        break;
                    }
                    places.push(Place {
                        id: row.try_get(0)?,
                        partition: row.try_get(1)?,
                        offset: row.try_get(2)?,
                    });
                }
                Ok(places)
            })
        })?)
    }

    fn left(&mut self, topic: &str, last: i64) -> Result<i64, ReplayError> {
        Ok(self.patiently(|database, stop| {
            database.transaction(stop, TIMEOUT, |transaction| {
                let rows = transaction.query(quarantine::LEFT, &[&topic, &last])?;
                Ok(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
            })
        })?)
    }

    /// Does a transaction again until it is refused or takes place, with a line
    /// in the log when that takes long.
    fn patiently<T>(
        &mut self,
        mut work: impl FnMut(&Database, &Stop) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        loop {
            match work(&self.database, &self.stop) {
                Err(WorkError::Postgres(error)) if error.is_retryable() => {
                    if let Some(length) = self.outage.failed() {
                        log::warn!("postgresql: {error}; trying again for {} s", length.as_secs());
                    }
                    let delay = self.backoff.next_delay();
                    self.stop.wait(delay);
                }
                result => {
                    self.backoff.reset();
                    if let Some(length) = self.outage.succeeded() {
                        log::info!("postgresql: well again after {:.1} s", length.as_secs_f64());
                    }
                    return result;
                }
            }
        }
    }

    fn say(&mut self, line: fmt::Arguments<'_>) -> Result<(), ReplayError> {
        writeln!(self.out, "{line}").map_err(ReplayError::Output)
    }
}

/// Why a replay ended before all was tried. What it said until then holds.
#[derive(Debug)]
enum ReplayError {
    /// Signals can't be listened to.
    Signals(io::Error),
    /// The database can't be reached.
    Connect(ConnectError),
    /// The database has no table of what is in quarantine.
    NothingRecorded,
    /// The database's refusal, or a stop.
    Work(WorkError),
    /// Nobody reads any more what is said.
    Output(io::Error),
}

impl From<WorkError> for ReplayError {
    fn from(cause: WorkError) -> Self {
        Self::Work(cause)
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signals(cause) => write!(f, "signals: {cause}"),
            Self::Connect(cause) => write!(f, "{cause}"),
            Self::NothingRecorded => {
                write!(
                    f,
                    "no table {} in this database: nothing was recorded here",
                    sql::QUARANTINE_TABLE
                )
            }
            Self::Work(cause) => {
                let denied = matches!(cause, WorkError::Postgres(error) if error.is_denied());
                write!(f, "{cause}{}", if denied { HINT } else { "" })
            }
            Self::Output(cause) => write!(f, "standard output: {cause}"),
        }
    }
}

impl std::error::Error for ReplayError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Signals(cause) | Self::Output(cause) => Some(cause),
            Self::Connect(cause) => Some(cause),
            Self::Work(cause) => Some(cause),
            Self::NothingRecorded => None,
        }
    }
}
