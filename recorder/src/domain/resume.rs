//! Where reading starts, and where it goes on after a hole. Pure.
//!
//! The offset in the database is the only truth. For 1.1.0's own topics the
//! domain's table counts as well, because 1.1.0 keeps its position in nothing
//! else: a table can be taken over from it, handed back and taken over again.

use std::borrow::Cow;

use kafka_client::{BatchFailure, Uuid};

use crate::decode::row::one_line;

/// The position in one partition, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The topic that `next_offset` is of; a topic made again under the same
    /// name has another id.
    pub topic_id: Uuid,
    /// The offset of the first record not recorded yet.
    pub next_offset: i64,
    /// Rows of the table up to this `id` are of an earlier topic.
    pub counted_after_id: i64,
}

/// The part of a partition that Kafka still has: from `start`, up to and
/// without `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// The first offset kept.
    pub start: i64,
    /// The offset of the next record to be written.
    pub end: i64,
}

/// What the table of 1.1.0 tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableCount {
    /// The highest offset of its rows that are of this topic.
    pub highest_offset: Option<i64>,
    /// Its highest `id`.
    pub last_id: i64,
}

/// Records that will not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The topic that they were in.
    pub topic_id: Uuid,
    /// The first that is missing, or where reading stopped.
    pub from_offset: i64,
    /// Where reading goes on; none when nobody knows how many there were.
    pub to_offset: Option<i64>,
    /// Why.
    pub reason: Cow<'static, str>,
}

/// Kafka removed records before they were read.
pub const RETENTION: &str = "retention passed: the log starts after the stored offset";
/// Kafka lost records that had been read, and perhaps others in their places.
pub const SHORTENED: &str = "log shortened: it ends before the stored offset";
/// The rest of the old topic is gone.
pub const MADE_AGAIN: &str = "topic made again";

/// Where to go on, what is missing, and what to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Where to go on.
    pub position: Position,
    /// What is to be stored with it.
    pub gaps: Vec<Gap>,
    /// What is to be logged, when it is not as anyone would expect.
    pub note: Option<String>,
}

impl Start {
    /// Whether a broker that is behind the others, after it stood still or was
    /// cut off, would lead to the same: then they are to be asked too, as to
    /// believe it would be to read records again.
    pub fn is_doubtful(&self) -> bool {
        self.gaps.iter().any(|gap| gap.reason != RETENTION)
    }
}

/// Where to start: at what is `stored` for this topic id, else at the log's
/// start. `table` is given for 1.1.0's own topics with one partition alone.
pub fn start(
    stored: Option<Position>,
    topic_id: Uuid,
    log: LogRange,
    table: Option<TableCount>,
) -> Start {
    match stored {
        Some(stored) if stored.topic_id == topic_id => go_on(stored, log, table),
        Some(stored) => made_again(stored, topic_id, log, table),
        None => first(topic_id, log, table),
    }
}

fn go_on(stored: Position, log: LogRange, table: Option<TableCount>) -> Start {
    let mut position = stored;
    let mut note = None;
    if let Some(after) = after_table(table).filter(|after| *after > stored.next_offset) {
        if after <= log.end {
            position.next_offset = after;
            note = Some(format!(
                "the table goes up to offset {}, beyond the stored {}: going on after the table",
                after - 1,
                stored.next_offset
            ));
        } else {
            note = Some(format!(
                "the table goes up to offset {}, above the log's end {}: going on at the stored {}",
                after - 1,
                log.end,
                stored.next_offset
            ));
        }
    }
    let moved = after_hole(position, log);
    Start { note: note.or(moved.note), ..moved }
}

/// A position that may have left the log: where to go on, and what was lost.
pub fn after_hole(position: Position, log: LogRange) -> Start {
    let next = position.next_offset;
    let (reason, to) = if next < log.start {
        (RETENTION, log.start)
    } else if next > log.end {
        (SHORTENED, log.end)
    } else {
        return Start { position, gaps: Vec::new(), note: None };
    };
    pass(position, to, reason.into())
}

/// Behind a batch that can't be read, whose records are lost to us.
pub fn after_batch(position: Position, next_offset: i64, failure: &BatchFailure) -> Start {
    pass(position, next_offset, one_line(&format!("unreadable batch: {failure}")).into())
}

/// Goes on at another offset of the same log, with a gap up to there.
fn pass(position: Position, to: i64, reason: Cow<'static, str>) -> Start {
    let Position { topic_id, next_offset: from, .. } = position;
    let note = Some(format!("{reason}: going on at {to} instead of {from}"));
    let gap = Gap { topic_id, from_offset: from, to_offset: Some(to), reason };
    Start { position: Position { next_offset: to, ..position }, gaps: vec![gap], note }
}

fn made_again(stored: Position, topic_id: Uuid, log: LogRange, table: Option<TableCount>) -> Start {
    let counted_after_id = table.map_or(0, |table| table.last_id);
    let mut gaps = vec![Gap {
        topic_id: stored.topic_id,
        from_offset: stored.next_offset,
        to_offset: None,
        reason: MADE_AGAIN.into(),
    }];
    if log.start > 0 {
        let (from_offset, to_offset) = (0, Some(log.start));
        gaps.push(Gap { topic_id, from_offset, to_offset, reason: RETENTION.into() });
    }
    Start {
        position: Position { topic_id, next_offset: log.start, counted_after_id },
        gaps,
        note: Some(format!(
            "{MADE_AGAIN}: {} records of the old one were read, going on at {} of the new one",
            stored.next_offset, log.start
        )),
    }
}

