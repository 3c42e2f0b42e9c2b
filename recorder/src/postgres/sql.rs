//! All the SQL there is: what the schema is made of, and every statement.
//!
//! Values are parameters throughout; names are quoted, as are the labels of
//! enums, which no parameter can stand for.

use common::phrase;
use common::record::Status;

/// The tables of all domains, and the names of the two enums.
pub const OFFSET_TABLE: &str = "availability_offset";
/// Records that were never read.
pub const GAP_TABLE: &str = "availability_gap";
/// The number after the highest recorded, of each run of a tracker.
pub const MARK_TABLE: &str = "availability_mark";
/// Records that can't be rows.
pub const QUARANTINE_TABLE: &str = "availability_quarantine";
/// The enum of 1.1.0 for `status`.
pub const STATUS_TYPE: &str = "response_status";
/// The enum of 1.1.0 for `phrase`.
pub const PHRASE_TYPE: &str = "phrase_status";

/// Run on each new connection: bounds within the server, for statements, for
/// locks, and for a transaction whose recorder was stopped in the middle of it
/// and holds its locks. (A connection's own bound is longer.)
pub const SESSION: &str = "set statement_timeout = '20s'; \
    set lock_timeout = '10s'; \
    set idle_in_transaction_session_timeout = '10s'; \
    set client_min_messages = 'warning'";

/// Run within the transaction that makes the schema: another recorder, or
/// whoever reads a table, makes it fail soon and be tried again.
pub const SCHEMA_BOUNDS: &str =
    "set local lock_timeout = '2s'; set local statement_timeout = '10min'";
/// Run within the transaction that counts a table of 1.1.0, row by row.
pub const COUNT_BOUNDS: &str = "set local statement_timeout = '10min'";

/// Held while the schema is made or one table is merged into. $1: the key.
pub const ADVISORY_LOCK: &str = "select pg_catalog.pg_advisory_xact_lock($1::bigint)";

/// Which of the relations $1 are there, by the search path as all statements.
pub const RELATIONS: &str = "select name from unnest($1::text[]) as name \
    where pg_catalog.to_regclass(pg_catalog.quote_ident(name)) is not null";

/// Whether the index $1 can be used; no row when it is not there.
pub const INDEX_STATE: &str = "select indisvalid from pg_catalog.pg_index \
    where indexrelid = pg_catalog.to_regclass(pg_catalog.quote_ident($1::text))";

/// Which columns the relation $1 has; none when it is not there.
pub const COLUMNS: &str = "select attname::text from pg_catalog.pg_attribute \
    where attrelid = pg_catalog.to_regclass(pg_catalog.quote_ident($1::text)) \
    and attnum > 0 and not attisdropped";

/// The labels of the enum $1; none when it is not there.
pub const LABELS: &str = "select enumlabel::text from pg_catalog.pg_enum \
    where enumtypid = pg_catalog.to_regtype($1::text) order by enumsortorder";

/// The position in topic $1, partition $2.
pub const POSITION: &str = r#"select "topic_id", "next_offset", "counted_after_id"
    from "availability_offset" where "topic" = $1 and "partition" = $2"#;

/// The first position: $1 topic, $2 partition, $3 id, $4 next offset, $5 see
/// the table. No row when another recorder was faster.
pub const POSITION_INSERT: &str = r#"insert into "availability_offset"
    ("topic", "partition", "topic_id", "next_offset", "counted_after_id")
    values ($1, $2, $3, $4, $5) on conflict ("topic", "partition") do nothing"#;

/// Compare and set: $1 topic, $2 partition; from $3 id and $4 next offset to
/// $5, $6 and $7. No row when another recorder was faster.
pub const POSITION_MOVE: &str = r#"update "availability_offset"
    set "topic_id" = $5, "next_offset" = $6, "counted_after_id" = $7,
        "updated_at" = pg_catalog.now()
    where "topic" = $1 and "partition" = $2 and "topic_id" = $3 and "next_offset" = $4"#;

/// $1 topic, $2 partition, $3 id, $4 first offset, $5 the offset after the
/// last or null, $6 reason.
pub const GAP_INSERT: &str = r#"insert into "availability_gap"
    ("topic", "partition", "topic_id", "from_offset", "to_offset", "reason")
    values ($1, $2, $3, $4, $5, $6)"#;

/// $1 topic, $2 partition, $3 id, and as arrays $4 the offsets at which it was
/// seen, $5 reasons, $6 runs, $7 first numbers and $8 the numbers after the last.
pub const SEQUENCE_GAP_INSERT: &str = r#"insert into "availability_gap"
    ("topic", "partition", "topic_id", "from_offset", "to_offset", "reason",
    "run", "from_sequence", "to_sequence")
    select $1, $2, $3, o, o, m, r, f, t
    from unnest($4::bigint[], $5::text[], $6::uuid[], $7::bigint[], $8::bigint[])
        with ordinality as new(o, m, r, f, t, nr)
    order by nr"#;

/// The marks in topic $1, partition $2, of the runs $3.
pub const MARKS: &str = r#"select "run", "next_sequence" from "availability_mark"
    where "topic" = $1 and "partition" = $2 and "run" = any($3::uuid[])"#;

