//! The connections to PostgreSQL: few, leased for one transaction each.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::backoff::Backoff;
use common::stop::Stop;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use postgres::types::ToSql;
use postgres::{Row, Statement};
use postgres_client::{Connection, PostgresError, PostgresSettings};

use crate::postgres::sql;
use crate::report::outage_log::SharedOutage;

/// The first and the longest wait between two tries to connect.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
const LEASE_RETRY_LONGEST: Duration = Duration::from_secs(1);
/// A connection that was not used for this long is tried before it is used:
/// the server may have been started anew since.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(5);
/// How long the first statements on a connection, or trying one, may take.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// The most prepared statements that a connection keeps.
const STATEMENTS_MAX: usize = 256;

/// The bounded pool of connections.
pub struct Database {
    settings: PostgresSettings,
    give: Sender<Slot>,
    take: Receiver<Slot>,
    retry: Mutex<Retry>,
    outage: Arc<SharedOutage>,
    /// Its name where outages are counted by domain.
    name: &'static str,
}

struct Retry {
    backoff: Backoff,
    not_before: Instant,
}

/// Room for a connection, and the connection that is in it.
type Slot = Option<Session>;

struct Session {
    connection: Connection,
    statements: HashMap<String, Statement>,
    used: Instant,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({:?})", self.settings.uri)
    }
}

impl Database {
    /// A pool of at most `connections`; none is made before it is needed.
    pub fn new(settings: PostgresSettings, connections: usize, outage: Arc<SharedOutage>) -> Self {
        Self::named("connections", settings, connections, RETRY_LONGEST, outage)
    }

    /// A single connection for leases, which come back soon after an outage.
    pub fn for_leases(settings: PostgresSettings, outage: Arc<SharedOutage>) -> Self {
        Self::named("the connection for leases", settings, 1, LEASE_RETRY_LONGEST, outage)
    }

    fn named(
        name: &'static str,
        settings: PostgresSettings,
        connections: usize,
        retry_longest: Duration,
        outage: Arc<SharedOutage>,
    ) -> Self {
        let (give, take) = bounded(connections.max(1));
        for _ in 0..connections.max(1) {
            // There is room for each, and the receiver lives.
            let _ = give.try_send(None);
        }
        let backoff = Backoff::new(RETRY_FIRST, retry_longest);
        let retry = Mutex::new(Retry { backoff, not_before: Instant::now() });
        Self { settings, give, take, retry, outage, name }
    }

    /// Runs `work` in a transaction, which is committed when it returns well
    /// and undone when it does not. Waits for as long as it takes for a
    /// connection; from then on everything together may take `within`.
    ///
    /// # Errors
    /// [`WorkError::Stopped`] when a stop was asked for while waiting, what
    /// `work` returns, or that of the commit, after which it is *unknown*
    /// whether the transaction took place.
    pub fn transaction<T>(
        &self,
        stop: &Stop,
        within: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        let mut session = self.lease(stop)?;
        let result = session.transaction(within, work);
        // After an error nobody knows in which state a connection is.
        let slot = result.is_ok().then_some(session);
        self.put_back(slot);
        result
    }

    /// As [`Database::transaction`], though a stop was asked for: on a connection
    /// that is there and not in use, or not at all.
    ///
    /// # Errors
    /// See [`Database::transaction`]; [`WorkError::Stopped`] without a connection.
    pub fn farewell<T>(
        &self,
        within: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        let slot = self.take.try_recv().ok().flatten();
        slot.ok_or(WorkError::Stopped)?.transaction(within, work)
    }

    /// Says that a transaction of `who` failed because of the server's state.
    pub fn failed(&self, who: &str, error: &PostgresError) {
        self.outage.failed(who, error);
    }

    /// Says that a transaction of `who`, whose last one failed, succeeded.
    pub fn succeeded(&self, who: &str) {
        self.outage.succeeded(who);
    }

    /// Says that `who` needs the server no more.
    pub fn left(&self, who: &str) {
        self.outage.left(who);
    }

    fn lease(&self, stop: &Stop) -> Result<Session, WorkError> {
        loop {
            let slot = select! {
                recv(self.take) -> slot => slot.map_err(|_| WorkError::Stopped)?,
                recv(stop.channel()) -> _ => return Err(WorkError::Stopped),
            };
            if let Some(mut session) = slot.filter(|_| !stop.requested())
                && session.is_alive()
            {
                return Ok(session);
            }
            match self.connect(stop) {
                Ok(Some(session)) => return Ok(session),
                Ok(None) => self.put_back(None),
                Err(stopped) => {
                    self.put_back(None);
                    return Err(stopped);
                }
            }
        }
    }

