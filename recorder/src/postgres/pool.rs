//! A bounded pool of connections to PostgreSQL, and the transactions on them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::backoff::Backoff;
use common::domain::stable_hash;
use common::stop::Stop;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use postgres::types::ToSql;
use postgres::{Row, Statement};
use postgres_client::{PostgresConnection, PostgresError, PostgresSettings};

use super::error::TransactionError;
use crate::report::outage_log::SharedOutage;

/// The shortest and the longest delay before connecting is retried.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);
const LEASE_RETRY_DELAY_MAX: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is tested before it is used: the
/// server may have restarted.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);
/// The longest that the first statement on a connection, or its test, may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
/// The most prepared statements that one connection caches.
const STATEMENTS_MAX: usize = 256;

/// Run on each new connection. It bounds statements, waits for locks, and a
/// transaction whose recorder was stopped while it holds locks. (The bound of the
/// connection itself is longer.)
const SESSION_SETTINGS: &str = "set statement_timeout = '20s'; \
    set lock_timeout = '10s'; \
    set idle_in_transaction_session_timeout = '10s'; \
    set client_min_messages = 'warning'";

/// A bounded pool of connections.
pub struct Database {
    settings: PostgresSettings,
    free_sender: Sender<PoolSlot>,
    free: Receiver<PoolSlot>,
    retry: Mutex<ConnectRetry>,
    outage: Arc<SharedOutage>,
    /// The name of this pool in log lines about outages.
    name: &'static str,
}

struct ConnectRetry {
    backoff: Backoff,
    not_before: Instant,
}

/// A place in the pool, empty until it is used for the first time and after an
/// error.
type PoolSlot = Option<PooledConnection>;

struct PooledConnection {
    connection: PostgresConnection,
    statements: HashMap<String, Statement>,
    last_used: Instant,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({:?})", self.settings.uri)
    }
}

impl Database {
    /// A pool of at most `connections`. Connects when a connection is needed.
    pub fn new(settings: PostgresSettings, connections: usize, outage: Arc<SharedOutage>) -> Self {
        Self::named("connections", settings, connections, RETRY_DELAY_MAX, outage)
    }

    /// A single connection for leases. It is retried more often, so that leases
    /// are renewed soon after an outage.
    pub fn for_leases(settings: PostgresSettings, outage: Arc<SharedOutage>) -> Self {
        Self::named("the connection for leases", settings, 1, LEASE_RETRY_DELAY_MAX, outage)
    }

    fn named(
        name: &'static str,
        settings: PostgresSettings,
        connections: usize,
        retry_delay_max: Duration,
        outage: Arc<SharedOutage>,
    ) -> Self {
        let (free_sender, free) = bounded(connections.max(1));
        for _ in 0..connections.max(1) {
            // The channel has a place for each, and its receiver is alive.
            let _ = free_sender.try_send(None);
        }
        let backoff = Backoff::new(RETRY_DELAY_MIN, retry_delay_max);
        let retry = Mutex::new(ConnectRetry { backoff, not_before: Instant::now() });
        Self { settings, free_sender, free, retry, outage, name }
    }

    /// Runs `work` in a transaction. The transaction is committed if `work`
    /// returns `Ok` and rolled back if not. Waits for a connection without a
    /// bound; after that, all statements together may take `timeout`.
    ///
    /// # Errors
    /// [`TransactionError::Stopped`] if a stop was requested while it waited for
    /// a connection; the error of `work`; or the error of the commit, after which
    /// it is *unknown* whether the transaction was committed.
    pub fn transaction<T>(
        &self,
        stop: &Stop,
        timeout: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let mut connection = self.checkout(stop)?;
        let mut slot = SlotGuard { pool: self, slot: None };
        let result = connection.transaction(timeout, work);
        // After an error the state of the connection is unknown.
        slot.slot = result.is_ok().then_some(connection);
        result
    }

    /// As [`Database::transaction`], but on a connection that is open and idle, and
    /// without waiting for one. It serves after a stop was requested.
    ///
    /// # Errors
    /// See [`Database::transaction`]; [`TransactionError::Stopped`] if no open
    /// connection is idle.
    pub fn try_transaction_on_idle<T>(
        &self,
        timeout: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let slot = self.free.try_recv().ok().flatten();
        slot.ok_or(TransactionError::Stopped)?.transaction(timeout, work)
    }

    /// Records that a transaction of `user` lost its connection.
    pub fn record_failure(&self, user: &str, error: &PostgresError) {
        self.outage.record_failure(user, error);
    }

    /// Records that a transaction of `user` succeeded after a failure.
    pub fn record_success(&self, user: &str) {
        self.outage.record_success(user);
    }

    /// Records that `user` does not need the server any more.
    pub fn remove_user(&self, user: &str) {
        self.outage.remove_user(user);
    }

