//! How fast a backlog is recorded.

use common::domain::Domain;
use recorder::decode::row::DomainRow;

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
/// Eight hours of 10,000 records a minute, what part of them is caught up with,
/// and of how many domains they are.
const BACKLOG: usize = 8 * 60 * 10_000;
const BACKLOG_PART: usize = 4;
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
        bare.push(insert(&world, &domain[0], &rows, Way::Arrays, false)?);
        normal.push(record(&world, &list(&domain), records, &[])?);
        smart.push(record(&world, &list(&domain), records, &[("SMART", "true")])?);
    }
    report.figure("bare loop, one connection", rates(&bare));
    report.figure("bare loop: PostgreSQL's processor time of a row", server(&bare));
    for (what, runs, least) in
        [("recorder", &normal, NORMAL_LEAST), ("recorder, smart mode", &smart, SMART_LEAST)]
    {
        report.figure(format!("{what}, one domain"), rates(runs));
        let own = median_us(runs, |run| run.own_us);
        report.figure(format!("{what}: its processor time of a record"), own);
        report.figure(format!("{what}: PostgreSQL's processor time of a record"), server(runs));
        let ratio =
            median(runs.iter().zip(&bare).map(|(run, bare)| run.rate / bare.rate).collect());
        let what = format!("{what} ÷ bare loop, median of {ROUNDS}");
        report.target(what, format!("{ratio:.2}"), format!("≥ {least}"), ratio >= least);
    }
    Ok(())
}

/// What one recorder, or one bare loop, did.
struct Run {
    /// Records a second.
    rate: f64,
    /// Processor time of the recorder for each record, its start included. Other
    /// loads on the machine change this the least.
    own_us: f64,
    /// That of PostgreSQL's side of its connections.
    server_us: f64,
}

fn rates(runs: &[Run]) -> String {
    format!("{:.0} records/s", median(runs.iter().map(|run| run.rate).collect()))
}

fn median_us(runs: &[Run], of: impl Fn(&Run) -> f64) -> String {
    format!("{:.1} µs", median(runs.iter().map(of).collect()))
}

fn server(runs: &[Run]) -> String {
    median_us(runs, |run| run.server_us)
}

fn insert(
    world: &World<'_>,
    domain: &Domain,
    rows: &[DomainRow],
    way: Way,
    moves_position: bool,
) -> Result<Run, Failed> {
    let mut database = world.database()?;
    bare::prepare(&mut database, domain)?;
    let before_s = database.own_backend_s()?;
    let rate = bare::insert(&mut database, domain, rows, way, moves_position)?;
    let server_us = (database.own_backend_s()? - before_s) / rows.len() as f64 * 1e6;
    log::info!("{rate:.0} rows/s, {server_us:.1} µs each in PostgreSQL");
    Ok(Run { rate, own_us: 0.0, server_us })
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
    let own_us = processor_s(recorder.id())? / records as f64 * 1e6;
    let server_us = database.other_backends_s()? / records as f64 * 1e6;
    log::info!("{rate:.0} records/s, {own_us:.1} µs each, {server_us:.1} µs in PostgreSQL");
    recorder.stop(super::world::PATIENCE)?;
    Ok(Run { rate, own_us, server_us })
}

/// Arrays beside `copy`, each in one transaction with the position's move.
pub(super) fn statement(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failed> {
    let world = bench.world(1)?;
    let domain = domains(1)?;
    let rows = bare::rows(Load::new(&domain[0])?.take(bench.size(RECORDS)))?;
    let (mut arrays, mut copy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (way, runs) in [(Way::Arrays, &mut arrays), (Way::Copy, &mut copy)] {
            runs.push(insert(&world, &domain[0], &rows, way, true)?);
        }
    }
    for (what, runs) in [("rows as arrays", &arrays), ("rows by binary copy", &copy)] {
        report.figure(format!("{what}, with the position"), rates(runs));
        report.figure(format!("{what}: PostgreSQL's processor time of a row"), server(runs));
    }
    let ratio = median(copy.iter().zip(&arrays).map(|(copy, it)| copy.rate / it.rate).collect());
    report.figure(format!("copy ÷ arrays, median of {ROUNDS}"), format!("{ratio:.2}"));
    Ok(())
}

/// Two of eight hours of backlog, caught up by one recorder.
pub(super) fn backlog(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failed> {
    let world = bench.world(1)?;
    let domains = domains(BACKLOG_DOMAINS)?;
    let each = bench.size(BACKLOG / BACKLOG_PART) / domains.len();
    let records = each * domains.len();
    world.fill(&domains, each)?;
    let Run { rate, .. } = record(&world, &list(&domains), records, &[])?;
    let whole = format!("{records} records of {BACKLOG_DOMAINS} domains");
    report.figure(format!("backlog of {whole}"), format!("{rate:.0} records/s"));
    let seconds = BACKLOG as f64 / rate;
    report.figure("8 hours of 10,000 records a minute are caught up in", format!("{seconds:.0} s"));
    Ok(())
}
