//! Whether a domain with a backlog keeps others waiting.

use std::thread;
use std::time::{Duration, Instant};

use kafka_client::TopicBatch;

use super::load::Load;
use super::report::{Report, percentile};
use super::world::{PATIENCE, deliver, domains, list, topic};
use super::{Bench, Failed};

const BACKLOG: usize = 1_000_000;
const EVERY: Duration = Duration::from_secs(1);
const DELAY_MOST_MS: f64 = 1_000.0;

/// One domain has a million records to be recorded, and another gets a fresh
/// one each second meanwhile.
pub(super) fn fairness(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failed> {
    let world = bench.world(1)?;
    let both = domains(2)?;
    let backlog = bench.size(BACKLOG);
    world.fill(&both[..1], backlog)?;
    let (busy, fresh) = (topic(&both[0])?, topic(&both[1])?);
    let mut database = world.database()?;
    let mut producer = world.producer();
    let mut load = Load::new(&both[1])?;
    let mut send = |load: &mut Load| {
        deliver(&mut producer, TopicBatch { topic: fresh.clone(), records: vec![load.fresh()] })
    };
    // So that its topic is there, and found at once.
    send(&mut load)?;
    let recorder = world.recorder(&database, &list(&both), &[])?;
    let of = |topic: &str| {
        format!("select next_offset from availability_offset where topic = '{topic}'")
    };
    database.wait_for(&of(&busy), 1)?;
    database.wait_for(&of(&fresh), 1)?;
    let mut delays = Vec::new();
    while database.number(&of(&busy)) < backlog as i64 {
        let sent = Instant::now();
        let offset = send(&mut load)?;
        let recorded = database.wait_for(&of(&fresh), offset + 1)?;
        delays.push(recorded.duration_since(sent).as_secs_f64() * 1_000.0);
        thread::park_timeout(EVERY.saturating_sub(sent.elapsed()));
    }
    recorder.stop(PATIENCE)?;
    let [p50, max] = [0.5, 1.0].map(|share| percentile(&mut delays, share));
    let what = format!(
        "fresh record of a domain beside a backlog of {backlog} of another, {} of them",
        delays.len()
    );
    report.figure(format!("{what}: p50"), format!("{p50:.0} ms"));
    let target = format!("≤ {DELAY_MOST_MS:.0} ms");
    report.target(format!("{what}: max"), format!("{max:.0} ms"), target, max <= DELAY_MOST_MS);
    Ok(())
}
