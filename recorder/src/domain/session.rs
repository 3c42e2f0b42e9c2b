//! A session with a topic: its partitions, their positions, and the state that is kept until the
//! first error.

use std::time::Instant;

use super::fetch::{FetchResults, PartitionReader};
use crate::decode::labels::Labels;

/// A session with a topic. After any error it is dropped, because its state may be outdated.
#[derive(Debug)]
pub(super) struct Session<M> {
    pub(super) labels: Labels,
    pub(super) readers: Vec<PartitionReader>,
    /// The time of the next check for new partitions of the topic.
    pub(super) refresh_at: Instant,
    /// Whether all known partitions are read.
    pub(super) is_complete: bool,
    /// The records that were fetched while earlier records were written.
    pub(super) prefetched: Option<FetchResults>,
    /// The state of the steps of the transaction.
    pub(super) steps: Option<M>,
}

impl<M> Session<M> {
    /// Creates a session without partitions.
    pub(super) fn new(labels: Labels, now: Instant) -> Self {
        Self {
            labels,
            readers: Vec::new(),
            refresh_at: now,
            is_complete: true,
            prefetched: None,
            steps: None,
        }
    }

    /// Whether a partition is read.
    pub(super) fn reads(&self, number: i32) -> bool {
        self.readers.iter().any(|reader| reader.partition.number == number)
    }

    /// Adds a partition. Drops the prefetched records, because they do not include the partition.
    pub(super) fn add(&mut self, reader: PartitionReader) {
        self.prefetched = None;
        self.readers.push(reader);
    }
}
