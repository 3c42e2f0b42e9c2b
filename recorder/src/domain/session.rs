//! A session with a topic: its partitions, where each is read, and what is
//! remembered while no error occurs.

use std::time::Instant;

use kafka_client::{LogEnd, TopicMetadata};

use super::error::SessionError;
use super::fetch::{FetchResults, PartitionReader};
use super::legacy;
use super::resume::{LogRange, ResumePoint, resume};
use super::services::{Clock, RecordLog, RecordStore};
use super::worker::DomainWorker;
use crate::decode::labels::Labels;
use crate::transaction::position::{Partition, Position};

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
    /// When offsets of the consumer group were committed.
    pub(super) last_commit: Instant,
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
            last_commit: now,
            prefetched: None,
            steps: None,
        }
    }
}

impl<L: RecordLog, S: RecordStore, C: Clock> DomainWorker<L, S, C> {
    /// The metadata of the topic.
    pub(super) fn find_topic(&mut self) -> Result<TopicMetadata, SessionError> {
        let topics = self.log.topics(std::slice::from_ref(&self.topic))?;
        let topic = topics.into_iter().find(|topic| topic.name == self.topic);
        let Some(topic) = topic.filter(|topic| !topic.is_missing()) else {
            if !self.retry.is_missing_topic_logged() {
                let prefix = &self.shared.topic_prefix;
                legacy::log_other_prefix(&mut self.log, &self.domain, &self.topic, prefix);
            }
            return Err(SessionError::TopicMissing(self.topic.clone()));
        };
        match topic.error {
            Some(code) => Err(SessionError::Topic { topic: topic.name, code }),
            None if topic.partitions.is_empty() => Err(SessionError::TopicMissing(topic.name)),
            None => Ok(topic),
        }
    }

    /// Starts to read the partitions that are not read yet.
    pub(super) fn add_partitions(
        &mut self,
        session: &mut Session<S::Steps>,
        topic: &TopicMetadata,
    ) -> Result<(), SessionError> {
        let mut first_failure = None;
        let mut failed_leaders = Vec::new();
        for metadata in &topic.partitions {
            if session.readers.iter().any(|known| known.partition.number == metadata.index) {
                continue;
            }
            // Another partition with this leader would wait for the same time-out.
            if failed_leaders.contains(&metadata.leader) {
                continue;
            }
            self.writer.check_lease()?;
            let partition = Partition { topic: self.topic.clone(), number: metadata.index };
            let position = match self.resume_partition(&partition, topic) {
                Ok(position) => position,
                Err(failure) if failure.is_of_partition() => {
                    failed_leaders.push(metadata.leader);
                    first_failure.get_or_insert(failure);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            // It was fetched without the new partition.
            session.prefetched = None;
            session.readers.push(PartitionReader { partition, position, committed: None });
        }
        session.is_complete = true;
        session.refresh_at = self.clock.now() + self.shared.timings.topic_refresh_interval;
        if let Some(failure) = first_failure {
            self.set_aside(session, failure)?;
        }
        self.is_table_counted = true;
        Ok(())
    }

    /// Continues without the partition that failed, which is retried after a delay.
    /// Fails if no partition is left.
    pub(super) fn set_aside(
        &mut self,
        session: &mut Session<S::Steps>,
        failure: SessionError,
    ) -> Result<(), SessionError> {
        if session.readers.is_empty() {
            return Err(failure);
        }
        session.is_complete = false;
        session.prefetched = None;
        session.refresh_at = self.clock.now() + self.retry.record_failure(&failure);
        Ok(())
    }

    /// Determines where a partition is read, and stores that if it changed.
    fn resume_partition(
        &mut self,
        partition: &Partition,
        topic: &TopicMetadata,
    ) -> Result<Position, SessionError> {
        let store = &mut self.writer.store;
        let stored = store.read_position(partition)?;
        let (name, number) = (&partition.topic, partition.number);
        let start = self.log.list_offset(name, number, LogEnd::Earliest)?;
        let end = self.log.list_offset(name, number, LogEnd::Latest)?;
        let range = LogRange { start, end };
        let is_same_topic = stored.is_some_and(|stored| stored.topic_id == topic.id);
        let may_count = topic.partitions.len() == 1 && !(is_same_topic && self.is_table_counted);
        let prefix = &self.shared.topic_prefix;
        let point = if may_count && legacy::is_table_counted(store, &self.domain, prefix)? {
            let after_id = stored.map_or(0, |stored| stored.counted_after_id);
            let table = store.count_table(after_id)?;
            legacy::resume_with_table(stored, topic.id, range, table)
        } else {
            resume(stored, topic.id, range)
        };
        if point.needs_confirmation() {
            self.log.confirm_leader(name, topic.id, number)?;
        }
        if stored != Some(point.position) {
            store.skip_to(partition, stored, &point)?;
        }
        let domain = &self.domain;
        match &point.note {
            Some(note) => log::warn!("{domain}: {name}/{number}: {note}"),
            None if self.is_table_counted => {}
            None => log::info!(
                "{domain}: {name}/{number}: starting at offset {} of {end}",
                point.position.next_offset
            ),
        }
        Ok(point.position)
    }

    /// Skips records that can't be read. They become gaps, which are stored in the
    /// same transaction as the new position.
    pub(super) fn skip(
        &mut self,
        reader: &mut PartitionReader,
        point: &ResumePoint,
    ) -> Result<(), SessionError> {
        if point.gaps.is_empty() {
            return Ok(());
        }
        let PartitionReader { partition, position, .. } = reader;
        let Partition { topic, number } = &*partition;
        if point.needs_confirmation() {
            self.log.confirm_leader(topic, position.topic_id, *number)?;
        }
        self.writer.store.skip_to(partition, Some(*position), point)?;
        if let Some(note) = &point.note {
            log::warn!("{}: {topic}/{number}: {note}", self.domain);
        }
        *position = point.position;
        Ok(())
    }
}
