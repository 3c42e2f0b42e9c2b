//! How fast a backlog is recorded.

use common::domain::Domain;
use recorder::decode::row::Row;

use crate::bare_insert::{self, InsertMethod};
use crate::machine::processor_s;
use crate::record_generator::RecordGenerator;
use crate::report::{Report, median};
use crate::testbed::{BenchTestbed, domains, list};
use crate::{Bench, BenchError};

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
pub(crate) fn measure_throughput(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let records = bench.size(RECORDS);
    let domain = domains(1)?;
    testbed.fill(&domain, records)?;
    let rows = bare_insert::rows(RecordGenerator::new(&domain[0])?.take(records))?;
    let (mut bare, mut normal, mut smart) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(insert(&testbed, &domain[0], &rows, InsertMethod::Arrays, false)?);
        normal.push(record(&testbed, &list(&domain), records, &[])?);
        smart.push(record(&testbed, &list(&domain), records, &[("SMART", "true")])?);
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
struct RunResult {
    /// Records a second.
    rate: f64,
    /// Processor time of the recorder for each record, its start included. Other
    /// loads on the machine change this the least.
    own_us: f64,
    /// That of PostgreSQL's side of its connections.
    server_us: f64,
}

fn rates(runs: &[RunResult]) -> String {
    format!("{:.0} records/s", median(runs.iter().map(|run| run.rate).collect()))
}

fn median_us(runs: &[RunResult], of: impl Fn(&RunResult) -> f64) -> String {
    format!("{:.1} µs", median(runs.iter().map(of).collect()))
}

fn server(runs: &[RunResult]) -> String {
    median_us(runs, |run| run.server_us)
}

fn insert(
    testbed: &BenchTestbed<'_>,
    domain: &Domain,
    rows: &[Row],
    method: InsertMethod,
    moves_position: bool,
) -> Result<RunResult, BenchError> {
    let mut database = testbed.database()?;
    bare_insert::prepare(&mut database, domain)?;
    let before_s = database.own_backend_s()?;
    let rate = bare_insert::insert(&mut database, domain, rows, method, moves_position)?;
    let server_us = (database.own_backend_s()? - before_s) / rows.len() as f64 * 1e6;
    log::info!("{rate:.0} rows/s, {server_us:.1} µs each in PostgreSQL");
    Ok(RunResult { rate, own_us: 0.0, server_us })
}

fn record(
    testbed: &BenchTestbed<'_>,
    domains: &str,
    records: usize,
    more: &[(&str, &str)],
) -> Result<RunResult, BenchError> {
    let mut database = testbed.database()?;
    let recorder = testbed.recorder(&database, domains, more)?;
    let rate = database.rate_until(records)?;
    let own_us = processor_s(recorder.id())? / records as f64 * 1e6;
    let server_us = database.other_backends_s()? / records as f64 * 1e6;
    log::info!("{rate:.0} records/s, {own_us:.1} µs each, {server_us:.1} µs in PostgreSQL");
    recorder.stop(crate::testbed::TIMEOUT)?;
    Ok(RunResult { rate, own_us, server_us })
}

/// Arrays beside `copy`, each in one transaction with the position's move.
pub(crate) fn measure_statement(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let domain = domains(1)?;
    let rows = bare_insert::rows(RecordGenerator::new(&domain[0])?.take(bench.size(RECORDS)))?;
    let (mut arrays, mut copy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (method, runs) in [(InsertMethod::Arrays, &mut arrays), (InsertMethod::Copy, &mut copy)]
        {
            runs.push(insert(&testbed, &domain[0], &rows, method, true)?);
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
pub(crate) fn measure_backlog(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let domains = domains(BACKLOG_DOMAINS)?;
    let each = bench.size(BACKLOG / BACKLOG_PART) / domains.len();
    let records = each * domains.len();
    testbed.fill(&domains, each)?;
    let RunResult { rate, .. } = record(&testbed, &list(&domains), records, &[])?;
    let whole = format!("{records} records of {BACKLOG_DOMAINS} domains");
    report.figure(format!("backlog of {whole}"), format!("{rate:.0} records/s"));
    let seconds = BACKLOG as f64 / rate;
    report.figure("8 hours of 10,000 records a minute are caught up in", format!("{seconds:.0} s"));
    Ok(())
}
