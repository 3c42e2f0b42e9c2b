//! OffsetForLeaderEpoch: the end of the records of a leader epoch in the log (KIP-320).
//!
//! If a log lost its tail and a later leader has appended to it since, the log has other records at
//! the lost offsets. Offsets alone do not show this. The leader epoch of the last read record shows
//! it.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, OffsetForLeaderEpochRequest};

use super::{KafkaClient, partition_error, topic_name};
use crate::error::KafkaError;
use crate::error::retryable::{ErrorClass, classify};

/// No leader epoch, in requests and responses.
pub(super) const NO_EPOCH: i32 = -1;

/// A consumer. The default of kafka-protocol is -2, which is a debugging client.
const CONSUMER: BrokerId = BrokerId(-1);

const API: &str = "OffsetForLeaderEpoch";

/// The end of the records of a leader epoch in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The latest epoch in the log that is not later than the requested one.
    pub leader_epoch: i32,
    /// The offset after the last record of this epoch.
    pub end_offset: i64,
}

impl KafkaClient {
    /// Asks the leader where the records of `leader_epoch` end. `current_epoch` is the epoch of
    /// the leader itself. Returns `None` if the leader does not know the epoch.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`], the broker's error code, or an error of the connection. A
    /// leader of another epoch than `current_epoch` refuses the request.
    pub fn epoch_end(
        &mut self,
        topic: &str,
        partition: i32,
        leader_epoch: i32,
        current_epoch: i32,
    ) -> Result<Option<EpochEnd>, KafkaError> {
        let deadline = self.deadline();
        let partitions = vec![
            OffsetForLeaderPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(current_epoch)
                .with_leader_epoch(leader_epoch),
        ];
        let topics = vec![
            OffsetForLeaderTopic::default()
                .with_topic(topic_name(topic))
                .with_partitions(partitions),
        ];
        let request =
            OffsetForLeaderEpochRequest::default().with_replica_id(CONSUMER).with_topics(topics);
        let leader = self.leader(topic, partition, deadline)?;
        let response = self.call_broker(&leader, &request, deadline).inspect_err(|_| {
            self.cluster.forget(topic);
        })?;
        let answer = response
            .topics
            .iter()
            .filter(|answer| answer.topic.as_str() == topic)
            .flat_map(|answer| &answer.partitions)
            .find(|answer| answer.partition == partition)
            .ok_or_else(|| KafkaError::not_in_response(API, topic))?;
        match ResponseError::try_from_code(answer.error_code) {
            None if answer.leader_epoch < 0 || answer.end_offset < 0 => Ok(None),
            None => Ok(Some(EpochEnd {
                leader_epoch: answer.leader_epoch,
                end_offset: answer.end_offset,
            })),
            Some(code) => {
                if classify(code) == ErrorClass::StaleMetadata {
                    self.cluster.forget(topic);
                }
                Err(partition_error(API, topic, partition, code))
            }
        }
    }
}
