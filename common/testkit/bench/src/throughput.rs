//! Throughput of recording a backlog.

use common::domain::Domain;
use recorder::decode::row::DomainRow;

use crate::bare_insert::{self, InsertMethod};
use crate::machine::processor_s;
use crate::record_generator::RecordGenerator;
use crate::report::{Report, median};
use crate::testbed::{BenchTestbed, domain_list, new_domains};
use crate::{Bench, BenchError};

/// Number of records that recorder and baseline insert.
const RECORDS: usize = 300_000;
/// Number of rounds, in each of which both run once.
const ROUNDS: usize = 3;
/// Required share of the baseline's rate.
const NORMAL_RATIO_MIN: f64 = 0.8;
const SMART_RATIO_MIN: f64 = 0.5;
/// Eight hours of 10,000 records a minute, the divisor of the part that is measured, and the
/// number of domains.
const BACKLOG: usize = 8 * 60 * 10_000;
const BACKLOG_DIVISOR: usize = 4;
const BACKLOG_DOMAINS: usize = 20;

/// Compares the recorder with the baseline that inserts the same rows, in alternating rounds.
pub(crate) fn measure_throughput(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let records = bench.size(RECORDS);
    let domain = new_domains(1)?;
    testbed.fill(&domain, records)?;
    let rows = bare_insert::make_rows(RecordGenerator::new(&domain[0])?.take(records))?;
    let (mut bare, mut normal, mut smart) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(insert(&testbed, &domain[0], &rows, InsertMethod::Arrays, false)?);
        normal.push(record(&testbed, &domain_list(&domain), records, &[])?);
        smart.push(record(&testbed, &domain_list(&domain), records, &[("SMART", "true")])?);
    }
    report.add_figure("baseline loop, one connection", rates(&bare));
    report.add_figure("baseline loop: PostgreSQL's processor time of a row", server(&bare));
    for (label, runs, ratio_min) in
        [("recorder", &normal, NORMAL_RATIO_MIN), ("recorder, smart mode", &smart, SMART_RATIO_MIN)]
    {
        report.add_figure(format!("{label}, one domain"), rates(runs));
        let own = median_us(runs, |run| run.own_us);
        report.add_figure(format!("{label}: processor time of a record"), own);
        report
            .add_figure(format!("{label}: PostgreSQL's processor time of a record"), server(runs));
        let ratio =
            median(runs.iter().zip(&bare).map(|(run, bare)| run.rate / bare.rate).collect());
        let label = format!("{label} ÷ baseline loop, median of {ROUNDS}");
        report.add_target(
            label,
            format!("{ratio:.2}"),
            format!("≥ {ratio_min}"),
            ratio >= ratio_min,
        );
    }
    Ok(())
}

/// The result of one recorder or one baseline loop.
struct RunResult {
    /// Records per second.
    rate: f64,
    /// Processor time of the recorder per record, its start included. Other load on the machine
    /// affects this figure the least.
    own_us: f64,
    /// Processor time of PostgreSQL's backends per record.
    server_us: f64,
}

fn rates(runs: &[RunResult]) -> String {
    format!("{:.0} records/s", median(runs.iter().map(|run| run.rate).collect()))
}

fn median_us(runs: &[RunResult], figure: impl Fn(&RunResult) -> f64) -> String {
    format!("{:.1} µs", median(runs.iter().map(figure).collect()))
}

fn server(runs: &[RunResult]) -> String {
    median_us(runs, |run| run.server_us)
}

fn insert(
    testbed: &BenchTestbed<'_>,
    domain: &Domain,
    rows: &[DomainRow],
    method: InsertMethod,
    moves_position: bool,
) -> Result<RunResult, BenchError> {
    let mut database = testbed.database()?;
    bare_insert::create_tables(&mut database, domain)?;
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
    variables: &[(&str, &str)],
) -> Result<RunResult, BenchError> {
    let mut database = testbed.database()?;
    let recorder = testbed.recorder(&database, domains, variables)?;
    let rate = database.rate_until(records)?;
    let own_us = processor_s(recorder.id())? / records as f64 * 1e6;
    let server_us = database.other_backends_s()? / records as f64 * 1e6;
    log::info!("{rate:.0} records/s, {own_us:.1} µs each, {server_us:.1} µs in PostgreSQL");
    recorder.stop(crate::testbed::TIMEOUT)?;
    Ok(RunResult { rate, own_us, server_us })
}

/// Compares arrays with `copy`, each in one transaction with the update of the position.
pub(crate) fn measure_statement(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let domain = new_domains(1)?;
    let rows = bare_insert::make_rows(RecordGenerator::new(&domain[0])?.take(bench.size(RECORDS)))?;
    let (mut arrays, mut copy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (method, runs) in [(InsertMethod::Arrays, &mut arrays), (InsertMethod::Copy, &mut copy)]
        {
            runs.push(insert(&testbed, &domain[0], &rows, method, true)?);
        }
    }
    for (label, runs) in [("rows as arrays", &arrays), ("rows by binary copy", &copy)] {
        report.add_figure(format!("{label}, with the position"), rates(runs));
        report.add_figure(format!("{label}: PostgreSQL's processor time of a row"), server(runs));
    }
    let ratio = median(copy.iter().zip(&arrays).map(|(copy, it)| copy.rate / it.rate).collect());
    report.add_figure(format!("copy ÷ arrays, median of {ROUNDS}"), format!("{ratio:.2}"));
    Ok(())
}

/// Records two of eight hours of backlog with one recorder.
pub(crate) fn measure_backlog(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let domains = new_domains(BACKLOG_DOMAINS)?;
    let each = bench.size(BACKLOG / BACKLOG_DIVISOR) / domains.len();
    let records = each * domains.len();
    testbed.fill(&domains, each)?;
    let RunResult { rate, .. } = record(&testbed, &domain_list(&domains), records, &[])?;
    let whole = format!("{records} records of {BACKLOG_DOMAINS} domains");
    report.add_figure(format!("backlog of {whole}"), format!("{rate:.0} records/s"));
    let seconds = BACKLOG as f64 / rate;
    report
        .add_figure("time to record 8 hours of 10,000 records a minute", format!("{seconds:.0} s"));
    Ok(())
}
