//! The demonstration of `scripts/quickstart`: the whole pipeline on one machine, with its rows on
//! the screen.

mod child_programs;
mod row_reader;
mod status_table;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::stop::{SignalThread, Stop};
use testkit::services::{self, Services};
use testkit::sites::{self, DemoSite};
use url::Url;

use crate::child_programs::ChildPrograms;
use crate::row_reader::RowReader;
use crate::status_table::StatusTable;

/// Probe period.
const PERIOD_S: u64 = 5;
/// Longer than the response time of the slow site, and short enough to see the hanging site time
/// out.
const PROBE_TIMEOUT_S: u64 = 4;
/// Interval of reading new rows.
const REFRESH: Duration = Duration::from_millis(500);
/// Time-out of `--once`: programs start, topics are created, and every site is probed within a
/// few periods.
const ONCE_DEADLINE: Duration = Duration::from_secs(90);

/// The name of the database, which scripts/quickstart shows to the user.
const DATABASE: &str = "quickstart";

/// Runs the demonstration until a signal, or with `once` until each local site has the expected
/// verdict or the time-out is over. `programs` is the folder of the programs, `folder` the folder
/// of their logs. Returns true if each local site has the expected verdict.
///
/// # Errors
/// Fails if a program can't be started or ends unexpectedly.
pub fn run(
    programs: &Path,
    folder: &Path,
    once: bool,
    websites: &[String],
) -> Result<bool, Box<dyn Error>> {
    let services = services::shared()?;
    let local = sites::start_demo_sites()?;
    let database = create_database(&services)?;
    let domains = find_domains(&local.sites, websites)?;
    std::fs::create_dir_all(folder)?;
    let roots = folder.join("roots.pem");
    std::fs::write(&roots, ca_bundle(&local.ca_pem))?;

    let (signals, stop) = SignalThread::start()?;
    let mut running = ChildPrograms::new(programs, folder);
    let settings = ProgramSettings { services: &services, database: &database, domains: &domains };
    running.start("recorder", &settings.recorder())?;
    running.start("tracker", &settings.tracker(&local.sites, websites, &roots))?;
    print_line(&format!("logs: {}", folder.display()));

    let rows = RowReader::connect(&services, &database, &domains)?;
    let outcome = show_rows(&mut running, rows, &local.sites, once, &stop);
    running.stop();
    signals.join();
    outcome
}

/// Creates the database and returns its URI. An existing database is used again.
fn create_database(services: &Services) -> Result<String, Box<dyn Error>> {
    let mut client = services::connect(services, &services.postgres_uri)?;
    let sql = "select count(*) from pg_database where datname = $1";
    if client.query_one(sql, &[&DATABASE])?.get::<_, i64>(0) == 0 {
        client.batch_execute(&format!("create database {DATABASE}"))?;
    }
    let mut uri = Url::parse(&services.postgres_uri)?;
    uri.set_path(DATABASE);
    Ok(uri.into())
}

struct ProgramSettings<'a> {
    services: &'a Services,
    database: &'a str,
    domains: &'a BTreeSet<Domain>,
}

impl ProgramSettings<'_> {
    /// Settings for Kafka over TLS with a client certificate.
    fn kafka(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.services.cert(name).display().to_string();
        vec![
            ("KAFKA", self.services.kafka_tls.clone()),
            ("CA", path("ca.crt")),
            ("CERT", path("client.crt")),
            ("KEY", path("client.key")),
        ]
    }

    fn tracker(
        &self,
        sites: &[DemoSite],
        websites: &[String],
        roots: &Path,
    ) -> Vec<(&'static str, String)> {
        let escaped = |text: &str| text.replace(',', "\\,");
        let local = sites.iter().map(|site| match &site.check {
            Some(check) => format!("{} {}", escaped(&site.url), escaped(check)),
            None => escaped(&site.url),
        });
        let user_urls = websites.iter().map(|website| escaped(website));
        let mut variables = self.kafka();
        variables.extend([
            ("LOCATION", "quickstart".to_owned()),
            ("WEBSITES", local.chain(user_urls).collect::<Vec<_>>().join(",")),
            ("PERIOD", PERIOD_S.to_string()),
            ("TIMEOUT", PROBE_TIMEOUT_S.to_string()),
            // The roots of the system and the certificate authority of the local sites.
            ("SSL_CERT_FILE", roots.display().to_string()),
        ]);
        variables
    }

    fn recorder(&self) -> Vec<(&'static str, String)> {
        let domains: Vec<_> = self.domains.iter().map(Domain::as_str).collect();
        let mut variables = self.kafka();
        variables.extend([
            ("DOMAIN", domains.join(",")),
            ("POSTGRES", self.database.to_owned()),
            ("PGCA", self.services.cert("ca.crt").display().to_string()),
        ]);
        variables
    }
}

fn find_domains(
    sites: &[DemoSite],
    websites: &[String],
) -> Result<BTreeSet<Domain>, Box<dyn Error>> {
    let user_urls = websites.iter().map(|website| website.split_whitespace().next().unwrap_or(""));
    sites
        .iter()
        .map(|site| site.url.as_str())
        .chain(user_urls)
        .map(|url| {
            let parsed = Url::parse(url).map_err(|cause| format!("{url:?}: {cause}"))?;
            Ok(Domain::from_url(&parsed)?)
        })
        .collect()
}

/// The certificate authority of the local sites, and the roots of the system for the user's
/// websites.
fn ca_bundle(ca_pem: &str) -> Vec<u8> {
    let mut bundle = ca_pem.as_bytes().to_vec();
    for path in ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"] {
        if let Ok(system) = std::fs::read(path) {
            bundle.push(b'\n');
            bundle.extend(system);
            break;
        }
    }
    bundle
}

fn show_rows(
    running: &mut ChildPrograms,
    mut rows: RowReader,
    sites: &[DemoSite],
    once: bool,
    stop: &Stop,
) -> Result<bool, Box<dyn Error>> {
    let deadline = Instant::now() + ONCE_DEADLINE;
    let terminal = std::io::stdout().is_terminal();
    let mut table = StatusTable::new(sites);
    loop {
        table.add_rows(rows.read()?);
        let mut out = std::io::stdout().lock();
        let text = if terminal { table.screen() } else { table.new_lines() };
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        if once && table.is_complete() {
            break;
        }
        if let Some(ended) = running.unexpected_end() {
            return Err(ended.into());
        }
        if stop.wait(REFRESH) || once && Instant::now() >= deadline {
            break;
        }
    }
    let unexpected = table.unexpected();
    for line in &unexpected {
        print_line(line);
    }
    let expected_count = sites.len() - unexpected.len();
    print_line(&format!("{expected_count} of {} sites had the expected verdict", sites.len()));
    Ok(unexpected.is_empty())
}

fn print_line(text: &str) {
    // There is nothing to do if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
