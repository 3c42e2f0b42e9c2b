//! Whether the backlog of one domain delays other domains.

use std::thread;
use std::time::{Duration, Instant};

use kafka_client::TopicBatch;

use crate::record_generator::RecordGenerator;
use crate::report::{Report, percentile};
use crate::testbed::{TIMEOUT, deliver, domain_list, new_domains, topic};
use crate::{Bench, BenchError};

const BACKLOG: usize = 1_000_000;
const SEND_INTERVAL: Duration = Duration::from_secs(1);
const DELAY_MS_MAX: f64 = 1_000.0;

/// One domain has a backlog of a million records. Another gets one new record each second
/// meanwhile.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let pair = new_domains(2)?;
    let backlog = bench.size(BACKLOG);
    testbed.fill(&pair[..1], backlog)?;
    let (busy, fresh) = (topic(&pair[0])?, topic(&pair[1])?);
    let mut database = testbed.database()?;
    let mut producer = testbed.producer();
    let mut load = RecordGenerator::new(&pair[1])?;
    let mut send = |load: &mut RecordGenerator| {
        deliver(
            &mut producer,
            TopicBatch { topic: fresh.clone(), records: vec![load.next_with_current_time()] },
        )
    };
    // Creates the topic before the recorder starts.
    send(&mut load)?;
    let recorder = testbed.recorder(&database, &domain_list(&pair), &[])?;
    let position_sql = |topic: &str| {
        format!("select next_offset from availability_offset where topic = '{topic}'")
    };
    database.wait_for(&position_sql(&busy), 1)?;
    database.wait_for(&position_sql(&fresh), 1)?;
    let mut delays = Vec::new();
    while database.number(&position_sql(&busy)) < backlog as i64 {
        let sent = Instant::now();
        let offset = send(&mut load)?;
        let recorded = database.wait_for(&position_sql(&fresh), offset + 1)?;
        delays.push(recorded.duration_since(sent).as_secs_f64() * 1_000.0);
        thread::park_timeout(SEND_INTERVAL.saturating_sub(sent.elapsed()));
    }
    recorder.stop(TIMEOUT)?;
    let [p50, max] = [0.5, 1.0].map(|share| percentile(&mut delays, share));
    let label = format!(
        "delay of a new record while another domain has a backlog of {backlog}, {} records",
        delays.len()
    );
    report.add_figure(format!("{label}: p50"), format!("{p50:.0} ms"));
    let target = format!("≤ {DELAY_MS_MAX:.0} ms");
    report.add_target(format!("{label}: max"), format!("{max:.0} ms"), target, max <= DELAY_MS_MAX);
    Ok(())
}
