//! How fast a backlog is recorded.

use super::bare::{self, Way};
use super::load::Load;
use super::machine::processor_s;
use super::report::{Report, median};
use super::world::{World, domains, list};
use super::{Bench, Failed};

/// Records of the backlog that is compared with the bare loop.
const RECORDS: usize = 300_000;
/// How often the two take turns.
const ROUNDS: usize = 3;
/// What the recorder must reach of the bare loop's rate.
const NORMAL_LEAST: f64 = 0.8;
const SMART_LEAST: f64 = 0.5;
/// Eight hours of 10,000 records a minute, and of how many domains.
const BACKLOG: usize = 8 * 60 * 10_000;
const BACKLOG_DOMAINS: usize = 20;

/// The recorder beside a bare loop that inserts the same rows, in turns.
pub(super) fn throughput(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failed> {
    let world = bench.world(1)?;
    let records = bench.size(RECORDS);
    let domain = domains(1)?;
    world.fill(&domain, records)?;
    let rows = bare::rows(Load::new(&domain[0])?.take(records))?;
    let (mut bare, mut normal, mut smart) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut database = world.database()?;
        bare::prepare(&mut database, &domain[0])?;
        bare.push(bare::insert(&mut database, &domain[0], &rows)?);
        for (runs, more) in [(&mut normal, [].as_slice()), (&mut smart, &[("SMART", "true")])] {
            runs.push(record(&world, &list(&domain), records, more)?);
        }
    }
    let rate = |rates: Vec<f64>| format!("{:.0} records/s", median(rates));
    report.figure("bare loop, one connection", rate(bare.clone()));
    for (what, runs, least) in
        [("recorder", &normal, NORMAL_LEAST), ("recorder, smart mode", &smart, SMART_LEAST)]
    {
        report
            .figure(format!("{what}, one domain"), rate(runs.iter().map(|run| run.rate).collect()));
        let spent = median(runs.iter().map(|run| run.processor_us).collect());
        report.figure(format!("{what}: processor time of a record"), format!("{spent:.1} µs"));
        let ratio = median(runs.iter().zip(&bare).map(|(run, bare)| run.rate / bare).collect());
        let what = format!("{what} ÷ bare loop, median of {ROUNDS}");
        report.target(what, format!("{ratio:.2}"), format!("≥ {least}"), ratio >= least);
    }
    Ok(())
}

/// What one recorder did.
struct Run {
    /// Records a second.
    rate: f64,
    /// Of the recorder alone, for each record, its start included. Other loads on
    /// the machine change this the least.
    processor_us: f64,
}

fn record(
    world: &World<'_>,
    domains: &str,
    records: usize,
    more: &[(&str, &str)],
) -> Result<Run, Failed> {
    let mut database = world.database()?;
    let recorder = world.recorder(&database, domains, more)?;
    let rate = database.rate_until(records)?;
    let processor_us = processor_s(recorder.id())? / records as f64 * 1e6;
    log::info!("{rate:.0} records/s, {processor_us:.1} µs each");
    recorder.stop(super::world::PATIENCE)?;
    Ok(Run { rate, processor_us })
}

/// Arrays beside `copy`, each in one transaction with the position's move.
pub(super) fn statement(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failed> {
    let world = bench.world(1)?;
    let domain = domains(1)?;
    let rows = bare::rows(Load::new(&domain[0])?.take(bench.size(RECORDS)))?;
    let (mut arrays, mut copy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (way, rates) in [(Way::Arrays, &mut arrays), (Way::Copy, &mut copy)] {
            let mut database = world.database()?;
            bare::prepare(&mut database, &domain[0])?;
            rates.push(bare::insert_with_position(&mut database, &domain[0], &rows, way)?);
        }
    }
    let ratio = median(copy.iter().zip(&arrays).map(|(copy, arrays)| copy / arrays).collect());
    report.figure("rows as arrays, with the position", format!("{:.0} rows/s", median(arrays)));
    report.figure("rows by binary copy, with the position", format!("{:.0} rows/s", median(copy)));
    report.figure(format!("copy ÷ arrays, median of {ROUNDS}"), format!("{ratio:.2}"));
    Ok(())
}

/// Eight hours of backlog, caught up by one recorder.
pub(super) fn backlog(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failed> {
    let world = bench.world(1)?;
    let domains = domains(BACKLOG_DOMAINS)?;
    let each = bench.size(BACKLOG) / domains.len();
    let records = each * domains.len();
    world.fill(&domains, each)?;
    let Run { rate, .. } = record(&world, &list(&domains), records, &[])?;
    let whole = format!("{records} records of {BACKLOG_DOMAINS} domains");
    report.figure(format!("backlog of {whole}"), format!("{rate:.0} records/s"));
    let seconds = BACKLOG as f64 / rate;
    report.figure("8 hours of 10,000 records a minute are caught up in", format!("{seconds:.0} s"));
    Ok(())
}
