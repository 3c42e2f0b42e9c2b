//! The measurements of `scripts/bench`: release builds of both programs with their own
//! services, compared with other programs in the same run.

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

/// First argument of this program if it runs as a child process that only does bare probes.
pub const BARE_PROBES_ARGUMENT: &str = "--bare-probes";

/// Any error that ends a measurement.
type BenchError = Box<dyn Error>;

type Measure = fn(&Bench<'_>, &mut Report) -> Result<(), BenchError>;

/// The measurements by name, in the order in which they run.
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

/// The names of the measurements, in the order in which they run.
pub fn names() -> impl Iterator<Item = &'static str> {
    MEASUREMENTS.iter().map(|(name, _)| *name)
}

/// The state that all measurements share.
struct Bench<'a> {
    programs: &'a Path,
    /// Divisor of all sizes and times.
    shrink: usize,
    /// Versions of the services, known after the first start.
    versions: OnceCell<String>,
}

impl Bench<'_> {
    /// Divides a number of records or seconds by the divisor.
    fn size(&self, whole: usize) -> usize {
        (whole / self.shrink).max(1)
    }

    /// Starts services for one measurement.
    fn testbed(&self, brokers: usize) -> Result<BenchTestbed<'_>, BenchError> {
        let testbed = BenchTestbed::start(self.programs, brokers)?;
        if self.versions.get().is_none() {
            let _ = self.versions.set(testbed.versions()?);
        }
        Ok(testbed)
    }
}

/// Runs the measurements in `selected`, or all if it is empty, with the programs in a folder.
/// Returns the report as text, and whether every target was met. With `quick` all sizes are
/// divided by ten: this shows that the measurements work, but the figures mean little.
///
/// # Errors
/// Fails if a part can't be started, or does not end.
pub fn run(
    programs: &Path,
    selected: &[String],
    quick: bool,
) -> Result<(String, bool), BenchError> {
    let bench = Bench { programs, shrink: if quick { 10 } else { 1 }, versions: OnceCell::new() };
    let mut report = Report::default();
    for (name, measure) in MEASUREMENTS {
        if selected.is_empty() || selected.iter().any(|selected| selected == name) {
            log::info!("== {name}");
            measure(&bench, &mut report)?;
        }
    }
    let versions = bench.versions.get().map_or("", String::as_str);
    Ok((format!("{}\n\n{report}", machine::describe(versions)), report.all_met()))
}
