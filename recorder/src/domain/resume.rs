//! Decides where reading starts, and where it continues after a gap. Does no I/O.
//!
//! The position in the database is authoritative. [`super::legacy`] adds the rules for a table of
//! version 1.1.0.

use std::borrow::Cow;

use kafka_client::{BatchFailure, EpochEnd, Uuid};

use crate::decode::rejected::reason_text;
use crate::transaction::position::{Gap, Position};

/// The reason of a gap: Kafka removed records before they were read.
pub(super) const RETENTION: &str = "retention passed: the log starts after the stored offset";
/// The reason of a gap: Kafka lost records that were already read, and may have other records at
/// their offsets.
pub(super) const SHORTENED: &str = "log shortened: it ends before the stored offset";
/// The start of the reason of a gap: Kafka lost records that were already read, and has or will
/// have other records at their offsets.
pub(super) const TAIL_LOST: &str = "log lost its tail";
/// The reason of a gap: the topic was deleted and recreated.
pub(super) const RECREATED: &str = "topic made again";

/// The offsets that Kafka still has of a partition: from `start` inclusive to `end` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogRange {
    /// The first offset.
    pub(crate) start: i64,
    /// The offset of the next produced record.
    pub(crate) end: i64,
}

/// The end, in the log of the leader, of the leader epoch that was stored with the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredEpoch {
    /// The answer of the leader.
    pub(crate) end: EpochEnd,
    /// The epoch of the leader that answered.
    pub(crate) current: i32,
}

/// Whether Kafka lost records before the position. This is so if the leader epoch of the last read
/// record ends before the position.
pub(crate) fn is_tail_lost(position: &Position, epoch: Option<&StoredEpoch>) -> bool {
    epoch.is_some_and(|epoch| epoch.end.end_offset < position.next_offset)
}

/// The position where reading continues, and the gaps before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResumePoint {
    /// The position where reading continues.
    pub(crate) position: Position,
    /// The gaps to store with the position.
    pub(crate) gaps: Vec<Gap>,
    /// A log line, if the position is not the expected one.
    pub(crate) note: Option<String>,
}

impl ResumePoint {
    /// A resume point without gaps.
    pub(super) fn at(position: Position) -> Self {
        Self { position, gaps: Vec::new(), note: None }
    }

    /// Whether a stale broker could be the cause: a broker that was paused or cut off, and whose
    /// log ends before the logs of the other brokers. A majority of the brokers must then confirm
    /// the leader. Otherwise the recorder could read records twice.
    pub(super) fn needs_confirmation(&self) -> bool {
        self.gaps.iter().any(|gap| gap.reason != RETENTION)
    }
}

/// Decides where reading starts: at the stored position if it belongs to this topic id, otherwise
/// at the start of the log. `epoch` is known only for a stored position of this topic id.
pub(super) fn resume(
    stored: Option<Position>,
    topic_id: Uuid,
    log: LogRange,
    epoch: Option<StoredEpoch>,
) -> ResumePoint {
    match stored {
        Some(stored) if stored.topic_id == topic_id => resume_after_gap(stored, log, epoch),
        Some(stored) => resume_in_recreated_topic(stored, topic_id, log),
        None => ResumePoint::at(Position::unread(topic_id, log.start, 0)),
    }
}

/// Decides where reading continues if the position may be outside of the log, or if Kafka may have
/// lost records before the position.
pub(super) fn resume_after_gap(
    position: Position,
    log: LogRange,
    epoch: Option<StoredEpoch>,
) -> ResumePoint {
    let next = position.next_offset;
    if next < log.start {
        skip_to(position, log.start, RETENTION.into())
    } else if let Some(epoch) = epoch.filter(|epoch| is_tail_lost(&position, Some(epoch))) {
        let StoredEpoch { end, current } = epoch;
        let stored = position.leader_epoch.unwrap_or(end.leader_epoch);
        let reason = format!(
            "{TAIL_LOST}: leader epoch {stored} ends at offset {} there, the leader epoch is {current}",
            end.end_offset
        );
        skip_to(position, end.end_offset.max(log.start), reason.into())
    } else if next > log.end {
        skip_to(position, log.end, SHORTENED.into())
    } else {
        ResumePoint::at(position)
    }
}

/// Decides where reading continues after an unreadable batch. The records of the batch are lost.
pub(super) fn resume_after_batch(
    position: Position,
    next_offset: i64,
    failure: &BatchFailure,
) -> ResumePoint {
    skip_to(position, next_offset, reason_text(&format!("unreadable batch: {failure}")).into())
}

/// Continues at another offset of the same log. The offsets between become a gap.
fn skip_to(position: Position, to: i64, reason: Cow<'static, str>) -> ResumePoint {
    let Position { topic_id, next_offset: from, .. } = position;
    // The record before the new position was not read, so its leader epoch is unknown.
    let position = Position { next_offset: to, leader_epoch: None, ..position };
    let note = Some(format!("{reason}: continuing at offset {to} instead of {from}"));
    let gap = Gap { topic_id, from_offset: from, to_offset: Some(to), reason };
    ResumePoint { position, gaps: vec![gap], note }
}