/// $1 topic, $2 partition, and as arrays $3 runs and $4 next numbers.
pub const MARKS_MOVE: &str = r#"insert into "availability_mark"
    ("topic", "partition", "run", "next_sequence")
    select $1, $2, * from unnest($3::uuid[], $4::bigint[])
    on conflict ("topic", "partition", "run") do update
    set "next_sequence" = excluded."next_sequence", "updated_at" = pg_catalog.now()"#;

/// Removes marks of topic $1, partition $2, of runs that were silent for 30
/// days, 10,000 at most: longer than records stay in a topic or a result waits
/// for Kafka.
pub const MARKS_REMOVE: &str = r#"delete from "availability_mark"
    where "topic" = $1 and "partition" = $2 and "run" in (
        select "run" from "availability_mark" where "topic" = $1 and "partition" = $2
        and "updated_at" < pg_catalog.now() - interval '30 days' limit 10000)"#;

/// $1 topic, $2 partition, $3 id, and as arrays $4 offsets, $5 bytes, $6 reasons,
/// $7 runs, $8 numbers.
pub const QUARANTINE_INSERT: &str = r#"insert into "availability_quarantine"
    ("topic", "partition", "topic_id", "offset", "bytes", "reason", "run", "sequence")
    select $1, $2, $3, * from
        unnest($4::bigint[], $5::bytea[], $6::text[], $7::uuid[], $8::bigint[])
    on conflict ("topic_id", "partition", "offset") do nothing"#;

/// The statement that makes an enum with all of its labels, if it is not there.
pub fn create_type(name: &str) -> String {
    let labels: Vec<_> = labels(name).into_iter().map(literal).collect();
    format!(
        "do $do$ begin if pg_catalog.to_regtype({}) is null then \
         create type {} as enum ({}); end if; end $do$",
        literal(name),
        quoted(name),
        labels.join(", ")
    )
}

/// The statement that adds a label, if the enum has it in no spelling.
pub fn add_label(name: &str, label: &str) -> String {
    format!(
        "do $do$ begin if not exists (select from pg_catalog.pg_enum \
         where enumtypid = pg_catalog.to_regtype({0}) and lower(enumlabel) = {2}) then \
         alter type {1} add value {2}; end if; end $do$",
        literal(name),
        quoted(name),
        literal(label)
    )
}

/// The labels that an enum must have, in the order of the README of 1.1.0.
pub fn labels(name: &str) -> Vec<&'static str> {
    match name {
        STATUS_TYPE => [Status::Responsive, Status::Unresponsive].map(Status::as_str).to_vec(),
        _ => phrase::all().collect(),
    }
}

/// The statement that makes one of the tables for all domains.
pub fn create_own_table(name: &str) -> String {
    let columns = match name {
        OFFSET_TABLE => {
            // Rows up to `counted_after_id` are of an earlier topic of the name.
            r#""topic" text not null, "partition" integer not null, "topic_id" uuid not null,
            "next_offset" bigint not null, "counted_after_id" bigint not null default 0,
            "updated_at" timestamp with time zone not null default current_timestamp,
            primary key ("topic", "partition")"#
        }
        GAP_TABLE => {
            // The records from `from_offset` up to and without `to_offset`,
            // which is null when nobody can know it. For numbers that never
            // came both are the offset of the record after them.
            r#""id" bigserial primary key, "topic" text not null, "topic_id" uuid not null,
            "partition" integer not null, "from_offset" bigint not null, "to_offset" bigint,
            "reason" text not null,
            "at" timestamp with time zone not null default current_timestamp,
            "run" uuid, "from_sequence" bigint, "to_sequence" bigint"#
        }
        MARK_TABLE => {
            // Found by topic first, as the marks of one are what is looked for.
            r#""topic" text not null, "partition" integer not null, "run" uuid not null,
            "next_sequence" bigint not null,
            "updated_at" timestamp with time zone not null default current_timestamp,
            primary key ("topic", "partition", "run")"#
        }
        _ => {
            r#""id" bigserial primary key, "topic" text not null, "topic_id" uuid not null,
            "partition" integer not null, "offset" bigint not null, "bytes" bytea,
            "reason" text not null,
            "at" timestamp with time zone not null default current_timestamp,
            "run" uuid, "sequence" bigint, unique ("topic_id", "partition", "offset")"#
        }
    };
    one_line(&format!("create table if not exists {} ({columns})", quoted(name)))
}

/// The columns that tables of earlier versions lack, with their types. All may
/// be null, so that nothing is written to the rows there are, and others go on
/// writing to the table.
pub const GAP_COLUMNS_ADDED: &[(&str, &str)] =
    &[("run", "uuid"), ("from_sequence", "bigint"), ("to_sequence", "bigint")];
/// As [`GAP_COLUMNS_ADDED`].
pub const QUARANTINE_COLUMNS_ADDED: &[(&str, &str)] = &[("run", "uuid"), ("sequence", "bigint")];

/// The statement that adds those that are not there.
pub fn add_columns(table: &str, columns: &[(&str, &str)]) -> String {
    let add = |(name, of_type): &(&str, &str)| {
        format!("add column if not exists {} {of_type}", quoted(name))
    };
    let added: Vec<_> = columns.iter().map(add).collect();
    format!("alter table {} {}", quoted(table), added.join(", "))
}

/// A name that means itself, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text that means itself, whatever is in it.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(crate) fn one_line(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}
