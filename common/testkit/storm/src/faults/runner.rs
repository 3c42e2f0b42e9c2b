//! Runs a fault plan: one thread for each lane.

use std::thread;
use std::time::{Duration, Instant};

use common::stop::{Stop, Stopper};
use kafka_protocol::messages::ApiKey;
use testkit::proxy::ProxyFault;

use super::log::FaultLog;
use super::plan::FaultPlan;
use super::recreate_topic::recreate_topic;
use super::{Fault, RequestKind, StormError, wait_ms};
use crate::observations::spool_reader;
use crate::observations::topic_reader::TopicReader;
use crate::testbed::StormTestbed;
use crate::testbed::managed_program::{ProgramId, now_s};

/// Interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

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
        Fault::Kill(id, down_ms) => {
            let mut program = testbed.lock_program(id)?;
            if let Some(ended) = program.unexpected_end() {
                log.add_error(ended);
            }
            program.kill();
            if let ProgramId::Tracker(index) = id {
                log.read_issued_counts(testbed, index)?;
                let spooled = spool_reader::read(&testbed.spool(index))?;
                log.add_spooled(spooled);
            }
            log.count(match id {
                ProgramId::Tracker(_) => "kill -9 of a tracker",
                ProgramId::Recorder(_) => "kill -9 of a recorder",
            });
            wait_ms(down_ms);
            program.start()?;
        }
        Fault::Pause(id, ms) => {
            let program = testbed.lock_program(id)?;
            program.signal("STOP")?;
            log.count(match id {
                ProgramId::Tracker(_) => "pause of a tracker",
                ProgramId::Recorder(_) if ms > 5_000 => {
                    "pause of a recorder for longer than its lease"
                }
                ProgramId::Recorder(_) => "pause of a recorder",
            });
            wait_ms(ms);
            program.signal("CONT")?;
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
            let from_s = now_s();
            let filled = keep_disk_full(testbed, ms);
            testbed.disk.free()?;
            filled?;
            log.add_disk_full(from_s, now_s());
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

/// Keeps the disk full, even if the tracker deletes a segment.
fn keep_disk_full(testbed: &StormTestbed, ms: u64) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < until {
        testbed.disk.fill()?;
        thread::park_timeout(POLL_INTERVAL);
    }
    Ok(())
}

fn api_key(request: RequestKind) -> ApiKey {
    match request {
        RequestKind::Produce => ApiKey::Produce,
        RequestKind::Fetch => ApiKey::Fetch,
        RequestKind::Metadata => ApiKey::Metadata,
        RequestKind::ListOffsets => ApiKey::ListOffsets,
    }
}

fn statement_text(commit: bool) -> &'static str {
    if commit { "COMMIT" } else { "START TRANSACTION" }
}
