//! Ten thousand targets per minute, a tenth of which hang.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::record::Record;
use testkit::process_usage::ProcessUsage;
use testkit::program::Program;

use crate::competitors::{Competitor, ProbeWork};
use crate::machine::processor_s;
use crate::report::{Report, percentile};
use crate::schedule_check::{ScheduleCheck, ScheduleResult};
use crate::site_server::{RequestArrival, SiteServer};
use crate::testbed::{BenchTestbed, TIMEOUT};
use crate::topic_records::read_records;
use crate::{Bench, BenchError};

/// Number of targets, and their probe period in seconds.
const TARGETS: usize = 10_000;
const PERIOD_S: usize = 60;
/// One target in this many hangs.
const HANGS: usize = 10;
const TIMEOUT_S: usize = 10;
/// Number of periods measured, from the start of the program.
const PERIODS: usize = 4;

const P99_MS_MAX: f64 = 2.0;
const LATENESS_MS_MAX: f64 = 50.0;
const MEMORY_MIB_MAX: u64 = 64;
/// Limit of the tracker's processor time per probe, relative to cloudprober's.
const PROCESSOR_RATIO_MAX: f64 = 0.5;

/// Measures the tracker as in production, with Kafka over TLS, and then cloudprober with the same
/// targets and sites.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let sites = SiteServer::start()?;
    let load = ScheduleLoad {
        period_s: bench.size(PERIOD_S),
        timeout_s: bench.size(TIMEOUT_S),
        hanging: (0..bench.size(TARGETS)).map(|target| target % HANGS == 0).collect(),
    };
    let urls = load.urls(&sites);
    let folder = testbed.services.dir.as_path();
    let label = format!(
        "{} targets in {} s, 1 in {HANGS} hangs for {} s",
        urls.len(),
        load.period_s,
        load.timeout_s
    );

    let domain = Domain::parse("127.0.0.1")?;
    let tracker = tracker(&testbed, &load, &urls)?;
    let (tracker, of_tracker) = load.measure(&sites, tracker)?;
    let ended = tracker.stop(TIMEOUT)?;
    of_tracker.report_schedule(&label, report);
    let logged = ended.log.iter().filter_map(|line| line.split_once("late by ")).next_back();
    if let Some((_, late)) = logged {
        report.add_figure(format!("{label}: lateness as the tracker logs it"), late);
    }
    let memory_mib = of_tracker.memory_peak_kib / 1_024;
    report.add_target(
        format!("{label}: peak memory"),
        format!("{memory_mib} MiB"),
        format!("≤ {MEMORY_MIB_MAX} MiB"),
        memory_mib <= MEMORY_MIB_MAX,
    );
    let counts = SlotCounts::from_records(read_records(&testbed, &domain)?);
    counts.report(&label, urls.len(), report);

    if let Some(program) = Competitor::Cloudprober.find(report) {
        let (period_s, timeout_s) = (load.period_s, load.timeout_s);
        let work = ProbeWork { urls: &urls, period_s, timeout_s, check: None, ca: None };
        let (competitor, _) = Competitor::Cloudprober.start(&program, folder, work)?;
        let (competitor, of_competitor) = load.measure(&sites, competitor)?;
        competitor.stop(TIMEOUT)?;
        of_competitor.report_figures(&format!("{label}: cloudprober's"), report);
        let ratio = of_tracker.processor_ms / of_competitor.processor_ms;
        report.add_target(
            format!("{label}: processor time of a probe, relative to cloudprober's"),
            format!("{:.2} ms, {ratio:.2} times", of_tracker.processor_ms),
            format!("≤ {PROCESSOR_RATIO_MAX} times"),
            ratio <= PROCESSOR_RATIO_MAX,
        );
    } else {
        let used = format!("{:.2} ms", of_tracker.processor_ms);
        report.add_figure(format!("{label}: processor time of a probe"), used);
    }
    Ok(())
}

/// The targets.
struct ScheduleLoad {
    period_s: usize,
    timeout_s: usize,
    hanging: Vec<bool>,
}

/// The measured figures of a program.
struct Measurement {
    result: ScheduleResult,
    memory_peak_kib: u64,
    /// Processor time per attempt. A probe may have several attempts.
    processor_ms: f64,
    probes: usize,
}

impl ScheduleLoad {
    fn urls(&self, sites: &SiteServer) -> Vec<String> {
        self.hanging.iter().enumerate().map(|(target, hangs)| sites.url(target, *hangs)).collect()
    }

    /// Measures a program from its start. Processor time counts after the first period, when all
    /// threads run.
    fn measure(
        &self,
        sites: &SiteServer,
        program: Program,
    ) -> Result<(Program, Measurement), BenchError> {
        let _ = sites.take_arrivals();
        let (from_s, started) = (sites.now_s(), Instant::now());
        let until = |periods: usize| {
            let at = started + Duration::from_secs((periods * self.period_s) as u64);
            while let Some(left) = at.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
        };
        until(1);
        let before = (processor_s(program.id())?, sites.accepted());
        until(PERIODS);
        let used_s = processor_s(program.id())? - before.0;
        let probes = sites.accepted() - before.1;
        let memory_peak_kib = ProcessUsage::read(program.id())?.memory_peak_kib;
        let span_s = (from_s, sites.now_s());
        let arrivals: Vec<RequestArrival> = sites.take_arrivals();
        let repeats = |target: usize| usize::from(self.hanging[target]);
        let check = ScheduleCheck { period_s: self.period_s as f64, span_s, repeats: &repeats };
        let result = check.check(self.hanging.len(), &arrivals);
        let processor_ms = used_s * 1_000.0 / probes.max(1) as f64;
        Ok((program, Measurement { result, memory_peak_kib, processor_ms, probes: arrivals.len() }))
    }
}

