//! The rows of leases and recorders in PostgreSQL.
//!
//! All times are `clock_timestamp()` of the database, so the clocks of hosts need not agree. A
//! statement that changes a lease names the holder that was read, and skips rows that another
//! recorder has locked. So no recorder waits for the locks of another recorder.

use common::stop::Stop;
use kafka_client::Uuid;

use crate::lease::plan::{Holder, Lease, LeasePlan, LeaseSnapshot};
use crate::postgres::error::TransactionError;
use crate::postgres::pool::{Database, Transaction};
use crate::postgres::tables::{self, Column, Table, column};
use crate::postgres::value::SqlValue;
use crate::timings::Timings;

/// The tables of leases and of recorders.
pub(crate) const TABLES: [Table<'static>; 2] = [
    Table {
        name: "availability_lease",
        columns: &[
            column("topic", "text primary key"),
            column("holder", "uuid"),
            column("wanted_by", "uuid"),
            column("since", "timestamp with time zone not null default current_timestamp"),
        ],
        added: &OFFER_COLUMNS,
        constraints: &[],
    },
    Table {
        name: "availability_recorder",
        columns: &[
            column("holder", "uuid primary key"),
            column("host", "text not null"),
            column("started_at", "timestamp with time zone not null default current_timestamp"),
            column("expires_at", "timestamp with time zone not null"),
        ],
        added: &[],
        constraints: &[],
    },
];

/// The column for the recorder that offers a lease.
const OFFER_COLUMNS: [Column; 1] = [column("offered_by", "uuid")];

/// The name of the supervisor in log lines about outages.
const OUTAGE_USER: &str = "leases";

/// Access to the leases in PostgreSQL, over a connection of their own. A connection that writes a
/// backlog would not be free in time to renew leases.
#[derive(Debug)]
pub(crate) struct LeaseStore {
    database: Database,
    stop: Stop,
    host: String,
    timings: Timings,
    holder: Holder,
    is_registered: bool,
    has_tables: bool,
    /// Whether the column for offers exists.
    has_offers: bool,
}

impl LeaseStore {
    /// Creates the store for a recorder on `host`. The name of the host is stored for operators.
    pub(crate) fn new(database: Database, stop: Stop, host: String, timings: &Timings) -> Self {
        Self {
            database,
            stop,
            host,
            timings: timings.clone(),
            holder: Holder { id: new_id(), previous_id: new_id() },
            is_registered: false,
            has_tables: false,
            has_offers: false,
        }
    }

    /// The identity of this recorder.
    pub(crate) fn holder(&self) -> Holder {
        self.holder
    }

    /// Whether this recorder may hold leases. It may if it has a row that has not expired.
    pub(crate) fn is_registered(&self) -> bool {
        self.is_registered
    }

    /// Whether leases can be offered. They can if the table has the column for offers.
    pub(crate) fn has_offers(&self) -> bool {
        self.has_offers
    }

