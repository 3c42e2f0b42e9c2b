//! Time from the end of a probe to its committed row.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use common::domain::Domain;
use common::record::Record;
use kafka_client::{FetchLimits, FetchPosition};
use testkit::services::fresh_name;
use testkit::sites::{Site, Step, page};

use crate::report::{Report, percentile};
use crate::testbed::{BenchDatabase, BenchTestbed, POSITION, TIMEOUT, domain_list, topic};
use crate::{Bench, BenchError};

const DOMAINS: usize = 20;
/// The number of targets. Each is probed once a second, so this is also the number of probes
/// per second.
const TARGETS: usize = 200;
/// Warm-up time, and duration of the measurement.
const WARM_UP: Duration = Duration::from_secs(8);
const MEASURED_S: usize = 45;
const P99_MS_MAX: f64 = 250.0;

/// Tracker, Kafka, recorder and PostgreSQL as in production: TLS and fsync.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    for (spool, label) in [(false, "spool in memory"), (true, "spool on disk")] {
        let folder = testbed.services.dir.join("spool").display().to_string();
        let spool = if spool { vec![("SPOOL", folder.as_str())] } else { Vec::new() };
        let seconds = bench.size(MEASURED_S).max(5);
        let mut delays = run(&testbed, seconds, &spool)?;
        let count = delays.len();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| percentile(&mut delays, share));
        let rate = count / seconds;
        let label =
            format!("probe's end to committed row, {DOMAINS} domains, {rate} records/s, {label}");
        report.add_figure(format!("{label}: p50"), format!("{p50:.0} ms"));
        let target = format!("≤ {P99_MS_MAX:.0} ms");
        report.add_target(
            format!("{label}: p99"),
            format!("{p99:.0} ms"),
            target,
            p99 <= P99_MS_MAX,
        );
        report.add_figure(format!("{label}: max"), format!("{max:.0} ms"));
    }
    Ok(())
}

/// Returns the delays of all results of this many seconds, in milliseconds.
fn run(
    testbed: &BenchTestbed<'_>,
    seconds: usize,
    spool: &[(&str, &str)],
) -> Result<Vec<f64>, BenchError> {
    let site = Site::http(|_| vec![Step::Send(page("<title>well</title>"))])?;
    let suffix = fresh_name("bench");
    // These names resolve to loopback without a resolver (RFC 6761).
    let names = (0..DOMAINS).map(|index| format!("d{index}.{suffix}.localhost"));
    let domains = names.map(|name| Domain::parse(&name)).collect::<Result<Vec<_>, _>>()?;
    let url =
        |index: usize| format!("http://{}:{}/{index} well", domains[index % DOMAINS], site.port());
    let websites = (0..TARGETS).map(url).collect::<Vec<_>>().join(",");
    let mut database = testbed.database()?;
    let recorder = testbed.recorder(&database, &domain_list(&domains), &[])?;
    let own = [("LOCATION", "bench"), ("WEBSITES", &*websites), ("PERIOD", "1"), ("TIMEOUT", "1")];
    let tracker = testbed.program("tracker", &[&own, spool].concat())?;
    thread::park_timeout(WARM_UP);
    let from_s = database.now_s()?;
    thread::park_timeout(Duration::from_secs(seconds as u64));
    let to_s = database.now_s()?;
    tracker.stop(TIMEOUT)?;
    database.wait_for_all(testbed, &domains)?;
    let mut delays = Vec::new();
    for domain in &domains {
        let committed = committed_s(&mut database, domain)?;
        for (offset, ended_s) in probes_end_s(testbed, domain)? {
            if (from_s..to_s).contains(&ended_s) {
                let row_s = committed.get(&offset).ok_or("a record without a row")?;
                delays.push((row_s - ended_s) * 1_000.0);
            }
        }
    }
    recorder.stop(TIMEOUT)?;
    Ok(delays)
}

/// Commit time of each row, by offset.
fn committed_s(
    database: &mut BenchDatabase,
    domain: &Domain,
) -> Result<HashMap<i64, f64>, BenchError> {
    let sql = format!(
        "select topic_offset, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 from \"{}\"",
        domain.table()
    );
    let rows = database.client.query(&sql, &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// End of the probe of each record, by offset. It is the sum of two times that are rounded down
/// to milliseconds, so the probe may have ended up to 2 ms later.
fn probes_end_s(
    testbed: &BenchTestbed<'_>,
    domain: &Domain,
) -> Result<Vec<(i64, f64)>, BenchError> {
    let topic = topic(domain)?;
    let mut client = testbed.client();
    let metadata = client.topics(std::slice::from_ref(&topic))?;
    let topic_id = metadata.first().ok_or("no topic")?.id;
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let position =
            FetchPosition { topic: &topic, topic_id, partition: 0, offset, leader_epoch: None };
        let fetched = client.fetch(&position, &FetchLimits::default())?;
        for record in &fetched.records {
            let Record { timestamp, dns_ms, response_ms, .. } =
                Record::decode(record.value.as_deref().unwrap_or_default())?;
            let lasted_ms = dns_ms.unwrap_or(0) + response_ms.unwrap_or(0);
            all.push((record.offset, timestamp + lasted_ms as f64 / 1_000.0));
        }
        offset = fetched.next_offset;
        if offset >= fetched.high_watermark {
            return Ok(all);
        }
    }
}

impl BenchDatabase {
    /// The time by the clock of PostgreSQL, which runs on this machine.
    fn now_s(&mut self) -> Result<f64, BenchError> {
        let sql = "select extract(epoch from clock_timestamp())::float8";
        Ok(self.client.query_one(sql, &[])?.get(0))
    }

    /// Waits until all records in the topics of these domains are recorded.
    fn wait_for_all(
        &mut self,
        testbed: &BenchTestbed<'_>,
        domains: &[Domain],
    ) -> Result<(), BenchError> {
        let mut client = testbed.client();
        let mut total = 0;
        for domain in domains {
            total += client.list_offset(&topic(domain)?, 0, kafka_client::LogEnd::Latest)?;
        }
        self.wait_for(POSITION, total).map(drop)
    }
}
