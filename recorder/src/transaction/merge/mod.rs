//! Smart mode: which row a record is merged into, if any. Pure.
//!
//! A row of a kind stands for a run of healthy results of that kind up to its
//! `event_time`, so the rows of one target, in order of events, are its history
//! with each such run in one row. Rules:
//!
//! - only a record that has a kind is merged: a healthy one without a mark; and
//!   only into a row of the same kind that is its neighbour in the order of
//!   events, so never across a failure, a mark or another phrase;
//! - `event_time` and `topic_offset` of a row only grow, and never past the
//!   row that follows;
//! - everything else is a row of its own.
//!
//! A failure that arrives after later healthy results were merged is put where
//! it belongs; that the target was healthy before it is then only seen in an
//! earlier row, if there is one, as the run's beginning is stored nowhere. The
//! same holds for whatever else comes late between results of one kind.

use std::sync::Arc;

use kafka_client::Uuid;

/// What is the same in all results that one row stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// As the database spells it.
    pub phrase: Arc<str>,
    /// The tracker's run, without which its slots mean nothing.
    pub run: Option<Uuid>,
    /// The target's period, by which its slots are counted.
    pub period_ms: Option<i64>,
}

/// A place in the order of events: by time, and within a second by offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Seconds since 1970.
    pub event_time: i64,
    /// The offset of the newest record in the row.
    pub topic_offset: i64,
}

impl Place {
    fn later_of_each(self, other: Self) -> Self {
        Self {
            event_time: self.event_time.max(other.event_time),
            topic_offset: self.topic_offset.max(other.topic_offset),
        }
    }
}

/// Which row: one of the table, or one that the same batch adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowRef {
    /// By its `id`.
    Stored(i64),
    /// By its index among the batch's new rows.
    New(usize),
}

/// What is known of a row of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which row.
    pub row: RowRef,
    /// Where it stands.
    pub place: Place,
    /// Of which kind the results are that it stands for; none when nothing may
    /// be merged into it.
    pub kind: Option<Kind>,
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is a row of its own.
    Insert,
    /// It goes into this row, which then stands at this place.
    Merge(RowRef, Place),
}

/// The newest rows of one target in order of events, without a hole between
/// them; older ones may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    rows: Vec<Known>,
    reaches_back: bool,
    /// Where the oldest row stood before anything was merged into it.
    begins: Option<Place>,
}

impl Timeline {
    /// From rows in any order; `reaches_back` when there are no older ones, or
    /// none that a record to come could stand next to.
    pub fn new(mut rows: Vec<Known>, reaches_back: bool) -> Self {
        rows.sort_by_key(|known| known.place);
        let begins = rows.first().map(|known| known.place);
        Self { rows, reaches_back, begins }
    }

    /// The newest row.
    pub fn newest(&self) -> Option<&Known> {
        self.rows.last()
    }

    /// Decides on a record, and takes what it decides into account for those
    /// that follow; `new` is what the record is called if it is inserted.
    pub fn add(&mut self, place: Place, kind: Option<Kind>, new: RowRef) -> Change {
        let after = self.rows.partition_point(|known| known.place < place);
        if after == 0 && !self.reaches_back {
            // Where a topic was made again its offsets begin anew, and the row keeps the higher
            // one: of two results of a second the later one then stands before the row that the
            // earlier one was merged into, and is part of the same run.
            if let Some(kind) = kind.filter(|_| self.begins.is_some_and(|begins| begins < place)) {
                return self.merge_into(0, place, &kind).unwrap_or(Change::Insert);
            }
            // Its neighbours are not known. A row of its own is always right.
            return Change::Insert;
        }
        if let Some(kind) = &kind {
            // Into the run that went on after it, which then need not move,
            // or into the one that it makes longer.
            for index in [Some(after), after.checked_sub(1)].into_iter().flatten() {
                if let Some(change) = self.merge_into(index, place, kind) {
                    return change;
                }
            }
        }
        self.rows.insert(after, Known { row: new, place, kind });
        Change::Insert
    }

    fn merge_into(&mut self, index: usize, place: Place, kind: &Kind) -> Option<Change> {
        let next = self.rows.get(index + 1).map(|known| known.place);
        let known = self.rows.get_mut(index).filter(|known| known.kind.as_ref() == Some(kind))?;
        let merged = known.place.later_of_each(place);
        if next.is_some_and(|next| merged >= next) {
            return None;
        }
        known.place = merged;
        Some(Change::Merge(known.row, merged))
    }
}

#[cfg(test)]
mod tests;
