//! Compares the results that are missing with the losses that the trackers logged, and the
//! requests that the sites received with the results that were recorded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;

use common::identity::Identity;
use common::record::Record;
use kafka_client::Uuid;

use crate::faults::log::FaultLog;
use crate::observations::TopicObservations;
use crate::oracle::{MissingSequences, OracleReport};
use crate::testbed::StormTestbed;
use crate::testbed::managed_program::{ProcessInstance, ProgramId};

/// Results of this time before a kill may be lost with it. Results go to disk only when an
/// exchange with an unresponsive broker has failed, which takes up to 35 s.
const LOST_BEFORE_KILL_S_MAX: f64 = 40.0;
/// Maximum time from the start of an attempt to its request, the pause before a retry included.
const ATTEMPT_S_MAX: f64 = 7.0;
/// Attempts of a probe, the default of the trackers.
const ATTEMPTS_MAX: u64 = 2;

/// The outcome of the cross-check.
#[derive(Debug, Default)]
pub(crate) struct CrossCheck {
    /// Results that the trackers logged as lost.
    pub(crate) lost: u64,
    /// Requests that the sites received.
    pub(crate) requests: usize,
    /// Requests without a result: for each the time from the request to the kill of its tracker,
    /// in seconds, ascending.
    pub(crate) unrecorded_s: Vec<f64>,
    /// Number of requests without a result, from tracker processes whose disk was full, so that
    /// results waited in memory.
    pub(crate) unrecorded_disk_full: u64,
    /// Results that were on disk when their tracker was killed.
    pub(crate) spooled: usize,
    /// Descriptions of all contradictions.
    pub(crate) errors: Vec<String>,
}

/// One process of a tracker, with the losses from its log.
struct LoggedInstance {
    instance: ProcessInstance,
    disk_was_full: bool,
    /// Results lost, by topic.
    lost: HashMap<String, u64>,
}

/// Compares logs, requests and records. Topics that were deleted are left out of the comparison
/// of losses, because no tracker can count the results that were deleted with them.
///
/// # Errors
/// Fails if a log can't be read.
pub(crate) fn cross_check(
    testbed: &StormTestbed,
    log: &FaultLog,
    topics: &[(TopicObservations, OracleReport)],
) -> Result<CrossCheck, Box<dyn Error>> {
    let mut cross_check = CrossCheck::default();
    for index in 0..2 {
        let id = ProgramId::Tracker(index);
        let instances = logged_instances(testbed, id, &log.disk_full())?;
        cross_check.lost += instances.iter().flat_map(|it| it.lost.values()).sum::<u64>();
        let run_starts_s = run_starts_s(topics, &id.name());
        for (observed, report) in
            topics.iter().filter(|(observed, _)| observed.incarnations.len() == 1)
        {
            for (run, missing) in &report.missing {
                let Some(run_started_s) = run_starts_s.get(run) else { continue };
                check_missing_sequences(
                    &mut cross_check.errors,
                    &instances,
                    &observed.topic,
                    *run,
                    *run_started_s,
                    missing,
                );
            }
        }
        check_requests(&mut cross_check, testbed, index, &instances, topics);
    }
    check_spooled(&mut cross_check, log, topics);
    cross_check.unrecorded_s.sort_by(f64::total_cmp);
    Ok(cross_check)
}

/// Checks that results on disk at the time of a kill arrived in Kafka. Results of a deleted topic
/// may have been deleted unread. A later sequence number proves that they arrived, because they
/// are sent in order.
fn check_spooled(
    cross_check: &mut CrossCheck,
    log: &FaultLog,
    topics: &[(TopicObservations, OracleReport)],
) {
    let mut arrived: HashSet<(&str, Uuid, i64)> = HashSet::new();
    let mut last: HashMap<(&str, Uuid), i64> = HashMap::new();
    for (observed, _) in topics {
        let records = observed.incarnations.iter().flat_map(|incarnation| &incarnation.records);
        let identities = records.filter_map(|record| record.identity);
        for Identity { run, sequence } in identities {
            arrived.insert((observed.topic.as_str(), run, sequence));
            if observed.incarnations.len() > 1 {
                let highest = last.entry((observed.topic.as_str(), run)).or_insert(sequence);
                *highest = sequence.max(*highest);
            }
        }
    }
    let spooled = log.spooled();
    cross_check.spooled = spooled.len();
    for (topic, Identity { run, sequence }) in &spooled {
        let has_later_result = last.get(&(topic.as_str(), *run)).is_some_and(|it| it > sequence);
        if !arrived.contains(&(topic.as_str(), *run, *sequence)) && !has_later_result {
            cross_check.errors.push(format!(
                "{topic}: run {run} sequence {sequence}: was in the spool when its tracker was killed, \
                 but never arrived in Kafka"
            ));
        }
    }
}

