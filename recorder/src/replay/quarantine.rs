//! The SQL of records that were in quarantine and are put through again.
//!
//! A row is read, changed or removed only under its lock, and one that somebody
//! else has locked is passed over.

/// The topics that have rows there.
pub(crate) const TOPICS: &str = r#"select distinct "topic" from "availability_quarantine""#;

/// The highest `id` of topic $1, null when it has no row.
pub(crate) const LAST: &str =
    r#"select max("id") from "availability_quarantine" where "topic" = $1"#;

/// The next rows of topic $1, after `id` $2 and up to $3, at most $4: their
/// `id`, partition, offset, and the bytes of their values.
pub(crate) const NEXT: &str = r#"select "id", "partition", "offset",
        coalesce(octet_length("bytes"), 0)::bigint
    from "availability_quarantine" where "topic" = $1 and "id" > $2 and "id" <= $3
    order by "id" limit $4"#;

/// Locks the rows $1 that are there and free.
pub(crate) const LOCK: &str = r#"select "id", "offset", "bytes", "reason", "run", "sequence"
    from "availability_quarantine" where "id" = any($1::bigint[])
    order by "id" for update skip locked"#;

/// Which of the rows $1 are there: how many.
pub(crate) const COUNT: &str = r#"select count(*) from "availability_quarantine"
    where "id" = any($1::bigint[])"#;

/// Removes the rows $1.
pub(crate) const REMOVE: &str =
    r#"delete from "availability_quarantine" where "id" = any($1::bigint[])"#;

/// Gives rows other reasons, as arrays: $1 `id`, $2 reason.
pub(crate) const REASONS: &str = r#"update "availability_quarantine" as old set "reason" = new.r
    from unnest($1::bigint[], $2::text[]) as new(i, r) where old."id" = new.i"#;

/// How many rows of topic $1 there are up to `id` $2.
pub(crate) const LEFT: &str = r#"select count(*) from "availability_quarantine"
    where "topic" = $1 and "id" <= $2"#;
