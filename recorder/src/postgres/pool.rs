//! A bounded pool of connections to PostgreSQL, and the transactions on them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::backoff::Backoff;
use common::domain::stable_hash;
use common::stop::Stop;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use postgres::Row;
use postgres::types::{ToSql, Type};
use postgres_client::{PostgresConnection, PostgresError, PostgresSettings};

use super::error::TransactionError;
use super::quote::literal;
use super::value::SqlValue;
use crate::report::outage_log::SharedOutage;

/// The shortest and the longest delay before connecting is retried.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);
const LEASE_RETRY_DELAY_MAX: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is tested before use, because the server may have
/// restarted.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);
/// The time-out of the test of an idle connection.
const TEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts a transaction and sets everything that its statements depend on, so that the defaults of
/// the role and of the database do not matter. Settings of the session would not be enough: behind
/// a pooler in transaction mode, each transaction can run in another session, and a setting would
/// stay in that session for other programs.
///
/// The settings limit statements, waits for locks, and the time in which a stopped recorder holds
/// locks in an open transaction. (The time-out of the connection itself is longer.) All settings
/// are sent in one request.
pub fn start_sql(application_name: &str) -> String {
    format!(
        "START TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         set local statement_timeout = '20s'; \
         set local lock_timeout = '10s'; \
         set local idle_in_transaction_session_timeout = '10s'; \
         set local client_min_messages = 'warning'; \
         set local application_name = {}",
        literal(application_name)
    )
}

/// A bounded pool of connections.
pub struct Database {
    settings: PostgresSettings,
    free_sender: Sender<PoolSlot>,
    free: Receiver<PoolSlot>,
    /// The first request of each transaction.
    start: String,
    retry: Mutex<ConnectRetry>,
    outage: Arc<SharedOutage>,
    /// The name of this pool in log lines about outages.
    name: &'static str,
}

struct ConnectRetry {
    backoff: Backoff,
    not_before: Instant,
}

/// A place in the pool. It is empty before its first use and after an error.
type PoolSlot = Option<PooledConnection>;

struct PooledConnection {
    connection: PostgresConnection,
    last_used: Instant,
    /// Whether a transaction may be open. The connection must not be used again then.
    is_in_transaction: bool,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({:?})", self.settings.uri)
    }
}

impl Database {
    /// Creates a pool of at most `connections`. Connects when a connection is needed.
    pub fn new(settings: PostgresSettings, connections: usize, outage: Arc<SharedOutage>) -> Self {
        Self::named("connections", settings, connections, RETRY_DELAY_MAX, outage)
    }

