//! Smart mode: decides into which row a record is merged, if any. Pure.
//!
//! A row with a kind stands for consecutive healthy results of that kind, from its
//! first to its last event time. The rules:
//!
//! - only a record with a kind is merged, that is, a healthy one without a mark;
//! - it is merged only into a row of the same kind that is its neighbour in the
//!   order of events, so never across a failure, a mark or another phrase that is
//!   recorded already;
//! - it is merged only into a row that it adjoins. A record with a slot adjoins a row
//!   whose last slot is the one before its own, or whose first slot is the one after.
//!   The slots of a row therefore have no holes. In both cases the event times must
//!   be at most [`PERIODS_MAX`] periods apart, so that a row covers no time in which
//!   nobody looked;
//! - `event_time` and `topic_offset` of a row only grow, and never beyond the next
//!   row;
//! - every other record is a row of its own.
//!
//! Every slot of a row has its result in the row. So no other record of that target
//! and run belongs inside the row, in whatever order the records arrive. For records
//! without slots this is not known: a failure that arrives after later healthy
//! results were merged is put in its place in the order of events, and that may be
//! inside a row.

use crate::decode::row::RowKind;

/// The most periods between the event times of two results that share a row without
/// a result between them.
const PERIODS_MAX: i128 = 3;
/// The period of results that have none: the default of 1.1.0.
const DEFAULT_PERIOD_MS: i64 = 300_000;

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

/// The results that a row stands for: from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowSpan {
    /// The place of the earliest result.
    pub first: RowPlace,
    /// The highest event time and the highest offset. The place of the row.
    pub last: RowPlace,
    /// The first and the last slot. The row has a result of each slot between them.
    /// `None` if the results have no slots.
    pub slots: Option<(i64, i64)>,
}

impl RowSpan {
    /// Of one record.
    pub(crate) fn of_record(place: RowPlace, slot: Option<i64>) -> Self {
        Self { first: place, last: place, slots: slot.map(|slot| (slot, slot)) }
    }

    /// Whether a record adjoins these results, with their period.
    fn adjoins(&self, place: RowPlace, slot: Option<i64>, period_ms: i64) -> bool {
        let is_near = |one: i64, other: i64| {
            let apart_ms = (i128::from(one) - i128::from(other)).abs() * 1_000;
            apart_ms <= PERIODS_MAX * i128::from(period_ms)
        };
        let (first, last, own) = (self.first.event_time, self.last.event_time, place.event_time);
        match (self.slots, slot) {
            (None, None) => {
                (first..=last).contains(&own) || is_near(first, own) || is_near(own, last)
            }
            (Some((first_slot, last_slot)), Some(slot)) => {
                let follows = last_slot.checked_add(1) == Some(slot) && is_near(own, last);
                let precedes = slot.checked_add(1) == Some(first_slot) && is_near(first, own);
                follows || precedes
            }
            _ => false,
        }
    }

    /// These results and the record.
    fn with(self, place: RowPlace, slot: Option<i64>) -> Self {
        let slots = self.slots.zip(slot);
        Self {
            first: self.first.min(place),
            last: self.last.later_of_each(place),
            slots: slots.map(|((first, last), slot)| (first.min(slot), last.max(slot))),
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
    /// Its results. `last` is its place in the order of events.
    pub span: RowSpan,
    /// The kind of its results. `None` if no record may be merged into it.
    pub kind: Option<RowKind>,
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeDecision {
    /// The record is a row of its own.
    Insert,
    /// The record is merged into this row, which then has this span.
    Merge(RowRef, RowSpan),
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
        rows.sort_by_key(|row| row.span.last);
        let begins = rows.first().map(|row| row.span.last);
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
        slot: Option<i64>,
        kind: Option<RowKind>,
        new: RowRef,
    ) -> MergeDecision {
        let after = self.rows.partition_point(|row| row.span.last < place);
        // The offsets of a recreated topic start at 0, and a row keeps the higher offset.
        // Of two results within a second, the later one then can have a place before the
        // row that the earlier one was merged into, but not before the row's old place.
        let is_known = self.is_complete || self.begins.is_some_and(|begins| begins < place);
        if after == 0 && !is_known {
            // The neighbours are unknown. A row of its own is always correct.
            return MergeDecision::Insert;
        }
        if let Some(kind) = &kind {
            // Into the row after it, whose place need not change, or into the one before
            // it, which it extends.
            for index in [Some(after), after.checked_sub(1)].into_iter().flatten() {
                if let Some(change) = self.merge_into(index, place, slot, kind) {
                    return change;
                }
            }
        }
        let span = RowSpan::of_record(place, slot);
        self.rows.insert(after, TimelineRow { row: new, span, kind });
        MergeDecision::Insert
    }

    fn merge_into(
        &mut self,
        index: usize,
        place: RowPlace,
        slot: Option<i64>,
        kind: &RowKind,
    ) -> Option<MergeDecision> {
        let next = self.rows.get(index + 1).map(|row| row.span.last);
        let row = self.rows.get_mut(index).filter(|row| row.kind.as_ref() == Some(kind))?;
        if !row.span.adjoins(place, slot, kind.period_ms.unwrap_or(DEFAULT_PERIOD_MS)) {
            return None;
        }
        let merged = row.span.with(place, slot);
        if next.is_some_and(|next| merged.last >= next) {
            return None;
        }
        row.span = merged;
        Some(MergeDecision::Merge(row.row, merged))
    }
}

#[cfg(test)]
mod tests;