fn logged_instances(
    testbed: &StormTestbed,
    id: ProgramId,
    disk_full: &[(f64, f64)],
) -> Result<Vec<LoggedInstance>, Box<dyn Error>> {
    let program = testbed.lock_program(id)?;
    let mut all = Vec::new();
    for instance in &program.instances {
        let ended_s = instance.ended_s.unwrap_or(f64::INFINITY);
        let overlaps = |(from, to): &(f64, f64)| *from < ended_s && instance.started_s < *to;
        let disk_was_full = id == ProgramId::Tracker(0) && disk_full.iter().any(overlaps);
        let mut lost = HashMap::new();
        for line in program.log_of(instance)?.lines() {
            if let Some((count, topic)) = logged_loss(line) {
                *lost.entry(topic.to_owned()).or_default() += count;
            }
        }
        all.push(LoggedInstance { instance: instance.clone(), disk_was_full, lost });
    }
    Ok(all)
}

/// Parses a line of a tracker's log: "… lost 12 results for TOPIC: reason".
fn logged_loss(line: &str) -> Option<(u64, &str)> {
    let (_, rest) = line.split_once(" lost ")?;
    let (count, rest) = rest.split_once(' ')?;
    let rest = rest.strip_prefix("results for ").or_else(|| rest.strip_prefix("result for "))?;
    let (topic, _) = rest.split_once(": ")?;
    Some((count.parse().ok()?, topic))
}

/// The time of the first result of each run of a location.
fn run_starts_s(
    topics: &[(TopicObservations, OracleReport)],
    location: &str,
) -> BTreeMap<Uuid, f64> {
    let mut runs = BTreeMap::new();
    for record in records(topics) {
        let Some(run) = record.0 else { continue };
        if record.1.from == location {
            let first = runs.entry(run).or_insert(record.1.timestamp);
            *first = record.1.timestamp.min(*first);
        }
    }
    runs
}

/// Checks that each missing sequence number was counted as lost by the tracker, or was only in
/// memory when the tracker was killed.
fn check_missing_sequences(
    errors: &mut Vec<String>,
    instances: &[LoggedInstance],
    topic: &str,
    run: Uuid,
    run_started_s: f64,
    missing: &MissingSequences,
) {
    let includes_start = |it: &&LoggedInstance| {
        it.instance.started_s <= run_started_s
            && it.instance.ended_s.is_none_or(|ended_s| run_started_s <= ended_s)
    };
    let Some(instance) = instances.iter().rfind(includes_start) else {
        errors.push(format!("{topic}: run {run}: no process of its tracker matches"));
        return;
    };
    let lost = instance.lost.get(topic).copied().unwrap_or(0);
    let MissingSequences { followed, at_end, .. } = *missing;
    let explained = match instance.instance.killed {
        // The last results were in flight. Others can be missing only if the disk was full.
        true => followed <= lost || instance.disk_was_full,
        false => followed + at_end <= lost,
    };
    if !explained {
        errors.push(format!(
            "{topic}: run {run}: {followed} sequence numbers and its last {at_end} are missing, but its tracker logged {lost} as lost \
             (it was {}killed)",
            if instance.instance.killed { "" } else { "not " }
        ));
    }
}

