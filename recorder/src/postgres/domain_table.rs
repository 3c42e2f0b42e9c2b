//! The SQL of a domain's table.

use common::domain::Domain;

use super::sql::{PHRASE_TYPE, STATUS_TYPE, one_line, quoted};

/// The columns beyond those of 1.1.0, in their order: a record's further keys by
/// their names, its identity, and how many results the row stands for.
pub const FURTHER_COLUMNS: &[(&str, &str)] = &[
    ("name", "varchar(256)"),
    ("healthy", "boolean"),
    ("reason", "varchar(64)"),
    ("phase", "varchar(64)"),
    ("resolve_us", "bigint"),
    ("connect_us", "bigint"),
    ("tls_us", "bigint"),
    ("first_byte_us", "bigint"),
    ("transfer_us", "bigint"),
    ("total_us", "bigint"),
    ("address", "varchar(64)"),
    ("http_version", "varchar(64)"),
    ("http_status", "integer"),
    ("body_bytes", "bigint"),
    ("redirects", "integer"),
    ("final_url", "varchar(2048)"),
    ("certificate_end", "bigint"),
    ("attempts", "integer"),
    ("first_reason", "varchar(64)"),
    ("no_network", "boolean"),
    ("others_failing", "boolean"),
    ("period_ms", "integer"),
    ("slot", "bigint"),
    ("missed", "jsonb"),
    ("run", "uuid"),
    ("sequence", "bigint"),
    ("results", "integer"),
];

/// A stored row that smart mode may merge into: healthy, and without a mark, as
/// [`common::record::Extra::is_marked`] says of a record.
const MERGEABLE: &str = r#"coalesce("healthy",
        lower("status"::text) = 'responsive' and lower("phrase"::text) = 'ok')
    and "reason" is null and coalesce("attempts", 1) <= 1 and "first_reason" is null
    and not coalesce("no_network", false) and not coalesce("others_failing", false)
    and "missed" is null"#;

/// Whether a stored row is of the target with the name $3, written so that the
/// planner takes every other row for one. As a comparison it would take next to
/// none, as most targets have no name, and rather read all rows of the URL than
/// the newest by their index.
const NAMED: &str = r#"coalesce("name" = $3, "name" is null and $3::text is null)"#;

/// How many rows of a URL are looked at for the one of a target before a time. A
/// name that is new has none, and all that a URL has would be read for it, for
/// each such name, in the one transaction. One beyond is not merged into.
const BEFORE_MAX: u32 = 10_000;

/// The statements on one domain's table.
#[derive(Debug, Clone)]
pub struct TableSql {
    /// The table's name, not quoted.
    pub name: String,
    /// Adds rows given as arrays, in their order: $1 offset, $2 from, $3 url, $4 time, $5 status,
    /// $6 phrase, $7 dns, $8 response, $9 detail, and from $10 on [`FURTHER_COLUMNS`].
    pub insert: String,
    /// The same, and returns the `id` of each with its offset.
    pub insert_returning: String,
    /// Moves rows forward, given as arrays: $1 id, $2 time, $3 offset, $4 how many results more,
    /// $5 slot, $6 number.
    pub merge: String,
    /// The newest rows of a target, back to the one before a time if it is among
    /// the last 10,000 of its URL then, newest first: $1 from, $2 url, $3 name, $4 time, $5 the most rows.
    pub newest: String,
    /// The highest `id`, 0 when there is no row.
    pub last_id: String,
    /// Which of the rows $1 are there, by `id`.
    pub there: String,
    /// The highest offset of the rows with an `id` above $1, none when there
    /// is no such row, and the highest `id`, 0 when there is no row.
    pub count: String,
}

