//! ListOffsets: the offsets of a log's start and end.

use std::time::Instant;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};

use super::leader_epoch::NO_EPOCH;
use super::{KafkaClient, partition_error, topic_name};
use crate::error::KafkaError;

/// The start or the end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// The offset of the first record in the log.
    Earliest,
    /// The offset of the next record to be written.
    Latest,
}

impl LogEnd {
    /// The special timestamp of ListOffsets.
    const fn timestamp(self) -> i64 {
        match self {
            Self::Earliest => -2,
            Self::Latest => -1,
        }
    }
}

/// Records of open transactions are read too. The trackers use no transactions, and another
/// producer's transaction that never ends would stop a `read_committed` reader.
pub(crate) const READ_UNCOMMITTED: i8 = 0;

impl KafkaClient {
    /// Returns the offset of a log's start or end.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`], the broker's error code, or an error of the connection.
    pub fn list_offset(
        &mut self,
        topic: &str,
        partition: i32,
        end: LogEnd,
    ) -> Result<i64, KafkaError> {
        let deadline = self.deadline();
        self.list_offset_by(topic, partition, end, deadline)
    }

    pub(super) fn list_offset_by(
        &mut self,
        topic: &str,
        partition: i32,
        end: LogEnd,
        deadline: Instant,
    ) -> Result<i64, KafkaError> {
        let leader = self.leader(topic, partition, deadline)?;
        let epoch = self.cluster.leader_epoch(topic, partition).map(|(_, epoch)| epoch);
        let partitions = vec![
            ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_current_leader_epoch(epoch.unwrap_or(NO_EPOCH))
                .with_timestamp(end.timestamp()),
        ];
        let topics = vec![
            ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(partitions),
        ];
        // The default of kafka-protocol is replica 0, which would mark the client as a follower.
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(READ_UNCOMMITTED)
            .with_topics(topics);
        let response = self.call_broker(&leader, &request, deadline).inspect_err(|_| {
            self.cluster.forget(topic);
        })?;
        let answer = response
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .find(|answer| answer.partition_index == partition)
            .ok_or_else(|| KafkaError::not_in_response("ListOffsets", topic))?;
        match ResponseError::try_from_code(answer.error_code) {
            None => Ok(answer.offset),
            Some(code) => {
                self.cluster.forget(topic);
                Err(partition_error("ListOffsets", topic, partition, code))
            }
        }
    }
}