    /// Renews all leases of this recorder with one statement, and reads the leases of all
    /// recorders. If the leases have expired and `register` is set, the recorder registers again
    /// with a new id and without leases.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub(crate) fn renew_and_read(
        &mut self,
        register: bool,
    ) -> Result<LeaseSnapshot, TransactionError> {
        if !self.has_tables {
            self.ensure_tables()?;
            self.has_tables = true;
        }
        if self.is_registered {
            self.is_registered = self.renew()?;
            if !self.is_registered {
                self.holder = Holder { id: new_id(), previous_id: self.holder.id };
            }
        }
        if !self.is_registered && register {
            self.register()?;
        }
        self.transaction(|transaction| {
            let recorders = transaction.query(
                r#"select "holder" from "availability_recorder"
                where "expires_at" > pg_catalog.clock_timestamp()"#,
                &[],
            )?;
            let leases = transaction.query(
                if self.has_offers {
                    // An offer counts for five minutes after the lease has moved.
                    r#"select "topic", "holder", "wanted_by", case
                        when "offered_by" = "holder" or "since" >
                            pg_catalog.clock_timestamp() - interval '5 minutes'
                        then "offered_by" end
                    from "availability_lease" order by "since" desc, "topic""#
                } else {
                    r#"select "topic", "holder", "wanted_by", null::uuid
                    from "availability_lease" order by "since" desc, "topic""#
                },
                &[],
            )?;
            let lease = |row: &postgres::Row| {
                Ok(Lease {
                    topic: row.try_get(0)?,
                    holder: row.try_get(1)?,
                    wanted_by: row.try_get(2)?,
                    offered_by: row.try_get(3)?,
                })
            };
            Ok(LeaseSnapshot {
                recorders: recorders.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
                leases: leases.iter().map(lease).collect::<Result<_, postgres::Error>>()?,
            })
        })
    }

    /// Creates missing tables. If no table is missing, only the catalog is read.
    ///
    /// The column for offers is optional, because only the owner of the table can add it.
    fn ensure_tables(&mut self) -> Result<(), TransactionError> {
        let missing =
            |transaction: &mut Transaction<'_>| tables::missing(transaction, &TABLES, &[]);
        let timeout = self.timings.schema_read_timeout;
        self.has_offers = true;
        let parts = self.database.transaction(&self.stop, timeout, missing)?;
        if parts.is_empty() {
            return Ok(());
        }
        let timeout = self.timings.schema_change_timeout;
        match tables::complete(&self.database, &self.stop, timeout, missing) {
            Err(error)
                if error.is_denied()
                    && parts
                        .iter()
                        .all(|part| TABLES[0].add_columns().as_ref() == Some(&part.statement)) =>
            {
                self.has_offers = false;
                log::warn!(
                    "leases: table availability_lease has no column offered_by, and it cannot be \
                     added: {error}: domains that this recorder cannot record are not offered to \
                     other recorders (`recorder schema` prints the statement for the owner)"
                );
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// Extends the row of this recorder. Returns `false` if the row has expired. It then stays
    /// expired, because other recorders may have acquired the leases.
    fn renew(&self) -> Result<bool, TransactionError> {
        let seconds = self.timings.lease_duration.as_secs_f64();
        let renewed = self.transaction(|transaction| {
            Ok(transaction.execute(
                r#"update "availability_recorder"
                set "expires_at" = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $2)
                where "holder" = $1 and "expires_at" > pg_catalog.clock_timestamp()"#,
                &[&self.holder.id, &seconds],
            )?)
        })?;
        Ok(renewed == 1)
    }

    /// Registers this recorder. The row of its previous id is used, or a row that expired long ago,
    /// or a new row. So rows never need to be deleted.
    fn register(&mut self) -> Result<(), TransactionError> {
        let Holder { id, previous_id } = self.holder;
        let seconds = self.timings.lease_duration.as_secs_f64();
        let registered = self.transaction(|transaction| {
            let values: [&dyn SqlValue; 4] = [&id, &self.host, &seconds, &previous_id];
            let reused = transaction.execute(
                r#"update "availability_recorder"
                set "holder" = $1, "host" = $2, "started_at" = pg_catalog.clock_timestamp(),
                    "expires_at" = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3)
                where "holder" = (select "holder" from "availability_recorder"
                    where "holder" = $4
                        or "expires_at" < pg_catalog.clock_timestamp() - interval '1 minute'
                    order by "holder" <> $4, "expires_at" limit 1 for update skip locked)"#,
                &values,
            )?;
            if reused == 0 {
                transaction.execute(
                    r#"insert into "availability_recorder" ("holder", "host", "expires_at")
                    values ($1, $2, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3))"#,
                    &values[..3],
                )?;
            }
            Ok(())
        });
        if registered.is_err() {
            // The transaction may have been committed. A new id keeps ids unique.
            self.holder.id = new_id();
        }
        self.is_registered = registered.is_ok();
        registered
    }

    /// Makes the changes of a plan. A lease that has changed since it was read is left unchanged.
    /// Returns the topics of the acquired leases.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub(crate) fn apply(&self, plan: &LeasePlan) -> Result<Vec<String>, TransactionError> {
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        let id = self.holder.id;
        self.transaction(|transaction| {
            if !plan.insert.is_empty() {
                // The topics are sorted, so that recorders that insert the same topics do not
                // deadlock.
                transaction.execute(
                    r#"insert into "availability_lease" ("topic")
                    select pg_catalog.unnest($1::text[]) on conflict ("topic") do nothing"#,
                    &[&plan.insert],
                )?;
            }
            if !plan.request.is_empty() {
                request(transaction, id, &plan.request)?;
            }
            if self.has_offers {
                offer(transaction, id, &plan.offer, Some(id))?;
                offer(transaction, id, &plan.withdraw, None)?;
            }
            if !plan.hand_over.is_empty() {
                hand_over(transaction, id, &plan.hand_over)?;
            }
            let acquired = if plan.acquire.is_empty() {
                Vec::new()
            } else {
                acquire(transaction, id, &plan.acquire)?
            };
            if self.has_offers {
                end_own_offers(transaction, id, &plan.hand_over, &acquired)?;
            }
            Ok(acquired)
        })
    }

    /// Releases all leases after a stop was requested, if PostgreSQL answers at once.
    pub(crate) fn release_at_stop(&self) {
        if !self.is_registered {
            return;
        }
        let released =
            self.database.try_transaction_on_idle(self.timings.release_timeout, |transaction| {
                expire(transaction, self.holder.id)
            });
        if let Err(error) = released {
            log::debug!(
                "leases: not released, they expire in {} s: {error}",
                self.timings.lease_duration.as_secs()
            );
        }
    }

    /// Records in the log of outages that the leases were renewed.
    pub(crate) fn record_success(&self) {
        self.database.record_success(OUTAGE_USER);
    }

    /// Records in the log of outages that the connection was lost.
    pub(crate) fn record_failure(&self, error: &postgres_client::PostgresError) {
        self.database.record_failure(OUTAGE_USER, error);
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        self.database.transaction(&self.stop, self.timings.lease_timeout, work)
    }
}

