//! Looking up the leaders of topics, and creating topics that do not exist.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::round::ProduceRound;
use super::{KafkaProducer, PARTITION};
use crate::client::{CreateResult, TopicMetadata};
use crate::error::KafkaError;
use crate::settings::KafkaTimings;
use common::backoff::Backoff;

/// Topics that do not exist or have no leader, with the time of their next lookup. Rounds can
/// follow each other fast, so lookups need a retry delay.
#[derive(Debug)]
pub(super) struct MissingTopics {
    reasons: HashMap<String, KafkaError>,
    retry_at: Instant,
    backoff: Backoff,
}

impl MissingTopics {
    pub(super) fn new(timings: &KafkaTimings) -> Self {
        let backoff =
            Backoff::new(timings.missing_topic_delay_first, timings.missing_topic_delay_max);
        Self { reasons: HashMap::new(), retry_at: Instant::now(), backoff }
    }

    /// Sets the time of the next lookup after a lookup that began at `started_at`.
    fn schedule_retry(&mut self, started_at: Instant) {
        if self.reasons.is_empty() {
            self.backoff.reset();
        } else if started_at >= self.retry_at {
            self.retry_at = Instant::now() + self.backoff.next_delay();
        }
    }
}

impl KafkaProducer {
    /// Looks up the topics whose leader is unknown or old, and creates topics that do not exist.
    pub(super) fn find_leaders(&mut self, awaiting: &HashSet<String>, round: &mut ProduceRound) {
        let now = Instant::now();
        let (delayed, topics): (Vec<String>, Vec<String>) = self
            .partitions
            .iter()
            .filter(|(topic, partition)| {
                partition.in_flight.is_some()
                    && !awaiting.contains(*topic)
                    && !self.client.cluster.has_leader(topic, PARTITION)
            })
            .map(|(topic, _)| topic.clone())
            .partition(|topic| {
                now < self.missing_topics.retry_at
                    && self.missing_topics.reasons.contains_key(topic)
            });
        for topic in delayed {
            let reason = self.missing_topics.reasons.get(&topic).cloned();
            round.reasons.extend(reason.map(|reason| (topic, reason)));
        }
        if topics.is_empty() {
            return;
        }
        self.find_or_create(&topics, round);
        for topic in topics {
            let is_pending = self.is_pending(&topic);
            match self.client.cluster.leader(&topic, PARTITION) {
                Err(error) if is_pending => {
                    let reason = round.reasons.get(&topic).cloned().unwrap_or(error);
                    self.missing_topics.reasons.insert(topic, reason);
                }
                _ => drop(self.missing_topics.reasons.remove(&topic)),
            }
        }
        self.missing_topics.schedule_retry(now);
    }

    fn find_or_create(&mut self, topics: &[String], round: &mut ProduceRound) {
        let missing = self.look_up(topics, round);
        if missing.is_empty() {
            return;
        }
        match self.client.create_topics(&missing, &self.options.topic_spec, round.deadline) {
            Ok(results) => {
                let existing: Vec<String> = results
                    .into_iter()
                    .filter_map(|(topic, result)| self.handle_created(topic, result, round))
                    .collect();
                if !existing.is_empty() {
                    self.look_up(&existing, round);
                }
            }
            Err(error) => round.set_reason(&missing, &error),
        }
    }

    /// Looks up the leaders of `topics`; returns the topics that do not exist.
    fn look_up(&mut self, topics: &[String], round: &mut ProduceRound) -> Vec<String> {
        let found = match self.client.topics_by(topics, round.deadline) {
            Ok(found) => found,
            Err(error) => {
                round.set_reason(topics, &error);
                return Vec::new();
            }
        };
        let mut missing = Vec::new();
        for topic in found {
            match topic.ensure_exists() {
                Ok(()) => self.record_topic_id(&topic),
                Err(error @ KafkaError::UnknownTopic { .. }) => {
                    round.reasons.insert(topic.name.clone(), error);
                    missing.push(topic.name);
                }
                Err(error) => self.handle_unsent(vec![topic.name], &error, round),
            }
        }
        missing
    }

    fn record_topic_id(&mut self, topic: &TopicMetadata) {
        let previous = self.topic_ids.insert(topic.name.clone(), topic.id);
        if previous.is_some_and(|id: Uuid| id != topic.id) {
            log::warn!("topic {}: was deleted and recreated", topic.name);
        }
    }

    /// Returns the topic if it exists now.
    ///
    /// A refusal keeps the batch pending: another program may be allowed to create the topic, or
    /// the broker's metadata may be stale. Only an invalid topic name is permanent.
    fn handle_created(
        &mut self,
        topic: String,
        result: Result<CreateResult, KafkaError>,
        round: &mut ProduceRound,
    ) -> Option<String> {
        match result {
            // Without the old id the next lookup does not log the change a second time.
            Ok(CreateResult::Created) if self.topic_ids.remove(&topic).is_some() => {
                log::warn!("topic {topic}: was deleted, created again");
            }
            Ok(CreateResult::Created) => log::info!("topic {topic}: created"),
            Ok(CreateResult::Exists) => {}
            Err(error @ KafkaError::Broker { code: ResponseError::InvalidTopicException, .. }) => {
                self.handle_unsent(vec![topic], &error, round);
                return None;
            }
            Err(error) => {
                round.reasons.insert(topic, error);
                return None;
            }
        }
        Some(topic)
    }
}