impl Measurement {
    /// Lateness of starts in milliseconds: p50, p99, maximum.
    fn late_ms(&self) -> [f64; 3] {
        let mut late_ms = self.result.late_ms.clone();
        [0.5, 0.99, 1.0].map(|share| percentile(&mut late_ms, share))
    }

    /// Reports the tracker's schedule with its targets.
    fn report_schedule(&self, label: &str, report: &mut Report) {
        let [p50, p99, max] = self.late_ms();
        let slots = self.result.late_ms.len();
        report.add_figure(
            format!("{label}: seen by the sites"),
            format!("{} requests, {slots} slots", self.probes),
        );
        report.add_figure(format!("{label}: lateness, p50"), format!("{p50:.2} ms"));
        for (name, late, most) in [("p99", p99, P99_MS_MAX), ("max", max, LATENESS_MS_MAX)] {
            let target = format!("≤ {most:.0} ms");
            report.add_target(
                format!("{label}: lateness, {name}"),
                format!("{late:.2} ms"),
                target,
                late <= most,
            );
        }
        let ScheduleResult { missed, doubled, .. } = self.result;
        report.add_target(
            format!("{label}: slots without a probe, and extra probes"),
            format!("{missed}, {doubled}"),
            "none",
            missed + doubled == 0,
        );
    }

    /// Reports the figures of another program.
    fn report_figures(&self, label: &str, report: &mut Report) {
        let [p50, p99, max] = self.late_ms();
        let ScheduleResult { missed, doubled, .. } = self.result;
        report.add_figure(
            format!("{label} lateness, p50, p99, max"),
            format!("{p50:.2}, {p99:.2}, {max:.2} ms; {missed} missed, {doubled} doubled"),
        );
        report.add_figure(
            format!("{label} peak memory"),
            format!("{} MiB", self.memory_peak_kib / 1_024),
        );
        report.add_figure(
            format!("{label} processor time of a probe"),
            format!("{:.2} ms", self.processor_ms),
        );
    }
}

/// Starts the tracker with a file of targets: a variable can't hold so many.
fn tracker(
    testbed: &BenchTestbed<'_>,
    load: &ScheduleLoad,
    urls: &[String],
) -> Result<Program, BenchError> {
    let mut list = String::new();
    for url in urls {
        writeln!(list, "[[target]]\nurl = {url:?}")?;
    }
    let file = testbed.services.dir.join("targets.toml");
    fs::write(&file, list)?;
    let file = Path::new(&file).display().to_string();
    let (period, timeout) = (load.period_s.to_string(), load.timeout_s.to_string());
    let variables =
        [("LOCATION", "bench"), ("TARGETS", &*file), ("PERIOD", &*period), ("TIMEOUT", &*timeout)];
    testbed.program("tracker", &variables)
}

/// Counts of slots, from the records in Kafka.
#[derive(Debug, Default)]
struct SlotCounts {
    targets: BTreeMap<String, Vec<(i64, i64)>>,
    records: usize,
}

impl SlotCounts {
    /// Counts the slots of these records.
    fn from_records(records: Vec<Record>) -> Self {
        let mut counts = Self::default();
        for record in records {
            counts.add(record.url, record.extra.slot, record.extra.missed.values().sum());
        }
        counts
    }

    fn add(&mut self, url: String, slot: Option<i64>, missed: i64) {
        self.records += 1;
        self.targets.entry(url).or_default().extend(slot.map(|slot| (slot, missed)));
    }

    /// Returns the slots with a record, the slots that records report as missed, and the
    /// inconsistencies: slots that are neither, and slots with more than one record.
    fn sum(&self) -> (i64, i64, i64) {
        let (mut due, mut observed, mut explained, mut duplicates) = (0, 0, 0, 0);
        for slots in self.targets.values() {
            let mut slots = slots.clone();
            slots.sort_unstable();
            due += slots.last().map_or(0, |(last, _)| last + 1);
            observed += slots.len() as i64;
            explained += slots.iter().map(|(_, missed)| missed).sum::<i64>();
            duplicates += slots.windows(2).filter(|pair| pair[0].0 == pair[1].0).count() as i64;
        }
        (observed, explained, (due - observed - explained).abs() + duplicates)
    }

    fn report(&self, label: &str, targets: usize, report: &mut Report) {
        let (observed, explained, unexplained) = self.sum();
        let without = targets.saturating_sub(self.targets.len()) + self.records - observed as usize;
        report.add_target(
            format!("{label}: slots in the records: probed, reported as missed, unexplained"),
            format!("{observed}, {explained}, {unexplained}; {without} without a slot"),
            "0 unexplained",
            unexplained == 0 && without == 0,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_without_a_record_must_be_reported_as_missed() {
        let sum = |slots: &[(i64, i64)]| {
            let mut counts = SlotCounts::default();
            slots.iter().for_each(|(slot, missed)| counts.add("a".into(), Some(*slot), *missed));
            counts.sum()
        };
        assert_eq!(sum(&[(0, 0), (1, 0), (2, 0)]), (3, 0, 0));
        assert_eq!(sum(&[(1, 1), (4, 2)]), (2, 3, 0));
        assert_eq!(sum(&[(0, 0), (2, 0)]), (2, 0, 1));
        assert_eq!(sum(&[(0, 0), (0, 0), (2, 0)]).2, 1);
    }
}
