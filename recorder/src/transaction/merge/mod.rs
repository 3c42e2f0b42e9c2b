//! Smart mode: decides into which row a record is merged, if any. Does no I/O.
//!
//! A row with a kind represents consecutive healthy results of this kind, from the first to the
//! last event time. The rules:
//!
//! - Only a record with a kind is merged: a healthy record without a mark.
//! - A record is merged only into a row of the same kind that is its neighbour in the order of
//!   events. So it is never merged across a recorded failure, mark or other phrase.
//! - A record is merged only into an adjoining row. A record with a slot adjoins a row if the last
//!   slot of the row is directly before the slot of the record, or the first slot directly after.
//!   The slots of a row therefore have no holes. In both cases the event times must be at most
//!   [`PERIODS_MAX`] periods apart, so that a row covers no time without probes.
//! - `event_time` and `topic_offset` of a row only increase, and never past the next row.
//! - Every other record is stored as a row of its own.
//!
//! A row includes a result for each of its slots. So no other record of the same target and run
//! belongs inside the row, in whatever order the records arrive. For records without slots this is
//! not known. A failure may arrive after later healthy results were merged. It then gets its place
//! in the order of events, which may be inside a row.

use crate::decode::row::RowKind;

/// The maximum number of periods between the event times of two consecutive results in one row.
const PERIODS_MAX: i128 = 3;
/// The period of results without a period: the default of 1.1.0.
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

/// The range of results that a row represents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowSpan {
    /// The place of the earliest result.
    pub first: RowPlace,
    /// The highest event time and the highest offset, which are the place of the row.
    pub last: RowPlace,
    /// The first and the last slot. The row includes a result for each slot between them. `None`:
    /// the results have no slots.
    pub slots: Option<(i64, i64)>,
}

impl RowSpan {
    /// The span of one record.
    pub(crate) fn of_record(place: RowPlace, slot: Option<i64>) -> Self {
        Self { first: place, last: place, slots: slot.map(|slot| (slot, slot)) }
    }

    /// Whether a record adjoins this span. `period_ms` is the period of the results.
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

    /// The span of these results and the record.
    fn with(self, place: RowPlace, slot: Option<i64>) -> Self {
        let slots = self.slots.zip(slot);
        Self {
            first: self.first.min(place),
            last: self.last.later_of_each(place),
            slots: slots.map(|((first, last), slot)| (first.min(slot), last.max(slot))),
        }
    }
}

/// A stored row of the table, or a row that the same batch inserts.
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
    /// The span of its results. `last` is the place of the row in the order of events.
    pub span: RowSpan,
    /// The kind of its results. `None`: no record may be merged into the row.
    pub kind: Option<RowKind>,
}

/// The decision about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeDecision {
    /// The record is stored as a row of its own.
    Insert,
    /// The record is merged into this row. The span is the span of the row after that.
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
    /// Creates a timeline from rows in any order. `is_complete`: no older row exists, or no older
    /// row can be the neighbour of a record of this batch.
    pub(crate) fn new(mut rows: Vec<TimelineRow>, is_complete: bool) -> Self {
        rows.sort_by_key(|row| row.span.last);
        let begins = rows.first().map(|row| row.span.last);
        Self { rows, is_complete, begins }
    }

    /// The newest row.
    pub(crate) fn newest(&self) -> Option<&TimelineRow> {
        self.rows.last()
    }

    /// Decides about a record, and adds it to the timeline for the following records. `new` refers
    /// to the record if it is inserted.
    pub(crate) fn add(
        &mut self,
        place: RowPlace,
        slot: Option<i64>,
        kind: Option<RowKind>,
        new: RowRef,
    ) -> MergeDecision {
        let after = self.rows.partition_point(|row| row.span.last < place);
        // The offsets of a recreated topic start at 0, but a row keeps the higher offset. If two
        // results are in the same second, the later result can therefore have a place before the
        // row that the earlier result was merged into. It never has a place before the old place of
        // this row.
        let is_known = self.is_complete || self.begins.is_some_and(|begins| begins < place);
        if after == 0 && !is_known {
            // The neighbours are unknown. A row of its own is always correct.
            return MergeDecision::Insert;
        }
        if let Some(kind) = &kind {
            // Tries the row after the record first, because its place need not change. Then tries
            // the row before the record, which the record extends.
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
