//! Ten thousand targets a minute, a tenth of which hang.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::record::Record;

use crate::competitors::{Competitor, ProbeWork};
use crate::machine::processor_s;
use crate::report::{Report, percentile};
use crate::schedule_check::{ScheduleCheck, ScheduleResult};
use crate::site_server::{RequestArrival, SiteServer};
use crate::testbed::{BenchTestbed, TIMEOUT};
use crate::topic_records::records;
use crate::{Bench, BenchError};
use testkit::process_usage::ProcessUsage;
use testkit::program::Program;

/// Targets, and in how many seconds each is probed once.
const TARGETS: usize = 10_000;
const PERIOD_S: usize = 60;
/// One target in so many hangs.
const HANGS: usize = 10;
const TIMEOUT_S: usize = 10;
/// Periods that are watched, from the start of the program on.
const PERIODS: usize = 4;

const P99_MOST_MS: f64 = 2.0;
const MAX_MOST_MS: f64 = 50.0;
const MEMORY_MOST_MIB: u64 = 64;
/// Of a probe's processor time, that of cloudprober.
const RATIO_MOST: f64 = 0.5;

/// The tracker as in production, its results going to Kafka over TLS, and then
/// cloudprober with the same targets, at the same sites.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let sites = SiteServer::start()?;
    let shape = ScheduleLoad {
        period_s: bench.size(PERIOD_S),
        timeout_s: bench.size(TIMEOUT_S),
        hanging: (0..bench.size(TARGETS)).map(|target| target % HANGS == 0).collect(),
    };
    let urls = shape.urls(&sites);
    let folder = testbed.services.dir.as_path();
    let what = format!(
        "{} targets in {} s, 1 in {HANGS} hangs for {} s",
        urls.len(),
        shape.period_s,
        shape.timeout_s
    );

    let domain = Domain::parse("127.0.0.1")?;
    let tracker = tracker(&testbed, &shape, &urls)?;
    let (tracker, seen) = shape.watch(&sites, tracker)?;
    let ended = tracker.stop(TIMEOUT)?;
    seen.punctual(&what, report);
    let own = ended.log.iter().filter_map(|line| line.split_once("late by ")).next_back();
    if let Some((_, late)) = own {
        report.figure(format!("{what}: by the tracker's own count, due to started"), late);
    }
    let memory_mib = seen.memory_peak_kib / 1_024;
    report.target(
        format!("{what}: most memory"),
        format!("{memory_mib} MiB"),
        format!("≤ {MEMORY_MOST_MIB} MiB"),
        memory_mib <= MEMORY_MOST_MIB,
    );
    let account = SlotCounts::of(records(&testbed, &domain)?);
    account.tell(&what, urls.len(), report);

    if let Some(program) = Competitor::Cloudprober.find(report) {
        let (period_s, timeout_s) = (shape.period_s, shape.timeout_s);
        let work = ProbeWork { urls: &urls, period_s, timeout_s, check: None, ca: None };
        let (competitor, _) = Competitor::Cloudprober.start(&program, folder, work)?;
        let (competitor, theirs) = shape.watch(&sites, competitor)?;
        competitor.stop(TIMEOUT)?;
        theirs.told(&format!("{what}: cloudprober's"), report);
        let ratio = seen.processor_ms / theirs.processor_ms;
        report.target(
            format!("{what}: processor time of a probe, beside cloudprober's"),
            format!("{:.2} ms, {ratio:.2} times", seen.processor_ms),
            format!("≤ {RATIO_MOST} times"),
            ratio <= RATIO_MOST,
        );
    } else {
        let used = format!("{:.2} ms", seen.processor_ms);
        report.figure(format!("{what}: processor time of a probe"), used);
    }
    Ok(())
}

/// What is to be probed.
struct ScheduleLoad {
    period_s: usize,
    timeout_s: usize,
    hanging: Vec<bool>,
}

/// What was seen of a program.
struct Measurement {
    result: ScheduleResult,
    memory_peak_kib: u64,
    /// Of a probe, one that hangs included: an attempt, where some are repeated.
    processor_ms: f64,
    probes: usize,
}

impl ScheduleLoad {
    fn urls(&self, sites: &SiteServer) -> Vec<String> {
        self.hanging.iter().enumerate().map(|(target, hangs)| sites.url(target, *hangs)).collect()
    }

    /// Watches a program from its start on. Processor time counts after the
    /// first period, when all is started.
    fn watch(
        &self,
        sites: &SiteServer,
        program: Program,
    ) -> Result<(Program, Measurement), BenchError> {
        let _ = sites.take();
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
        let arrivals: Vec<RequestArrival> = sites.take();
        let repeats = |target: usize| usize::from(self.hanging[target]);
        let grid = ScheduleCheck { period_s: self.period_s as f64, span_s, repeats: &repeats };
        let result = grid.judge(self.hanging.len(), &arrivals);
        let processor_ms = used_s * 1_000.0 / probes.max(1) as f64;
        Ok((program, Measurement { result, memory_peak_kib, processor_ms, probes: arrivals.len() }))
    }
}

