//! A session with a topic: its partitions, where each is read, and what is
//! remembered while no error occurs.

use std::time::Instant;

use super::fetch::{FetchResults, PartitionReader};
use crate::decode::labels::Labels;

/// A session with a topic. It is dropped on any error, and with it all that could be
/// outdated after the error.
#[derive(Debug)]
pub(super) struct Session<M> {
    pub(super) labels: Labels,
    pub(super) readers: Vec<PartitionReader>,
    /// When the topic is checked for partitions that are not read.
    pub(super) refresh_at: Instant,
    /// Whether all known partitions are read.
    pub(super) is_complete: bool,
    /// What was fetched while the records before it were written.
    pub(super) prefetched: Option<FetchResults>,
    /// What the steps of the transaction remember.
    pub(super) steps: Option<M>,
}

impl<M> Session<M> {
    /// A session without partitions.
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

    /// Adds a partition. What was prefetched is dropped, because it lacks the partition.
    pub(super) fn add(&mut self, reader: PartitionReader) {
        self.prefetched = None;
        self.readers.push(reader);
    }
}
