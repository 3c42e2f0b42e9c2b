//! Writes records between the records of the trackers: invalid ones, duplicates, gaps in the
//! sequence, and records without a sequence number as version 1.1.0 writes them.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::identity::Run;
use common::phrase;
use common::record::{Extra, Record, Status};
use common::stop::Stop;
use kafka_client::{
    KafkaProducer, KafkaSettings, ProduceOutcome, ProduceRecord, ProducerOptions, TopicBatch,
};

use crate::testbed::managed_program::now_s;

/// The location in these records.
pub(crate) const LOCATION: &str = "storm";
/// Number of targets of each domain.
const TARGETS: u8 = 4;
/// Pause between two batches.
const PAUSE: Duration = Duration::from_millis(1_500);
/// Pause before pending batches are sent again.
const RETRY: Duration = Duration::from_millis(200);

/// Writes to random topics until a stop is requested. Batches that were started are completed.
/// Returns the number of records.
///
/// # Errors
/// Fails if a record is permanently rejected, or the system has no randomness.
pub(crate) fn run(
    settings: Arc<KafkaSettings>,
    topics: &[String],
    seed: u64,
    writing: &Mutex<()>,
    stop: &Stop,
) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut random = fastrand::Rng::with_seed(!seed);
    let mut producer = KafkaProducer::new(settings, ProducerOptions::default());
    let run = Run::new()?;
    let mut next = vec![0; topics.len()];
    let mut count = 0;
    while !stop.wait(PAUSE) {
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let index = random.usize(0..topics.len());
        let records = batch(&run, &mut next[index], &mut random);
        count += records.len() as u64;
        let mut batches = vec![TopicBatch { topic: topics[index].clone(), records }];
        loop {
            let mut is_pending = false;
            for (topic, outcome) in producer.send(std::mem::take(&mut batches), None) {
                match outcome {
                    ProduceOutcome::Delivered { .. } => {}
                    ProduceOutcome::Pending { .. } => is_pending = true,
                    ProduceOutcome::Busy { records } | ProduceOutcome::TooLarge { records, .. } => {
                        batches.push(TopicBatch { topic, records });
                        is_pending = true;
                    }
                    ProduceOutcome::Lost { cause, .. } | ProduceOutcome::Refused { cause, .. } => {
                        return Err(format!("{topic}: {cause}").into());
                    }
                }
            }
            if !is_pending && producer.pending_count() == 0 {
                break;
            }
            std::thread::park_timeout(RETRY);
        }
    }
    Ok(count)
}

fn batch(run: &Run, next: &mut i64, random: &mut fastrand::Rng) -> Vec<ProduceRecord> {
    let mut next_headers = |skip: i64| {
        *next += skip + 1;
        run.headers(*next - 1)
    };
    let record = |value: Vec<u8>, headers: Vec<(String, Bytes)>| ProduceRecord {
        timestamp_ms: (now_s() * 1_000.0) as i64,
        value: value.into(),
        headers,
    };
    let good = result(random, false);
    match random.u8(0..6) {
        0 => vec![record(invalid_value(random), Vec::new())],
        1 => vec![record(invalid_value(random), next_headers(0)), record(good, next_headers(0))],
        2 => vec![record(result(random, true), next_headers(0))],
        // A duplicate, as a tracker sends a record again if it does not know whether it arrived.
        3 => {
            let (headers, other) = (next_headers(0), next_headers(0));
            let copy = record(good.clone(), headers.clone());
            vec![record(good, headers), record(invalid_value(random), other), copy]
        }
        // Sequence numbers that never arrive.
        4 => vec![record(good, next_headers(random.i64(1..4)))],
        _ => vec![record(good, Vec::new())],
    }
}

fn invalid_value(random: &mut fastrand::Rng) -> Vec<u8> {
    // 0xc1 is never valid in msgpack. The bytes after it make each record different.
    std::iter::once(0xc1).chain(std::iter::repeat_with(|| random.u8(..)).take(12)).collect()
}

/// A result of one of a few targets, so that smart mode has something to merge. All
/// targets but one have columns that version 1.1.0 does not have.
fn result(random: &mut fastrand::Rng, nul: bool) -> Vec<u8> {
    let target = random.u8(0..TARGETS);
    let is_new = target > 0;
    let extra = if is_new { extra(random, target) } else { Extra::default() };
    let nul = if nul { "\0" } else { "" };
    Record {
        from: LOCATION.to_owned(),
        url: format!("http://{LOCATION}.localhost/{}{nul}", target / 2),
        timestamp: now_s(),
        status: Status::Responsive,
        phrase: if is_new && random.u8(0..8) == 0 { "found" } else { phrase::OK }.to_owned(),
        dns_ms: Some(random.i64(0..50)),
        response_ms: Some(random.i64(0..500)),
        detail: None,
        offset: -1,
        extra,
    }
    .encode()
}

/// Columns of a mostly healthy result.
fn extra(random: &mut fastrand::Rng, target: u8) -> Extra {
    let mut extra = Extra {
        // Two targets of one URL.
        name: (target % 2 == 1).then(|| "odd \"ü\"".to_owned()),
        healthy: Some(true),
        total_us: Some(random.i64(0..10_000_000)),
        attempts: Some(1),
        period_ms: Some(1_500),
        ..Extra::default()
    };
    match random.u8(0..24) {
        0 => extra.healthy = Some(false),
        1 => extra.reason = Some("too_slow".repeat(random.usize(1..20))),
        2 => {
            extra.attempts = Some(2);
            extra.first_reason = Some("connect_timeout".to_owned());
        }
        3 => extra.missed = [("suspended \"ü\"\\\n".to_owned(), 3), ("clock".to_owned(), 1)].into(),
        4 => extra.others_failing = Some(true),
        // Too large for the column.
        5 => extra.http_status = Some(i64::MAX),
        6 => extra.missed = [("\0".to_owned(), 3)].into(),
        _ => {}
    }
    extra
}
