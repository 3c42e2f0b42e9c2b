//! The table of a domain: its columns, indexes and name.

use common::domain::Domain;

use super::quote::quoted;
use super::tables::{Column, Index, Table, column};

/// The columns of 1.1.0. `id` has 64 bits, not 32 as in 1.1.0: 10,000 records a minute use up 32
/// bits after 149 days.
const COLUMNS: &[Column] = &[
    column("id", "bigserial primary key"),
    column("created_at", "timestamp with time zone default current_timestamp"),
    column("topic_offset", "bigint default -1"),
    column("test_from", "varchar(32) not null"),
    column("url", "varchar(256) not null"),
    column("event_time", "bigint"),
    column("status", "\"response_status\""),
    column("phrase", "\"phrase_status\""),
    column("dns", "integer default -1"),
    column("response", "integer default -1"),
    column("detail", "varchar(128)"),
];

/// The columns that 1.1.0 does not create, in this order: [`RESULT_COLUMNS`], then
/// [`MERGED_COLUMNS`].
pub const EXTRA_COLUMNS: &[Column] = &[
    column("name", "varchar(256)"),
    column("healthy", "boolean"),
    column("reason", "varchar(64)"),
    column("phase", "varchar(64)"),
    column("resolve_us", "bigint"),
    column("connect_us", "bigint"),
    column("tls_us", "bigint"),
    column("first_byte_us", "bigint"),
    column("transfer_us", "bigint"),
    column("total_us", "bigint"),
    column("address", "varchar(64)"),
    column("http_version", "varchar(64)"),
    column("http_status", "integer"),
    column("body_bytes", "bigint"),
    column("redirects", "integer"),
    column("final_url", "varchar(2048)"),
    column("certificate_end", "bigint"),
    column("attempts", "integer"),
    column("first_reason", "varchar(64)"),
    column("no_network", "boolean"),
    column("others_failing", "boolean"),
    column("period_ms", "integer"),
    column("slot", "bigint"),
    column("missed", "jsonb"),
    column("run", "uuid"),
    column("sequence", "bigint"),
    column("results", "integer"),
    column("first_event_time", "bigint"),
    column("first_offset", "bigint"),
    column("total_us_sum", "bigint"),
    column("total_us_min", "bigint"),
    column("total_us_max", "bigint"),
];

const MERGED_COLUMNS_COUNT: usize = 5;
const SPLIT: (&[Column], &[Column]) =
    EXTRA_COLUMNS.split_at(EXTRA_COLUMNS.len() - MERGED_COLUMNS_COUNT);

/// The columns that every row fills: the extra keys of a record by their names, the identity of the
/// result, and the number of results in the row.
pub const RESULT_COLUMNS: &[Column] = SPLIT.0;

/// The columns that only smart mode fills, and only in rows of several results.
pub const MERGED_COLUMNS: &[Column] = SPLIT.1;

/// The name of a domain's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainTable {
    name: String,
    url_index: String,
    target_index: String,
}

impl DomainTable {
    /// Creates the description of the table of this domain.
    pub fn new(domain: &Domain) -> Self {
        Self {
            name: domain.table(),
            url_index: domain.url_index(),
            target_index: domain.target_index(),
        }
    }

    /// The name without quotes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as an SQL identifier.
    pub(crate) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// The table as data.
    pub(crate) fn table(&self) -> Table<'_> {
        Table { name: &self.name, columns: COLUMNS, added: EXTRA_COLUMNS, constraints: &[] }
    }

    /// The index on URLs, which 1.1.0 creates, too.
    pub(crate) fn url_index(&self) -> Index {
        Index { name: self.url_index.clone(), table: self.name.clone(), columns: &["url"] }
    }

    /// The index that smart mode uses to find the newest rows of a target.
    pub(crate) fn target_index(&self) -> Index {
        Index {
            name: self.target_index.clone(),
            table: self.name.clone(),
            columns: &["test_from", "url", "event_time"],
        }
    }
}

#[cfg(test)]
mod tests {
    use common::record::Extra;

    use super::*;

    /// Each extra key of a record has a column, in the same order.
    #[test]
    fn the_result_columns_are_the_extra_keys_and_three_more() {
        let extra = Extra::default();
        let mut names: Vec<_> = extra.values().iter().map(|(key, _)| *key).collect();
        names.extend(["run", "sequence", "results"]);
        let columns: Vec<_> = RESULT_COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(columns, names);
        assert_eq!(MERGED_COLUMNS.first().map(|column| column.name), Some("first_event_time"));
    }
}
