//! The topic of a domain: whether it exists, where the reading of each partition starts, and which
//! records are skipped.

use common::domain::Domain;
use kafka_client::{LogEnd, TopicMetadata};

use super::error::SessionError;
use super::fetch::PartitionReader;
use super::legacy;
use super::resume::{LogRange, ResumePoint, StoredEpoch, is_tail_lost, resume};
use super::services::{RecordLog, RecordStore};
use crate::transaction::position::{Position, TopicPartition};

/// The topic of a domain.
#[derive(Debug)]
pub(super) struct DomainTopic<L> {
    pub(super) log: L,
    pub(super) name: String,
    domain: Domain,
    prefix: String,
}

impl<L: RecordLog> DomainTopic<L> {
    /// Creates the topic of `domain`. `name` is the name of the topic, which begins with `prefix`.
    pub(super) fn new(log: L, name: String, domain: Domain, prefix: String) -> Self {
        Self { log, name, domain, prefix }
    }

    /// Requests the metadata of the topic. If the topic is missing and `hints` is set, logs whether
    /// a topic with the prefix of the other version exists.
    pub(super) fn find(&mut self, hints: bool) -> Result<TopicMetadata, SessionError> {
        let topics = self.log.topics(std::slice::from_ref(&self.name))?;
        let topic = topics.into_iter().find(|topic| topic.name == self.name);
        let Some(topic) = topic.filter(|topic| !topic.is_missing()) else {
            if hints {
                legacy::log_other_prefix(&mut self.log, &self.domain, &self.name, &self.prefix);
            }
            return Err(SessionError::TopicMissing(self.name.clone()));
        };
        match topic.error {
            Some(code) => Err(SessionError::Topic { topic: topic.name, code }),
            None if topic.partitions.is_empty() => Err(SessionError::TopicMissing(topic.name)),
            None => Ok(topic),
        }
    }

    /// Determines where the reading of a partition starts, and stores the position if it changed.
    /// The table of 1.1.0 is counted only once: `is_table_counted` is true after that.
    pub(super) fn resume_partition(
        &mut self,
        store: &mut impl RecordStore,
        number: i32,
        topic: &TopicMetadata,
        is_table_counted: bool,
    ) -> Result<PartitionReader, SessionError> {
        let partition = TopicPartition { topic: self.name.clone(), number };
        let stored = store.read_position(&partition)?;
        let leader_epoch = topic
            .partitions
            .iter()
            .find(|known| known.index == number)
            .map(|known| known.leader_epoch)
            .filter(|epoch| *epoch >= 0);
        let same_topic = stored.filter(|stored| stored.topic_id == topic.id);
        let epoch = match same_topic {
            Some(stored) => self.stored_epoch(number, &stored, leader_epoch)?,
            None => None,
        };
        let name = &self.name;
        let start = self.log.list_offset(name, number, LogEnd::Earliest)?;
        let end = self.log.list_offset(name, number, LogEnd::Latest)?;
        let range = LogRange { start, end };
        let is_lost = same_topic.is_some_and(|stored| is_tail_lost(&stored, epoch.as_ref()));
        let is_counted = is_table_counted && same_topic.is_some() && !is_lost;
        let may_count = topic.partitions.len() == 1 && !is_counted;
        let point = if may_count && legacy::is_table_counted(store, &self.domain, &self.prefix)? {
            let after_id = stored.map_or(0, |stored| stored.counted_after_id);
            let table = store.count_table(after_id)?;
            legacy::resume_with_table(stored, topic.id, range, epoch, table)
        } else {
            resume(stored, topic.id, range, epoch)
        };
        if point.needs_confirmation() {
            self.log.confirm_leader(name, topic.id, number)?;
        }
        if stored != Some(point.position) {
            store.skip_to(&partition, stored, &point)?;
        }
        let domain = &self.domain;
        match &point.note {
            Some(note) => log::warn!("{domain}: {name}/{number}: {note}"),
            None if is_table_counted => {}
            None => log::info!(
                "{domain}: {name}/{number}: starting at offset {} of {end}",
                point.position.next_offset
            ),
        }
        let position = match stored {
            Some(_) => point.position,
            // Only a stored position shows whether the table has the columns of the leader epoch.
            None => store.read_position(&partition)?.unwrap_or(point.position),
        };
        Ok(PartitionReader { partition, position, leader_epoch, published: None })
    }

    /// Asks the leader where the epoch ends that was stored with the position.
    fn stored_epoch(
        &mut self,
        number: i32,
        stored: &Position,
        leader_epoch: Option<i32>,
    ) -> Result<Option<StoredEpoch>, SessionError> {
        let (Some(epoch), Some(current)) = (stored.leader_epoch, leader_epoch) else {
            return Ok(None);
        };
        let end = self.log.epoch_end(&self.name, number, epoch, current)?;
        Ok(end.map(|end| StoredEpoch { end, current }))
    }

    /// Skips unreadable records. They become gaps, which are stored in the same transaction as the
    /// new position.
    pub(super) fn skip(
        &mut self,
        store: &mut impl RecordStore,
        reader: &mut PartitionReader,
        point: &ResumePoint,
    ) -> Result<(), SessionError> {
        if point.gaps.is_empty() {
            return Ok(());
        }
        let PartitionReader { partition, position, .. } = reader;
        let Position { topic_id, .. } = *position;
        let TopicPartition { topic, number } = &*partition;
        if point.needs_confirmation() {
            self.log.confirm_leader(topic, topic_id, *number)?;
        }
        store.skip_to(partition, Some(*position), point)?;
        if let Some(note) = &point.note {
            log::warn!("{}: {topic}/{number}: {note}", self.domain);
        }
        *position = point.position;
        Ok(())
    }
}
