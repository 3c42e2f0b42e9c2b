//! The storm: both programs, three brokers and a PostgreSQL under faults that
//! follow from a seed, and an oracle that knows every result by its identity.
//!
//! What is done, when and to whom is a pure function of the seed (`plan`); what
//! comes of it is up to real processes. While it goes on a tap reads all topics
//! by itself. In the end everything is healed and caught up, and the oracle
//! holds the database against what the tap has seen.
//!
//! It was seen to complain in a storm of a minute each: of rows of copies without
//! `judged.dropped.insert(offset)` in `recorder/src/marks.rs`, and of rows and gaps
//! that are there twice without the comparison in `POSITION_MOVE` in
//! `recorder/src/sql.rs`.

mod account;
mod facts;
mod faults;
mod inject;
mod oracle;
mod plan;
mod programs;
mod sites;
mod spool;
mod stored;
mod tap;
mod truth;
mod world;

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::stop::{self, Stop};
use kafka_client::{KafkaClient, LogEnd};

use crate::services::connect;
use facts::TopicFacts;
use faults::Done;
use oracle::{Account, Judgement};
use plan::{Plan, Who};
use tap::Tap;
use world::World;

/// How long recorders may take to read what is left.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(180);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long trackers go on when all is healed.
const CALM: Duration = Duration::from_secs(3);
/// How often a tracker that leaves results on disk is started once more.
const DRAINS_MAX: usize = 10;
/// How many things that are wrong are named.
const WRONG_SAID: usize = 12;

/// What to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where `tracker` and `recorder` are.
    pub programs: PathBuf,
    /// Where logs go: a folder for this storm alone.
    pub folder: PathBuf,
    /// How long faults are injected.
    pub seconds: u64,
    /// What they follow from.
    pub seed: u64,
}

/// Runs a storm; true when everything balances.
///
/// # Errors
/// When something can't be started, or does not come to its end.
pub fn run(settings: &Settings, stop: &Stop) -> Result<bool, Box<dyn Error>> {
    let Settings { programs, folder, seconds, seed } = settings;
    let begun = Instant::now();
    fs::create_dir_all(folder)?;
    let plan = Plan::new(*seed, *seconds);
    say(&format!(
        "storm of {seconds} s, seed {seed}: recorders {}, domains {}; logs in {}",
        if plan.smart { "merge" } else { "do not merge" },
        if plan.any_domain { "'*'" } else { "by a list" },
        folder.display()
    ));
    let world = World::start(&plan, programs, folder)?;
    let tap = Tap::start(world.settings()?, world.topics()?)?;
    for who in Who::ALL {
        world.running(who)?.start()?;
    }
    log::info!("all runs after {:.0} s", begun.elapsed().as_secs_f64());
    let end = Instant::now() + Duration::from_secs(*seconds);
    let (over, is_over) = stop::pair();
    let (done, injected) = thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let (kafka, topics) = (world.settings()?, world.topics()?);
        let writing = &world.writing;
        let injecting = scope.spawn(move || inject::run(kafka, &topics, *seed, writing, &is_over));
        let done = faults::run(&world, &tap, &plan, end, stop, over);
        let injected = injecting.join().map_err(|_| "the injector panicked")?;
        Ok((done, injected.map_err(|cause| -> Box<dyn Error> { cause })?))
    })?;
    if stop.is_requested() {
        return Err("stopped before its end".into());
    }
    log::info!("the storm is over");
    let caught_up = calm_down(&world, &tap, &done)?;
    let judged = judge(&world, &tap, &plan, &done)?;
    let balanced = report(settings, &world, &done, &judged, injected, caught_up)?;
    keep_logs_of_services(&world, folder, balanced);
    log::info!("it took {:.0} s in all", begun.elapsed().as_secs_f64());
    Ok(balanced)
}

/// Lets trackers deliver what they have and end, and waits until everything is
/// recorded: how long that took from the end of the faults on.
fn calm_down(world: &World, tap: &Tap, done: &Done) -> Result<Duration, Box<dyn Error>> {
    let healed = Instant::now();
    thread::sleep(CALM);
    for index in [0, 1] {
        let mut tracker = world.running(Who::Tracker(index))?;
        for _ in 0..DRAINS_MAX {
            if let Err(cause) = tracker.stop() {
                done.fail(cause.to_string());
            }
            done.note_given(world, index)?;
            let log = tracker.lives.last().map(|life| tracker.log_of(life)).transpose()?;
            if !log.is_some_and(|log| log.contains("wait on disk for the next start")) {
                break;
            }
            tracker.start()?;
            thread::sleep(CALM);
        }
    }
    let deadline = Instant::now() + CATCH_UP_PATIENCE;
    let mut database = connect(&world.services, &world.database)?;
    let mut client = KafkaClient::new(world.settings()?);
    let topics = world.topics()?;
    loop {
        let behind = behind(&mut database, &mut client, tap, &topics);
        match behind {
            Ok(None) => break,
            Ok(Some(what)) | Err(what) if Instant::now() >= deadline => {
                // The oracle says what of it is missing.
                log::error!("recorders do not catch up: {what}");
                break;
            }
            _ => thread::sleep(LOOK_EVERY),
        }
    }
    let took = healed.elapsed();
    for who in [Who::Recorder(0), Who::Recorder(1)] {
        if let Err(cause) = world.running(who)?.stop() {
            done.fail(cause.to_string());
        }
    }
    Ok(took)
}

