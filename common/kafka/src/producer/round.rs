//! One round of a producer up to the writing: who it is, where the topics are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use uuid::Uuid;

use super::{Outcome, Producer};
use crate::address::Address;
use crate::admin::Creation;
use crate::batch::Identity;
use crate::client::known;
use crate::error::Error;
use crate::metadata::TopicMetadata;
use common::backoff::Backoff;

/// The only partition that is written, so that a topic keeps its order.
pub(super) const PARTITION: i32 = 0;

/// What a round has come to so far.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) deadline: Instant,
    /// Batches that are settled.
    pub(super) outcomes: Vec<(String, Outcome)>,
    /// Why the others are not.
    pub(super) reasons: HashMap<String, Error>,
}

impl Round {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, outcomes: Vec::new(), reasons: HashMap::new() }
    }
}

/// The delays between two looks for topics that are not there or have no leader.
const ABSENT_FIRST: Duration = Duration::from_millis(50);
const ABSENT_CAP: Duration = Duration::from_secs(1);

/// Topics that were looked for in vain, why, and when they are looked for again:
/// rounds follow each other as fast as other topics have something to write.
#[derive(Debug)]
pub(super) struct Absent {
    reasons: HashMap<String, Error>,
    until: Instant,
    backoff: Backoff,
}

impl Absent {
    pub(super) fn none() -> Self {
        let backoff = Backoff::new(ABSENT_FIRST, ABSENT_CAP);
        Self { reasons: HashMap::new(), until: Instant::now(), backoff }
    }

    /// After a look that began at `now`.
    fn pace(&mut self, now: Instant) {
        if self.reasons.is_empty() {
            self.backoff.reset();
        } else if now >= self.until {
            self.until = Instant::now() + self.backoff.next_delay();
        }
    }
}

/// The topics and bytes for one broker.
pub(super) type Queue = Vec<(String, Bytes)>;

impl Producer {
    pub(super) fn run(&mut self, round: &mut Round) {
        if self.pending() == 0 {
            return;
        }
        self.writers.retain(|_, writer| writer.is_alive());
        let waiting = self.waiting();
        self.ensure_identity(round);
        self.find_leaders(&waiting, round);
        let (connected, others): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .queues(&waiting, round)
            .into_iter()
            .partition(|(leader, _)| self.writers.contains_key(leader));
        // Brokers that are connected answer before the others are dialled.
        self.exchange(connected, round);
        self.exchange(others, round);
    }

    /// Topics that begin, or begin again, need a producer id.
    fn ensure_identity(&mut self, round: &mut Round) {
        if self.identity.is_some()
            || !self.partitions.values().any(super::Partition::lacks_identity)
        {
            return;
        }
        // The crate's default is a transactional id of no characters.
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let identity = self.client.call_any(&request, round.deadline).and_then(|response| {
            Error::from_code("InitProducerId", "of ours", response.error_code, None)?;
            Ok(Identity { producer_id: response.producer_id.0, epoch: response.producer_epoch })
        });
        match identity {
            Ok(identity) => self.identity = Some(identity),
            Err(error) => {
                for (topic, partition) in &self.partitions {
                    if partition.lacks_identity() {
                        round.reasons.insert(topic.clone(), error.clone());
                    }
                }
            }
        }
    }

