//! Whether a broker that says what can't be expected is behind the others.
//!
//! A broker that stood still, or is cut off from the controllers, goes on to
//! lead partitions that another leads by now, and to tell of topics that were
//! deleted, until it learns better. What it says of a log's end, or of a topic's
//! id, is of the past then. Consumers tell that by the number of the partition's
//! election (KIP-320); here the other brokers are asked for theirs, which needs
//! nothing to be remembered from one run to the next.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use uuid::Uuid;

use super::address::Address;
use super::client::{Client, topic_name};
use super::error::Error;
use super::metadata::topic as read_topic;

/// How long each broker has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

impl Client {
    /// Confirms that what this client goes by, the topic's id and who leads the
    /// partition, is what most brokers say, and that none knows a later election.
    ///
    /// # Errors
    /// A retryable one, with what is known of the topic forgotten, when it is not.
    pub fn confirm(&mut self, topic: &str, topic_id: Uuid, partition: i32) -> Result<(), Error> {
        let known = self.cluster.election(topic, partition);
        let addresses: Vec<Address> = self.cluster.addresses().cloned().collect();
        let (mut agreed, mut is_later_known) = (0, false);
        for address in &addresses {
            let Some((id, epoch)) = self.election_at(address, topic, partition) else { continue };
            let is_same = id == topic_id;
            agreed += usize::from(is_same && known == Some((id, epoch)));
            is_later_known |= is_same && known.is_some_and(|(_, known)| epoch > known);
        }
        if agreed * 2 > addresses.len() && !is_later_known {
            return Ok(());
        }
        self.cluster.forget(topic);
        Err(Error::Broker {
            api: "Metadata",
            subject: format!("topic {topic} partition {partition}"),
            code: ResponseError::FencedLeaderEpoch,
            message: Some("the brokers do not agree on it".to_owned()),
        })
    }

    /// What one broker says; none when it does not answer or knows no such partition.
    fn election_at(
        &mut self,
        address: &Address,
        topic: &str,
        partition: i32,
    ) -> Option<(Uuid, i32)> {
        let asked = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(false);
        let response = self.call_at(address, &request, Instant::now() + ANSWER_WITHIN).ok()?;
        let found = response.topics.into_iter().filter_map(read_topic);
        let found = found.into_iter().find(|found| found.name == topic && found.error.is_none())?;
        let metadata = found.partitions.iter().find(|found| found.index == partition)?;
        Some((found.id, metadata.leader_epoch))
    }
}
