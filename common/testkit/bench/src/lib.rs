//! The measurements behind `scripts/bench`: both programs as they are shipped,
//! on services of their own, each beside what it is compared with, in one run.

mod bare_insert;
mod bare_rustls;
mod competitors;
mod fairness;
mod idle_domains;
mod latency;
mod machine;
mod probe_cost;
mod prometheus_scraper;
mod record_generator;
mod recovery;
mod report;
mod schedule;
mod schedule_check;
mod site_server;
mod testbed;
mod throughput;
mod topic_records;

use std::cell::OnceCell;
use std::error::Error;
use std::path::Path;

use crate::report::Report;
use crate::testbed::BenchTestbed;
pub use bare_rustls::bare_probes;

/// The first argument of the program when it is to be a child of its own that
/// does nothing but bare probes.
pub const BARE_PROBES_ARGUMENT: &str = "--bare-probes";

/// Whatever ends a measurement.
type BenchError = Box<dyn Error>;

/// One measurement.
type Measure = fn(&Bench<'_>, &mut Report) -> Result<(), BenchError>;

/// By name, in the order in which they run.
const MEASUREMENTS: [(&str, Measure); 9] = [
    ("throughput", throughput::measure_throughput),
    ("statement", throughput::measure_statement),
    ("backlog", throughput::measure_backlog),
    ("latency", latency::measure),
    ("fairness", fairness::measure),
    ("domains", idle_domains::measure),
    ("recovery", recovery::measure),
    ("schedule", schedule::measure),
    ("probe", probe_cost::measure),
];

/// The names, in the order in which they run.
pub fn names() -> impl Iterator<Item = &'static str> {
    MEASUREMENTS.iter().map(|(name, _)| *name)
}

/// What all measurements have in common.
struct Bench<'a> {
    programs: &'a Path,
    /// By what the whole sizes and times are divided.
    shrink: usize,
    /// Of the services, once some have run.
    versions: OnceCell<String>,
}

impl Bench<'_> {
    /// A number of records or seconds, as large as was asked for.
    fn size(&self, whole: usize) -> usize {
        (whole / self.shrink).max(1)
    }

    /// Services that this measurement has for itself.
    fn testbed(&self, brokers: usize) -> Result<BenchTestbed<'_>, BenchError> {
        let testbed = BenchTestbed::start(self.programs, brokers)?;
        if self.versions.get().is_none() {
            let _ = self.versions.set(testbed.versions()?);
        }
        Ok(testbed)
    }
}

/// Measures what is `wanted` by name, or all, with the programs of a folder:
/// the report as text, and whether every target was met. With `quick` all sizes
/// are a tenth, which shows that it works and little else.
///
/// # Errors
/// When something can't be started, or does not come to its end.
pub fn run(programs: &Path, wanted: &[String], quick: bool) -> Result<(String, bool), BenchError> {
    let bench = Bench { programs, shrink: if quick { 10 } else { 1 }, versions: OnceCell::new() };
    let mut report = Report::default();
    for (name, measure) in MEASUREMENTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            log::info!("== {name}");
            measure(&bench, &mut report)?;
        }
    }
    let versions = bench.versions.get().map_or("", String::as_str);
    Ok((format!("{}\n\n{report}", machine::describe(versions)), report.all_met()))
}
