//! Does what the plan says: a thread for each lane.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::identity::Identity;
use common::stop::{Stop, Stopper};
use kafka_client::{KafkaClient, KafkaError, LogEnd, TopicSpec, Uuid};
use kafka_protocol::messages::ApiKey;

use super::plan::{Exchange, Fault, Plan, Who};
use super::programs::{Running, now_s};
use super::spool;
use super::tap::Tap;
use super::world::World;
use crate::given::{self, Given};
use crate::proxy::{Fault as ProxyFault, Told};

type Failed = Box<dyn Error>;

/// How long a rule waits for its request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// How long a topic that is to be deleted is waited for to be read to its end.
const READ_PATIENCE: Duration = Duration::from_secs(20);
/// How long a topic may take to be there, or there again.
const REMADE_PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// When the first tracker's disk was full, in seconds since 1970.
    full: Mutex<Vec<(f64, f64)>>,
    /// What was in a spool when its tracker was killed.
    safe: Mutex<Vec<(String, Identity)>>,
    /// What trackers say of how many numbers they gave.
    given: Mutex<Vec<Given>>,
    failed: Mutex<Vec<String>>,
}

impl Done {
    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    /// How often each kind was done.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of them were kills.
    pub(super) fn kills(&self) -> u64 {
        let is_kill = |what: &&'static str| what.starts_with("kill ");
        self.counts().iter().filter(|(what, _)| is_kill(what)).map(|(_, count)| count).sum()
    }