impl TableSql {
    /// For this domain.
    pub fn new(domain: &Domain) -> Self {
        let table = quoted(&domain.table());
        let insert = insert(&table);
        Self {
            name: domain.table(),
            insert_returning: format!(r#"{insert} returning "id"::bigint, "topic_offset""#),
            insert,
            merge: format!(
                r#"update {table} as old set "created_at" = pg_catalog.now(),
                    "event_time" = greatest(old."event_time", new.e),
                    "topic_offset" = greatest(old."topic_offset", new.o),
                    "results" = coalesce(old."results", 1) + new.n,
                    "slot" = greatest(old."slot", new.s),
                    "sequence" = greatest(old."sequence", new.q)
                from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[],
                    $5::bigint[], $6::bigint[]) as new(i, e, o, n, s, q)
                where old."id" = new.i"#
            ),
            newest: format!(
                r#"select "id"::bigint, "event_time", "topic_offset", "phrase"::text, "run",
                    "period_ms"::bigint, {MERGEABLE} as mergeable
                from {table}
                where "test_from" = $1 and "url" = $2 and {NAMED}
                    and "topic_offset" is not null
                    and "status" is not null and "phrase" is not null
                    and "event_time" >= coalesce(
                        (select "event_time" from
                            (select "event_time", "name" from {table} where "test_from" = $1
                                and "url" = $2 and "event_time" < $4
                                order by "event_time" desc limit {BEFORE_MAX}) as before
                            where {NAMED} order by "event_time" desc limit 1), $4)
                order by "event_time" desc, "topic_offset" desc limit $5"#
            ),
            last_id: format!(r#"select coalesce(max("id"), 0)::bigint from {table}"#),
            there: format!(r#"select "id"::bigint from {table} where "id" = any($1::bigint[])"#),
            count: format!(
                r#"select max("topic_offset") filter (where "id" > $1::bigint),
                    coalesce(max("id"), 0)::bigint from {table}"#
            ),
        }
    }
}

/// Each further column is an array of the widest type of its kind; what the
/// column has is what it is assigned to.
fn insert(table: &str) -> String {
    let (mut names, mut arrays, mut aliases, mut values) =
        (String::new(), String::new(), String::new(), String::new());
    for (index, (name, of_type)) in FURTHER_COLUMNS.iter().enumerate() {
        let (array, cast) = match *of_type {
            "integer" | "bigint" => ("bigint", ""),
            "boolean" => ("boolean", ""),
            "uuid" => ("uuid", ""),
            "jsonb" => ("text", "::jsonb"),
            _ => ("text", ""),
        };
        names.push_str(&format!(", {}", quoted(name)));
        arrays.push_str(&format!(", ${}::{array}[]", 10 + index));
        aliases.push_str(&format!(", c{index}"));
        values.push_str(&format!(", c{index}{cast}"));
    }
    one_line(&format!(
        r#"insert into {table} ("topic_offset", "test_from", "url", "event_time", "status",
            "phrase", "dns", "response", "detail"{names})
        select o, f, u, e, s::"{STATUS_TYPE}", p::"{PHRASE_TYPE}", d, r, x{values}
        from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[],
            $5::text[], $6::text[], $7::integer[], $8::integer[], $9::text[]{arrays})
            with ordinality as new(o, f, u, e, s, p, d, r, x{aliases}, nr)
        order by nr"#
    ))
}

/// The statement that makes a domain's table: that of 1.1.0 with further columns
/// and an `id` of 64 bits, as 32 are spent after 149 days of 10,000 records a minute.
pub fn create_domain_table(domain: &Domain) -> String {
    let column = |(name, of_type): &(&str, &str)| format!(", {} {of_type}", quoted(name));
    let further: String = FURTHER_COLUMNS.iter().map(column).collect();
    one_line(&format!(
        r#"create table if not exists {} ("id" bigserial primary key,
        "created_at" timestamp with time zone default current_timestamp,
        "topic_offset" bigint default -1, "test_from" varchar(32) not null,
        "url" varchar(256) not null, "event_time" bigint, "status" "{STATUS_TYPE}",
        "phrase" "{PHRASE_TYPE}", "dns" integer default -1, "response" integer default -1,
        "detail" varchar(128){further})"#,
        quoted(&domain.table())
    ))
}

/// The statement that makes the index on a domain's URLs.
pub fn create_url_index(domain: &Domain) -> String {
    let (index, table) = (quoted(&domain.url_index()), quoted(&domain.table()));
    format!(r#"create index if not exists {index} on {table} ("url")"#)
}

/// The statement that makes the index by which smart mode finds a target's
/// newest rows.
pub fn create_target_index(domain: &Domain) -> String {
    let (index, table) = (quoted(&domain.target_index()), quoted(&domain.table()));
    format!(r#"create index if not exists {index} on {table} ("test_from", "url", "event_time")"#)
}

#[cfg(test)]
mod tests {
    use common::record::Extra;

    use super::*;

    /// Goes red when a key of the record has no column, or another one's place.
    #[test]
    fn the_columns_are_the_further_keys_in_their_order_and_three_more() {
        let extra = Extra::default();
        let mut names: Vec<_> = extra.values().iter().map(|(key, _)| *key).collect();
        names.extend(["run", "sequence", "results"]);
        let columns: Vec<_> = FURTHER_COLUMNS.iter().map(|(name, _)| *name).collect();
        assert_eq!(columns, names);
    }
}
