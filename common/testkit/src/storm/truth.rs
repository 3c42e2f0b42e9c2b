//! What the trackers say that they lost, and what the sites say that they were
//! asked, held against what was recorded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;

use common::identity::Identity;
use common::record::Record;
use kafka_client::Uuid;

use super::facts::TopicFacts;
use super::faults::Done;
use super::oracle::{Judgement, Missing};
use super::plan::Who;
use super::programs::Life;
use super::world::World;

/// How long before a kill the results may have been that it took: until an
/// exchange with a broker that says nothing is given up, which takes 35 s, none
/// of that time is on disk.
const KILL_TAKES_S: f64 = 40.0;
/// A request comes so much later than its attempt begins at most, the pause after
/// it included.
const REQUEST_WITHIN_S: f64 = 7.0;
/// The attempts of a probe, by the trackers' default.
const ATTEMPTS_MAX: u64 = 2;

/// What is known of the trackers.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Results that trackers logged as lost.
    pub(super) lost: u64,
    /// Requests that the sites were asked.
    pub(super) requests: usize,
    /// Requests that no result tells of: for each how long before the kill of
    /// their tracker they were, in seconds, ascending.
    pub(super) taken_s: Vec<f64>,
    /// The same where the disk was full in that life, so that results waited in
    /// memory: how many.
    pub(super) taken_full: u64,
    /// Results that were on disk when their tracker was killed.
    pub(super) safe: usize,
    /// What does not fit.
    pub(super) wrong: Vec<String>,
}

/// A life of a tracker, as its log tells it.
struct Told {
    life: Life,
    was_full: bool,
    /// Results lost, by topic.
    lost: HashMap<String, u64>,
}

/// Holds it all against each other. A topic that was deleted has lost results
/// that no tracker could count.
///
/// # Errors
/// When a log can't be read.
pub(super) fn hold_against(
    world: &World,
    done: &Done,
    topics: &[(TopicFacts, Judgement)],
) -> Result<Truth, Box<dyn Error>> {
    let mut truth = Truth::default();
    for index in 0..2 {
        let who = Who::Tracker(index);
        let told = told(world, who, &done.full())?;
        truth.lost += told.iter().flat_map(|it| it.lost.values()).sum::<u64>();
        let runs = runs(topics, &who.name());
        for (facts, judgement) in topics.iter().filter(|(facts, _)| facts.lives.len() == 1) {
            for (run, missing) in &judgement.missing {
                let Some(began_s) = runs.get(run) else { continue };
                judge_life(&mut truth.wrong, &told, &facts.topic, *run, *began_s, missing);
            }
        }
        judge_requests(&mut truth, world, index, &told, topics);
    }
    judge_safe(&mut truth, done, topics);
    truth.taken_s.sort_by(f64::total_cmp);
    Ok(truth)
}

/// What was on disk when its tracker was killed has come to Kafka. Of a topic that
/// was deleted nobody may have read it: then a later number shows that it was there,
/// as they come in order.
fn judge_safe(truth: &mut Truth, done: &Done, topics: &[(TopicFacts, Judgement)]) {
    let mut came: HashSet<(&str, Uuid, i64)> = HashSet::new();
    let mut last: HashMap<(&str, Uuid), i64> = HashMap::new();
    for (facts, _) in topics {
        let records = facts.lives.iter().flat_map(|life| &life.records);
        let known = records.filter_map(|record| record.identity);
        for Identity { run, sequence } in known {
            came.insert((facts.topic.as_str(), run, sequence));
            if facts.lives.len() > 1 {
                let highest = last.entry((facts.topic.as_str(), run)).or_insert(sequence);
                *highest = sequence.max(*highest);
            }
        }
    }
    let safe = done.safe();
    truth.safe = safe.len();
    for (topic, Identity { run, sequence }) in &safe {
        let is_behind_another = last.get(&(topic.as_str(), *run)).is_some_and(|it| it > sequence);
        if !came.contains(&(topic.as_str(), *run, *sequence)) && !is_behind_another {
            truth.wrong.push(format!(
                "{topic}: run {run} number {sequence}: was in the spool when its tracker was killed, \
                 and never came to kafka"
            ));
        }
    }
}

fn told(world: &World, who: Who, full: &[(f64, f64)]) -> Result<Vec<Told>, Box<dyn Error>> {
    let running = world.running(who)?;
    let mut all = Vec::new();
    for life in &running.lives {
        let ended_s = life.ended_s.unwrap_or(f64::INFINITY);
        let meets = |(from, to): &(f64, f64)| *from < ended_s && life.started_s < *to;
        let was_full = who == Who::Tracker(0) && full.iter().any(meets);
        let mut lost = HashMap::new();
        for line in running.log_of(life)?.lines() {
            // "… lost 12 results for TOPIC: reason"
            let Some((_, rest)) = line.split_once(" lost ") else { continue };
            let Some((count, rest)) = rest.split_once(" results for ") else { continue };
            let Some((topic, _)) = rest.split_once(": ") else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            *lost.entry(topic.to_owned()).or_default() += count;
        }
        all.push(Told { life: life.clone(), was_full, lost });
    }
    Ok(all)
}

