//! Metadata of brokers and topics. A topic is looked up again after an error, and at a maximum age,
//! because a broker that lost its leadership does not always return an error.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::address::BrokerAddress;
use crate::error::KafkaError;

/// Metadata of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// The topic's name.
    pub name: String,
    /// The topic's id (KIP-516). A recreated topic has another id. Nil if `error` is set.
    pub id: Uuid,
    /// The partitions by index, without gaps. Empty if `error` is set.
    pub partitions: Vec<PartitionMetadata>,
    /// The reason why there is no metadata, most often `UnknownTopicOrPartition`.
    pub error: Option<ResponseError>,
}

impl TopicMetadata {
    /// Whether the topic does not exist.
    pub fn is_missing(&self) -> bool {
        self.error == Some(ResponseError::UnknownTopicOrPartition)
    }

    /// Returns the topic's error, if any.
    pub(crate) fn ensure_exists(&self) -> Result<(), KafkaError> {
        let Some(code) = self.error else { return Ok(()) };
        if self.is_missing() {
            return Err(KafkaError::UnknownTopic { topic: self.name.clone() });
        }
        let subject = format!("topic {}", self.name);
        KafkaError::from_code("Metadata", subject, code.code(), None)
    }
}

/// Metadata of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The partition's number, from 0.
    pub index: i32,
    /// The id of the leading broker. `None` during an election or an outage.
    pub leader: Option<i32>,
    /// The leader epoch: it increases with each election.
    pub leader_epoch: i32,
}

/// Metadata of the brokers, and of the topics that were looked up.
#[derive(Debug)]
pub(crate) struct ClusterMetadata {
    max_age: Duration,
    brokers: HashMap<i32, BrokerAddress>,
    controller: Option<i32>,
    /// The topics by name, each with the time of its last lookup.
    topics: HashMap<String, (TopicMetadata, Instant)>,
}

impl ClusterMetadata {
    /// Creates empty metadata. The metadata of a topic is old at `max_age`.
    pub(crate) fn new(max_age: Duration) -> Self {
        Self { max_age, brokers: HashMap::new(), controller: None, topics: HashMap::new() }
    }

    /// Stores the brokers of a response and returns its topics.
    pub(crate) fn update(&mut self, response: MetadataResponse) -> Vec<TopicMetadata> {
        let brokers: HashMap<_, _> = response
            .brokers
            .into_iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok()?;
                Some((broker.node_id.0, BrokerAddress { host: broker.host.to_string(), port }))
            })
            .collect();
        // A starting broker can answer before it knows any broker.
        if !brokers.is_empty() {
            self.brokers = brokers;
        }
        self.controller = Some(response.controller_id.0).filter(|id| *id >= 0);
        response.topics.into_iter().filter_map(parse_topic).collect()
    }

    /// Stores a topic's metadata, or removes it if it has an error.
    pub(crate) fn store(&mut self, topic: &TopicMetadata) {
        if topic.error.is_none() {
            self.topics.insert(topic.name.clone(), (topic.clone(), Instant::now()));
        } else {
            self.topics.remove(&topic.name);
        }
    }

    pub(crate) fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// Whether the partition's leader is known and not old. [`ClusterMetadata::leader`] returns an
    /// old leader too, for the case that the lookup fails.
    pub(crate) fn has_leader(&self, topic: &str, partition: i32) -> bool {
        let is_old = |(_, looked_up_at): &(_, Instant)| looked_up_at.elapsed() >= self.max_age;
        self.leader(topic, partition).is_ok() && !self.topics.get(topic).is_some_and(is_old)
    }

    /// Returns the topic's id and the partition's leader epoch.
    pub(crate) fn leader_epoch(&self, topic: &str, partition: i32) -> Option<(Uuid, i32)> {
        let (metadata, _) = self.topics.get(topic)?;
        let partition = metadata.partitions.iter().find(|known| known.index == partition)?;
        Some((metadata.id, partition.leader_epoch))
    }

    /// Returns the address of the partition's leader.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Result<&BrokerAddress, KafkaError> {
        let (metadata, _) = self
            .topics
            .get(topic)
            .ok_or_else(|| KafkaError::UnknownTopic { topic: topic.to_owned() })?;
        let leader = metadata
            .partitions
            .iter()
            .find(|known| known.index == partition)
            .ok_or_else(|| KafkaError::UnknownTopic { topic: topic.to_owned() })?;
        leader
            .leader
            .and_then(|leader| self.brokers.get(&leader))
            .ok_or_else(|| KafkaError::NoLeader { topic: topic.to_owned(), partition })
    }

    pub(crate) fn address(&self, broker: i32) -> Option<&BrokerAddress> {
        self.brokers.get(&broker)
    }

    pub(crate) fn controller(&self) -> Option<&BrokerAddress> {
        self.brokers.get(&self.controller?)
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &BrokerAddress> {
        self.brokers.values()
    }

    pub(crate) fn broker_count(&self) -> usize {
        self.brokers.len()
    }
}

/// `None`: the response does not name the topic.
pub(super) fn parse_topic(topic: MetadataResponseTopic) -> Option<TopicMetadata> {
    let name = topic.name?.0;
    let error = ResponseError::try_from_code(topic.error_code);
    let mut partitions: Vec<_> = topic.partitions.iter().map(parse_partition).collect();
    partitions.sort_by_key(|partition| partition.index);
    Some(TopicMetadata { name: StrBytes::to_string(&name), id: topic.topic_id, partitions, error })
}

fn parse_partition(partition: &MetadataResponsePartition) -> PartitionMetadata {
    PartitionMetadata {
        index: partition.partition_index,
        leader: Some(partition.leader_id.0).filter(|leader| *leader >= 0),
        leader_epoch: partition.leader_epoch,
    }
}