/// Requests leases if their holder and requester have not changed since they were read.
fn request(
    transaction: &mut Transaction<'_>,
    id: Uuid,
    leases: &[Lease],
) -> Result<(), TransactionError> {
    let (topics, holders) = topics_and_holders(leases);
    let wanted_by: Vec<_> = leases.iter().map(|lease| lease.wanted_by).collect();
    transaction.execute(
        r#"with requested as (
            select l."topic" from "availability_lease" l
            join unnest($2::text[], $3::uuid[], $4::uuid[]) as seen(t, h, w) on l."topic" = seen.t
            where l."holder" = seen.h and l."wanted_by" is not distinct from seen.w
            for update of l skip locked)
        update "availability_lease" l set "wanted_by" = $1
        from requested where l."topic" = requested."topic""#,
        &[&id, &topics, &holders, &wanted_by],
    )?;
    Ok(())
}

/// Offers own leases, or withdraws their offers if `offered_by` is `None`.
fn offer(
    transaction: &mut Transaction<'_>,
    id: Uuid,
    topics: &[String],
    offered_by: Option<Uuid>,
) -> Result<(), TransactionError> {
    if topics.is_empty() {
        return Ok(());
    }
    transaction.execute(
        r#"with own as (
            select l."topic" from "availability_lease" l
            where l."holder" = $1 and l."topic" = any($2::text[]) for update of l skip locked)
        update "availability_lease" l set "offered_by" = $3::uuid
        from own where l."topic" = own."topic""#,
        &[&id, &topics, &offered_by],
    )?;
    Ok(())
}

/// When a lease comes back to the recorder that offered it, the offer ends.
fn end_own_offers(
    transaction: &mut Transaction<'_>,
    id: Uuid,
    handed_over: &[(String, Uuid)],
    acquired: &[String],
) -> Result<(), TransactionError> {
    let moved = handed_over.iter().map(|(topic, to)| (topic.as_str(), *to));
    let moved = moved.chain(acquired.iter().map(|topic| (topic.as_str(), id)));
    let (topics, holders): (Vec<&str>, Vec<Uuid>) = moved.unzip();
    if !topics.is_empty() {
        transaction.execute(
            r#"update "availability_lease" l set "offered_by" = null
            from unnest($1::text[], $2::uuid[]) as moved(t, h)
            where l."topic" = moved.t and l."holder" = moved.h and l."offered_by" = moved.h"#,
            &[&topics, &holders],
        )?;
    }
    Ok(())
}

/// Hands own leases over to the recorders that requested them.
fn hand_over(
    transaction: &mut Transaction<'_>,
    id: Uuid,
    leases: &[(String, Uuid)],
) -> Result<(), TransactionError> {
    let (topics, to): (Vec<_>, Vec<_>) = leases.iter().cloned().unzip();
    transaction.execute(
        r#"with handed_over as (
            select l."topic", seen.w from "availability_lease" l
            join unnest($2::text[], $3::uuid[]) as seen(t, w) on l."topic" = seen.t
            where l."holder" = $1 and l."wanted_by" = seen.w for update of l skip locked)
        update "availability_lease" l set "holder" = handed_over.w, "wanted_by" = null,
            "since" = pg_catalog.clock_timestamp()
        from handed_over where l."topic" = handed_over."topic""#,
        &[&id, &topics, &to],
    )?;
    Ok(())
}

/// Acquires leases if their holder has not changed since they were read. Returns the topics of the
/// acquired leases.
fn acquire(
    transaction: &mut Transaction<'_>,
    id: Uuid,
    leases: &[Lease],
) -> Result<Vec<String>, TransactionError> {
    let (topics, holders) = topics_and_holders(leases);
    let acquired = transaction.query(
        r#"with free as (
            select l."topic" from "availability_lease" l
            join unnest($2::text[], $3::uuid[]) as seen(t, h) on l."topic" = seen.t
            where l."holder" is not distinct from seen.h for update of l skip locked)
        update "availability_lease" l set "holder" = $1, "wanted_by" = null,
            "since" = pg_catalog.clock_timestamp()
        from free where l."topic" = free."topic" returning l."topic""#,
        &[&id, &topics, &holders],
    )?;
    Ok(acquired.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Expires a recorder, and thus all its leases.
fn expire(transaction: &mut Transaction<'_>, id: Uuid) -> Result<(), TransactionError> {
    transaction.execute(
        r#"update "availability_recorder" set "expires_at" = '-infinity' where "holder" = $1"#,
        &[&id],
    )?;
    Ok(())
}

fn topics_and_holders(leases: &[Lease]) -> (Vec<&str>, Vec<Option<Uuid>>) {
    leases.iter().map(|lease| (lease.topic.as_str(), lease.holder)).unzip()
}

/// A random id, unique among all processes and among all registrations of one process.
fn new_id() -> Uuid {
    Uuid::from_u128(fastrand::u128(..))
}
