//! The soak behind `scripts/soak`: both programs at work for minutes, and what
//! they need meanwhile.
//!
//! The tracker probes every site of the demonstration, most of which fail in one
//! way or another, some times each; the recorder writes what comes of it. Both
//! are watched from outside, by what the kernel says of them.

mod growth;

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::stop::Stop;

use testkit::process_usage::ProcessUsage;
use testkit::program::Program;
use testkit::services::{Services, connect, fresh_database, fresh_name, shared};
use testkit::sites::{DemoSites, start_demo_sites};

/// How often each site is a target.
const COPIES: usize = 12;
/// In which each target is probed, in seconds: one that hangs is through with
/// two attempts.
const PERIOD: &str = "4";
const TIMEOUT: &str = "1";
/// Probes at once: fewer than sites that hang, so that all workers are there
/// from the beginning, and some slots are missed for want of one.
const WORKERS: &str = "24";
/// The host of all sites that need no name server.
const HOST: &str = "demo.localhost";
/// How many samples there are, but for their bounds.
const SAMPLES: u32 = 60;
const SAMPLE_EVERY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// How long a program may take to start or to end.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Debug, Clone)]
pub struct SoakSettings {
    /// Where `tracker` and `recorder` are.
    pub programs: PathBuf,
    /// A folder for what the programs read.
    pub folder: PathBuf,
    /// How long they are watched.
    pub time: Duration,
}

/// Runs a soak on the services that the environment names: whether nothing grew.
///
/// # Errors
/// When something can't be started, ends by itself, or does nothing.
pub fn run(settings: &SoakSettings, stop: &Stop) -> Result<bool, Box<dyn Error>> {
    let services = shared()?;
    let sites = start_demo_sites()?;
    let ca = settings.folder.join("sites-ca.pem");
    fs::write(&ca, &sites.ca_pem)?;
    let uri = fresh_database(&services)?;
    let prefix = format!("{}-", fresh_name("soak"));
    let testbed =
        SoakTestbed { services: &services, programs: &settings.programs, prefix: &prefix };
    let recorder = testbed.recorder(&uri)?;
    let tracker = testbed.tracker(&sites, &ca)?;
    let programs = [("tracker", &tracker), ("recorder", &recorder)];

    let mut samples = [Vec::new(), Vec::new()];
    let mut recorded = Vec::new();
    let mut database = connect(&services, &uri)?;
    // How long a busy machine takes to start is no part of it.
    let patient_until = Instant::now() + PROGRAM_TIMEOUT;
    while rows(&mut database) == 0 && Instant::now() < patient_until {
        if stop.wait(SAMPLE_EVERY[0]) {
            return Err("stopped before its end".into());
        }
    }
    let every = (settings.time / SAMPLES).clamp(SAMPLE_EVERY[0], SAMPLE_EVERY[1]);
    let begun = Instant::now();
    while begun.elapsed() < settings.time {
        if stop.wait(every) {
            return Err("stopped before its end".into());
        }
        let mut line = format!("{:6.1} s", begun.elapsed().as_secs_f64());
        for ((name, program), samples) in programs.iter().zip(&mut samples) {
            let usage =
                ProcessUsage::read(program.id()).map_err(|error| ended(name, program, &error))?;
            let ProcessUsage { memory_kib, threads, descriptors, .. } = usage;
            let memory_mib = memory_kib as f64 / 1_024.0;
            line += &format!(
                "   {name} {memory_mib:5.1} MiB {threads:4} threads {descriptors:4} descriptors"
            );
            samples.push(usage);
        }
        let rows = rows(&mut database);
        print_line(&format!("{line}   {rows} records recorded"));
        recorded.push(rows);
    }
    tracker.stop(PROGRAM_TIMEOUT)?;
    recorder.stop(PROGRAM_TIMEOUT)?;
    check_progress(&recorded)?;
    Ok(summary(["tracker", "recorder"], &samples))
}

/// Says what became of all that was watched: whether nothing grew.
fn summary(names: [&str; 2], samples: &[Vec<ProcessUsage>; 2]) -> bool {
    let mut all_level = true;
    for (name, samples) in names.iter().zip(samples) {
        for growth in growth::measure_growth(samples) {
            let verdict = if growth.is_level() { "level" } else { "GROWS" };
            print_line(&format!("{verdict}  {name}: {growth}"));
            all_level &= growth.is_level();
        }
    }
    all_level
}

