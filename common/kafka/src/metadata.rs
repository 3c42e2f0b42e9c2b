//! What the brokers say of themselves and of topics, kept until it proves wrong
//! or is old: not every wrong leader says so.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::address::Address;
use super::error::Error;

/// A topic as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// The topic's name.
    pub name: String,
    /// Its id, another one each time that the name is used again; nil when
    /// `error` is set.
    pub id: Uuid,
    /// Its partitions by index, without holes; none when `error` is set.
    pub partitions: Vec<PartitionMetadata>,
    /// Why nothing is known of it, most often `UnknownTopicOrPartition`.
    pub error: Option<ResponseError>,
}

impl TopicMetadata {
    /// Whether the brokers say that there is no such topic.
    pub fn is_missing(&self) -> bool {
        self.error == Some(ResponseError::UnknownTopicOrPartition)
    }
}

/// A partition as the brokers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Its number, from 0.
    pub index: i32,
    /// The broker that leads it; none in an election or an outage.
    pub leader: Option<i32>,
    /// The number of its election: a higher one is later.
    pub leader_epoch: i32,
}

/// See the module. It knows only topics that were asked for.
#[derive(Debug)]
pub(super) struct Cluster {
    max_age: Duration,
    brokers: HashMap<i32, Address>,
    controller: Option<i32>,
    /// With the time at which each was told.
    topics: HashMap<String, (TopicMetadata, Instant)>,
}

impl Cluster {
    /// Nothing is known yet; what is told of topics is old at `max_age`.
    pub(super) fn new(max_age: Duration) -> Self {
        Self { max_age, brokers: HashMap::new(), controller: None, topics: HashMap::new() }
    }

    /// Takes in an answer and gives back the topics in it.
    pub(super) fn learn(&mut self, response: MetadataResponse) -> Vec<TopicMetadata> {
        let brokers: HashMap<_, _> = response
            .brokers
            .into_iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok()?;
                Some((broker.node_id.0, Address { host: broker.host.to_string(), port }))
            })
            .collect();
        // A broker that just starts can answer before it knows of any other.
        if !brokers.is_empty() {
            self.brokers = brokers;
        }
        self.controller = Some(response.controller_id.0).filter(|id| *id >= 0);
        response.topics.into_iter().filter_map(topic).collect()
    }

    /// Keeps a topic until it is forgotten.
    pub(super) fn keep(&mut self, topic: &TopicMetadata) {
        if topic.error.is_none() {
            self.topics.insert(topic.name.clone(), (topic.clone(), Instant::now()));
        } else {
            self.topics.remove(&topic.name);
        }
    }

    pub(super) fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// Whether the topic is known with a leader for the partition, by what is not
    /// old. What is old still counts for who can't find out anything newer.
    pub(super) fn has_leader(&self, topic: &str, partition: i32) -> bool {
        let is_old = |(_, told): &(_, Instant)| told.elapsed() >= self.max_age;
        self.leader(topic, partition).is_ok() && !self.topics.get(topic).is_some_and(is_old)
    }

    /// The topic's id and the partition's election, as the leader is looked up by.
    pub(super) fn election(&self, topic: &str, partition: i32) -> Option<(Uuid, i32)> {
        let (known, _) = self.topics.get(topic)?;
        let found = known.partitions.iter().find(|candidate| candidate.index == partition)?;
        Some((known.id, found.leader_epoch))
    }

    /// Where the partition's leader listens.
    pub(super) fn leader(&self, topic: &str, partition: i32) -> Result<&Address, Error> {
        let (known, _) = self
            .topics
            .get(topic)
            .ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() })?;
        let found = known
            .partitions
            .iter()
            .find(|candidate| candidate.index == partition)
            .ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() })?;
        found
            .leader
            .and_then(|leader| self.brokers.get(&leader))
            .ok_or_else(|| Error::NoLeader { topic: topic.to_owned(), partition })
    }

    pub(super) fn controller(&self) -> Option<&Address> {
        self.brokers.get(&self.controller?)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.brokers.values()
    }

    pub(super) fn broker_count(&self) -> usize {
        self.brokers.len()
    }
}

pub(super) fn topic(topic: MetadataResponseTopic) -> Option<TopicMetadata> {
    let name = topic.name?.0;
    let error = ResponseError::try_from_code(topic.error_code);
    let mut partitions: Vec<_> = topic.partitions.iter().map(partition).collect();
    partitions.sort_by_key(|partition| partition.index);
    Some(TopicMetadata { name: StrBytes::to_string(&name), id: topic.topic_id, partitions, error })
}

fn partition(partition: &MetadataResponsePartition) -> PartitionMetadata {
    PartitionMetadata {
        index: partition.partition_index,
        leader: Some(partition.leader_id.0).filter(|leader| *leader >= 0),
        leader_epoch: partition.leader_epoch,
    }
}
