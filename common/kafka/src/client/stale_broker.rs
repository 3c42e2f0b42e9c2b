//! Detection of a broker with stale metadata.
//!
//! A broker that was paused, or that can't reach the controllers, does not notice that other
//! brokers have taken over its partitions, or that topics were deleted. Its log end and topic
//! ids are then out of date. Consumers detect this by the partition's leader epoch (KIP-320),
//! which they must remember. This client queries the leader epoch from all brokers instead, so
//! nothing has to be remembered between runs.

use std::time::Instant;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use uuid::Uuid;

use super::metadata::parse_topic;
use super::{KafkaClient, topic_name};
use crate::address::BrokerAddress;
use crate::error::KafkaError;

impl KafkaClient {
    /// Confirms the topic id and leader epoch that this client uses: more than half of the
    /// brokers must report both, and no broker a later leader epoch of the same topic.
    ///
    /// Each broker has [`KafkaTimings::majority_timeout`](crate::KafkaTimings::majority_timeout)
    /// to answer.
    ///
    /// # Errors
    /// A retryable error if they are not confirmed. The topic is then looked up again at its
    /// next use.
    pub fn confirm_with_majority(
        &mut self,
        topic: &str,
        topic_id: Uuid,
        partition: i32,
    ) -> Result<(), KafkaError> {
        let known = self.cluster.leader_epoch(topic, partition);
        let addresses: Vec<BrokerAddress> = self.cluster.addresses().cloned().collect();
        let (mut confirmations, mut is_later_known) = (0, false);
        for address in &addresses {
            let Some((id, epoch)) = self.leader_epoch_at_broker(address, topic, partition) else {
                continue;
            };
            let is_same_topic = id == topic_id;
            confirmations += usize::from(is_same_topic && known == Some((id, epoch)));
            is_later_known |= is_same_topic && known.is_some_and(|(_, known)| epoch > known);
        }
        if confirmations * 2 > addresses.len() && !is_later_known {
            return Ok(());
        }
        self.cluster.forget(topic);
        Err(KafkaError::Broker {
            api: "Metadata",
            subject: format!("topic {topic} partition {partition}"),
            code: ResponseError::FencedLeaderEpoch,
            message: Some("the brokers disagree about the topic id or leader epoch".to_owned()),
        })
    }

    /// Topic id and leader epoch according to one broker. `None`: the broker does not respond or
    /// does not know the partition.
    fn leader_epoch_at_broker(
        &mut self,
        address: &BrokerAddress,
        topic: &str,
        partition: i32,
    ) -> Option<(Uuid, i32)> {
        let requested = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![requested]))
            .with_allow_auto_topic_creation(false);
        let deadline = Instant::now() + self.settings.timings.majority_timeout;
        let response = self.call_broker(address, &request, deadline).ok()?;
        let mut topics = response.topics.into_iter().filter_map(parse_topic);
        let metadata = topics.find(|known| known.name == topic && known.error.is_none())?;
        let partition = metadata.partitions.iter().find(|known| known.index == partition)?;
        Some((metadata.id, partition.leader_epoch))
    }
}
