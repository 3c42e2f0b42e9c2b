//! Runs a fault plan: one thread for each lane.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::identity::Identity;
use common::stop::{Stop, Stopper};
use kafka_client::{Client, Error as KafkaError, LogEnd, TopicSpec, Uuid};
use kafka_protocol::messages::ApiKey;
use testkit::proxy::{ProxyFault, RuleHandle};
use testkit::spool_counts::{self, RunCount};

use crate::fault_plan::{Fault, FaultPlan, KafkaRequest, ProgramId};
use crate::managed_program::{ManagedProgram, now_s};
use crate::spool_reader;
use crate::testbed::StormTestbed;
use crate::topic_reader::TopicReader;

type StormError = Box<dyn Error>;

/// Time-out for the request that a proxy rule waits for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time-out for reading a topic to its end before it is deleted.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Time-out for the creation of a topic.
const RECREATE_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The injected faults and what they revealed.
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Intervals in which the first tracker's disk was full, in seconds since 1970.
    disk_full: Mutex<Vec<(f64, f64)>>,
    /// Results that were in a spool when its tracker was killed, by topic.
    spooled: Mutex<Vec<(String, Identity)>>,
    /// The issued sequence numbers, from the trackers' spools.
    issued: Mutex<Vec<RunCount>>,
    errors: Mutex<Vec<String>>,
}

impl FaultLog {
    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    /// The number of faults of each kind.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of kills.
    pub(crate) fn kills(&self) -> u64 {
        let is_kill = |what: &&'static str| what.starts_with("kill ");
        self.counts().iter().filter(|(what, _)| is_kill(what)).map(|(_, count)| count).sum()
    }