    /// When the first tracker's disk was full.
    pub(super) fn full(&self) -> Vec<(f64, f64)> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The results, by topic, that were on disk when a tracker was killed.
    pub(super) fn safe(&self) -> Vec<(String, Identity)> {
        self.safe.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads how many numbers a tracker gave that has just ended.
    pub(super) fn note_given(&self, world: &World, tracker: usize) -> std::io::Result<()> {
        match given::read(&world.spool(tracker)) {
            Ok(given) => {
                self.given.lock().unwrap_or_else(PoisonError::into_inner).extend(given);
                Ok(())
            }
            // It was killed before it made it.
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// The number after the highest that each run gave in a topic.
    pub(super) fn given(&self, topic: &str) -> HashMap<Uuid, i64> {
        let mut counts = HashMap::new();
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        for given in given.iter().filter(|it| it.topic == topic) {
            let count = counts.entry(given.run).or_insert(0);
            *count = given.count.max(*count);
        }
        counts
    }

    /// What could not be done, or ended by itself.
    pub(super) fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count_fired(&self, told: &Told, what: &'static str) {
        // One that comes later is done all the same, but for a stall.
        if told.wait(REQUEST_PATIENCE) {
            self.count(what);
        }
    }

    /// Something that is not as it should be.
    pub(super) fn fail(&self, what: String) {
        log::error!("{what}");
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// Works through the plan until its end or a stop; when it returns, all that it
/// has broken is whole again. `over` ends when it does.
pub(super) fn run(
    world: &World,
    tap: &Tap,
    plan: &Plan,
    end: Instant,
    stop: &Stop,
    over: Stopper,
) -> Done {
    let done = Done::default();
    let begin = Instant::now();
    thread::scope(|scope| {
        for (lane, events) in &plan.lanes {
            let (lane, done) = (*lane, &done);
            scope.spawn(move || {
                for event in events {
                    let due = begin + Duration::from_millis(event.at_ms);
                    if stop.wait(due.saturating_duration_since(Instant::now()))
                        || Instant::now() >= end
                    {
                        return;
                    }
                    log::debug!("{lane:?}: {event:?}");
                    if let Err(cause) = act(world, tap, event.fault, done) {
                        done.fail(format!("{:?}: {cause}", event.fault));
                    }
                }
            });
        }
        stop.wait(end.saturating_duration_since(Instant::now()));
    });
    drop(over);
    done
}

fn act(world: &World, tap: &Tap, fault: Fault, done: &Done) -> Result<(), Failed> {
    match fault {
        Fault::Kill(who, down_ms) => {
            let mut running = world.running(who)?;
            if let Some(ended) = running.ended_by_itself() {
                done.fail(ended);
            }
            running.kill();
            if let Who::Tracker(index) = who {
                done.note_given(world, index)?;
                let safe = spool::read(&world.spool(index))?;
                done.safe.lock().unwrap_or_else(PoisonError::into_inner).extend(safe);
            }
            done.count(match who {
                Who::Tracker(_) => "kill -9 of a tracker",
                Who::Recorder(_) => "kill -9 of a recorder",
            });
            hold(down_ms);
            running.start()?;
        }
        Fault::Pause(who, ms) => {
            let running = world.running(who)?;
            running.signal("STOP")?;
            done.count(match who {
                Who::Tracker(_) => "stop of a tracker",
                Who::Recorder(_) if ms > 5_000 => "stop of a recorder for longer than its lease",
                Who::Recorder(_) => "stop of a recorder",
            });
            hold(ms);
            running.signal("CONT")?;
        }
        Fault::KillBroker(broker, down_ms) => {
            world.services.kill_broker(broker)?;
            done.count("kill -9 of a broker");
            hold(down_ms);
            world.services.start_broker(broker)?;
        }
        Fault::PauseBroker(broker, ms) => {
            world.services.pause_broker(broker)?;
            done.count("stop of a broker");
            hold(ms);
            world.services.resume_broker(broker)?;
        }
        Fault::CrashPostgres(down_ms) => {
            world.services.kill_postgres()?;
            done.count("kill of postgresql");
            hold(down_ms);
            world.services.start_postgres()?;
        }
        Fault::FillDisk(ms) => {
            let from = now_s();
            let filled = fill(world, ms);
            world.disk.empty()?;
            filled?;
            done.full.lock().unwrap_or_else(PoisonError::into_inner).push((from, now_s()));
            done.count("full disk of a spool");
        }
        Fault::RemakeTopic { domain, lag_ms, by_us } => {
            remake(world, tap, domain, lag_ms, by_us)?;
            done.count("topic deleted and made again");
        }
        Fault::CutKafka(exchange, side, bytes) => {
            let told = world.kafka.tell(key(exchange), 0, side, ProxyFault::Cut(bytes));
            done.count_fired(&told, "cut on the way to or from kafka");
        }
        Fault::SwallowKafka(exchange, side) => {
            let told = world.kafka.tell(key(exchange), 0, side, ProxyFault::Swallow);
            done.count_fired(&told, "frame to or from kafka swallowed");
        }
        Fault::StallKafka(exchange, side, ms) => {
            let told = world.kafka.tell(key(exchange), 0, side, ProxyFault::Hold);
            done.count_fired(&told, "stall on the way to or from kafka");
            hold(ms);
            told.release();
        }
        Fault::CutPostgres { commit, side, bytes } => {
            let fault = ProxyFault::Cut(bytes);
            let told = world.postgres.tell(b'Q', statement(commit), 0, side, fault);
            done.count_fired(&told, "cut on the way to or from postgresql");
        }
        Fault::StallPostgres { commit, side, ms } => {
            let told = world.postgres.tell(b'Q', statement(commit), 0, side, ProxyFault::Hold);
            done.count_fired(&told, "stall on the way to or from postgresql");
            hold(ms);
            told.release();
        }
    }
    Ok(())
}

fn hold(ms: u64) {
    let until = Instant::now() + Duration::from_millis(ms);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        thread::park_timeout(left);
    }
}

/// Keeps a disk full, also when the tracker has removed a segment.
fn fill(world: &World, ms: u64) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < until {
        world.disk.fill()?;
        thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

fn key(exchange: Exchange) -> ApiKey {
    match exchange {
        Exchange::Produce => ApiKey::Produce,
        Exchange::Fetch => ApiKey::Fetch,
        Exchange::Metadata => ApiKey::Metadata,
        Exchange::ListOffsets => ApiKey::ListOffsets,
    }
}

fn statement(commit: bool) -> &'static str {
    if commit { "COMMIT" } else { "START TRANSACTION" }
}

/// Deletes a topic once the tap has read all of it, with the trackers stopped,
/// as what nobody else has seen could not be judged.
fn remake(world: &World, tap: &Tap, domain: usize, lag_ms: u64, by_us: bool) -> Result<(), Failed> {
    let topics = world.topics()?;
    let topic = topics.get(domain).ok_or("no such domain")?;
    let mut client = KafkaClient::new(world.settings()?);
    let recorders = match lag_ms {
        0 => Vec::new(),
        _ => stopped(world, [Who::Recorder(0), Who::Recorder(1)])?,
    };
    hold(lag_ms);
    let writing = world.writing.lock().unwrap_or_else(PoisonError::into_inner);
    let trackers = stopped(world, [Who::Tracker(0), Who::Tracker(1)])?;
    let read = tried(READ_PATIENCE, || {
        let end =
            client.list_offset(topic, 0, LogEnd::Latest).map_err(|cause| cause.to_string())?;
        match tap.position(topic) {
            Some((id, next)) if next == end => Ok(id),
            position => Err(format!("{topic}: ends at {end}, and was read to {position:?}")),
        }
    });
    let remade = read.and_then(|id| {
        tried(REMADE_PATIENCE, || delete(&mut client, topic))?;
        if by_us {
            make_topic(&mut client, topic)?;
        }
        Ok(id)
    });
    drop(writing);
    for running in trackers.into_iter().chain(recorders) {
        running.signal("CONT")?;
    }
    let old = remade?;
    // Those who made it again may take a while, as they may be killed meanwhile.
    tried(REMADE_PATIENCE, || match tap.position(topic) {
        Some((id, _)) if id != old => Ok(()),
        _ => Err(format!("{topic}: was not made again")),
    })?;
    Ok(())
}

/// Makes it; one that is there is left as it is, as the answer to the last try may be lost.
pub(super) fn make_topic(client: &mut KafkaClient, topic: &str) -> Result<(), String> {
    tried(REMADE_PATIENCE, || {
        let made = client.create_topic(topic, &TopicSpec::default());
        made.map(drop).map_err(|cause| cause.to_string())
    })
}

/// Deletes it: done when it is, and when it is not there, as nobody makes it now
/// and the answer to the last try may be lost.
fn delete(client: &mut KafkaClient, topic: &str) -> Result<(), String> {
    match client.delete_topic(topic) {
        Err(KafkaError::UnknownTopic { .. }) | Ok(()) => Ok(()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Stops programs in their tracks and keeps others from touching them.
fn stopped(world: &World, who: [Who; 2]) -> Result<Vec<MutexGuard<'_, Running>>, Failed> {
    let mut all = Vec::new();
    for who in who {
        let running = world.running(who)?;
        running.signal("STOP")?;
        all.push(running);
    }
    Ok(all)
}

fn tried<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(cause) if Instant::now() >= deadline => return Err(cause),
            Err(_) => thread::park_timeout(LOOK_EVERY),
        }
    }
}
