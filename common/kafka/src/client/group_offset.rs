//! OffsetCommit and OffsetFetch: the committed offsets of a consumer group without members.
//!
//! Committed offsets fence no other reader, and brokers delete them after
//! `offsets.retention.minutes` (7 days by default). They are meant for dashboards, not as the
//! reader's position.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::address::BrokerAddress;
use crate::client::{KafkaClient, topic_name};
use crate::connection::versions::KafkaRequest;
use crate::error::KafkaError;
use crate::error::retryable::{ErrorClass, classify};

/// An offset to commit for a consumer group: the offset of the next record to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupOffset<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition, from 0.
    pub partition: i32,
    /// The offset of the next record to be read.
    pub offset: i64,
}

impl KafkaClient {
    /// Commits the offset of the next record to be read.
    ///
    /// # Errors
    /// The broker's error code, or an error of the connection.
    pub fn commit_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), KafkaError> {
        self.commit_offsets(group, &[GroupOffset { topic, partition, offset }]).map(drop)
    }

    /// Commits the offsets of several partitions with one request. Returns the errors of the
    /// partitions that the coordinator refused although it accepted others.
    ///
    /// # Errors
    /// The first error code if the coordinator accepted no partition, or an error of the
    /// connection.
    pub fn commit_offsets(
        &mut self,
        group: &str,
        offsets: &[GroupOffset<'_>],
    ) -> Result<Vec<KafkaError>, KafkaError> {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for &GroupOffset { topic, partition, offset } in offsets {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(partition)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(StrBytes::from_static_str("")));
            // Offsets of one topic are adjacent.
            match topics.last_mut().filter(|last| last.name.as_str() == topic) {
                Some(last) => last.partitions.push(partition),
                None => topics.push(
                    OffsetCommitRequestTopic::default()
                        .with_name(topic_name(topic))
                        .with_partitions(vec![partition]),
                ),
            }
        }
        // A group without members has no generation.
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics);
        self.call_coordinator(group, &request, |response| {
            let mut errors = Vec::new();
            for &GroupOffset { topic, partition, .. } in offsets {
                let code = response
                    .topics
                    .iter()
                    .filter(|answered| answered.name.as_str() == topic)
                    .flat_map(|answered| &answered.partitions)
                    .find(|answered| answered.partition_index == partition)
                    .map(|answered| answered.error_code)
                    .ok_or_else(|| KafkaError::not_in_response("OffsetCommit", topic))?;
                let subject = format!("group {group} topic {topic} partition {partition}");
                errors.extend(KafkaError::from_code("OffsetCommit", subject, code, None).err());
            }
            match errors.first() {
                Some(error) if errors.len() == offsets.len() => Err(error.clone()),
                _ => Ok(errors),
            }
        })
    }

    /// Returns the group's committed offset. `None`: nothing is committed.
    ///
    /// # Errors
    /// The broker's error code, or an error of the connection.
    pub fn committed_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<i64>, KafkaError> {
        let topics = vec![
            OffsetFetchRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partition_indexes(vec![partition]),
        ];
        let request =
            OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(Some(topics));
        self.call_coordinator(group, &request, |response| {
            let subject = || format!("group {group} topic {topic} partition {partition}");
            KafkaError::from_code("OffsetFetch", subject(), response.error_code, None)?;
            let found = response
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .find(|found| found.partition_index == partition)
                .ok_or_else(|| KafkaError::not_in_response("OffsetFetch", topic))?;
            KafkaError::from_code("OffsetFetch", subject(), found.error_code, None)?;
            Ok(Some(found.committed_offset).filter(|offset| *offset >= 0))
        })
    }

    /// Sends a request to the group's coordinator. If the coordinator has moved, looks it up and
    /// sends the request once more.
    fn call_coordinator<R: KafkaRequest, T>(
        &mut self,
        group: &str,
        request: &R,
        read_response: impl Fn(R::Response) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        let deadline = self.deadline();
        let was_known = self.coordinators.contains_key(group);
        let coordinator = self.coordinator(group, deadline)?;
        let result = self.call_broker(&coordinator, request, deadline).and_then(&read_response);
        match result {
            Err(error) if is_coordinator_moved(&error) => {
                self.coordinators.remove(group);
                if !was_known {
                    return Err(error);
                }
                let coordinator = self.coordinator(group, deadline)?;
                self.call_broker(&coordinator, request, deadline).and_then(read_response)
            }
            result => result,
        }
    }

    fn coordinator(
        &mut self,
        group: &str,
        deadline: std::time::Instant,
    ) -> Result<BrokerAddress, KafkaError> {
        if let Some(address) = self.coordinators.get(group) {
            return Ok(address.clone());
        }
        let request =
            FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        let response = self.call_any_broker(&request, deadline)?;
        let message = response.error_message.as_ref().map(StrBytes::as_str);
        let subject = format!("group {group}");
        KafkaError::from_code("FindCoordinator", &subject, response.error_code, message)?;
        let port = u16::try_from(response.port).map_err(|_| KafkaError::Broker {
            api: "FindCoordinator",
            subject,
            code: ResponseError::CoordinatorNotAvailable,
            message: Some(format!("port {}", response.port)),
        })?;
        let address = BrokerAddress { host: response.host.to_string(), port };
        self.coordinators.insert(group.to_owned(), address.clone());
        Ok(address)
    }
}

fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

fn is_coordinator_moved(error: &KafkaError) -> bool {
    match error {
        KafkaError::Broker { code, .. } => classify(*code) == ErrorClass::StaleMetadata,
        other => other.is_connection_lost(),
    }
}
