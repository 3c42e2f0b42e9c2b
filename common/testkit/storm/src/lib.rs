//! The storm: both programs, three brokers and a PostgreSQL under random faults that are derived
//! from a seed, and an oracle that checks every result by its identity.
//!
//! The plan of faults is a pure function of the seed. The behaviour of the processes is not
//! deterministic. Meanwhile the topic reader reads all topics with its own connection. At the end
//! every fault is repaired and all records are read. Then the oracle compares the database with
//! the records that the topic reader has read.
//!
//! Two deliberate defects were each found by a storm of one minute: rows of duplicates if the
//! recorder does not drop copies, and duplicate rows and gaps if the statement that moves the
//! position does not compare the old position.

mod cross_check;
mod faults;
mod observations;
mod oracle;
mod report;
mod testbed;

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::stop::{self, Stop};
use kafka_client::{KafkaClient, LogEnd};
use testkit::services::connect;

use crate::faults::log::FaultLog;
use crate::faults::plan::FaultPlan;
use crate::faults::{record_injector, runner};
use crate::observations::topic_reader::TopicReader;
use crate::observations::{TopicObservations, postgres_reader};
use crate::oracle::{OracleReport, ResultCounts};
use crate::testbed::managed_program::ProgramId;
use crate::testbed::{BROKERS, StormTestbed};

/// Time-out for the recorders to read the remaining records.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(180);
/// Interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Time for which the trackers run after all faults are repaired.
const TRACKERS_RUN_ON: Duration = Duration::from_secs(3);
/// Maximum number of restarts of a tracker that leaves results on disk.
const TRACKER_RESTARTS_MAX: usize = 10;
/// Maximum number of errors that are printed.
const ERRORS_PRINTED_MAX: usize = 12;

/// Part of the line that a tracker logs when it ends with results on disk.
const RESULTS_LEFT_ON_DISK: &str = "on disk for the next start";

/// Configuration of a storm.
#[derive(Debug, Clone)]
pub struct StormSettings {
    /// Folder of the programs `tracker` and `recorder`.
    pub programs: PathBuf,
    /// Folder for the logs of this storm alone.
    pub folder: PathBuf,
    /// Duration of the fault injection, in seconds.
    pub seconds: u64,
    /// Seed of the plan of faults.
    pub seed: u64,
}

/// Runs a storm. Returns true if the oracle and the cross-check find no errors.
///
/// # Errors
/// Fails if a part can't be started or does not end, or if `stop` is requested.
pub fn run(settings: &StormSettings, stop: &Stop) -> Result<bool, Box<dyn Error>> {
    let StormSettings { programs, folder, seconds, seed } = settings;
    let started_at = Instant::now();
    fs::create_dir_all(folder)?;
    let plan = FaultPlan::new(*seed, *seconds);
    print_line(&format!(
        "storm of {seconds} s with seed {seed}: {}, {}; logs in {}",
        if plan.recorders.smart { "smart mode" } else { "no smart mode" },
        if plan.recorders.any_domain { "DOMAIN='*'" } else { "DOMAIN is a list" },
        folder.display()
    ));
    let testbed = StormTestbed::start(plan.recorders, programs, folder)?;
    let topic_reader = TopicReader::start(testbed.settings()?, testbed.topics()?)?;
    for id in ProgramId::ALL {
        testbed.lock_program(id)?.start()?;
    }
    log::info!("all programs started after {:.0} s", started_at.elapsed().as_secs_f64());
    let end = Instant::now() + Duration::from_secs(*seconds);
    let (ended, is_ended) = stop::pair();
    let (log, injected) = thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let (kafka, topics) = (testbed.settings()?, testbed.topics()?);
        let writing = &testbed.writing;
        let injecting =
            scope.spawn(move || record_injector::run(kafka, &topics, *seed, writing, &is_ended));
        let log = runner::run(&testbed, &topic_reader, &plan, end, stop, ended);
        let injected = injecting.join().map_err(|_| "the injector panicked")?;
        Ok((log, injected.map_err(|cause| -> Box<dyn Error> { cause })?))
    })?;
    if stop.is_requested() {
        return Err("stopped before the end of the storm".into());
    }
    log::info!("fault injection ended");
    let caught_up = finish(&testbed, &topic_reader, &log)?;
    let checked = check_topics(&testbed, &topic_reader, &plan, &log)?;
    let passed = report(settings, &testbed, &log, &checked, injected, caught_up)?;
    copy_service_logs(&testbed, folder, passed);
    log::info!("the storm took {:.0} s in total", started_at.elapsed().as_secs_f64());
    Ok(passed)
}

