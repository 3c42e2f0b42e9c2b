//! Builds the record of a result.

use std::time::{Duration, SystemTime};

use common::record::{Extra, Record};

use super::result::ProbeResult;
use crate::probe::PhaseTime;

/// Builds the whole record. `location` is the location of the tracker.
pub(super) fn build_record(location: &str, result: ProbeResult) -> Record {
    let ProbeResult { target, slot, missed, started_at, attempts, first_reason, outcome, marks } =
        result;
    // The clock is before 1970 only if it was never set.
    let timestamp = started_at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since_epoch| since_epoch.as_secs_f64());
    let (timings, facts, failure) = (&outcome.timings, &outcome.facts, &outcome.failure);
    let extra = Extra {
        name: target.name.clone(),
        healthy: Some(outcome.healthy()),
        reason: failure.as_ref().map(|failure| failure.reason.as_str().to_owned()),
        phase: failure.as_ref().map(|failure| failure.phase.as_str().to_owned()),
        resolve_us: microseconds(timings.resolve),
        connect_us: microseconds(timings.connect),
        tls_us: microseconds(timings.tls),
        first_byte_us: microseconds(timings.first_byte),
        transfer_us: microseconds(timings.transfer),
        total_us: microseconds(PhaseTime(Some(timings.total))),
        address: facts.address.map(|address| address.to_string()),
        http_version: facts.http_version.map(str::to_owned),
        http_status: facts.http_status.map(i64::from),
        body_bytes: facts.body_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        redirects: Some(i64::from(facts.redirects)),
        final_url: facts.final_url.clone(),
        certificate_end: facts.certificate_end,
        attempts: Some(i64::from(attempts)),
        first_reason: first_reason.map(|reason| reason.as_str().to_owned()),
        no_network: marks.no_network.then_some(true),
        others_failing: marks.others_failing.then_some(true),
        period_ms: slot.and_then(|_| i64::try_from(target.period.as_millis()).ok()),
        slot: slot.and_then(|slot| i64::try_from(slot.number).ok()),
        missed: missed.by_word(),
    };
    Record {
        from: location.to_owned(),
        url: target.recorded_url.clone(),
        timestamp,
        status: outcome.status,
        phrase: outcome.phrase.to_owned(),
        dns_ms: outcome.dns_ms.map(i64::from),
        response_ms: outcome.response_ms.map(i64::from),
        detail: outcome.detail,
        // Readers of version 1.1.0 need the key.
        offset: -1,
        extra,
    }
}

fn microseconds(phase: PhaseTime) -> Option<i64> {
    phase.0.map(|time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}
