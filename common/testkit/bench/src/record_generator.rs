//! Generates records as trackers write them.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use common::domain::Domain;
use common::identity::Run;
use common::record::{Extra, Record, Status};
use kafka_client::ProduceRecord;

use crate::BenchError;

/// Number of targets of a domain, and their probe period in seconds.
const TARGETS: usize = 20;
const PERIOD_S: usize = 30;
/// Time of the first probe.
const START_S: usize = 1_700_000_000;
/// One in this many stretches of results is a failure. A stretch has `STRETCH` results.
const STRETCHES: u64 = 50;
const STRETCH: usize = 3;

/// An endless sequence of results of one tracker for one domain: mostly healthy, with failures
/// that last several probes.
pub(crate) struct RecordGenerator {
    domain: Domain,
    run: Run,
    count: usize,
}

impl RecordGenerator {
    /// Starts with the first result.
    ///
    /// # Errors
    /// Fails if the system has no randomness.
    pub(crate) fn new(domain: &Domain) -> Result<Self, BenchError> {
        Ok(Self { domain: domain.clone(), run: Run::new()?, count: 0 })
    }

    /// Generates a result with the current time.
    pub(crate) fn next_with_current_time(&mut self) -> ProduceRecord {
        self.with_time(now_s())
    }

    fn with_time(&mut self, timestamp: f64) -> ProduceRecord {
        let (target, round) = (self.count % TARGETS, self.count / TARGETS);
        let mut record = record(&self.domain, target, round, timestamp);
        record.extra.slot = Some(round as i64);
        let headers = self.run.headers(self.count as i64);
        self.count += 1;
        ProduceRecord {
            // Kafka deletes records older than its retention time.
            timestamp_ms: (now_s() * 1_000.0) as i64,
            value: Bytes::from(record.encode()),
            headers,
        }
    }
}

impl Iterator for RecordGenerator {
    type Item = ProduceRecord;

    fn next(&mut self) -> Option<ProduceRecord> {
        let second = START_S + self.count / TARGETS * PERIOD_S + self.count % TARGETS;
        Some(self.with_time(second as f64 + 0.25))
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn record(domain: &Domain, target: usize, round: usize, timestamp: f64) -> Record {
    // The choice of failing stretches looks random, but is the same in every run.
    let stretch = (target + TARGETS * (round / STRETCH)) as u64;
    let is_failing =
        stretch.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & 0xFFFF < 0x1_0000 / STRETCHES;
    let (phrase, detail) =
        if is_failing { ("response timeout", Some("before the first byte")) } else { ("ok", None) };
    Record {
        from: "sydney".to_owned(),
        url: format!("https://{domain}/catalogue/products/{target}/reviews"),
        timestamp,
        status: if is_failing { Status::Unresponsive } else { Status::Responsive },
        phrase: phrase.to_owned(),
        dns_ms: Some(3),
        response_ms: (!is_failing).then_some(40 + (round % 20) as i64),
        detail: detail.map(str::to_owned),
        offset: -1,
        extra: extra(is_failing, round),
    }
}

/// The columns of an HTTPS probe that version 1.1.0 does not have.
fn extra(is_failing: bool, round: usize) -> Extra {
    let answered = |value: i64| (!is_failing).then_some(value);
    let first_byte_us = 30_000 + (round % 20) as i64 * 1_000;
    Extra {
        healthy: Some(!is_failing),
        reason: is_failing.then(|| "first_byte_timeout".to_owned()),
        phase: is_failing.then(|| "first_byte".to_owned()),
        resolve_us: Some(3_000),
        connect_us: Some(5_000),
        tls_us: Some(9_000),
        first_byte_us: answered(first_byte_us),
        transfer_us: answered(500),
        total_us: Some(if is_failing { 10_000_000 } else { 17_500 + first_byte_us }),
        address: Some("192.0.2.7".to_owned()),
        http_version: (!is_failing).then(|| "1.1".to_owned()),
        http_status: answered(200),
        body_bytes: answered(20_480),
        redirects: Some(0),
        certificate_end: Some(1_800_000_000),
        attempts: Some(1 + i64::from(is_failing)),
        period_ms: Some(PERIOD_S as i64 * 1_000),
        ..Extra::default()
    }
}