    /// Creates a pool of one connection for leases. It is retried more often, so that leases are
    /// renewed soon after an outage.
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
            // The channel has room for each slot, and its receiver exists.
            let _ = free_sender.try_send(None);
        }
        let backoff = Backoff::new(RETRY_DELAY_MIN, retry_delay_max);
        let retry = Mutex::new(ConnectRetry { backoff, not_before: Instant::now() });
        let start = start_sql(settings.application_name());
        Self { settings, free_sender, free, start, retry, outage, name }
    }

    /// Runs `work` in a transaction. The transaction is committed if `work` returns `Ok`, and
    /// rolled back otherwise. Waits for a connection without a time-out. After that, all statements
    /// together may take `timeout`.
    ///
    /// # Errors
    /// [`TransactionError::Stopped`] if a stop was requested during the wait for a connection; the
    /// error of `work`; or the error of the commit, after which it is *unknown* whether the
    /// transaction was committed.
    pub fn transaction<T>(
        &self,
        stop: &Stop,
        timeout: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let mut connection = self.checkout(stop)?;
        let mut slot = SlotGuard { pool: self, slot: None };
        let result = connection.transaction(&self.start, timeout, work);
        slot.slot = (!connection.is_in_transaction).then_some(connection);
        result
    }

    /// Like [`Database::transaction`], but uses a connection that is already open and idle, and
    /// does not wait for a connection. Used after a stop was requested.
    ///
    /// # Errors
    /// See [`Database::transaction`]; [`TransactionError::Stopped`] if no open connection is idle.
    pub fn try_transaction_on_idle<T>(
        &self,
        timeout: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let slot = self.free.try_recv().ok().flatten();
        slot.ok_or(TransactionError::Stopped)?.transaction(&self.start, timeout, work)
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

    /// Connects. Returns `None` after a failure, which is logged here.
    fn connect(&self, stop: &Stop) -> Result<Option<PooledConnection>, TransactionError> {
        let wait = self.retry().not_before.saturating_duration_since(Instant::now());
        if stop.wait(wait) {
            return Err(TransactionError::Stopped);
        }
        match self.settings.connect().map_err(|error| error.to_string()) {
            Ok(connection) => {
                self.retry().backoff.reset();
                self.outage.record_success(self.name);
                let last_used = Instant::now();
                Ok(Some(PooledConnection { connection, last_used, is_in_transaction: false }))
            }
            Err(error) => {
                self.outage.record_failure(self.name, &error.trim_start_matches("postgresql "));
                let mut retry = self.retry();
                // Another thread that failed at the same time may have set the delay already.
                if retry.not_before <= Instant::now() {
                    retry.not_before = Instant::now() + retry.backoff.next_delay();
                }
                Ok(None)
            }
        }
    }

    fn put_back(&self, slot: PoolSlot) {
        // The channel has room, because the slot was taken out of it.
        let _ = self.free_sender.try_send(slot);
    }

    fn retry(&self) -> MutexGuard<'_, ConnectRetry> {
        self.retry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a slot back when the guard is dropped, also after a panic.
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
            || self.connection.within(TEST_TIMEOUT).batch_execute("").is_ok()
    }

    fn transaction<T>(
        &mut self,
        start: &str,
        timeout: Duration,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let client = self.connection.within(timeout);
        self.is_in_transaction = true;
        client.batch_execute(start)?;
        let mut result = work(&mut Transaction { client });
        if result.is_ok()
            && let Err(error) = client.batch_execute("COMMIT")
        {
            result = Err(error.into());
        }
        let is_ended = match &result {
            Ok(_) => true,
            Err(TransactionError::Postgres(error)) if error.is_connection_lost() => false,
            // A pooler closes the session of a client that disconnects within a transaction.
            Err(_) => client.batch_execute("ROLLBACK").is_ok(),
        };
        self.is_in_transaction = !is_ended;
        self.last_used = Instant::now();
        result
    }
}

/// An open transaction.
pub struct Transaction<'a> {
    client: &'a mut postgres::Client,
}

type SqlValues<'a> = &'a [&'a dyn SqlValue];

impl Transaction<'_> {
    /// Runs statements without parameters.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn batch(&mut self, sql: &str) -> Result<(), PostgresError> {
        Ok(self.client.batch_execute(sql)?)
    }

    /// Runs a statement and returns the number of affected rows.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn execute(&mut self, sql: &str, values: SqlValues<'_>) -> Result<u64, PostgresError> {
        Ok(self.client.execute_typed(sql, &typed(values))?)
    }

    /// Runs a query and returns its rows. All columns must have built-in types, because the lookup
    /// of other types needs a prepared statement.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn query(&mut self, sql: &str, values: SqlValues<'_>) -> Result<Vec<Row>, PostgresError> {
        Ok(self.client.query_typed(sql, &typed(values))?)
    }

    /// Runs `work` within a savepoint, and rolls back to the savepoint if `work` fails.
    ///
    /// # Errors
    /// The outer error is the error of the savepoint. The inner error is the error of `work`.
    pub fn with_savepoint<T>(
        &mut self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, PostgresError>,
    ) -> Result<Result<T, PostgresError>, PostgresError> {
        self.batch("savepoint nested")?;
        let result = work(self);
        self.batch(match &result {
            Ok(_) => "release savepoint nested",
            Err(_) => "rollback to savepoint nested; release savepoint nested",
        })?;
        Ok(result)
    }

    /// Acquires an advisory lock until the end of the transaction.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn lock(&mut self, purpose: &str) -> Result<(), PostgresError> {
        self.execute("select pg_catalog.pg_advisory_xact_lock($1::bigint)", &[&lock_key(purpose)])?;
        Ok(())
    }
}

/// The values with their types, in the form that the crate `postgres` expects.
fn typed<'a>(values: &[&'a dyn SqlValue]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    values.iter().map(|value| (*value as &(dyn ToSql + Sync), value.sql_type())).collect()
}

/// The key of the advisory lock for a purpose. The key is a hash, so that it differs from the keys
/// of other programs.
fn lock_key(purpose: &str) -> i64 {
    i64::from_be_bytes(stable_hash(purpose.as_bytes()).to_be_bytes())
}