impl Measurement {
    /// Percentiles of how late starts were, in milliseconds.
    fn late_ms(&self) -> [f64; 3] {
        let mut late_ms = self.result.late_ms.clone();
        [0.5, 0.99, 1.0].map(|share| percentile(&mut late_ms, share))
    }

    /// Judges the schedule of ours.
    fn punctual(&self, what: &str, report: &mut Report) {
        let [p50, p99, max] = self.late_ms();
        let slots = self.result.late_ms.len();
        report.figure(
            format!("{what}: seen at the sites"),
            format!("{} requests, {slots} slots", self.probes),
        );
        report.figure(format!("{what}: late, p50"), format!("{p50:.2} ms"));
        for (name, late, most) in [("p99", p99, P99_MOST_MS), ("max", max, MAX_MOST_MS)] {
            let target = format!("≤ {most:.0} ms");
            report.target(
                format!("{what}: late, {name}"),
                format!("{late:.2} ms"),
                target,
                late <= most,
            );
        }
        let ScheduleResult { missed, doubled, .. } = self.result;
        report.target(
            format!("{what}: slots without a probe, probes beyond one a slot"),
            format!("{missed}, {doubled}"),
            "none",
            missed + doubled == 0,
        );
    }

    /// Says what another program did.
    fn told(&self, whose: &str, report: &mut Report) {
        let [p50, p99, max] = self.late_ms();
        let ScheduleResult { missed, doubled, .. } = self.result;
        report.figure(
            format!("{whose} lateness, p50, p99, max"),
            format!("{p50:.2}, {p99:.2}, {max:.2} ms; {missed} missed, {doubled} doubled"),
        );
        report.figure(
            format!("{whose} most memory"),
            format!("{} MiB", self.memory_peak_kib / 1_024),
        );
        report.figure(
            format!("{whose} processor time of a probe"),
            format!("{:.2} ms", self.processor_ms),
        );
    }
}

/// The tracker, with a file of targets, as no variable holds so many.
fn tracker(
    testbed: &BenchTestbed<'_>,
    shape: &ScheduleLoad,
    urls: &[String],
) -> Result<Program, BenchError> {
    let mut list = String::new();
    for url in urls {
        writeln!(list, "[[target]]\nurl = {url:?}")?;
    }
    let file = testbed.services.dir.join("targets.toml");
    fs::write(&file, list)?;
    let file = Path::new(&file).display().to_string();
    let (period, timeout) = (shape.period_s.to_string(), shape.timeout_s.to_string());
    let own =
        [("LOCATION", "bench"), ("TARGETS", &*file), ("PERIOD", &*period), ("TIMEOUT", &*timeout)];
    testbed.program("tracker", &own)
}

/// What the records in Kafka say of slots.
#[derive(Debug, Default)]
struct SlotCounts {
    targets: BTreeMap<String, Vec<(i64, i64)>>,
    records: usize,
}

impl SlotCounts {
    /// Of records.
    fn of(records: Vec<Record>) -> Self {
        let mut account = Self::default();
        for record in records {
            account.add(record.url, record.extra.slot, record.extra.missed.values().sum());
        }
        account
    }

    fn add(&mut self, url: String, slot: Option<i64>, missed: i64) {
        self.records += 1;
        self.targets.entry(url).or_default().extend(slot.map(|slot| (slot, missed)));
    }

    /// Slots with a record, slots that records explain, and the others: those
    /// that neither is true of, or more than one record.
    fn sum(&self) -> (i64, i64, i64) {
        let (mut due, mut observed, mut explained, mut twice) = (0, 0, 0, 0);
        for slots in self.targets.values() {
            let mut slots = slots.clone();
            slots.sort_unstable();
            due += slots.last().map_or(0, |(last, _)| last + 1);
            observed += slots.len() as i64;
            explained += slots.iter().map(|(_, missed)| missed).sum::<i64>();
            twice += slots.windows(2).filter(|pair| pair[0].0 == pair[1].0).count() as i64;
        }
        (observed, explained, (due - observed - explained).abs() + twice)
    }

    fn tell(&self, what: &str, targets: usize, report: &mut Report) {
        let (observed, explained, unexplained) = self.sum();
        let without = targets.saturating_sub(self.targets.len()) + self.records - observed as usize;
        report.target(
            format!("{what}: slots by the records in Kafka: observed, explained, unexplained"),
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
    fn a_hole_has_to_be_explained() {
        let sum = |slots: &[(i64, i64)]| {
            let mut account = SlotCounts::default();
            slots.iter().for_each(|(slot, missed)| account.add("a".into(), Some(*slot), *missed));
            account.sum()
        };
        assert_eq!(sum(&[(0, 0), (1, 0), (2, 0)]), (3, 0, 0));
        assert_eq!(sum(&[(1, 1), (4, 2)]), (2, 3, 0));
        assert_eq!(sum(&[(0, 0), (2, 0)]), (2, 0, 1));
        assert_eq!(sum(&[(0, 0), (0, 0), (2, 0)]).2, 1);
    }
}