/// When each run of a location was first seen, by the times of its results.
fn runs(topics: &[(TopicFacts, Judgement)], location: &str) -> BTreeMap<Uuid, f64> {
    let mut runs = BTreeMap::new();
    for record in records(topics) {
        let Some(known) = record.0 else { continue };
        if record.1.from == location {
            let first = runs.entry(known).or_insert(record.1.timestamp);
            *first = record.1.timestamp.min(*first);
        }
    }
    runs
}

/// Numbers that are missing are those that the tracker counted as lost, or what
/// waited in memory alone when it was killed.
fn judge_life(
    wrong: &mut Vec<String>,
    told: &[Told],
    topic: &str,
    run: Uuid,
    began_s: f64,
    missing: &Missing,
) {
    let is_of = |it: &&Told| {
        it.life.started_s <= began_s && it.life.ended_s.is_none_or(|ended_s| began_s <= ended_s)
    };
    let Some(told) = told.iter().rfind(is_of) else {
        wrong.push(format!("{topic}: run {run}: is of no life of its tracker"));
        return;
    };
    let lost = told.lost.get(topic).copied().unwrap_or(0);
    let Missing { inner, at_end, .. } = *missing;
    let explained = match told.life.killed {
        // Its last ones were on their way; others only where the disk took none.
        true => inner <= lost || told.was_full,
        false => inner + at_end <= lost,
    };
    if !explained {
        wrong.push(format!(
            "{topic}: run {run}: {inner} numbers and its last {at_end} are missing, and its tracker counted {lost} as lost \
             (it was {}killed)",
            if told.life.killed { "" } else { "not " }
        ));
    }
}

/// Each result that tells of an answer was asked for, and each request has a
/// result, unless its tracker was killed soon after, or knows that it lost some.
fn judge_requests(
    truth: &mut Truth,
    world: &World,
    tracker: usize,
    told: &[Told],
    topics: &[(TopicFacts, Judgement)],
) {
    let location = Who::Tracker(tracker).name();
    let mut requests = world.sites.requests();
    let mut results: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
    for (_, record) in records(topics).filter(|(_, record)| record.from == location) {
        let attempts = usize::try_from(record.extra.attempts.unwrap_or(1)).unwrap_or(1);
        let answered = record.response_ms.is_some();
        let result = Asked { began_s: record.timestamp, answered, attempts, requests: 0 };
        results.entry(record.url).or_default().push(result);
    }
    let missing = topics.iter().flat_map(|(_, judgement)| judgement.missing.values());
    let missing = missing.filter(|it| it.from == location);
    // Nobody knows how many attempts those took.
    let mut known_lost = missing.map(|it| it.inner + it.at_end).sum::<u64>() * ATTEMPTS_MAX;
    for url in world.sites.targets(tracker) {
        let asked = requests.remove(&url).unwrap_or_default();
        truth.requests += asked.len();
        let mut results = results.remove(&url).unwrap_or_default();
        // The same one may be in Kafka twice; two of one target never begin at once.
        results.sort_by(|a, b| a.began_s.total_cmp(&b.began_s));
        results.dedup_by_key(|result| result.began_s.to_bits());
        for at_s in asked {
            // A target is never probed twice at once, so it is of the last that had begun.
            let begun = results.partition_point(|result| result.began_s <= at_s);
            let result = results[..begun].last_mut();
            if let Some(result) = result.filter(|result| result.has_asked_at(at_s)) {
                result.requests += 1;
                continue;
            }
            let life = told.iter().rfind(|it| it.life.started_s <= at_s);
            let killed = life.filter(|it| it.life.killed);
            let before_s = killed.and_then(|it| it.life.ended_s).map(|ended_s| ended_s - at_s);
            match before_s {
                Some(_) if killed.is_some_and(|it| it.was_full) => truth.taken_full += 1,
                Some(before_s) if before_s <= KILL_TAKES_S => truth.taken_s.push(before_s),
                _ if known_lost > 0 => known_lost -= 1,
                _ => truth.wrong.push(format!(
                    "{location}: {url} was asked for at {at_s:.3}, and no result tells of it"
                )),
            }
        }
        for Asked { began_s, .. } in results.iter().filter(|it| it.answered && it.requests == 0) {
            truth.wrong.push(format!(
                "{location}: {url}: a result of {began_s:.3} tells of an answer, and nobody was asked"
            ));
        }
    }
}

/// A result, and how often its site was asked for it.
struct Asked {
    began_s: f64,
    answered: bool,
    attempts: usize,
    requests: usize,
}

impl Asked {
    /// Whether a request then can be one of its attempts that is not seen yet.
    fn has_asked_at(&self, at_s: f64) -> bool {
        self.requests < self.attempts
            && at_s <= self.began_s + self.attempts as f64 * REQUEST_WITHIN_S
    }
}

fn records(topics: &[(TopicFacts, Judgement)]) -> impl Iterator<Item = (Option<Uuid>, Record)> {
    let lives = topics.iter().flat_map(|(facts, _)| &facts.lives);
    lives.flat_map(|life| &life.records).filter_map(|record| {
        let decoded = Record::decode(&record.value).ok()?;
        Some((record.identity.map(|known| known.run), decoded))
    })
}
