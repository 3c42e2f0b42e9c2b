//! Cuts the fetched records of one partition into batches, and decodes each batch for one
//! transaction.

use std::collections::HashSet;

use common::identity::{ENDED_HEADER, Identity};
use common::panics;
use kafka_client::{FetchedRecord, FetchedRecords};

use super::identities::Identities;
use super::labels::Labels;
use super::rejected::Rejected;
use super::row::DomainRow;

/// The maximum size in bytes of the values of a batch. A larger value is a batch of its own.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A record that can't be stored as a row.
#[derive(Debug, Clone, PartialEq)]
pub struct QuarantinedRecord {
    /// The offset of the record.
    pub offset: i64,
    /// The value of the record. `None`: the record has no value.
    pub bytes: Option<Vec<u8>>,
    /// The identity of the result. `None`: the headers have no valid identity.
    pub identity: Option<Identity>,
    /// The reason why the record can't be stored as a row.
    pub reason: Rejected,
}

/// The decoded records of a batch. Both lists are sorted by offset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DecodedRecords {
    /// The rows for the table of the domain.
    pub rows: Vec<DomainRow>,
    /// The records for the quarantine.
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

    /// Sends all records to quarantine, because the database refused their rows with `message`.
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

    /// Splits off the records from `offset` on.
    fn split_off(&mut self, offset: i64) -> Self {
        let rows = self.rows.partition_point(|row| row.topic_offset < offset);
        let quarantined = self.quarantined.partition_point(|record| record.offset < offset);
        Self {
            rows: self.rows.split_off(rows),
            quarantined: self.quarantined.split_off(quarantined),
        }
    }
}

/// A malformed identity counts as absent here; [`Identities`] counts it.
fn identity_of(record: &FetchedRecord) -> Option<Identity> {
    Identity::from_headers(&record.headers).unwrap_or_default()
}

/// The records of one partition that one transaction writes. The batch keeps the undecoded records,
/// so that it can be halved if the database refuses a row.
#[derive(Debug)]
pub struct WriteBatch {
    /// The records, sorted by offset.
    pub records: Vec<FetchedRecord>,
    /// The decoded records.
    pub decoded: DecodedRecords,
    /// The identities of the results.
    pub identities: Identities,
    /// The position after the batch.
    pub next_offset: i64,
    /// The leader epoch of the last offset before `next_offset`. `None`: the epoch is unknown.
    pub leader_epoch: Option<i32>,
}

impl WriteBatch {
    /// Decodes records. `next_offset` is the position after them.
    pub fn new(records: Vec<FetchedRecord>, labels: &Labels, next_offset: i64) -> Self {
        let (decoded, identities) = decode_all(&records, labels);
        let last = records.last().filter(|last| last.offset + 1 == next_offset);
        let leader_epoch = last.and_then(|last| last.leader_epoch);
        Self { decoded, identities, leader_epoch, records, next_offset }
    }

    /// Moves the records out of the batch and returns its two halves. Returns `None`, and leaves
    /// the batch unchanged, if it has fewer than two records.
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

    /// Keeps as many records as fit into one batch and returns the rest. Returns `None`, and leaves
    /// the batch unchanged, if all records fit.
    pub fn split_off(&mut self, records_max: usize) -> Option<Self> {
        let len = batch_len(&self.records, records_max);
        let middle = self.records.get(len)?.offset;
        let records = self.records.split_off(len);
        let rest = Self {
            decoded: self.decoded.split_off(middle),
            leader_epoch: self.leader_epoch,
            identities: self.identities.split_off(middle, &self.records, &records),
            records,
            next_offset: self.next_offset,
        };
        let last = self.records.last().filter(|last| last.offset + 1 == middle);
        self.leader_epoch = last.and_then(|last| last.leader_epoch);
        self.next_offset = middle;
        Some(rest)
    }
}

fn decode_all(records: &[FetchedRecord], labels: &Labels) -> (DecodedRecords, Identities) {
    (DecodedRecords::decode(records, labels), Identities::new(records))
}

type RecordDecoder = fn(&[FetchedRecord], &Labels) -> (DecodedRecords, Identities);

/// The decoder panics on the first record after the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPanic {
    /// The offset of the record. `None`: the decoder does not panic on a single record.
    pub offset: Option<i64>,
}