/// Checks that each result with a response has a request, and that each request has a result,
/// unless its tracker was killed soon afterwards or logged lost results.
fn check_requests(
    cross_check: &mut CrossCheck,
    testbed: &StormTestbed,
    tracker: usize,
    instances: &[LoggedInstance],
    topics: &[(TopicObservations, OracleReport)],
) {
    let location = ProgramId::Tracker(tracker).name();
    let mut requests = testbed.sites.requests();
    let mut results: BTreeMap<String, Vec<MatchedResult>> = BTreeMap::new();
    for (_, record) in records(topics).filter(|(_, record)| record.from == location) {
        let attempts = usize::try_from(record.extra.attempts.unwrap_or(1)).unwrap_or(1);
        let answered = record.response_ms.is_some();
        let result = MatchedResult { started_s: record.timestamp, answered, attempts, requests: 0 };
        results.entry(record.url).or_default().push(result);
    }
    let missing = topics.iter().flat_map(|(_, report)| report.missing.values());
    let missing = missing.filter(|it| it.location == location);
    // The number of attempts of lost results is unknown, so the maximum is assumed.
    let mut unattributed = missing.map(|it| it.followed + it.at_end).sum::<u64>() * ATTEMPTS_MAX;
    for url in testbed.sites.targets(tracker) {
        let request_times_s = requests.remove(&url).unwrap_or_default();
        cross_check.requests += request_times_s.len();
        let mut results = results.remove(&url).unwrap_or_default();
        // A result may be in Kafka twice. Two results of one target never start at the same time.
        results.sort_by(|a, b| a.started_s.total_cmp(&b.started_s));
        results.dedup_by_key(|result| result.started_s.to_bits());
        for at_s in request_times_s {
            // A target is never probed twice at the same time, so the request belongs to the last
            // probe that had started.
            let started = results.partition_point(|result| result.started_s <= at_s);
            let result = results[..started].last_mut();
            if let Some(result) = result.filter(|result| result.may_include_request_at(at_s)) {
                result.requests += 1;
                continue;
            }
            let instance = instances.iter().rfind(|it| it.instance.started_s <= at_s);
            let killed = instance.filter(|it| it.instance.killed);
            let before_s = killed.and_then(|it| it.instance.ended_s).map(|ended_s| ended_s - at_s);
            match before_s {
                Some(_) if killed.is_some_and(|it| it.disk_was_full) => cross_check.unrecorded_disk_full += 1,
                Some(before_s) if before_s <= LOST_BEFORE_KILL_S_MAX => cross_check.unrecorded_s.push(before_s),
                _ if unattributed > 0 => unattributed -= 1,
                _ => cross_check.errors.push(format!(
                    "{location}: {url} was requested at {at_s:.3}, but there is no result for this request"
                )),
            }
        }
        for MatchedResult { started_s, .. } in
            results.iter().filter(|it| it.answered && it.requests == 0)
        {
            cross_check.errors.push(format!(
                "{location}: {url}: a result of {started_s:.3} has a response, but the site received no request"
            ));
        }
    }
}

/// A result and the requests that were matched to it.
struct MatchedResult {
    started_s: f64,
    answered: bool,
    attempts: usize,
    requests: usize,
}

impl MatchedResult {
    /// Whether a request at this time can be one of its unmatched attempts.
    fn may_include_request_at(&self, at_s: f64) -> bool {
        self.requests < self.attempts
            && at_s <= self.started_s + self.attempts as f64 * ATTEMPT_S_MAX
    }
}

fn records(
    topics: &[(TopicObservations, OracleReport)],
) -> impl Iterator<Item = (Option<Uuid>, Record)> {
    let incarnations = topics.iter().flat_map(|(observed, _)| &observed.incarnations);
    incarnations.flat_map(|incarnation| &incarnation.records).filter_map(|record| {
        let decoded = Record::decode(&record.value).ok()?;
        Some((record.identity.map(|identity| identity.run), decoded))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_parsed_from_the_log() {
        let line = "[2026-01-02T03:04:05Z WARN tracker] spool: lost 12 results for a-topic: full";
        assert_eq!(logged_loss(line), Some((12, "a-topic")));
        assert_eq!(logged_loss("WARN lost 1 result for a: full"), Some((1, "a")));
        assert_eq!(logged_loss("WARN connection lost to a broker: closed"), None);
    }
}
