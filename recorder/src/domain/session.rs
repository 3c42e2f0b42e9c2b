//! A domain's topic: whether it is there, its partitions, where each is read
//! from, and what of it can't be read any more.

use std::time::{Duration, Instant};

use common::domain::{TOPIC_PREFIX, TOPIC_PREFIX_OF_1_1_0, other_prefix};
use kafka_client::{Error as KafkaError, LogEnd, TopicMetadata};

use super::DomainThread;
use super::fetch::{Found, Reading};
use crate::decode::row::Labels;
use crate::domain::failure::Failure;
use crate::domain::resume::{self as position, LogRange, Position, Start};
use crate::transaction::position::{Partition, count_table, read_position, store_start};

/// How often a topic is looked at for partitions that were added.
pub(super) const TOPIC_LOOK_EVERY: Duration = Duration::from_secs(30);

/// The topic as it is now, and where each of its partitions is read.
pub(super) struct Session {
    pub(super) labels: Labels,
    pub(super) readings: Vec<Reading>,
    /// When the topic is looked at for partitions that are not read.
    pub(super) look_at: Instant,
    /// Whether all partitions are read, as far as is known.
    pub(super) is_whole: bool,
    /// When the group's offsets were committed.
    pub(super) committed: Instant,
    /// What was read while what is before it was written.
    pub(super) ahead: Option<Found>,
}

impl Session {
    /// Without partitions.
    pub(super) fn new(labels: Labels) -> Self {
        let now = Instant::now();
        Self {
            labels,
            readings: Vec::new(),
            look_at: now,
            is_whole: true,
            committed: now,
            ahead: None,
        }
    }
}

/// Whether other partitions of the topic may be read all the same.
pub(super) fn is_of_partition(failure: &Failure) -> bool {
    let Failure::Kafka(error) = failure else { return false };
    !matches!(error, KafkaError::UnknownTopicId { .. })
}

impl DomainThread {
    pub(super) fn find_topic(&mut self) -> Result<TopicMetadata, Failure> {
        let found = self.client.topics(std::slice::from_ref(&self.topic))?;
        let found = found.into_iter().find(|topic| topic.name == self.topic);
        let Some(topic) = found.filter(|topic| !topic.is_missing()) else {
            self.look_for_other_spelling();
            return Err(Failure::TopicMissing(self.topic.clone()));
        };
        match topic.error {
            Some(code) => Err(Failure::Topic { topic: topic.name, code }),
            None if topic.partitions.is_empty() => Err(Failure::TopicMissing(topic.name)),
            None => Ok(topic),
        }
    }

    /// One line, once, when the topic is there as the other version writes it.
    fn look_for_other_spelling(&mut self) {
        if self.trouble.is_missing_said() {
            return;
        }
        let Some(prefix) = other_prefix(&self.shared.topic_prefix) else { return };
        let Ok(other) = self.domain.topic(prefix) else { return };
        let there = self.client.topics(std::slice::from_ref(&other));
        if there.is_ok_and(|found| found.iter().any(|topic| topic.error.is_none())) {
            log::warn!(
                "{}: topic {} is not there, but {other} is: expected --topic-prefix {prefix} (TOPIC_PREFIX)?",
                self.domain,
                self.topic
            );
        }
    }

    pub(super) fn add_partitions(
        &mut self,
        session: &mut Session,
        topic: &TopicMetadata,
    ) -> Result<(), Failure> {
        let mut failed = None;
        let mut leaders_failed = Vec::new();
        for metadata in &topic.partitions {
            if session.readings.iter().any(|known| known.partition.number == metadata.index) {
                continue;
            }
            // What one partition of a leader has shown, each other would wait for.
            if leaders_failed.contains(&metadata.leader) {
                continue;
            }
            self.writing.check_lease()?;
            let partition = Partition { topic: self.topic.clone(), number: metadata.index };
            let position = match self.start_position(&partition, topic) {
                Ok(position) => position,
                Err(failure) if is_of_partition(&failure) => {
                    leaders_failed.push(metadata.leader);
                    failed.get_or_insert(failure);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            // Read ahead without it.
            session.ahead = None;
            session.readings.push(Reading { partition, position, committed: None });
        }
        session.is_whole = true;
        session.look_at = Instant::now() + TOPIC_LOOK_EVERY;
        if let Some(failure) = failed {
            self.set_aside(session, failure)?;
        }
        self.counted = true;
        Ok(())
    }

    /// The others go on without a partition that can't be read now, and it is tried
    /// again after a while; the failure itself where there are no others.
    pub(super) fn set_aside(
        &mut self,
        session: &mut Session,
        failure: Failure,
    ) -> Result<(), Failure> {
        if session.readings.is_empty() {
            return Err(failure);
        }
        session.is_whole = false;
        session.ahead = None;
        session.look_at = Instant::now() + self.trouble.failed(&failure);
        Ok(())
    }

    fn start_position(
        &mut self,
        partition: &Partition,
        topic: &TopicMetadata,
    ) -> Result<Position, Failure> {
        let (database, stop) = (&self.shared.database, &self.stop);
        let stored = read_position(database, stop, partition)?;
        let start =
            self.client.list_offset(&partition.topic, partition.number, LogEnd::Earliest)?;
        let end = self.client.list_offset(&partition.topic, partition.number, LogEnd::Latest)?;
        let is_same = stored.is_some_and(|stored| stored.topic_id == topic.id);
        let may_count = topic.partitions.len() == 1 && !(is_same && self.counted);
        let table = if may_count && self.table_counts()? {
            let after_id = stored.map_or(0, |stored| stored.counted_after_id);
            Some(count_table(database, stop, &self.writing.table, after_id)?)
        } else {
            None
        };
        let found = position::start(stored, topic.id, LogRange { start, end }, table);
        if found.is_doubtful() {
            self.client.confirm(&partition.topic, topic.id, partition.number)?;
        }
        if stored != Some(found.position) {
            store_start(database, stop, partition, stored, &found)?;
        }
        let Partition { topic, number } = partition;
        match &found.note {
            Some(note) => log::warn!("{}: {topic}/{number}: {note}", self.domain),
            None if self.counted => {}
            None => log::info!(
                "{}: {topic}/{number}: starting at offset {} of {end}",
                self.domain,
                found.position.next_offset
            ),
        }
        Ok(found.position)
    }

    /// Whether the table is a record of this topic's offsets: only where 1.1.0
    /// may have written it, and nothing came from the topic of today's spelling.
    fn table_counts(&self) -> Result<bool, Failure> {
        if self.shared.topic_prefix != TOPIC_PREFIX_OF_1_1_0 {
            return Ok(false);
        }
        let Ok(topic) = self.domain.topic(TOPIC_PREFIX) else { return Ok(true) };
        let other = Partition { topic, number: 0 };
        let stored = read_position(&self.shared.database, &self.stop, &other)?;
        Ok(stored.is_none())
    }

    /// What can't be read goes down as a gap, in the same transaction as the new
    /// position.
    pub(super) fn pass(
        &mut self,
        partition: &Partition,
        position: &mut Position,
        found: Start,
    ) -> Result<(), Failure> {
        if found.gaps.is_empty() {
            return Ok(());
        }
        if found.is_doubtful() {
            self.client.confirm(&partition.topic, position.topic_id, partition.number)?;
        }
        store_start(&self.shared.database, &self.stop, partition, Some(*position), &found)?;
        if let Some(note) = &found.note {
            log::warn!("{}: {}/{}: {note}", self.domain, partition.topic, partition.number);
        }
        *position = found.position;
        Ok(())
    }
}
