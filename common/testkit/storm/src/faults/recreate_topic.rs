//! Deletes and recreates topics.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use kafka_client::{KafkaClient, LogEnd};

use super::{StormError, wait_ms};
use crate::observations::topic_reader::TopicReader;
use crate::testbed::StormTestbed;
use crate::testbed::managed_program::{ManagedProgram, ProgramId};
use crate::testbed::topics::{TOPIC_TIMEOUT, create_topic, delete_topic, retry_until};

/// Time-out for reading a topic to its end before it is deleted.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Deletes a topic once the topic reader has read it to its end. The trackers are paused
/// meanwhile, because records that only they have seen could not be checked.
pub(crate) fn recreate_topic(
    testbed: &StormTestbed,
    topic_reader: &TopicReader,
    domain: usize,
    lag_ms: u64,
    recreated_by_storm: bool,
) -> Result<(), StormError> {
    let topics = testbed.topics()?;
    let topic = topics.get(domain).ok_or("no such domain")?;
    let mut client = KafkaClient::new(testbed.settings()?);
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
        retry_until(TOPIC_TIMEOUT, || delete_topic(&mut client, topic))?;
        if recreated_by_storm {
            create_topic(&mut client, topic)?;
        }
        Ok(id)
    });
    drop(writing);
    for program in trackers.into_iter().chain(recorders) {
        program.signal("CONT")?;
    }
    let old = recreated?;
    // The programs that recreate the topic may be killed meanwhile.
    retry_until(TOPIC_TIMEOUT, || match topic_reader.position(topic) {
        Some((id, _)) if id != old => Ok(()),
        _ => Err(format!("{topic}: was not recreated")),
    })?;
    Ok(())
}

/// Pauses programs and keeps them locked for other faults.
fn pause_programs(
    testbed: &StormTestbed,
    ids: [ProgramId; 2],
) -> Result<Vec<MutexGuard<'_, ManagedProgram>>, StormError> {
    let mut all = Vec::new();
    for id in ids {
        let program = testbed.lock_program(id)?;
        program.signal("STOP")?;
        all.push(program);
    }
    Ok(all)
}
