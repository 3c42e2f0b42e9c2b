//! What was fetched, cut into what is written in one transaction each, and
//! ready for it: decoded, judged as far as that needs no database.

use std::collections::HashSet;

use common::identity::Identity;
use kafka_client::{Fetched, FetchedRecord};

use crate::decode::row::{Labels, Rejected, Row};
use crate::transaction::dedup::Identities;

/// The most that one transaction writes.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// How many records.
    pub records: usize,
    /// Of how many targets.
    pub targets: usize,
}

impl Most {
    /// In normal mode, to which targets are nothing.
    pub const NORMAL: Self = Self { records: 2_000, targets: usize::MAX };
    /// In smart mode, where most records are merged into few rows, and each target
    /// is looked up by itself: 500 times 40 ms, to a database far away or busy, are
    /// within the time of a transaction. One that is over it is so each time.
    pub const SMART: Self = Self { records: 10_000, targets: 500 };
}

/// The most bytes of their values, unless a single one has more.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that can't be a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantined {
    /// Their offset.
    pub offset: i64,
    /// The record's value; none when it had none.
    pub bytes: Option<Vec<u8>>,
    /// Which result it is, if its headers say so.
    pub identity: Option<Identity>,
    /// Why.
    pub reason: Rejected,
}

/// What of a partition is written together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// In the order of their offsets.
    pub rows: Vec<Row>,
    /// In the order of their offsets.
    pub quarantined: Vec<Quarantined>,
}

impl Batch {
    /// From the records of a fetch; all go to quarantine when the database
    /// `refused` them, with its words, as those do that are no rows.
    pub fn new(records: &[FetchedRecord], labels: &Labels, refused: Option<&str>) -> Self {
        let mut batch = Self::default();
        for record in records {
            // A broken one is counted elsewhere, and stands for none.
            let identity = Identity::from_headers(&record.headers).unwrap_or_default();
            let row = match refused {
                Some(words) => Err(Rejected::Database(words.to_owned())),
                None => Row::new(record.offset, record.value.as_deref(), identity, labels),
            };
            match row {
                Ok(row) => batch.rows.push(row),
                Err(reason) => batch.quarantined.push(Quarantined {
                    offset: record.offset,
                    bytes: record.value.as_ref().map(|value| value.to_vec()),
                    identity,
                    reason,
                }),
            }
        }
        batch
    }

    /// Leaves out the records at these offsets.
    pub fn leave_out(&mut self, offsets: &HashSet<i64>) {
        if offsets.is_empty() {
            return;
        }
        self.rows.retain(|row| !offsets.contains(&row.topic_offset));
        self.quarantined.retain(|record| !offsets.contains(&record.offset));
    }
}

/// A batch with all that is needed to write it, and to write parts of it when the
/// database refuses the whole.
#[derive(Debug)]
pub struct Part {
    /// What it is made of.
    pub records: Vec<FetchedRecord>,
    /// What becomes of that.
    pub batch: Batch,
    /// Whose results they are.
    pub identities: Identities,
    /// The offset after it.
    pub next_offset: i64,
}

impl Part {
    /// These records and the offset after them.
    pub fn new(records: Vec<FetchedRecord>, labels: &Labels, next_offset: i64) -> Self {
        Self {
            batch: Batch::new(&records, labels, None),
            identities: Identities::new(&records),
            records,
            next_offset,
        }
    }

    /// Adds it to others, in halves of halves where it has more targets than these.
    fn cut(mut self, targets_max: usize, labels: &Labels, parts: &mut Vec<Self>) {
        if self.records.len() < 2 || self.targets() <= targets_max {
            return parts.push(self);
        }
        let tail = self.records.split_off(self.records.len() / 2);
        let middle = tail.first().map_or(self.next_offset, |first| first.offset);
        Self::new(self.records, labels, middle).cut(targets_max, labels, parts);
        Self::new(tail, labels, self.next_offset).cut(targets_max, labels, parts);
    }

    fn targets(&self) -> usize {
        let rows = self.batch.rows.iter();
        rows.map(Row::target).collect::<HashSet<_>>().len()
    }
}

/// What a fetch found, ready to be written.
#[derive(Debug)]
pub struct Parts {
    /// In the order of their offsets; one without records passes what is in the
    /// log for others to read.
    pub parts: Vec<Part>,
    /// The offset after all of them.
    pub next_offset: i64,
    /// The offset up to which records may be read.
    pub high_watermark: i64,
}

impl Parts {
    /// Of what was fetched from `offset` on, `most` in each.
    pub fn new(fetched: Fetched, offset: i64, labels: &Labels, most: &Most) -> Self {
        let Fetched { mut records, next_offset, high_watermark, .. } = fetched;
        let mut parts = Vec::new();
        let mut position = offset;
        while position != next_offset {
            let rest = records.split_off(batch_len(&records, most.records));
            // The last one also passes what is not for us.
            position = match records.last() {
                Some(last) if !rest.is_empty() => last.offset + 1,
                _ => next_offset,
            };
            Part::new(records, labels, position).cut(most.targets, labels, &mut parts);
            records = rest;
        }
        Self { parts, next_offset, high_watermark }
    }

    /// Whether more can be read at once.
    pub fn is_more_there(&self) -> bool {
        self.next_offset < self.high_watermark
    }
}

/// How many of these records one transaction takes: at least one.
fn batch_len(records: &[FetchedRecord], records_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |record: &&FetchedRecord| {
        bytes += record.value.as_ref().map_or(0, |value| value.len());
        bytes <= BATCH_BYTES_MAX
    };
    let count = records.iter().take(records_max).take_while(fits).count();
    count.max(1).min(records.len())
}

#[cfg(test)]
mod tests;