/// The records of one fetch of one partition, decoded and cut into batches.
#[derive(Debug)]
pub struct FetchedBatches {
    /// The batches, sorted by offset. A batch without records moves the position past offsets that
    /// hold no records for consumers.
    pub batches: Vec<WriteBatch>,
    /// The position after all batches.
    pub next_offset: i64,
    /// The high watermark of the partition: the end of the offsets that consumers may read.
    pub high_watermark: i64,
}

impl FetchedBatches {
    /// Cuts the records that were fetched from `offset` on into batches of at most `records_max`
    /// records. Ends before a record on which the decoder panics.
    ///
    /// # Errors
    /// The decoder panics on the first record.
    pub fn new(
        fetched: FetchedRecords,
        offset: i64,
        labels: &Labels,
        records_max: usize,
    ) -> Result<Self, RecordPanic> {
        Self::decode_with(fetched, offset, labels, records_max, decode_all)
    }

    fn decode_with(
        fetched: FetchedRecords,
        offset: i64,
        labels: &Labels,
        records_max: usize,
        decode: RecordDecoder,
    ) -> Result<Self, RecordPanic> {
        let FetchedRecords { mut records, next_offset, leader_epoch, high_watermark, .. } = fetched;
        let mut batches = Vec::new();
        let mut position = offset;
        while position < next_offset {
            let rest = records.split_off(batch_len(&records, records_max));
            // The last batch also moves the position past offsets without records for consumers.
            position = match records.last() {
                Some(last) if !rest.is_empty() => last.offset + 1,
                _ => next_offset,
            };
            let Ok((decoded, identities)) = panics::catch(|| decode(&records, labels)) else {
                return Self::end_before_panic(batches, records, high_watermark, labels, decode);
            };
            let last = records.last().filter(|last| last.offset + 1 == position);
            let leader_epoch = match position == next_offset {
                true => leader_epoch,
                false => last.and_then(|last| last.leader_epoch),
            };
            batches.push(WriteBatch {
                records,
                decoded,
                identities,
                leader_epoch,
                next_offset: position,
            });
            records = rest;
        }
        Ok(Self { batches, next_offset, high_watermark })
    }

    /// Drops the record on which the decoder panics, and all records after it.
    fn end_before_panic(
        mut batches: Vec<WriteBatch>,
        mut records: Vec<FetchedRecord>,
        high_watermark: i64,
        labels: &Labels,
        decode: RecordDecoder,
    ) -> Result<Self, RecordPanic> {
        let panics = |record: &FetchedRecord| {
            panics::catch(|| drop(decode(std::slice::from_ref(record), labels))).is_err()
        };
        let Some(first) = records.iter().position(panics) else {
            return Err(RecordPanic { offset: None });
        };
        let next_offset = records[first].offset;
        records.truncate(first);
        if let Some(last) = records.last()
            && let Ok((decoded, identities)) = panics::catch(|| decode(&records, labels))
        {
            let leader_epoch = last.leader_epoch.filter(|_| last.offset + 1 == next_offset);
            batches.push(WriteBatch { records, decoded, identities, leader_epoch, next_offset });
        }
        let Some(last) = batches.last() else {
            return Err(RecordPanic { offset: (first == 0).then_some(next_offset) });
        };
        let next_offset = last.next_offset;
        Ok(Self { batches, next_offset, high_watermark })
    }

    /// Whether the partition has more records after these.
    pub fn has_more(&self) -> bool {
        self.next_offset < self.high_watermark
    }
}

/// The number of records in the next batch: at least one, if there is a record. Two more bounds
/// apply: the bytes of a batch, and the number of ended runs, because each ended run is a row in
/// the table of marks.
fn batch_len(records: &[FetchedRecord], records_max: usize) -> usize {
    let (mut bytes, mut ended) = (0, 0);
    let fits = |record: &&FetchedRecord| {
        bytes += record.value.as_ref().map_or(0, |value| value.len());
        ended += record.headers.iter().filter(|(key, _)| key == ENDED_HEADER).count();
        bytes <= BATCH_BYTES_MAX && ended <= records_max
    };
    let count = records.iter().take(records_max).take_while(fits).count();
    count.max(1).min(records.len())
}

#[cfg(test)]
mod tests;