/// Stops the trackers after they have delivered their results, waits until everything is
/// recorded, and stops the recorders. Returns the time from the end of the faults until
/// everything was recorded.
fn finish(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    log: &FaultLog,
) -> Result<Duration, Box<dyn Error>> {
    let faults_ended = Instant::now();
    thread::sleep(TRACKERS_RUN_ON);
    for index in [0, 1] {
        let mut tracker = testbed.lock_program(ProgramId::Tracker(index))?;
        for _ in 0..TRACKER_RESTARTS_MAX {
            if let Err(cause) = tracker.stop() {
                log.add_error(cause.to_string());
            }
            log.read_issued_counts(testbed, index)?;
            let log =
                tracker.instances.last().map(|instance| tracker.log_of(instance)).transpose()?;
            if !log.is_some_and(|log| log.contains(RESULTS_LEFT_ON_DISK)) {
                break;
            }
            tracker.start()?;
            thread::sleep(TRACKERS_RUN_ON);
        }
    }
    let deadline = Instant::now() + CATCH_UP_TIMEOUT;
    let mut database = connect(&testbed.services, &testbed.database)?;
    let mut client = KafkaClient::new(testbed.settings()?);
    let topics = testbed.topics()?;
    loop {
        let unrecorded = unrecorded_topic(&mut database, &mut client, topic_reader, &topics);
        match unrecorded {
            Ok(None) => break,
            Ok(Some(reason)) | Err(reason) if Instant::now() >= deadline => {
                // The oracle reports the missing results.
                log::error!(
                    "the recorders did not read all records within {CATCH_UP_TIMEOUT:?}: {reason}"
                );
                break;
            }
            _ => thread::sleep(POLL_INTERVAL),
        }
    }
    let catch_up_time = faults_ended.elapsed();
    for id in [ProgramId::Recorder(0), ProgramId::Recorder(1)] {
        if let Err(cause) = testbed.lock_program(id)?.stop() {
            log.add_error(cause.to_string());
        }
    }
    Ok(catch_up_time)
}

/// Describes a topic that is not recorded to its end. `None` if there is none.
fn unrecorded_topic(
    database: &mut postgres::Client,
    client: &mut KafkaClient,
    topic_reader: &TopicReader,
    topics: &[String],
) -> Result<Option<String>, String> {
    let positions = postgres_reader::positions(database).map_err(|cause| cause.to_string())?;
    for topic in topics {
        let end =
            client.list_offset(topic, 0, LogEnd::Latest).map_err(|cause| cause.to_string())?;
        let read = topic_reader.position(topic);
        let stored = positions.iter().find(|(it, ..)| it == topic).map(|(_, id, at)| (*id, *at));
        if read.is_none_or(|(_, at)| at != end) || read != stored {
            return Ok(Some(format!(
                "{topic} ends at {end}: topic reader at {read:?}, recorder at {stored:?}"
            )));
        }
    }
    Ok(None)
}

fn check_topics(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    plan: &FaultPlan,
    log: &FaultLog,
) -> Result<Vec<(TopicObservations, OracleReport)>, Box<dyn Error>> {
    let mut database = connect(&testbed.services, &testbed.database)?;
    let mut client = KafkaClient::new(testbed.settings()?);
    let mut read_topics = topic_reader.topics();
    let mut checked = Vec::new();
    for (topic, domain) in testbed.topics()?.into_iter().zip(&testbed.domains) {
        let incarnations = read_topics.remove(&topic).unwrap_or_default();
        let log_end = client.list_offset(&topic, 0, LogEnd::Latest)?;
        let issued_counts = log.issued_counts(&topic);
        let mut observed = TopicObservations {
            topic,
            incarnations,
            issued_counts,
            log_end,
            ..TopicObservations::default()
        };
        postgres_reader::read(&mut database, &domain.table(), &mut observed)?;
        let topic_report = oracle::check_topic(&observed, plan.recorders.smart);
        checked.push((observed, topic_report));
    }
    Ok(checked)
}

fn report(
    settings: &StormSettings,
    testbed: &StormTestbed,
    log: &FaultLog,
    checked: &[(TopicObservations, OracleReport)],
    injected: u64,
    caught_up: Duration,
) -> Result<bool, Box<dyn Error>> {
    let cross_check = cross_check::cross_check(testbed, log, checked)?;
    let mut counts = ResultCounts::default();
    let mut errors = log.errors();
    for (observed, topic_report) in checked {
        counts.add(topic_report.counts);
        if !topic_report.errors.is_empty() {
            let dump = report::topic_dump(observed);
            fs::write(settings.folder.join(format!("{}.txt", observed.topic)), dump)?;
        }
        errors.extend(topic_report.errors.iter().cloned());
    }
    errors.extend(cross_check.errors.iter().cloned());
    print_line(&report::fault_summary(log, settings.seed, settings.seconds));
    print_line(&report::result_summary(counts, &cross_check, injected, caught_up));
    for error in errors.iter().take(ERRORS_PRINTED_MAX) {
        print_line(&format!("ERROR: {error}"));
    }
    if errors.len() > ERRORS_PRINTED_MAX {
        print_line(&format!(
            "and {} more errors, see errors.txt",
            errors.len() - ERRORS_PRINTED_MAX
        ));
    }
    fs::write(settings.folder.join("errors.txt"), errors.join("\n"))?;
    let verdict = if errors.is_empty() {
        "passed: each result is recorded exactly once, or in a gap"
    } else {
        "FAILED"
    };
    print_line(&format!(
        "seed {}: {verdict}; logs in {}",
        settings.seed,
        settings.folder.display()
    ));
    Ok(errors.is_empty())
}

/// Copies the logs of the services, whose folder will be deleted, if there were errors.
fn copy_service_logs(testbed: &StormTestbed, folder: &Path, passed: bool) {
    if passed {
        return;
    }
    let dir = &testbed.services.dir;
    let brokers = (1..=BROKERS).map(|n| (format!("kafka/{n}/log"), format!("broker-{n}.log")));
    let others = [("postgres/log".to_owned(), "postgres.log".to_owned())];
    for (from, to) in brokers.chain(others) {
        if let Err(cause) = fs::copy(dir.join(&from), folder.join(to)) {
            log::warn!("{from}: {cause}");
        }
    }
}

fn print_line(text: &str) {
    // There is nothing to do if standard output is closed.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