    /// Asks for the topics whose leader is not known, and makes those that are
    /// not there.
    fn find_leaders(&mut self, waiting: &HashSet<String>, round: &mut Round) {
        let wanted: Vec<String> = self
            .partitions
            .iter()
            .filter(|(topic, partition)| {
                partition.in_flight.is_some()
                    && !waiting.contains(*topic)
                    && !self.client.cluster.has_leader(topic, PARTITION)
            })
            .map(|(topic, _)| topic.clone())
            .collect();
        let now = Instant::now();
        let (absent, wanted): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|topic| now < self.absent.until && self.absent.reasons.contains_key(topic));
        for topic in absent {
            let reason = self.absent.reasons.get(&topic).cloned();
            round.reasons.extend(reason.map(|reason| (topic, reason)));
        }
        if wanted.is_empty() {
            return;
        }
        self.find_or_make(&wanted, round);
        for topic in wanted {
            let is_in_flight = self.is_pending(&topic);
            match self.client.cluster.leader(&topic, PARTITION) {
                Err(error) if is_in_flight => {
                    let reason = round.reasons.get(&topic).cloned().unwrap_or(error);
                    self.absent.reasons.insert(topic, reason);
                }
                _ => drop(self.absent.reasons.remove(&topic)),
            }
        }
        self.absent.pace(now);
    }

    fn find_or_make(&mut self, wanted: &[String], round: &mut Round) {
        let missing = self.look_up(wanted, round);
        if missing.is_empty() {
            return;
        }
        match self.client.create_topics(&missing, &self.options.topic_spec, round.deadline) {
            Ok(created) => {
                let there: Vec<String> = created
                    .into_iter()
                    .filter_map(|(topic, result)| self.judge_creation(topic, result, round))
                    .collect();
                if !there.is_empty() {
                    self.look_up(&there, round);
                }
            }
            Err(error) => {
                for topic in missing {
                    round.reasons.insert(topic, error.clone());
                }
            }
        }
    }

    /// Learns the topics' leaders; gives back those that are not there.
    fn look_up(&mut self, wanted: &[String], round: &mut Round) -> Vec<String> {
        let topics = match self.client.topics_until(wanted, round.deadline) {
            Ok(topics) => topics,
            Err(error) => {
                for topic in wanted {
                    round.reasons.insert(topic.clone(), error.clone());
                }
                return Vec::new();
            }
        };
        let mut missing = Vec::new();
        for topic in topics {
            match known(&topic) {
                Ok(()) => self.remember(&topic),
                Err(Error::UnknownTopic { topic }) => {
                    let error = Error::UnknownTopic { topic: topic.clone() };
                    round.reasons.insert(topic.clone(), error);
                    missing.push(topic);
                }
                Err(error) => self.not_written(vec![topic.name], &error, round),
            }
        }
        missing
    }

    fn remember(&mut self, topic: &TopicMetadata) {
        let before = self.topic_ids.insert(topic.name.clone(), topic.id);
        if before.is_some_and(|id: Uuid| id != topic.id) {
            log::warn!("topic {}: deleted and made again", topic.name);
        }
    }

    /// The topic when it is there now. A refusal to make it ends no batch: who may
    /// do it can still do so, and a broker that is behind the others can have missed
    /// a topic that is there. A name that no topic can have is no hope.
    fn judge_creation(
        &mut self,
        topic: String,
        result: Result<Creation, Error>,
        round: &mut Round,
    ) -> Option<String> {
        match result {
            Ok(Creation::Created) if self.topic_ids.contains_key(&topic) => {
                log::warn!("topic {topic}: was gone, made again");
                // Said here; its new id is nothing to be told of once more.
                self.topic_ids.remove(&topic);
            }
            Ok(Creation::Created) => log::info!("topic {topic}: created"),
            Ok(Creation::Exists) => {}
            Err(error) => {
                match error {
                    Error::Broker { code: ResponseError::InvalidTopicException, .. } => {
                        self.not_written(vec![topic], &error, round);
                    }
                    error => drop(round.reasons.insert(topic, error)),
                }
                return None;
            }
        }
        Some(topic)
    }

    /// What is in flight, by the broker that must take it.
    fn queues(&mut self, waiting: &HashSet<String>, round: &mut Round) -> BTreeMap<Address, Queue> {
        let now = Instant::now();
        let mut queues: BTreeMap<Address, Queue> = BTreeMap::new();
        // With one broker there is nobody to be held up.
        let may_rest = self.client.cluster.broker_count() > 1;
        for (topic, partition) in &mut self.partitions {
            if partition.in_flight.is_none() || waiting.contains(topic) {
                continue;
            }
            let leader = match self.client.cluster.leader(topic, PARTITION) {
                Ok(leader) => leader,
                Err(error) => {
                    round.reasons.entry(topic.clone()).or_insert(error);
                    continue;
                }
            };
            if may_rest && self.resting.get(leader).is_some_and(|until| now < *until) {
                // It may be led by another by the next round.
                let cause = std::io::Error::other("was not reached, left alone for a moment");
                let address = leader.clone();
                let error = Error::Connect { address, cause: cause.into() };
                round.reasons.insert(topic.clone(), error);
                self.client.cluster.forget(topic);
                continue;
            }
            if let Some(bytes) = partition.bytes(self.identity) {
                queues.entry(leader.clone()).or_default().push((topic.clone(), bytes));
            }
        }
        queues
    }

    pub(super) fn not_written(&mut self, topics: Vec<String>, error: &Error, round: &mut Round) {
        for topic in topics {
            self.client.cluster.forget(&topic);
            let Some(partition) = self.partitions.get_mut(&topic) else { continue };
            let (outcome, spent) = partition.not_written(error);
            self.leave(spent);
            match outcome {
                Some(outcome) => round.outcomes.push((topic, outcome)),
                None => {
                    round.reasons.insert(topic, error.clone());
                }
            }
        }
    }

    /// Sees to it that no topic begins as who could not go on: the broker may have
    /// numbers of it for the topic that are not ours to know.
    pub(super) fn leave(&mut self, spent: Option<Identity>) {
        if spent.is_some() && spent == self.identity {
            self.identity = None;
        }
    }
}