    fn checkout(&self, stop: &Stop) -> Result<PooledConnection, TransactionError> {
        loop {
            let slot = select! {
                recv(self.free) -> slot => slot.map_err(|_| TransactionError::Stopped)?,
                recv(stop.channel()) -> _ => return Err(TransactionError::Stopped),
            };
            if let Some(mut connection) = slot.filter(|_| !stop.is_requested())
                && connection.is_alive()
            {
                return Ok(connection);
            }
            match self.connect(stop) {
                Ok(Some(connection)) => return Ok(connection),
                Ok(None) => self.put_back(None),
                Err(stopped) => {
                    self.put_back(None);
                    return Err(stopped);
                }
            }
        }
    }

    /// Connects. `None` after a failure, which is logged here.
    fn connect(&self, stop: &Stop) -> Result<Option<PooledConnection>, TransactionError> {
        let wait = self.retry().not_before.saturating_duration_since(Instant::now());
        if stop.wait(wait) {
            return Err(TransactionError::Stopped);
        }
        let connected = self.settings.connect().map_err(|error| error.to_string());
        let ready = connected.and_then(|mut connection| {
            let setup = connection.within(SETUP_TIMEOUT).batch_execute(SESSION_SETTINGS);
            setup.map_err(|cause| PostgresError::from(cause).to_string()).map(|()| connection)
        });
        match ready {
            Ok(connection) => {
                self.retry().backoff.reset();
                self.outage.record_success(self.name);
                let statements = HashMap::new();
                Ok(Some(PooledConnection { connection, statements, last_used: Instant::now() }))
            }
            Err(error) => {
                self.outage.record_failure(self.name, &error.trim_start_matches("postgresql "));
                let mut retry = self.retry();
                // Another thread that failed at the same time may have set it.
                if retry.not_before <= Instant::now() {
                    retry.not_before = Instant::now() + retry.backoff.next_delay();
                }
                Ok(None)
            }
        }
    }

    fn put_back(&self, slot: PoolSlot) {
        // The place that the slot came from is free.
        let _ = self.free_sender.try_send(slot);
    }

    fn retry(&self) -> MutexGuard<'_, ConnectRetry> {
        self.retry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a slot back when it is dropped, also by a panic.
struct SlotGuard<'a> {
    pool: &'a Database,
    slot: PoolSlot,
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        self.pool.put_back(self.slot.take());
    }
}

impl PooledConnection {
    fn is_alive(&mut self) -> bool {
        self.last_used.elapsed() < TEST_AFTER_IDLE
            || self.connection.within(SETUP_TIMEOUT).batch_execute("").is_ok()
    }

    fn transaction<T>(
        &mut self,
        timeout: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        if self.statements.len() > STATEMENTS_MAX {
            self.statements.clear();
        }
        let inner = self.connection.within(timeout).transaction()?;
        let mut transaction = Transaction { inner, statements: &mut self.statements };
        let result = work(&mut transaction)?;
        transaction.inner.commit()?;
        self.last_used = Instant::now();
        Ok(result)
    }
}

/// An open transaction.
pub struct Transaction<'a> {
    inner: postgres::Transaction<'a>,
    statements: &'a mut HashMap<String, Statement>,
}

type SqlParameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Transaction<'_> {
    /// Runs statements without parameters.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn batch(&mut self, sql: &str) -> Result<(), PostgresError> {
        Ok(self.inner.batch_execute(sql)?)
    }

    /// Runs a statement and returns the number of affected rows. The statement is
    /// prepared once for each connection.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn execute(&mut self, sql: &str, values: SqlParameters<'_>) -> Result<u64, PostgresError> {
        let statement = self.prepared(sql)?;
        Ok(self.inner.execute(&statement, values)?)
    }

    /// Runs a query and returns its rows. The statement is prepared once for each
    /// connection.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn query(
        &mut self,
        sql: &str,
        values: SqlParameters<'_>,
    ) -> Result<Vec<Row>, PostgresError> {
        let statement = self.prepared(sql)?;
        Ok(self.inner.query(&statement, values)?)
    }

    /// Runs `work` within a savepoint and rolls back to it if `work` fails.
    ///
    /// # Errors
    /// The outer error is that of the savepoint, the inner one that of `work`.
    pub fn with_savepoint<T>(
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

    /// Takes an advisory lock that is held until the end of the transaction.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn lock(&mut self, purpose: &str) -> Result<(), PostgresError> {
        self.execute("select pg_catalog.pg_advisory_xact_lock($1::bigint)", &[&lock_key(purpose)])?;
        Ok(())
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

/// The key of the advisory lock for a purpose, a hash, so that it differs from
/// the keys of other programs.
fn lock_key(purpose: &str) -> i64 {
    i64::from_be_bytes(stable_hash(purpose.as_bytes()).to_be_bytes())
}
