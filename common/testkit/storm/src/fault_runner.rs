//! Does what the plan says: a thread for each lane.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::identity::Identity;
use common::stop::{Stop, Stopper};
use kafka_client::{Client, Error as KafkaError, LogEnd, TopicSpec, Uuid};
use kafka_protocol::messages::ApiKey;

use crate::fault_plan::{Fault, FaultPlan, KafkaRequest, ProgramId};
use crate::managed_program::{ManagedProgram, now_s};
use crate::spool_reader;
use crate::testbed::StormTestbed;
use crate::topic_reader::TopicReader;
use testkit::proxy::{ProxyFault, RuleHandle};
use testkit::spool_counts::{self, RunCount};

type StormError = Box<dyn Error>;

/// How long a rule waits for its request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// How long a topic that is to be deleted is waited for to be read to its end.
const READ_PATIENCE: Duration = Duration::from_secs(20);
/// How long a topic may take to be there, or there again.
const REMADE_PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// When the first tracker's disk was full, in seconds since 1970.
    full: Mutex<Vec<(f64, f64)>>,
    /// What was in a spool when its tracker was killed.
    safe: Mutex<Vec<(String, Identity)>>,
    /// What trackers say of how many numbers they gave.
    given: Mutex<Vec<RunCount>>,
    failed: Mutex<Vec<String>>,
}

impl FaultLog {
    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    /// How often each kind was done.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of them were kills.
    pub(crate) fn kills(&self) -> u64 {
        let is_kill = |what: &&'static str| what.starts_with("kill ");
        self.counts().iter().filter(|(what, _)| is_kill(what)).map(|(_, count)| count).sum()
    }