    /// A new connection; none after a failure, which was then logged.
    fn connect(&self, stop: &Stop) -> Result<Option<Session>, WorkError> {
        let wait = self.retry().not_before.saturating_duration_since(Instant::now());
        if stop.wait(wait) {
            return Err(WorkError::Stopped);
        }
        let connected = self.settings.connect().map_err(|error| error.to_string());
        let greeted = connected.and_then(|mut connection| {
            let greeting = connection.within(GREETING_TIMEOUT).batch_execute(sql::SESSION);
            greeting.map_err(|cause| PostgresError::from(cause).to_string()).map(|()| connection)
        });
        match greeted {
            Ok(connection) => {
                self.retry().backoff.reset();
                self.outage.succeeded(self.name);
                let statements = HashMap::new();
                Ok(Some(Session { connection, statements, used: Instant::now() }))
            }
            Err(error) => {
                self.outage.failed(self.name, &error.trim_start_matches("postgresql "));
                let mut retry = self.retry();
                // Whoever failed at the same time has set it already.
                if retry.not_before <= Instant::now() {
                    retry.not_before = Instant::now() + retry.backoff.next_delay();
                }
                Ok(None)
            }
        }
    }

    fn put_back(&self, slot: Slot) {
        // There is room: the slot was taken from there.
        let _ = self.give.try_send(slot);
    }

    fn retry(&self) -> MutexGuard<'_, Retry> {
        self.retry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_alive(&mut self) -> bool {
        self.used.elapsed() < TRY_AFTER_IDLE
            || self.connection.within(GREETING_TIMEOUT).batch_execute("").is_ok()
    }

    fn transaction<T>(
        &mut self,
        within: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        if self.statements.len() > STATEMENTS_MAX {
            self.statements.clear();
        }
        let inner = self.connection.within(within).transaction()?;
        let mut transaction = Transaction { inner, statements: &mut self.statements };
        let result = work(&mut transaction)?;
        transaction.inner.commit()?;
        self.used = Instant::now();
        Ok(result)
    }
}

/// A transaction under way.
pub struct Transaction<'a> {
    inner: postgres::Transaction<'a>,
    statements: &'a mut HashMap<String, Statement>,
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Transaction<'_> {
    /// Runs statements without parameters.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn batch(&mut self, sql: &str) -> Result<(), PostgresError> {
        Ok(self.inner.batch_execute(sql)?)
    }

    /// Runs a statement, prepared once for the connection; the rows affected.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn execute(&mut self, sql: &str, values: Parameters<'_>) -> Result<u64, PostgresError> {
        let statement = self.prepared(sql)?;
        Ok(self.inner.execute(&statement, values)?)
    }

    /// Runs a statement, prepared once for the connection; the rows returned.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn query(&mut self, sql: &str, values: Parameters<'_>) -> Result<Vec<Row>, PostgresError> {
        let statement = self.prepared(sql)?;
        Ok(self.inner.query(&statement, values)?)
    }

    /// Runs `work` and undoes what it did if it failed.
    ///
    /// # Errors
    /// That of the savepoint; the inner result is that of `work`.
    pub fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, PostgresError>,
    ) -> Result<Result<T, PostgresError>, PostgresError> {
        let inner = self.inner.transaction()?;
        let mut nested = Transaction { inner, statements: &mut *self.statements };
        let result = work(&mut nested);
        match &result {
            Ok(_) => nested.inner.commit()?,
            Err(_) => nested.inner.rollback()?,
        }
        Ok(result)
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, PostgresError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.inner.prepare(sql)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Why a transaction did not take place, or may not have.
#[derive(Debug)]
pub enum WorkError {
    /// A stop was asked for.
    Stopped,
    /// The server's refusal, or the way to it.
    Postgres(PostgresError),
    /// The position is not where it was left: another recorder is at work.
    Fenced,
    /// A row that was to be changed is not there any more.
    RowGone,
}

impl From<PostgresError> for WorkError {
    fn from(cause: PostgresError) -> Self {
        Self::Postgres(cause)
    }
}

impl From<postgres::Error> for WorkError {
    fn from(cause: postgres::Error) -> Self {
        Self::Postgres(cause.into())
    }
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopping"),
            Self::Postgres(cause) => write!(f, "postgresql: {cause}"),
            Self::Fenced => f.write_str("the position was moved by another recorder"),
            Self::RowGone => f.write_str("a row that was to be changed is gone"),
        }
    }
}

impl std::error::Error for WorkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Postgres(cause) => Some(cause),
            Self::Stopped | Self::Fenced | Self::RowGone => None,
        }
    }
}
