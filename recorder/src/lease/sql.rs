//! The SQL of leases.
//!
//! Times are the database's `clock_timestamp()` throughout, so that the clocks
//! of hosts need not agree. Whoever takes, asks or gives names what it saw, and
//! passes over what is being changed: nobody waits for another's locks.

use crate::postgres::sql::{one_line, quoted};

/// Who works on which topic.
pub(crate) const LEASE_TABLE: &str = "availability_lease";
/// The recorders that are at work, and until when that is sure.
pub(crate) const RECORDER_TABLE: &str = "availability_recorder";

/// A recorder in the row of its own last turn, or of one that is long gone, so
/// that no row is ever deleted: $1 holder, $2 host, $3 seconds, $4 last holder.
/// No row when there is none to take.
pub(crate) const REGISTER_AGAIN: &str = r#"update "availability_recorder"
    set "holder" = $1, "host" = $2, "started_at" = pg_catalog.clock_timestamp(),
        "expires_at" = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3)
    where "holder" = (select "holder" from "availability_recorder"
        where "holder" = $4 or "expires_at" < pg_catalog.clock_timestamp() - interval '1 minute'
        order by "holder" <> $4, "expires_at" limit 1 for update skip locked)"#;

/// A recorder in a row of its own: $1 holder, $2 host, $3 seconds.
pub(crate) const REGISTER: &str = r#"insert into "availability_recorder" ("holder", "host", "expires_at")
    values ($1, $2, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3))"#;

/// All the leases of $1 for $2 more seconds. No row when they have run out:
/// they never come back, as others may have seen that.
pub(crate) const RENEW: &str = r#"update "availability_recorder"
    set "expires_at" = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $2)
    where "holder" = $1 and "expires_at" > pg_catalog.clock_timestamp()"#;

/// All the leases of $1 are over.
pub(crate) const RELEASE: &str =
    r#"update "availability_recorder" set "expires_at" = '-infinity' where "holder" = $1"#;

/// Who is at work.
pub(crate) const RECORDERS: &str = r#"select "holder" from "availability_recorder"
    where "expires_at" > pg_catalog.clock_timestamp()"#;

/// All leases, those of recorders that are gone too.
pub(crate) const LEASES: &str =
    r#"select "topic", "holder", "wanted_by" from "availability_lease" order by "topic""#;

/// Room for the leases of the topics $1, sorted, that nobody holds.
pub(crate) const LEASE_INSERT: &str = r#"insert into "availability_lease" ("topic")
    select pg_catalog.unnest($1::text[]) on conflict ("topic") do nothing"#;

/// $1 takes the topics $2 if their holders are still $3: those that it got.
pub(crate) const TAKE: &str = r#"with free as (
        select l."topic" from "availability_lease" l
        join unnest($2::text[], $3::uuid[]) as seen(t, h) on l."topic" = seen.t
        where l."holder" is not distinct from seen.h for update of l skip locked)
    update "availability_lease" l set "holder" = $1, "wanted_by" = null,
        "since" = pg_catalog.clock_timestamp()
    from free where l."topic" = free."topic" returning l."topic""#;

/// $1 asks for the topics $2 if their holders are still $3, and nobody asked
/// for them but $4.
pub(crate) const ASK: &str = r#"with asked as (
        select l."topic" from "availability_lease" l
        join unnest($2::text[], $3::uuid[], $4::uuid[]) as seen(t, h, w) on l."topic" = seen.t
        where l."holder" = seen.h and l."wanted_by" is not distinct from seen.w
        for update of l skip locked)
    update "availability_lease" l set "wanted_by" = $1
    from asked where l."topic" = asked."topic""#;

/// $1 gives the topics $2 to $3, who asked for them.
pub(crate) const GIVE: &str = r#"with given as (
        select l."topic", seen.w from "availability_lease" l
        join unnest($2::text[], $3::uuid[]) as seen(t, w) on l."topic" = seen.t
        where l."holder" = $1 and l."wanted_by" = seen.w for update of l skip locked)
    update "availability_lease" l set "holder" = given.w, "wanted_by" = null,
        "since" = pg_catalog.clock_timestamp()
    from given where l."topic" = given."topic""#;

/// The statements that make both tables, with their names.
pub(crate) fn create_tables() -> [(&'static str, String); 2] {
    let leases = r#""topic" text primary key, "holder" uuid, "wanted_by" uuid,
        "since" timestamp with time zone not null default current_timestamp"#;
    let recorders = r#""holder" uuid primary key, "host" text not null,
        "started_at" timestamp with time zone not null default current_timestamp,
        "expires_at" timestamp with time zone not null"#;
    [(LEASE_TABLE, leases), (RECORDER_TABLE, recorders)].map(|(name, columns)| {
        let name_quoted = quoted(name);
        (name, one_line(&format!("create table if not exists {name_quoted} ({columns})")))
    })
}