    /// When the first tracker's disk was full.
    pub(crate) fn full(&self) -> Vec<(f64, f64)> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The results, by topic, that were on disk when a tracker was killed.
    pub(crate) fn safe(&self) -> Vec<(String, Identity)> {
        self.safe.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads how many numbers a tracker gave that has just ended.
    pub(crate) fn note_given(&self, testbed: &StormTestbed, tracker: usize) -> std::io::Result<()> {
        match spool_counts::read_counts(&testbed.spool(tracker)) {
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
    pub(crate) fn given(&self, topic: &str) -> HashMap<Uuid, i64> {
        let mut counts = HashMap::new();
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        for given in given.iter().filter(|it| it.topic == topic) {
            let count = counts.entry(given.run).or_insert(0);
            *count = given.count.max(*count);
        }
        counts
    }

    /// What could not be done, or ended by itself.
    pub(crate) fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count_fired(&self, rule: &RuleHandle, what: &'static str) {
        // One that comes later is done all the same, but for a stall.
        if rule.wait_until_fired(REQUEST_PATIENCE) {
            self.count(what);
        }
    }

    /// Something that is not as it should be.
    pub(crate) fn fail(&self, what: String) {
        log::error!("{what}");
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// Works through the plan until its end or a stop; when it returns, all that it
/// has broken is whole again. `over` ends when it does.
pub(crate) fn run(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    plan: &FaultPlan,
    end: Instant,
    stop: &Stop,
    over: Stopper,
) -> FaultLog {
    let done = FaultLog::default();
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
                    if let Err(cause) = act(testbed, topic_reader, event.fault, done) {
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

fn act(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    fault: Fault,
    done: &FaultLog,
) -> Result<(), StormError> {
    match fault {
        Fault::Kill(who, down_ms) => {
            let mut running = testbed.running(who)?;
            if let Some(ended) = running.ended_by_itself() {
                done.fail(ended);
            }
            running.kill();
            if let ProgramId::Tracker(index) = who {
                done.note_given(testbed, index)?;
                let safe = spool_reader::read(&testbed.spool(index))?;
                done.safe.lock().unwrap_or_else(PoisonError::into_inner).extend(safe);
            }
            done.count(match who {
                ProgramId::Tracker(_) => "kill -9 of a tracker",
                ProgramId::Recorder(_) => "kill -9 of a recorder",
            });
            hold(down_ms);
            running.start()?;
        }
        Fault::Pause(who, ms) => {
            let running = testbed.running(who)?;
            running.signal("STOP")?;
            done.count(match who {
                ProgramId::Tracker(_) => "stop of a tracker",
                ProgramId::Recorder(_) if ms > 5_000 => {
                    "stop of a recorder for longer than its lease"
                }
                ProgramId::Recorder(_) => "stop of a recorder",
            });
            hold(ms);
            running.signal("CONT")?;
        }
        Fault::KillBroker(broker, down_ms) => {
            testbed.services.kill_broker(broker)?;
            done.count("kill -9 of a broker");
            hold(down_ms);
            testbed.services.start_broker(broker)?;
        }
        Fault::PauseBroker(broker, ms) => {
            testbed.services.pause_broker(broker)?;
            done.count("stop of a broker");
            hold(ms);
            testbed.services.resume_broker(broker)?;
        }
        Fault::CrashPostgres(down_ms) => {
            testbed.services.kill_postgres()?;
            done.count("kill of postgresql");
            hold(down_ms);
            testbed.services.start_postgres()?;
        }
        Fault::FillDisk(ms) => {
            let from = now_s();
            let filled = fill(testbed, ms);
            testbed.disk.free()?;
            filled?;
            done.full.lock().unwrap_or_else(PoisonError::into_inner).push((from, now_s()));
            done.count("full disk of a spool");
        }
        Fault::RemakeTopic { domain, lag_ms, by_us } => {
            remake(testbed, topic_reader, domain, lag_ms, by_us)?;
            done.count("topic deleted and made again");
        }
        Fault::CutKafka(exchange, direction, bytes) => {
            let rule = testbed.kafka.add_rule(key(exchange), 0, direction, ProxyFault::Cut(bytes));
            done.count_fired(&rule, "cut on the way to or from kafka");
        }
        Fault::SwallowKafka(exchange, direction) => {
            let rule = testbed.kafka.add_rule(key(exchange), 0, direction, ProxyFault::Discard);
            done.count_fired(&rule, "frame to or from kafka swallowed");
        }
        Fault::StallKafka(exchange, direction, ms) => {
            let rule = testbed.kafka.add_rule(key(exchange), 0, direction, ProxyFault::Hold);
            done.count_fired(&rule, "stall on the way to or from kafka");
            hold(ms);
            rule.release();
        }
        Fault::CutPostgres { commit, direction, bytes } => {
            let fault = ProxyFault::Cut(bytes);
            let rule = testbed.postgres.add_rule(b'Q', statement(commit), 0, direction, fault);
            done.count_fired(&rule, "cut on the way to or from postgresql");
        }
        Fault::StallPostgres { commit, direction, ms } => {
            let rule =
                testbed.postgres.add_rule(b'Q', statement(commit), 0, direction, ProxyFault::Hold);
            done.count_fired(&rule, "stall on the way to or from postgresql");
            hold(ms);
            rule.release();
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
fn fill(testbed: &StormTestbed, ms: u64) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < until {
        testbed.disk.fill()?;
        thread::park_timeout(POLL_INTERVAL);
    }
    Ok(())
}

fn key(exchange: KafkaRequest) -> ApiKey {
    match exchange {
        KafkaRequest::Produce => ApiKey::Produce,
        KafkaRequest::Fetch => ApiKey::Fetch,
        KafkaRequest::Metadata => ApiKey::Metadata,
        KafkaRequest::ListOffsets => ApiKey::ListOffsets,
    }
}

fn statement(commit: bool) -> &'static str {
    if commit { "COMMIT" } else { "START TRANSACTION" }
}

/// Deletes a topic once the tap has read all of it, with the trackers stopped,
/// as what nobody else has seen could not be judged.
fn remake(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    domain: usize,
    lag_ms: u64,
    by_us: bool,
) -> Result<(), StormError> {
    let topics = testbed.topics()?;
    let topic = topics.get(domain).ok_or("no such domain")?;
    let mut client = Client::new(testbed.settings()?);
    let recorders = match lag_ms {
        0 => Vec::new(),
        _ => stopped(testbed, [ProgramId::Recorder(0), ProgramId::Recorder(1)])?,
    };
    hold(lag_ms);
    let writing = testbed.writing.lock().unwrap_or_else(PoisonError::into_inner);
    let trackers = stopped(testbed, [ProgramId::Tracker(0), ProgramId::Tracker(1)])?;
    let read = tried(READ_PATIENCE, || {
        let end =
            client.list_offset(topic, 0, LogEnd::Latest).map_err(|cause| cause.to_string())?;
        match topic_reader.position(topic) {
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
    tried(REMADE_PATIENCE, || match topic_reader.position(topic) {
        Some((id, _)) if id != old => Ok(()),
        _ => Err(format!("{topic}: was not made again")),
    })?;
    Ok(())
}

/// Makes it; one that is there is left as it is, as the answer to the last try may be lost.
pub(crate) fn make_topic(client: &mut Client, topic: &str) -> Result<(), String> {
    tried(REMADE_PATIENCE, || {
        let made = client.create_topic(topic, &TopicSpec::default());
        made.map(drop).map_err(|cause| cause.to_string())
    })
}

/// Deletes it: done when it is, and when it is not there, as nobody makes it now
/// and the answer to the last try may be lost.
fn delete(client: &mut Client, topic: &str) -> Result<(), String> {
    match client.delete_topic(topic) {
        Err(KafkaError::UnknownTopic { .. }) | Ok(()) => Ok(()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Stops programs in their tracks and keeps others from touching them.
fn stopped(
    testbed: &StormTestbed,
    who: [ProgramId; 2],
) -> Result<Vec<MutexGuard<'_, ManagedProgram>>, StormError> {
    let mut all = Vec::new();
    for who in who {
        let running = testbed.running(who)?;
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
            Err(_) => thread::park_timeout(POLL_INTERVAL),
        }
    }
}