fn resume_in_recreated_topic(stored: Position, topic_id: Uuid, log: LogRange) -> ResumePoint {
    let mut gaps = vec![Gap {
        topic_id: stored.topic_id,
        from_offset: stored.next_offset,
        to_offset: None,
        reason: RECREATED.into(),
    }];
    if log.start > 0 {
        let (from_offset, to_offset) = (0, Some(log.start));
        gaps.push(Gap { topic_id, from_offset, to_offset, reason: RETENTION.into() });
    }
    ResumePoint {
        position: Position {
            stores_epoch: stored.stores_epoch,
            ..Position::unread(topic_id, log.start, 0)
        },
        gaps,
        note: Some(format!(
            "the topic was deleted and recreated: the old one was read up to offset {}, starting at offset {} of the new one",
            stored.next_offset, log.start
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Uuid = Uuid::from_u128(1);
    const NOW: Uuid = Uuid::from_u128(2);
    const LOG: LogRange = LogRange { start: 5, end: 9 };

    fn at(topic_id: Uuid, next_offset: i64, counted_after_id: i64) -> Position {
        Position::unread(topic_id, next_offset, counted_after_id)
    }

    fn gap(topic_id: Uuid, from: i64, to: Option<i64>, reason: &'static str) -> Gap {
        Gap { topic_id, from_offset: from, to_offset: to, reason: reason.into() }
    }

    #[test]
    fn reading_starts_at_the_stored_position_or_after_a_gap() {
        let retention = gap(NOW, 2, Some(5), RETENTION);
        let shortened = gap(NOW, 12, Some(9), SHORTENED);
        let recreated = vec![gap(OLD, 7, None, RECREATED), gap(NOW, 0, Some(5), RETENTION)];
        for (stored, position, gaps, is_confirmed) in [
            (None, at(NOW, 5, 0), vec![], false),
            // Within the log, including both ends.
            (Some(at(NOW, 7, 3)), at(NOW, 7, 3), vec![], false),
            (Some(at(NOW, 5, 3)), at(NOW, 5, 3), vec![], false),
            (Some(at(NOW, 9, 3)), at(NOW, 9, 3), vec![], false),
            // Before the log, after it, and in another topic.
            (Some(at(NOW, 2, 3)), at(NOW, 5, 3), vec![retention], false),
            (Some(at(NOW, 12, 3)), at(NOW, 9, 3), vec![shortened], true),
            (Some(at(OLD, 7, 3)), at(NOW, 5, 0), recreated, true),
        ] {
            let point = resume(stored, NOW, LOG, None);
            assert_eq!((point.position, &point.gaps), (position, &gaps), "{stored:?}");
            assert_eq!(point.note.is_some(), !gaps.is_empty(), "{stored:?}");
            assert_eq!(point.needs_confirmation(), is_confirmed, "{stored:?}");
        }
        let whole = resume(Some(at(OLD, 7, 3)), NOW, LogRange { start: 0, end: 9 }, None);
        assert_eq!(whole.gaps, [gap(OLD, 7, None, RECREATED)]);
    }

    #[test]
    fn a_log_that_lost_its_tail_is_read_from_the_end_of_the_stored_epoch() {
        let stored = Position { leader_epoch: Some(3), ..at(NOW, 8, 0) };
        let epoch = |end_offset| {
            Some(StoredEpoch { end: EpochEnd { leader_epoch: 3, end_offset }, current: 5 })
        };
        // The epoch ends at the position or after it.
        for end_offset in [8, 9] {
            let point = resume(Some(stored), NOW, LOG, epoch(end_offset));
            assert_eq!(point, ResumePoint::at(stored));
        }
        // The epoch ends before the position, within the log and before the log.
        for (end_offset, to) in [(6, 6), (5, 5), (2, 5)] {
            let point = resume(Some(stored), NOW, LOG, epoch(end_offset));
            assert_eq!(point.position, at(NOW, to, 0));
            let [gap] = &point.gaps[..] else { panic!("{point:?}") };
            assert_eq!((gap.from_offset, gap.to_offset), (8, Some(to)));
            let reason = format!(
                "log lost its tail: leader epoch 3 ends at offset {end_offset} there, the leader epoch is 5"
            );
            assert_eq!(gap.reason, reason);
            assert!(point.needs_confirmation() && point.note.is_some());
        }
        // The log ends before the position, too.
        let after = Position { leader_epoch: Some(3), ..at(NOW, 12, 0) };
        assert_eq!(resume(Some(after), NOW, LOG, epoch(7)).position, at(NOW, 7, 0));
    }
}
