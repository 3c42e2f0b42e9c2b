//! Reads new rows of all domains.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use common::domain::Domain;
use common::pem::Pem;
use postgres_client::{PostgresConnection, PostgresSettings, PostgresUri};
use testkit::services::Services;

/// Time-out for reading.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A row of a domain's table.
#[derive(Debug)]
pub(crate) struct DemoRow {
    pub(crate) time: String,
    pub(crate) url: String,
    pub(crate) status: String,
    pub(crate) phrase: String,
    pub(crate) dns: i32,
    pub(crate) response: i32,
    pub(crate) detail: Option<String>,
}

/// Reads each row once.
pub(crate) struct RowReader {
    connection: PostgresConnection,
    /// The table of each domain, and the highest id that was read.
    tables: Vec<(String, i64)>,
}

impl RowReader {
    /// Connects. The tables need not exist yet.
    pub(crate) fn connect(
        services: &Services,
        database: &str,
        domains: &BTreeSet<Domain>,
    ) -> Result<Self, Box<dyn Error>> {
        let settings = PostgresSettings {
            uri: PostgresUri::parse(database)?,
            ca: Some(Pem::File(services.cert("ca.crt"))),
            application_name: "demo".to_owned(),
        };
        let connection = settings.connect()?;
        let tables = domains.iter().map(|domain| (domain.table(), 0)).collect();
        Ok(Self { connection, tables })
    }

    /// Returns the new rows of every table, oldest first.
    pub(crate) fn read(&mut self) -> Result<Vec<DemoRow>, Box<dyn Error>> {
        let client = self.connection.within(READ_TIMEOUT);
        let mut rows = Vec::new();
        for (table, last_id) in &mut self.tables {
            let exists: bool = client
                .query_one("select to_regclass($1) is not null", &[&format!("\"{table}\"")])?
                .get(0);
            if !exists {
                continue;
            }
            let query = format!(
                "select id::bigint, to_char(to_timestamp(event_time), 'HH24:MI:SS'), url, \
                 status::text, phrase::text, dns, response, detail from \"{table}\" \
                 where id > $1 order by id limit 1000"
            );
            for row in client.query(query.as_str(), &[&*last_id])? {
                *last_id = row.get(0);
                rows.push(DemoRow {
                    time: row.get(1),
                    url: row.get(2),
                    status: row.get(3),
                    phrase: row.get(4),
                    dns: row.get(5),
                    response: row.get(6),
                    detail: row.get(7),
                });
            }
        }
        Ok(rows)
    }
}