fn first(topic_id: Uuid, log: LogRange, table: Option<TableCount>) -> Start {
    let at_log_start = Position { topic_id, next_offset: log.start, counted_after_id: 0 };
    let Some(after) = after_table(table) else {
        return Start { position: at_log_start, gaps: Vec::new(), note: None };
    };
    if after <= log.end {
        let taken_over = after_hole(Position { next_offset: after, ..at_log_start }, log);
        let note = taken_over
            .note
            .unwrap_or_else(|| format!("taking over a table that goes up to offset {}", after - 1));
        return Start { note: Some(note), ..taken_over };
    }
    // Rows beyond the log's end are of an earlier topic of this name: to start
    // after them would lose all that is in this one.
    Start {
        position: Position {
            counted_after_id: table.map_or(0, |table| table.last_id),
            ..at_log_start
        },
        gaps: vec![Gap {
            topic_id,
            from_offset: after,
            to_offset: Some(log.start),
            reason: MADE_AGAIN.into(),
        }],
        note: Some(format!(
            "the table goes up to offset {}, above the log's end {}, so its rows are of an earlier \
             topic: starting at {}",
            after - 1,
            log.end,
            log.start
        )),
    }
}

fn after_table(table: Option<TableCount>) -> Option<i64> {
    table.and_then(|table| table.highest_offset).map(|highest| highest.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Uuid = Uuid::from_u128(1);
    const NOW: Uuid = Uuid::from_u128(2);

    fn at(topic_id: Uuid, next_offset: i64, counted_after_id: i64) -> Position {
        Position { topic_id, next_offset, counted_after_id }
    }

    fn table(highest_offset: i64) -> Option<TableCount> {
        Some(TableCount { highest_offset: Some(highest_offset), last_id: 70 })
    }

    fn gap(topic_id: Uuid, from: i64, to: Option<i64>, reason: &'static str) -> Gap {
        Gap { topic_id, from_offset: from, to_offset: to, reason: reason.into() }
    }

    /// Stored, log, table; then position, gaps and whether something is said.
    type Case = (Option<Position>, (i64, i64), Option<TableCount>, Position, Vec<Gap>, bool);

    #[test]
    fn every_start() {
        let empty = Some(TableCount { highest_offset: None, last_id: 0 });
        let cases: Vec<Case> = vec![
            // Nothing known: all that there is.
            (None, (5, 9), None, at(NOW, 5, 0), vec![], false),
            (None, (5, 9), empty, at(NOW, 5, 0), vec![], false),
            // The stored offset, at either end of the log too.
            (Some(at(NOW, 7, 3)), (5, 9), None, at(NOW, 7, 3), vec![], false),
            (Some(at(NOW, 5, 3)), (5, 9), None, at(NOW, 5, 3), vec![], false),
            (Some(at(NOW, 9, 3)), (5, 9), None, at(NOW, 9, 3), vec![], false),
            // The table of 1.1.0: taken over, as we left it, handed back.
            (None, (5, 9), table(6), at(NOW, 7, 0), vec![], true),
            (Some(at(NOW, 7, 3)), (5, 9), table(6), at(NOW, 7, 3), vec![], false),
            (Some(at(NOW, 7, 3)), (5, 9), table(4), at(NOW, 7, 3), vec![], false),
            (Some(at(NOW, 7, 3)), (5, 9), table(8), at(NOW, 9, 3), vec![], true),
            // The table is above the log.
            (
                None,
                (0, 9),
                table(40),
                at(NOW, 0, 70),
                vec![gap(NOW, 41, Some(0), MADE_AGAIN)],
                true,
            ),
            (Some(at(NOW, 7, 3)), (5, 9), table(40), at(NOW, 7, 3), vec![], true),
            // Retention passed.
            (
                Some(at(NOW, 2, 3)),
                (5, 9),
                None,
                at(NOW, 5, 3),
                vec![gap(NOW, 2, Some(5), RETENTION)],
                true,
            ),
            (None, (5, 9), table(2), at(NOW, 5, 0), vec![gap(NOW, 3, Some(5), RETENTION)], true),
            // The log was shortened.
            (
                Some(at(NOW, 12, 3)),
                (5, 9),
                None,
                at(NOW, 9, 3),
                vec![gap(NOW, 12, Some(9), SHORTENED)],
                true,
            ),
            // Another topic, whatever the table says of the old one.
            (
                Some(at(OLD, 7, 3)),
                (0, 9),
                None,
                at(NOW, 0, 0),
                vec![gap(OLD, 7, None, MADE_AGAIN)],
                true,
            ),
            (
                Some(at(OLD, 7, 3)),
                (4, 9),
                table(6),
                at(NOW, 4, 70),
                vec![gap(OLD, 7, None, MADE_AGAIN), gap(NOW, 0, Some(4), RETENTION)],
                true,
            ),
        ];
        for (stored, (log_start, log_end), table, position, gaps, said) in cases {
            let log = LogRange { start: log_start, end: log_end };
            let found = start(stored, NOW, log, table);
            assert_eq!(
                (found.position, &found.gaps),
                (position, &gaps),
                "{stored:?} {log:?} {table:?}"
            );
            assert_eq!(
                found.note.is_some(),
                said,
                "{stored:?} {log:?} {table:?}: {:?}",
                found.note
            );
        }
    }
}
