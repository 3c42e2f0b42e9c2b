//! The soak test of `scripts/soak`: runs both programs for minutes and watches their resources.
//!
//! The tracker probes every site of the demonstration, most of which fail, several times each.
//! The recorder writes the results. Resource usage is read from the kernel.

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

/// Number of targets per site.
const COPIES: usize = 12;
/// Probe period in seconds. Two attempts at a site that hangs fit in a period.
const PERIOD: &str = "4";
const TIMEOUT: &str = "1";
/// Number of workers: fewer than targets that hang, so that all workers start at once, and some
/// slots are missed because no worker is free.
const WORKERS: &str = "24";
/// The host of all sites that need no name server.
const HOST: &str = "demo.localhost";
/// Number of samples, unless the interval reaches one of its limits.
const SAMPLES: u32 = 60;
const SAMPLE_EVERY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// Time-out for the start and the end of a program.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);

/// Configuration of a soak test.
#[derive(Debug, Clone)]
pub struct SoakSettings {
    /// Folder of the programs `tracker` and `recorder`.
    pub programs: PathBuf,
    /// Folder for files that the programs read.
    pub folder: PathBuf,
    /// Duration of the measurement.
    pub time: Duration,
}

/// Runs a soak test on the services that the environment names. Returns true if no resource grew.
///
/// # Errors
/// Fails if a program can't be started, ends unexpectedly, or records nothing, or if `stop` is
/// requested.
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
    // The time to start on a busy machine is not part of the measurement.
    let start_deadline = Instant::now() + PROGRAM_TIMEOUT;
    while recorded_count(&mut database) == 0 && Instant::now() < start_deadline {
        if stop.wait(SAMPLE_EVERY[0]) {
            return Err("stopped before the end of the soak test".into());
        }
    }
    let every = (settings.time / SAMPLES).clamp(SAMPLE_EVERY[0], SAMPLE_EVERY[1]);
    let started_at = Instant::now();
    while started_at.elapsed() < settings.time {
        if stop.wait(every) {
            return Err("stopped before the end of the soak test".into());
        }
        let mut line = format!("{:6.1} s", started_at.elapsed().as_secs_f64());
        for ((name, program), samples) in programs.iter().zip(&mut samples) {
            let usage = ProcessUsage::read(program.id())
                .map_err(|error| unexpected_end(name, program, &error))?;
            let ProcessUsage { memory_kib, threads, descriptors, .. } = usage;
            let memory_mib = memory_kib as f64 / 1_024.0;
            line += &format!(
                "   {name} {memory_mib:5.1} MiB {threads:4} threads {descriptors:4} descriptors"
            );
            samples.push(usage);
        }
        let rows = recorded_count(&mut database);
        print_line(&format!("{line}   {rows} records recorded"));
        recorded.push(rows);
    }
    tracker.stop(PROGRAM_TIMEOUT)?;
    recorder.stop(PROGRAM_TIMEOUT)?;
    check_progress(&recorded)?;
    Ok(print_summary(["tracker", "recorder"], &samples))
}

/// Prints the growth of each resource. Returns true if none grew.
fn print_summary(names: [&str; 2], samples: &[Vec<ProcessUsage>; 2]) -> bool {
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

/// Checks that records were recorded in each fifth of the time that counts. Idle programs would
/// need no resources.
fn check_progress(recorded: &[i64]) -> Result<(), Box<dyn Error>> {
    if recorded.len() < growth::SAMPLES_MIN {
        return Err(format!("only {} samples, need {}", recorded.len(), growth::SAMPLES_MIN).into());
    }
    let fifth = recorded.len() / 5;
    for at in (1..5).map(|part| part * fifth) {
        if recorded[at] >= recorded[at + fifth - 1] {
            return Err("no record was recorded for a fifth of the time".into());
        }
    }
    Ok(())
}

fn unexpected_end(name: &str, program: &Program, error: &dyn Error) -> Box<dyn Error> {
    // The process may not have ended completely.
    thread::park_timeout(Duration::from_millis(100));
    format!("{name}: {error}; the log:\n{}", program.log().join("\n")).into()
}

fn recorded_count(database: &mut postgres::Client) -> i64 {
    let sql = "select coalesce(sum(next_offset), 0)::bigint from availability_offset";
    // The table does not exist until the recorder has created it.
    database.query_one(sql, &[]).and_then(|row| row.try_get(0)).unwrap_or(0)
}

fn print_line(line: &str) {
    // There is nothing to do if standard output is closed.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

struct SoakTestbed<'a> {
    services: &'a Services,
    programs: &'a Path,
    /// Unique prefix of the topics.
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

    /// Starts a program with the settings for Kafka and these variables.
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

/// Lists every site `COPIES` times. The copies differ in a regexp that matches the same pages.
fn websites(sites: &DemoSites) -> String {
    let local_sites = sites.sites.iter().filter(|site| site.url.contains(HOST));
    let entries = local_sites.flat_map(|site| {
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
    fn programs_that_stop_recording_fail() {
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
