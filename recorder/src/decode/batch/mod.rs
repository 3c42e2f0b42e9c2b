//! FetchedRecords records cut into batches, each decoded and ready for one transaction.

use std::collections::HashSet;

use common::identity::Identity;
use kafka_client::{FetchedRecord, FetchedRecords};

use super::identities::Identities;
use super::labels::Labels;
use super::rejected::Rejected;
use super::row::DomainRow;

/// The most that one transaction writes.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// The most records.
    pub records: usize,
    /// The most targets.
    pub targets: usize,
}

impl BatchLimits {
    /// The limits of normal mode, in which targets cost nothing.
    pub const NORMAL: Self = Self { records: 2_000, targets: usize::MAX };
    /// The limits of smart mode. It merges most records into few rows and looks up
    /// each target by itself: 500 times 40 ms, to a database that is far away or
    /// busy, fit the time-out of a transaction. A batch that does not fit would
    /// fail at each retry.
    pub const SMART: Self = Self { records: 10_000, targets: 500 };
}

/// The most bytes of the values of one batch, unless a single value is larger.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A record that can't be a row.
#[derive(Debug, Clone, PartialEq)]
pub struct QuarantinedRecord {
    /// The offset of the record.
    pub offset: i64,
    /// The value of the record. `None` if it has none.
    pub bytes: Option<Vec<u8>>,
    /// The identity of the result, if the headers have one.
    pub identity: Option<Identity>,
    /// Why the record can't be a row.
    pub reason: Rejected,
}

/// What the records of a batch become. Both lists are in the order of offsets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DecodedRecords {
    /// The rows for the table of the domain.
    pub rows: Vec<DomainRow>,
    /// The rest.
    pub quarantined: Vec<QuarantinedRecord>,
}

impl DecodedRecords {
    /// Decodes records.
    pub fn decode(records: &[FetchedRecord], labels: &Labels) -> Self {
        let mut decoded = Self::default();
        for record in records {
            let identity = identity_of(record);
            match DomainRow::new(record.offset, record.value.as_deref(), identity, labels) {
                Ok(row) => decoded.rows.push(row),
                Err(reason) => decoded.quarantine(record, reason),
            }
        }
        decoded
    }

    /// Sends all records to quarantine because the database refused their rows
    /// with `message`.
    pub fn refused(records: &[FetchedRecord], message: &str) -> Self {
        let mut refused = Self::default();
        for record in records {
            refused.quarantine(record, Rejected::Database(message.to_owned()));
        }
        refused
    }

    fn quarantine(&mut self, record: &FetchedRecord, reason: Rejected) {
        self.quarantined.push(QuarantinedRecord {
            offset: record.offset,
            bytes: record.value.as_ref().map(|value| value.to_vec()),
            identity: identity_of(record),
            reason,
        });
    }

    /// Removes the records at these offsets.
    pub fn remove(&mut self, offsets: &HashSet<i64>) {
        if offsets.is_empty() {
            return;
        }
        self.rows.retain(|row| !offsets.contains(&row.topic_offset));
        self.quarantined.retain(|record| !offsets.contains(&record.offset));
    }
}

/// A malformed identity counts as absent here; [`Identities`] counts it.
fn identity_of(record: &FetchedRecord) -> Option<Identity> {
    Identity::from_headers(&record.headers).unwrap_or_default()
}

/// The records of one partition that one transaction writes. It keeps the
/// records, so that it can be halved if the database refuses the whole.
#[derive(Debug)]
pub struct WriteBatch {
    /// The records in the order of their offsets.
    pub records: Vec<FetchedRecord>,
    /// What the records become.
    pub decoded: DecodedRecords,
    /// The identities of the results.
    pub identities: Identities,
    /// The position after the batch.
    pub next_offset: i64,
    /// The leader epoch of what is directly before `next_offset`. `None` if unknown.
    pub leader_epoch: Option<i32>,
}

impl WriteBatch {
    /// Decodes records. `next_offset` is the position after them.
    pub fn new(records: Vec<FetchedRecord>, labels: &Labels, next_offset: i64) -> Self {
        let last = records.last().filter(|last| last.offset + 1 == next_offset);
        Self {
            decoded: DecodedRecords::decode(&records, labels),
            identities: Identities::new(&records),
            leader_epoch: last.and_then(|last| last.leader_epoch),
            records,
            next_offset,
        }
    }

    /// Takes the records out of the batch and returns its two halves. `None` if
    /// it has less than two records; it then stays as it is.
    pub fn halve(&mut self, labels: &Labels) -> Option<[Self; 2]> {
        if self.records.len() < 2 {
            return None;
        }
        let mut head = std::mem::take(&mut self.records);
        let tail = head.split_off(head.len() / 2);
        let middle = head.last().map_or(self.next_offset, |last| last.offset + 1);
        let mut tail = Self::new(tail, labels, self.next_offset);
        tail.leader_epoch = self.leader_epoch;
        Some([Self::new(head, labels, middle), tail])
    }

    /// Adds the batch to `batches`, halved until no part has more targets than
    /// `targets_max`.
    fn add_to(mut self, batches: &mut Vec<Self>, targets_max: usize, labels: &Labels) {
        if self.count_targets() <= targets_max {
            return batches.push(self);
        }
        match self.halve(labels) {
            Some(halves) => {
                for half in halves {
                    half.add_to(batches, targets_max, labels);
                }
            }
            None => batches.push(self),
        }
    }

    fn count_targets(&self) -> usize {
        let rows = self.decoded.rows.iter();
        rows.map(DomainRow::target).collect::<HashSet<_>>().len()
    }
}

/// The result of the fetch of one partition, ready to be written.
#[derive(Debug)]
pub struct FetchedBatches {
    /// The batches in the order of their offsets. A batch without records moves
    /// the position past offsets that hold no records for consumers.
    pub batches: Vec<WriteBatch>,
    /// The position after all batches.
    pub next_offset: i64,
    /// The offset up to which consumers may read.
    pub high_watermark: i64,
}

impl FetchedBatches {
    /// Cuts what was fetched from `offset` on into batches within `limits`.
    pub fn new(
        fetched: FetchedRecords,
        offset: i64,
        labels: &Labels,
        limits: &BatchLimits,
    ) -> Self {
        let FetchedRecords { mut records, next_offset, leader_epoch, high_watermark, .. } = fetched;
        let mut batches = Vec::new();
        let mut position = offset;
        while position < next_offset {
            let rest = records.split_off(batch_len(&records, limits.records));
            // The last batch also moves past offsets without records for consumers.
            position = match records.last() {
                Some(last) if !rest.is_empty() => last.offset + 1,
                _ => next_offset,
            };
            let mut batch = WriteBatch::new(records, labels, position);
            if position == next_offset {
                batch.leader_epoch = leader_epoch;
            }
            batch.add_to(&mut batches, limits.targets, labels);
            records = rest;
        }
        Self { batches, next_offset, high_watermark }
    }

    /// Whether the partition has more records after these.
    pub fn has_more(&self) -> bool {
        self.next_offset < self.high_watermark
    }
}

/// How many of these records the next batch takes: at least one, if there is one.
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
