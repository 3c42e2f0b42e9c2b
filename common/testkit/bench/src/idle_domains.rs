//! Cost of a thousand idle domains.

use std::fs::read_to_string;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::processor_s;
use crate::report::Report;
use crate::testbed::{POSITION, TIMEOUT, domain_list, new_domains};
use crate::{Bench, BenchError};

const DOMAINS: usize = 1_000;
/// Records of each domain before the start.
const RECORDS: usize = 20;
/// Pause before the measurement, and its duration.
const SETTLE: Duration = Duration::from_secs(10);
const IDLE_S: usize = 45;
const MEMORY_MIB_MAX: u64 = 256;
const PROCESSOR_PERCENT_MAX: f64 = 2.0;
const POOL_CONNECTIONS: i64 = 8;

/// One recorder with a thousand topics: memory, processor time, threads, connections.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let domains = new_domains(bench.size(DOMAINS))?;
    testbed.fill(&domains, RECORDS)?;
    let mut database = testbed.database()?;
    let started = Instant::now();
    let recorder = testbed.recorder(&database, &domain_list(&domains), &[])?;
    let all = database.wait_for(POSITION, (domains.len() * RECORDS) as i64)?;
    let count = domains.len();
    let seconds = all.duration_since(started).as_secs_f64();
    report.add_figure(
        format!("{count} domains: time from start until {RECORDS} records of each are recorded, creation of tables included"),
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
    let memory_mib = status_number(&status, "VmHWM:")? / 1_024;
    report.add_target(
        format!("{count} domains: peak memory"),
        format!("{memory_mib} MiB"),
        format!("≤ {MEMORY_MIB_MAX} MiB"),
        memory_mib <= MEMORY_MIB_MAX,
    );
    report.add_target(
        format!("{count} domains: processor time when idle"),
        format!("{used:.1} % of a core"),
        format!("≤ {PROCESSOR_PERCENT_MAX} %"),
        used <= PROCESSOR_PERCENT_MAX,
    );
    let threads = status_number(&status, "Threads:")?;
    report.add_figure(format!("{count} domains: threads"), threads.to_string());
    // One more connection renews the leases.
    let connections_max = POOL_CONNECTIONS + 1;
    report.add_target(
        format!("{count} domains: connections to PostgreSQL"),
        connections.to_string(),
        format!("≤ {connections_max}"),
        connections <= connections_max,
    );
    recorder.stop(TIMEOUT)?;
    Ok(())
}

fn status_number(status: &str, key: &str) -> Result<u64, BenchError> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let value = line
        .and_then(|value| value.split_whitespace().next())
        .ok_or("no such line in /proc/PID/status")?;
    Ok(value.parse()?)
}