/// Programs that do nothing need nothing: in each fifth that counts something
/// has to be recorded.
fn check_progress(recorded: &[i64]) -> Result<(), Box<dyn Error>> {
    if recorded.len() < growth::SAMPLES_MIN {
        return Err(format!("{} samples: too few", recorded.len()).into());
    }
    let fifth = recorded.len() / 5;
    for at in (1..5).map(|part| part * fifth) {
        if recorded[at] >= recorded[at + fifth - 1] {
            return Err("nothing was recorded for a fifth of the time".into());
        }
    }
    Ok(())
}

fn ended(name: &str, program: &Program, error: &dyn Error) -> Box<dyn Error> {
    // It may still be on its way to the end.
    thread::park_timeout(Duration::from_millis(100));
    format!("{name}: {error}; its log:\n{}", program.log().join("\n")).into()
}

fn rows(database: &mut postgres::Client) -> i64 {
    let sql = "select coalesce(sum(next_offset), 0)::bigint from availability_offset";
    // There is no such table until the recorder has made it.
    database.query_one(sql, &[]).and_then(|row| row.try_get(0)).unwrap_or(0)
}

fn print_line(line: &str) {
    // Nobody is left to tell when standard output is gone.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

struct SoakTestbed<'a> {
    services: &'a Services,
    programs: &'a Path,
    /// Of topics that no other run has.
    prefix: &'a str,
}

impl SoakTestbed<'_> {
    fn tracker(&self, sites: &DemoSites, ca: &Path) -> Result<Program, Box<dyn Error>> {
        let websites = websites(sites);
        let ca = ca.display().to_string();
        let own = [
            ("LOCATION", "soak"),
            ("WEBSITES", &*websites),
            ("PERIOD", PERIOD),
            ("TIMEOUT", TIMEOUT),
            ("WORKERS", WORKERS),
            ("SSL_CERT_FILE", &*ca),
        ];
        self.program("tracker", &own)
    }

    fn recorder(&self, uri: &str) -> Result<Program, Box<dyn Error>> {
        let ca = self.services.postgres_ca.display().to_string();
        self.program("recorder", &[("DOMAIN", HOST), ("POSTGRES", uri), ("PGCA", &ca)])
    }

    /// Starts a program with the way to Kafka and these variables.
    fn program(&self, name: &str, own: &[(&str, &str)]) -> Result<Program, Box<dyn Error>> {
        let path = |path: &Path| path.display().to_string();
        let Services { kafka_tls, kafka_ca, kafka_cert, kafka_key, .. } = self.services;
        let (ca, cert, key) = (path(kafka_ca), path(kafka_cert), path(kafka_key));
        let kafka = [
            ("KAFKA", kafka_tls.as_str()),
            ("CA", &ca),
            ("CERT", &cert),
            ("KEY", &key),
            ("TOPIC_PREFIX", self.prefix),
            ("RUST_LOG", "warn"),
        ];
        Ok(Program::start(self.programs.join(name), &[], &[&kafka, own].concat())?)
    }
}

/// Every site some times; copies differ by a regexp that makes no difference.
fn websites(sites: &DemoSites) -> String {
    let of_host = sites.sites.iter().filter(|site| site.url.contains(HOST));
    let entries = of_host.flat_map(|site| {
        (0..COPIES).map(|copy| {
            let check = site.check.unwrap_or_default().replace(',', r"\,");
            format!("{} {check}(copy {copy})?", site.url)
        })
    });
    entries.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_stopped_working_are_not_level() {
        let check_progress = |recorded: &[i64]| check_progress(recorded).is_ok();
        let rising: Vec<i64> = (0..50).collect();
        assert!(check_progress(&rising));
        let stopped: Vec<i64> = (0..50).map(|n| n.min(41)).collect();
        assert!(check_progress(&stopped));
        let stopped: Vec<i64> = (0..50).map(|n| n.min(40)).collect();
        assert!(!check_progress(&stopped));
        assert!(!check_progress(&rising[..10]));
    }
}
