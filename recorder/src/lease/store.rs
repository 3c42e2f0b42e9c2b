//! Leases in the database.

use std::time::Duration;

use common::stop::Stop;
use kafka_client::Uuid;
use postgres::types::ToSql;

use crate::lease::plan::{Lease, Look, Me, Plan};
use crate::lease::sql;
use crate::postgres::pool::{Database, Transaction, WorkError};
use crate::schema;

/// How long a lease lasts, by the database's clock. A recorder that dies is
/// missed for this long, one that can't renew for this long starts over.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
/// How long a look, or a change, may take: longer is too late anyway.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long the farewell may take; without it the leases run out.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The leases, by a connection of their own: one that waits behind the rows of
/// a backlog could not be renewed in time.
#[derive(Debug)]
pub(crate) struct LeaseStore {
    database: Database,
    stop: Stop,
    host: String,
    me: Me,
    is_registered: bool,
    is_schema_there: bool,
}

impl LeaseStore {
    /// For a recorder that shows itself by its host's name.
    pub(crate) fn new(database: Database, stop: Stop, host: String) -> Self {
        let me = Me { holder: new_holder(), before: new_holder() };
        Self { database, stop, host, me, is_registered: false, is_schema_there: false }
    }

    /// Who this recorder is now.
    pub(crate) fn me(&self) -> Me {
        self.me
    }

    /// Whether this recorder is among those at work.
    pub(crate) fn is_registered(&self) -> bool {
        self.is_registered
    }

    /// Renews all leases, by one statement, and reads everybody's. When they
    /// had run out it starts over, under another name and with none; but who
    /// is not to `join` the others only looks.
    ///
    /// # Errors
    /// See [`WorkError`].
    pub(crate) fn look(&mut self, join: bool) -> Result<Look, WorkError> {
        if !self.is_schema_there {
            schema::ensure_leases(&self.database, &self.stop)?;
            self.is_schema_there = true;
        }
        let seconds = LEASE.as_secs_f64();
        if self.is_registered {
            let renewed = self.transaction(|transaction| {
                Ok(transaction.execute(sql::RENEW, &[&self.me.holder, &seconds])?)
            })?;
            self.is_registered = renewed == 1;
            if !self.is_registered {
                self.me = Me { holder: new_holder(), before: self.me.holder };
            }
        }
        if !self.is_registered && join {
            self.register(seconds)?;
        }
        self.transaction(|transaction| {
            let recorders = transaction.query(sql::RECORDERS, &[])?;
            let leases = transaction.query(sql::LEASES, &[])?;
            let lease = |row: &postgres::Row| {
                Ok(Lease {
                    topic: row.try_get(0)?,
                    holder: row.try_get(1)?,
                    wanted_by: row.try_get(2)?,
                })
            };
            Ok(Look {
                recorders: recorders.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
                leases: leases.iter().map(lease).collect::<Result<_, postgres::Error>>()?,
            })
        })
    }

    fn register(&mut self, seconds: f64) -> Result<(), WorkError> {
        let Me { holder, before } = self.me;
        let registered = self.transaction(|transaction| {
            let values: [&(dyn ToSql + Sync); 4] = [&holder, &self.host, &seconds, &before];
            if transaction.execute(sql::REGISTER_AGAIN, &values)? == 0 {
                transaction.execute(sql::REGISTER, &values[..3])?;
            }
            Ok(())
        });
        if registered.is_err() {
            // It may be there all the same, and could not be made twice.
            self.me.holder = new_holder();
        }
        self.is_registered = registered.is_ok();
        registered
    }

    /// Takes, asks and gives, each only where all is as it was seen; the topics
    /// that were taken.
    ///
    /// # Errors
    /// See [`WorkError`].
    pub(crate) fn change(&self, plan: &Plan) -> Result<Vec<String>, WorkError> {
        if [plan.take.len(), plan.ask.len(), plan.give.len()] == [0; 3] {
            return Ok(Vec::new());
        }
        let me = self.me.holder;
        self.transaction(|transaction| {
            if !plan.insert.is_empty() {
                transaction.execute(sql::LEASE_INSERT, &[&plan.insert])?;
            }
            if !plan.ask.is_empty() {
                let (topics, holders) = columns(&plan.ask);
                let wanted_by: Vec<_> = plan.ask.iter().map(|lease| lease.wanted_by).collect();
                transaction.execute(sql::ASK, &[&me, &topics, &holders, &wanted_by])?;
            }
            if !plan.give.is_empty() {
                let (topics, to): (Vec<_>, Vec<_>) = plan.give.iter().cloned().unzip();
                transaction.execute(sql::GIVE, &[&me, &topics, &to])?;
            }
            if plan.take.is_empty() {
                return Ok(Vec::new());
            }
            let (topics, holders) = columns(&plan.take);
            let taken = transaction.query(sql::TAKE, &[&me, &topics, &holders])?;
            Ok(taken.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
        })
    }

    /// Lets go of all leases and is not at work any more, until the next look
    /// that joins; what nobody else took by then is taken back first.
    ///
    /// # Errors
    /// See [`WorkError`]; the leases then run out.
    pub(crate) fn leave(&mut self) -> Result<(), WorkError> {
        let holder = self.me.holder;
        self.is_registered = false;
        self.me = Me { holder: new_holder(), before: holder };
        self.transaction(|transaction| {
            transaction.execute(sql::RELEASE, &[&holder])?;
            Ok(())
        })
    }

    /// Lets go of all leases at once, if the database can be reached at once.
    pub(crate) fn release(&self) {
        if !self.is_registered {
            return;
        }
        let released = self.database.farewell(RELEASE_TIMEOUT, |transaction| {
            Ok(transaction.execute(sql::RELEASE, &[&self.me.holder])?)
        });
        if let Err(error) = released {
            log::debug!("leases: {error}; they run out in {} s", LEASE.as_secs());
        }
    }

    /// Says whether the last look went well, where outages are told.
    pub(crate) fn tell(&self, result: Result<(), &WorkError>) {
        match result {
            Ok(()) => self.database.succeeded(WHO),
            Err(WorkError::Postgres(error)) => self.database.failed(WHO, error),
            Err(_) => {}
        }
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        self.database.transaction(&self.stop, TIMEOUT, work)
    }
}

/// The name of the leases where outages are counted by domain.
const WHO: &str = "leases";

fn columns(leases: &[Lease]) -> (Vec<&str>, Vec<Option<Uuid>>) {
    leases.iter().map(|lease| (lease.topic.as_str(), lease.holder)).unzip()
}

/// Random, so that no two processes, and no two turns of one, have the same.
fn new_holder() -> Uuid {
    Uuid::from_u128(fastrand::u128(..))
}