    /// Intervals in which the first tracker's disk was full, in seconds since 1970.
    pub(crate) fn disk_full(&self) -> Vec<(f64, f64)> {
        self.disk_full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Results that were on disk when their tracker was killed, by topic.
    pub(crate) fn spooled(&self) -> Vec<(String, Identity)> {
        self.spooled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the issued sequence numbers of a tracker that has just ended.
    pub(crate) fn read_issued_counts(
        &self,
        testbed: &StormTestbed,
        tracker: usize,
    ) -> std::io::Result<()> {
        match spool_counts::read_counts(&testbed.spool(tracker)) {
            Ok(counted) => {
                self.issued.lock().unwrap_or_else(PoisonError::into_inner).extend(counted);
                Ok(())
            }
            // The tracker was killed before it created the file.
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// For each run, the number of sequence numbers issued in a topic.
    pub(crate) fn issued_counts(&self, topic: &str) -> HashMap<Uuid, i64> {
        let mut counts = HashMap::new();
        let counted = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        for counted in counted.iter().filter(|it| it.topic == topic) {
            let count = counts.entry(counted.run).or_insert(0);
            *count = counted.count.max(*count);
        }
        counts
    }

    /// Failed faults, and programs that ended unexpectedly.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count_if_fired(&self, rule: &RuleHandle, what: &'static str) {
        // A request after the time-out still triggers the rule, except that a stall is released
        // earlier.
        if rule.wait_until_fired(REQUEST_TIMEOUT) {
            self.count(what);
        }
    }

    /// Logs and records an error.
    pub(crate) fn add_error(&self, what: String) {
        log::error!("{what}");
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// Runs the plan until its end or a stop request. When it returns, every fault has been repaired.
/// `ended` is dropped at the end of the plan.
pub(crate) fn run(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    plan: &FaultPlan,
    end: Instant,
    stop: &Stop,
    ended: Stopper,
) -> FaultLog {
    let log = FaultLog::default();
    let started_at = Instant::now();
    thread::scope(|scope| {
        for (lane, events) in &plan.lanes {
            let (lane, log) = (*lane, &log);
            scope.spawn(move || {
                for event in events {
                    let due = started_at + Duration::from_millis(event.at_ms);
                    if stop.wait(due.saturating_duration_since(Instant::now()))
                        || Instant::now() >= end
                    {
                        return;
                    }
                    log::debug!("{lane:?}: {event:?}");
                    if let Err(cause) = inject_fault(testbed, topic_reader, event.fault, log) {
                        log.add_error(format!("{:?}: {cause}", event.fault));
                    }
                }
            });
        }
        stop.wait(end.saturating_duration_since(Instant::now()));
    });
    drop(ended);
    log
}

fn inject_fault(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    fault: Fault,
    log: &FaultLog,
) -> Result<(), StormError> {
    match fault {
        Fault::Kill(program, down_ms) => {
            let mut running = testbed.lock_program(program)?;
            if let Some(ended) = running.unexpected_end() {
                log.add_error(ended);
            }
            running.kill();
            if let ProgramId::Tracker(index) = program {
                log.read_issued_counts(testbed, index)?;
                let spooled = spool_reader::read(&testbed.spool(index))?;
                log.spooled.lock().unwrap_or_else(PoisonError::into_inner).extend(spooled);
            }
            log.count(match program {
                ProgramId::Tracker(_) => "kill -9 of a tracker",
                ProgramId::Recorder(_) => "kill -9 of a recorder",
            });
            wait_ms(down_ms);
            running.start()?;
        }
        Fault::Pause(program, ms) => {
            let running = testbed.lock_program(program)?;
            running.signal("STOP")?;
            log.count(match program {
                ProgramId::Tracker(_) => "pause of a tracker",
                ProgramId::Recorder(_) if ms > 5_000 => {
                    "pause of a recorder for longer than its lease"
                }
                ProgramId::Recorder(_) => "pause of a recorder",
            });
            wait_ms(ms);
            running.signal("CONT")?;
        }
        Fault::KillBroker(broker, down_ms) => {
            testbed.services.kill_broker(broker)?;
            log.count("kill -9 of a broker");
            wait_ms(down_ms);
            testbed.services.start_broker(broker)?;
        }
        Fault::PauseBroker(broker, ms) => {
            testbed.services.pause_broker(broker)?;
            log.count("pause of a broker");
            wait_ms(ms);
            testbed.services.resume_broker(broker)?;
        }
        Fault::CrashPostgres(down_ms) => {
            testbed.services.kill_postgres()?;
            log.count("kill of PostgreSQL");
            wait_ms(down_ms);
            testbed.services.start_postgres()?;
        }
        Fault::FillDisk(ms) => {
            let from = now_s();
            let filled = keep_disk_full(testbed, ms);
            testbed.disk.free()?;
            filled?;
            log.disk_full.lock().unwrap_or_else(PoisonError::into_inner).push((from, now_s()));
            log.count("full disk of a spool");
        }
        Fault::RecreateTopic { domain, lag_ms, recreated_by_storm } => {
            recreate_topic(testbed, topic_reader, domain, lag_ms, recreated_by_storm)?;
            log.count("topic deleted and recreated");
        }
        Fault::CutKafka(request, direction, bytes) => {
            let rule =
                testbed.kafka.add_rule(api_key(request), 0, direction, ProxyFault::Cut(bytes));
            log.count_if_fired(&rule, "connection to Kafka cut");
        }
        Fault::DiscardKafka(request, direction) => {
            let rule = testbed.kafka.add_rule(api_key(request), 0, direction, ProxyFault::Discard);
            log.count_if_fired(&rule, "frame to or from Kafka discarded");
        }
        Fault::StallKafka(request, direction, ms) => {
            let rule = testbed.kafka.add_rule(api_key(request), 0, direction, ProxyFault::Hold);
            log.count_if_fired(&rule, "connection to Kafka stalled");
            wait_ms(ms);
            rule.release();
        }
        Fault::CutPostgres { commit, direction, bytes } => {
            let fault = ProxyFault::Cut(bytes);
            let rule = testbed.postgres.add_rule(b'Q', statement_text(commit), 0, direction, fault);
            log.count_if_fired(&rule, "connection to PostgreSQL cut");
        }
        Fault::StallPostgres { commit, direction, ms } => {
            let rule = testbed.postgres.add_rule(
                b'Q',
                statement_text(commit),
                0,
                direction,
                ProxyFault::Hold,
            );
            log.count_if_fired(&rule, "connection to PostgreSQL stalled");
            wait_ms(ms);
            rule.release();
        }
    }
    Ok(())
}

fn wait_ms(ms: u64) {
    let until = Instant::now() + Duration::from_millis(ms);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        thread::park_timeout(left);
    }
}

/// Keeps the disk full, even if the tracker deletes a segment.
fn keep_disk_full(testbed: &StormTestbed, ms: u64) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < until {
        testbed.disk.fill()?;
        thread::park_timeout(POLL_INTERVAL);
    }
    Ok(())
}

fn api_key(request: KafkaRequest) -> ApiKey {
    match request {
        KafkaRequest::Produce => ApiKey::Produce,
        KafkaRequest::Fetch => ApiKey::Fetch,
        KafkaRequest::Metadata => ApiKey::Metadata,
        KafkaRequest::ListOffsets => ApiKey::ListOffsets,
    }
}

fn statement_text(commit: bool) -> &'static str {
    if commit { "COMMIT" } else { "START TRANSACTION" }
}

/// Deletes a topic once the topic reader has read it to its end. The trackers are paused
/// meanwhile, because records that only they have seen could not be checked.
fn recreate_topic(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    domain: usize,
    lag_ms: u64,
    recreated_by_storm: bool,
) -> Result<(), StormError> {
    let topics = testbed.topics()?;
    let topic = topics.get(domain).ok_or("no such domain")?;
    let mut client = Client::new(testbed.settings()?);
    let recorders = match lag_ms {
        0 => Vec::new(),
        _ => pause_programs(testbed, [ProgramId::Recorder(0), ProgramId::Recorder(1)])?,
    };
    wait_ms(lag_ms);
    let writing = testbed.writing.lock().unwrap_or_else(PoisonError::into_inner);
    let trackers = pause_programs(testbed, [ProgramId::Tracker(0), ProgramId::Tracker(1)])?;
    let read = retry_until(READ_TIMEOUT, || {
        let end =
            client.list_offset(topic, 0, LogEnd::Latest).map_err(|cause| cause.to_string())?;
        match topic_reader.position(topic) {
            Some((id, next)) if next == end => Ok(id),
            position => Err(format!("{topic}: ends at {end}, but was read to {position:?}")),
        }
    });
    let recreated = read.and_then(|id| {
        retry_until(RECREATE_TIMEOUT, || delete_topic(&mut client, topic))?;
        if recreated_by_storm {
            create_topic(&mut client, topic)?;
        }
        Ok(id)
    });
    drop(writing);
    for running in trackers.into_iter().chain(recorders) {
        running.signal("CONT")?;
    }
    let old = recreated?;
    // The programs that recreate the topic may be killed meanwhile.
    retry_until(RECREATE_TIMEOUT, || match topic_reader.position(topic) {
        Some((id, _)) if id != old => Ok(()),
        _ => Err(format!("{topic}: was not recreated")),
    })?;
    Ok(())
}

/// Creates a topic. An existing topic counts as created, because the response to the last attempt
/// may be lost.
pub(crate) fn create_topic(client: &mut Client, topic: &str) -> Result<(), String> {
    retry_until(RECREATE_TIMEOUT, || {
        let created = client.create_topic(topic, &TopicSpec::default());
        created.map(drop).map_err(|cause| cause.to_string())
    })
}

/// Deletes a topic. A missing topic counts as deleted: nobody creates it now, and the response to
/// the last attempt may be lost.
fn delete_topic(client: &mut Client, topic: &str) -> Result<(), String> {
    match client.delete_topic(topic) {
        Err(KafkaError::UnknownTopic { .. }) | Ok(()) => Ok(()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Pauses programs and keeps them locked for other faults.
fn pause_programs(
    testbed: &StormTestbed,
    program: [ProgramId; 2],
) -> Result<Vec<MutexGuard<'_, ManagedProgram>>, StormError> {
    let mut all = Vec::new();
    for program in program {
        let running = testbed.lock_program(program)?;
        running.signal("STOP")?;
        all.push(running);
    }
    Ok(all)
}

fn retry_until<T>(
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + timeout;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(cause) if Instant::now() >= deadline => return Err(cause),
            Err(_) => thread::park_timeout(POLL_INTERVAL),
        }
    }
}
