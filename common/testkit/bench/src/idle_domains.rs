//! What a thousand domains cost that have nothing to record.

use std::fs::read_to_string;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::processor_s;
use crate::report::Report;
use crate::testbed::{POSITION, TIMEOUT, domains as some_domains, list};
use crate::{Bench, BenchError};

const DOMAINS: usize = 1_000;
/// Records of each that are there before.
const RECORDS: usize = 20;
/// How long it is left alone before it is watched, and how long that is.
const SETTLE: Duration = Duration::from_secs(10);
const IDLE_S: usize = 45;
const MEMORY_MOST_MIB: u64 = 256;
const CORE_MOST_PERCENT: f64 = 2.0;
const CONNECTIONS: i64 = 8;

/// One recorder with a thousand topics: memory, processor, threads, connections.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let domains = some_domains(bench.size(DOMAINS))?;
    testbed.fill(&domains, RECORDS)?;
    let mut database = testbed.database()?;
    let started = Instant::now();
    let recorder = testbed.recorder(&database, &list(&domains), &[])?;
    let all = database.wait_for(POSITION, (domains.len() * RECORDS) as i64)?;
    let count = domains.len();
    let seconds = all.duration_since(started).as_secs_f64();
    report.figure(
        format!("{count} domains: start to {RECORDS} records of each recorded, tables made"),
        format!("{seconds:.1} s"),
    );
    thread::park_timeout(SETTLE);
    let (before, since) = (processor_s(recorder.id())?, Instant::now());
    let mut connections = 0;
    while since.elapsed() < Duration::from_secs(bench.size(IDLE_S).max(10) as u64) {
        connections = connections.max(database.number(
            "select count(*) from pg_stat_activity where datname = current_database() \
             and pid <> pg_backend_pid()",
        ));
        thread::park_timeout(Duration::from_secs(1));
    }
    let used = (processor_s(recorder.id())? - before) / since.elapsed().as_secs_f64() * 100.0;
    let status = read_to_string(format!("/proc/{}/status", recorder.id()))?;
    let memory_mib = number(&status, "VmHWM:")? / 1_024;
    report.target(
        format!("{count} domains: most memory since the start"),
        format!("{memory_mib} MiB"),
        format!("≤ {MEMORY_MOST_MIB} MiB"),
        memory_mib <= MEMORY_MOST_MIB,
    );
    report.target(
        format!("{count} domains: processor when idle"),
        format!("{used:.1} % of a core"),
        format!("≤ {CORE_MOST_PERCENT} %"),
        used <= CORE_MOST_PERCENT,
    );
    let threads = number(&status, "Threads:")?;
    report.figure(format!("{count} domains: threads"), threads.to_string());
    // One more keeps the leases.
    let most = CONNECTIONS + 1;
    report.target(
        format!("{count} domains: connections to PostgreSQL"),
        connections.to_string(),
        format!("≤ {most}"),
        connections <= most,
    );
    recorder.stop(TIMEOUT)?;
    Ok(())
}

fn number(status: &str, key: &str) -> Result<u64, BenchError> {
    let found = status.lines().find_map(|line| line.strip_prefix(key));
    let value = found.and_then(|value| value.split_whitespace().next()).ok_or("no such key")?;
    Ok(value.parse()?)
}