/// A topic that is not recorded to its end.
fn behind(
    database: &mut postgres::Client,
    client: &mut KafkaClient,
    tap: &Tap,
    topics: &[String],
) -> Result<Option<String>, String> {
    let positions = stored::positions(database).map_err(|cause| cause.to_string())?;
    for topic in topics {
        let end =
            client.list_offset(topic, 0, LogEnd::Latest).map_err(|cause| cause.to_string())?;
        let read = tap.position(topic);
        let stored = positions.iter().find(|(it, ..)| it == topic).map(|(_, id, at)| (*id, *at));
        if read.is_none_or(|(_, at)| at != end) || read != stored {
            return Ok(Some(format!("{topic} ends at {end}: read {read:?}, stored {stored:?}")));
        }
    }
    Ok(None)
}

fn judge(
    world: &World,
    tap: &Tap,
    plan: &Plan,
    done: &Done,
) -> Result<Vec<(TopicFacts, Judgement)>, Box<dyn Error>> {
    let mut database = connect(&world.services, &world.database)?;
    let mut client = KafkaClient::new(world.settings()?);
    let mut tapped = tap.topics();
    let mut judged = Vec::new();
    for (topic, domain) in world.topics()?.into_iter().zip(&world.domains) {
        let lives = tapped.remove(&topic).unwrap_or_default();
        let log_end = client.list_offset(&topic, 0, LogEnd::Latest)?;
        let given = done.given(&topic);
        let mut facts = TopicFacts { topic, lives, given, log_end, ..TopicFacts::default() };
        stored::read(&mut database, &domain.table(), &mut facts)?;
        let judgement = oracle::judge(&facts, plan.smart);
        judged.push((facts, judgement));
    }
    Ok(judged)
}

fn report(
    settings: &Settings,
    world: &World,
    done: &Done,
    judged: &[(TopicFacts, Judgement)],
    injected: u64,
    caught_up: Duration,
) -> Result<bool, Box<dyn Error>> {
    let truth = truth::hold_against(world, done, judged)?;
    let mut account = Account::default();
    let mut wrong = done.failed();
    for (facts, judgement) in judged {
        account.add(judgement.account);
        if !judgement.wrong.is_empty() {
            let known = account::all_of(facts);
            fs::write(settings.folder.join(format!("{}.txt", facts.topic)), known)?;
        }
        wrong.extend(judgement.wrong.iter().cloned());
    }
    wrong.extend(truth.wrong.iter().cloned());
    say(&account::faults(done, settings.seed, settings.seconds));
    say(&account::results(account, &truth, injected, caught_up));
    for what in wrong.iter().take(WRONG_SAID) {
        say(&format!("WRONG: {what}"));
    }
    if wrong.len() > WRONG_SAID {
        say(&format!("and {} more", wrong.len() - WRONG_SAID));
    }
    fs::write(settings.folder.join("wrong.txt"), wrong.join("\n"))?;
    let verdict = if wrong.is_empty() { "all balances" } else { "DOES NOT BALANCE" };
    say(&format!("seed {}: {verdict}; logs in {}", settings.seed, settings.folder.display()));
    Ok(wrong.is_empty())
}

/// The services' logs go with the services.
fn keep_logs_of_services(world: &World, folder: &Path, balanced: bool) {
    if balanced {
        return;
    }
    let dir = &world.services.dir;
    let brokers =
        (1..=plan::BROKERS).map(|n| (format!("kafka/{n}/log"), format!("broker-{n}.log")));
    let others = [("postgres/log".to_owned(), "postgres.log".to_owned())];
    for (from, to) in brokers.chain(others) {
        if let Err(cause) = fs::copy(dir.join(&from), folder.join(to)) {
            log::warn!("{from}: {cause}");
        }
    }
}

fn say(text: &str) {
    // Nobody is left to tell when standard output is gone.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
