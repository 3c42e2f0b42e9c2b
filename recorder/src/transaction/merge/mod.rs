//! Smart mode: decides into which row a record is merged, if any. Pure.
//!
//! A row with a kind stands for consecutive healthy results of that kind, up to
//! its `event_time`. The rows of one target in the order of events are therefore
//! its history, with one row for each such sequence. The rules:
//!
//! - only a record with a kind is merged, that is, a healthy one without a mark;
//! - it is merged only into a row of the same kind that is its neighbour in the
//!   order of events, so never across a failure, a mark or another phrase;
//! - `event_time` and `topic_offset` of a row only grow, and never beyond the next
//!   row;
//! - every other record is a row of its own.
//!
//! A failure that arrives after later healthy results were merged is put in its
//! place in the order of events. Only an earlier row, if there is one, then shows
//! that the target was healthy before, because the beginning of a sequence is not
//! stored. The same holds for every other record that arrives late between results
//! of one kind.

use crate::decode::row::RowKind;

/// A place in the order of events: by time, then by offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowPlace {
    /// Seconds since 1970.
    pub event_time: i64,
    /// The offset of the newest record that was merged into the row.
    pub topic_offset: i64,
}

impl RowPlace {
    fn later_of_each(self, other: Self) -> Self {
        Self {
            event_time: self.event_time.max(other.event_time),
            topic_offset: self.topic_offset.max(other.topic_offset),
        }
    }
}

/// A row of the table, or one that the same batch inserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowRef {
    /// The `id` of the row.
    Stored(i64),
    /// The index among the new rows of the batch.
    New(usize),
}

/// A row of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimelineRow {
    /// The row.
    pub row: RowRef,
    /// Its place in the order of events.
    pub place: RowPlace,
    /// The kind of its results. `None` if no record may be merged into it.
    pub kind: Option<RowKind>,
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeDecision {
    /// The record is a row of its own.
    Insert,
    /// The record is merged into this row, which moves to this place.
    Merge(RowRef, RowPlace),
}

/// The newest rows of one target in the order of events, without gaps. Older rows
/// may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    rows: Vec<TimelineRow>,
    is_complete: bool,
    /// The place of the oldest row before a record was merged into it.
    begins: Option<RowPlace>,
}

impl Timeline {
    /// From rows in any order. `is_complete` says that there are no older rows, or
    /// none that could be the neighbour of a record of this batch.
    pub(crate) fn new(mut rows: Vec<TimelineRow>, is_complete: bool) -> Self {
        rows.sort_by_key(|row| row.place);
        let begins = rows.first().map(|row| row.place);
        Self { rows, is_complete, begins }
    }

    /// The newest row.
    pub(crate) fn newest(&self) -> Option<&TimelineRow> {
        self.rows.last()
    }

    /// Decides about a record. The decision counts for the records that follow.
    /// `new` refers to the record if it is inserted.
    pub(crate) fn add(
        &mut self,
        place: RowPlace,
        kind: Option<RowKind>,
        new: RowRef,
    ) -> MergeDecision {
        let after = self.rows.partition_point(|row| row.place < place);
        if after == 0 && !self.is_complete {
            // The offsets of a recreated topic start at 0, and a row keeps the higher offset.
            // Of two results within a second, the later one then has a place before the row
            // that the earlier one was merged into, and belongs to the same sequence.
            if let Some(kind) = kind.filter(|_| self.begins.is_some_and(|begins| begins < place)) {
                return self.merge_into(0, place, &kind).unwrap_or(MergeDecision::Insert);
            }
            // The neighbours are unknown. A row of its own is always correct.
            return MergeDecision::Insert;
        }
        if let Some(kind) = &kind {
            // Into the sequence after it, whose row need not move, or into the one
            // before it, which it extends.
            for index in [Some(after), after.checked_sub(1)].into_iter().flatten() {
                if let Some(change) = self.merge_into(index, place, kind) {
                    return change;
                }
            }
        }
        self.rows.insert(after, TimelineRow { row: new, place, kind });
        MergeDecision::Insert
    }

    fn merge_into(
        &mut self,
        index: usize,
        place: RowPlace,
        kind: &RowKind,
    ) -> Option<MergeDecision> {
        let next = self.rows.get(index + 1).map(|row| row.place);
        let row = self.rows.get_mut(index).filter(|row| row.kind.as_ref() == Some(kind))?;
        let merged = row.place.later_of_each(place);
        if next.is_some_and(|next| merged >= next) {
            return None;
        }
        row.place = merged;
        Some(MergeDecision::Merge(row.row, merged))
    }
}

#[cfg(test)]
mod tests;
