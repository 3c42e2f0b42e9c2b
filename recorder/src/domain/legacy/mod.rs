//! The takeover of tables that version 1.1.0 wrote.
//!
//! 1.1.0 stores its position only in the rows of the domain's table: it continues after the highest
//! offset. For topics with the prefix of 1.1.0, the recorder therefore reads the table in addition
//! to the stored position. So a table can be taken over from 1.1.0, handed back, and taken over
//! again.

pub(super) mod table_count;

use common::domain::{Domain, TOPIC_PREFIX, TOPIC_PREFIX_OF_1_1_0, other_prefix};
use kafka_client::Uuid;

use self::table_count::TableCount;
use super::error::SessionError;
use super::resume::{
    LogRange, RECREATED, ResumePoint, StoredEpoch, is_tail_lost, resume, resume_after_gap,
};
use super::services::{RecordLog, RecordStore};
use crate::transaction::position::{Gap, Position, TopicPartition};

/// Whether the table shows the position of 1.1.0. It does so only if the topic has the prefix of
/// 1.1.0, and if no record of the topic with the current prefix was recorded.
pub(super) fn is_table_counted(
    store: &mut impl RecordStore,
    domain: &Domain,
    topic_prefix: &str,
) -> Result<bool, SessionError> {
    if topic_prefix != TOPIC_PREFIX_OF_1_1_0 {
        return Ok(false);
    }
    let Ok(topic) = domain.topic(TOPIC_PREFIX) else { return Ok(true) };
    let stored = store.read_position(&TopicPartition { topic, number: 0 })?;
    Ok(stored.is_none())
}

/// Logs a hint if the topic is missing but exists with the other prefix.
pub(super) fn log_other_prefix(
    log: &mut impl RecordLog,
    domain: &Domain,
    topic: &str,
    topic_prefix: &str,
) {
    let Some(prefix) = other_prefix(topic_prefix) else { return };
    let Ok(other) = domain.topic(prefix) else { return };
    let topics = log.topics(std::slice::from_ref(&other));
    if topics.is_ok_and(|topics| topics.iter().any(|topic| topic.error.is_none())) {
        log::warn!(
            "{domain}: topic {topic} does not exist, but {other} does: set --topic-prefix {prefix} (TOPIC_PREFIX) if it is meant"
        );
    }
}

/// Like [`resume`], for a table that shows the position of 1.1.0.
pub(super) fn resume_with_table(
    stored: Option<Position>,
    topic_id: Uuid,
    log: LogRange,
    epoch: Option<StoredEpoch>,
    table: TableCount,
) -> ResumePoint {
    match (stored, table.next_offset()) {
        // Kafka has lost the records at the offsets in the table.
        (Some(stored), _) if is_tail_lost(&stored, epoch.as_ref()) => {
            let mut point = resume(Some(stored), topic_id, log, epoch);
            point.position.counted_after_id = table.last_id;
            point
        }
        (Some(stored), Some(after)) if stored.topic_id == topic_id => {
            advance_to_table(stored, log, after)
        }
        (Some(stored), _) if stored.topic_id != topic_id => {
            let mut point = resume(Some(stored), topic_id, log, None);
            point.position.counted_after_id = table.last_id;
            point
        }
        (None, Some(after)) => take_over(topic_id, log, after, table.last_id),
        (stored, _) => resume(stored, topic_id, log, epoch),
    }
}

/// 1.1.0 may have written rows since the position was stored.
fn advance_to_table(stored: Position, log: LogRange, after: i64) -> ResumePoint {
    let mut position = stored;
    let mut note = None;
    let (highest, next) = (after - 1, stored.next_offset);
    if after > next && after <= log.end {
        position.next_offset = after;
        position.leader_epoch = None;
        note = Some(format!(
            "the table goes up to offset {highest}, beyond the stored {next}: continuing after the table"
        ));
    } else if after > next {
        note = Some(format!(
            "the table goes up to offset {highest}, above the log's end {}: continuing at the stored {next}",
            log.end
        ));
    }
    let point = resume_after_gap(position, log, None);
    ResumePoint { note: note.or(point.note), ..point }
}

/// No position is stored yet, but the table has rows.
fn take_over(topic_id: Uuid, log: LogRange, after: i64, last_id: i64) -> ResumePoint {
    let highest = after - 1;
    if after <= log.end {
        let position = Position::unread(topic_id, after, 0);
        let point = resume_after_gap(position, log, None);
        let note = point
            .note
            .unwrap_or_else(|| format!("taking over a table that goes up to offset {highest}"));
        return ResumePoint { note: Some(note), ..point };
    }
    // Rows above the end of the log belong to an earlier topic with this name. Starting after their
    // offsets would lose all records of the current topic.
    ResumePoint {
        position: Position::unread(topic_id, log.start, last_id),
        gaps: vec![Gap {
            topic_id,
            from_offset: after,
            to_offset: Some(log.start),
            reason: RECREATED.into(),
        }],
        note: Some(format!(
            "the table goes up to offset {highest}, above the log's end {}, so its rows are of an \
             earlier topic: starting at {}",
            log.end, log.start
        )),
    }
}

#[cfg(test)]
mod tests;
