//! From what a probe found to the record that says so.

use std::time::{Duration, SystemTime};

use common::record::{Extra, Record};

use crate::probe::{Outcome, Sum};
use crate::targets::Target;

/// The record of one attempt that began at that time.
pub(crate) fn record(
    location: &str,
    target: &Target,
    started_at: SystemTime,
    outcome: Outcome,
) -> Record {
    let extra = Extra { name: target.name.clone(), ..extra(&outcome) };
    // A clock before 1970 is one that was never set.
    let timestamp = started_at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since_epoch| since_epoch.as_secs_f64());
    Record {
        from: location.to_owned(),
        url: target.recorded_url.clone(),
        timestamp,
        status: outcome.status,
        phrase: outcome.phrase.to_owned(),
        dns_ms: outcome.dns_ms.map(i64::from),
        response_ms: outcome.response_ms.map(i64::from),
        detail: outcome.detail,
        offset: -1,
        extra,
    }
}

/// What the probe alone knows of the further keys.
fn extra(outcome: &Outcome) -> Extra {
    let Outcome { timings, facts, failure, .. } = outcome;
    Extra {
        healthy: Some(outcome.healthy()),
        reason: failure.as_ref().map(|failure| failure.reason.as_str().to_owned()),
        phase: failure.as_ref().map(|failure| failure.phase.as_str().to_owned()),
        resolve_us: microseconds(timings.resolve),
        connect_us: microseconds(timings.connect),
        tls_us: microseconds(timings.tls),
        first_byte_us: microseconds(timings.first_byte),
        transfer_us: microseconds(timings.transfer),
        total_us: microseconds(Sum(Some(timings.total))),
        address: facts.address.map(|address| address.to_string()),
        http_version: facts.http_version.map(str::to_owned),
        http_status: facts.http_status.map(i64::from),
        body_bytes: facts.body_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        redirects: Some(i64::from(facts.redirects)),
        final_url: facts.final_url.clone(),
        certificate_end: facts.certificate_end,
        ..Extra::default()
    }
}

fn microseconds(phase: Sum) -> Option<i64> {
    phase.0.map(|time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}
