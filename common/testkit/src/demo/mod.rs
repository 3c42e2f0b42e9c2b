//! The demonstration: the whole pipeline on one machine, watched.

mod programs;
mod rows;
mod table;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::stop::{SignalThread, Stop};
use url::Url;

use crate::services::{self, Services};
use crate::sites::{self, DemoSite};
use programs::Programs;
use rows::Rows;
use table::Table;

/// How often each site is probed.
const PERIOD_S: u64 = 5;
/// Above what the slow site takes, and short enough to watch the hanging one.
const TIMEOUT_S: u64 = 4;
/// How often the rows are read.
const REFRESH: Duration = Duration::from_millis(500);
/// How long `--once` waits for the last verdict: programs start, topics are
/// made and every site is probed within a few periods.
const ONCE_DEADLINE: Duration = Duration::from_secs(90);

/// Runs it, with the programs of one folder and their logs in another: until a signal, or with `once` until each local site has a row.
/// True when each has the verdict that is expected of it.
///
/// # Errors
/// When something can't be started, or ends before its time.
pub fn run(
    programs: &Path,
    folder: &Path,
    once: bool,
    websites: &[String],
) -> Result<bool, Box<dyn Error>> {
    let services = services::shared()?;
    let demo = sites::demo()?;
    let database = services::fresh_database(&services)?;
    let domains = domains(&demo.sites, websites)?;
    std::fs::create_dir_all(folder)?;
    let roots = folder.join("roots.pem");
    std::fs::write(&roots, roots_with(&demo.ca_pem))?;

    let (signals, stop) = SignalThread::start()?;
    let mut running = Programs::new(programs, folder);
    let settings = Settings { services: &services, database: &database, domains: &domains };
    running.start("recorder", &settings.recorder())?;
    running.start("tracker", &settings.tracker(&demo.sites, websites, &roots))?;
    say(&format!("logs: {}", folder.display()));

    let rows = Rows::connect(&services, &database, &domains)?;
    let outcome = watch(&mut running, rows, &demo.sites, once, &stop);
    running.stop();
    signals.join();
    outcome
}

struct Settings<'a> {
    services: &'a Services,
    database: &'a str,
    domains: &'a BTreeSet<Domain>,
}

impl Settings<'_> {
    /// Kafka over TLS with a client certificate, for either program.
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
        let added = websites.iter().map(|website| escaped(website));
        let mut variables = self.kafka();
        variables.extend([
            ("LOCATION", "quickstart".to_owned()),
            ("WEBSITES", local.chain(added).collect::<Vec<_>>().join(",")),
            ("PERIOD", PERIOD_S.to_string()),
            ("TIMEOUT", TIMEOUT_S.to_string()),
            // So that the sites' own CA is trusted beside the system's.
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

fn domains(sites: &[DemoSite], websites: &[String]) -> Result<BTreeSet<Domain>, Box<dyn Error>> {
    let added = websites.iter().map(|website| website.split_whitespace().next().unwrap_or(""));
    sites
        .iter()
        .map(|site| site.url.as_str())
        .chain(added)
        .map(|url| {
            let parsed = Url::parse(url).map_err(|cause| format!("{url:?}: {cause}"))?;
            Ok(Domain::from_url(&parsed)?)
        })
        .collect()
}

/// The sites' CA, and the system's roots for sites that the user adds.
fn roots_with(ca_pem: &str) -> Vec<u8> {
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

fn watch(
    running: &mut Programs,
    mut rows: Rows,
    sites: &[DemoSite],
    once: bool,
    stop: &Stop,
) -> Result<bool, Box<dyn Error>> {
    let deadline = Instant::now() + ONCE_DEADLINE;
    let terminal = std::io::stdout().is_terminal();
    let mut table = Table::new(sites);
    loop {
        table.take(rows.read()?);
        let mut out = std::io::stdout().lock();
        let text = if terminal { table.screen() } else { table.news() };
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        if once && table.complete() {
            break;
        }
        if let Some(ended) = running.ended() {
            return Err(ended.into());
        }
        if stop.wait(REFRESH) || once && Instant::now() >= deadline {
            break;
        }
    }
    for wrong in table.unexpected() {
        say(&wrong);
    }
    Ok(table.unexpected().is_empty())
}

fn say(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
