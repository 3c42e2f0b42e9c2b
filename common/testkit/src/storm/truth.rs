//! What the trackers say that they lost, and what the sites say that they were
//! asked, held against what was recorded.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;

use common::kafka::Uuid;
use common::record::Record;

use super::facts::TopicFacts;
use super::oracle::Judgement;
use super::plan::Who;
use super::programs::Life;
use super::world::World;

/// What a kill may take, in seconds of probes: until an exchange with a broker
/// that says nothing is given up, results of that time are not on disk.
const KILL_TAKES_S: u64 = 35;

/// What is known of the trackers.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Results that trackers logged as lost.
    pub(super) lost: u64,
    /// Requests that the sites were asked.
    pub(super) requests: u64,
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
    full: &[(f64, f64)],
    topics: &[(TopicFacts, Judgement)],
) -> Result<Truth, Box<dyn Error>> {
    let mut truth = Truth::default();
    let requests = world.sites.requests();
    for index in 0..2 {
        let who = Who::Tracker(index);
        let told = told(world, who, full)?;
        truth.lost += told.iter().flat_map(|it| it.lost.values()).sum::<u64>();
        let runs = runs(topics, &who.name());
        for (facts, judgement) in topics.iter().filter(|(facts, _)| facts.lives.len() == 1) {
            for (run, (from, missing)) in &judgement.missing {
                let Some(began) = runs.get(run).filter(|_| *from == who.name()) else { continue };
                judge_life(&mut truth.wrong, &told, &facts.topic, *run, *began, *missing);
            }
        }
        let asked = requests.get(&index).copied().unwrap_or(0);
        truth.requests += asked;
        let targets = world.sites.targets(index).len() as u64;
        let kills = told.iter().filter(|it| it.life.killed).count() as u64;
        let results = results(topics, &who.name());
        let at_most_gone = kills * targets * KILL_TAKES_S;
        if results.with_answer > asked {
            truth.wrong.push(format!(
                "{}: {} results of requests that were answered, and the sites saw {asked}",
                who.name(),
                results.with_answer
            ));
        }
        if results.all + at_most_gone < asked {
            truth.wrong.push(format!(
                "{}: the sites saw {asked} requests, and only {} results are known, with {kills} kills",
                who.name(),
                results.all
            ));
        }
    }
    Ok(truth)
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
    missing: u64,
) {
    let is_of = |it: &&Told| {
        it.life.started_s <= began_s && it.life.ended_s.is_none_or(|ended_s| began_s <= ended_s)
    };
    let Some(told) = told.iter().rfind(is_of) else {
        wrong.push(format!("{topic}: run {run}: is of no life of its tracker"));
        return;
    };
    let lost = told.lost.get(topic).copied().unwrap_or(0);
    let explained = missing <= lost || told.life.killed && told.was_full;
    if !explained {
        wrong.push(format!(
            "{topic}: run {run}: {missing} numbers are missing, and its tracker counted {lost} as lost \
             (it was {}killed)",
            if told.life.killed { "" } else { "not " }
        ));
    }
}

struct Results {
    all: u64,
    with_answer: u64,
}

fn results(topics: &[(TopicFacts, Judgement)], location: &str) -> Results {
    let mut results = Results { all: 0, with_answer: 0 };
    let mut seen = std::collections::HashSet::new();
    for (_, record) in records(topics).filter(|(_, record)| record.from == location) {
        // The same result may be there twice; two of one target never begin at once.
        if !seen.insert((record.url.clone(), record.timestamp.to_bits())) {
            continue;
        }
        results.all += 1;
        results.with_answer += u64::from(record.response_ms.is_some());
    }
    let missing = topics.iter().flat_map(|(_, judgement)| judgement.missing.values());
    results.all +=
        missing.filter(|(from, _)| from == location).map(|(_, count)| count).sum::<u64>();
    results
}

fn records(topics: &[(TopicFacts, Judgement)]) -> impl Iterator<Item = (Option<Uuid>, Record)> {
    let lives = topics.iter().flat_map(|(facts, _)| &facts.lives);
    lives.flat_map(|life| &life.records).filter_map(|record| {
        let decoded = Record::decode(&record.value).ok()?;
        Some((record.identity.map(|known| known.run), decoded))
    })
}
