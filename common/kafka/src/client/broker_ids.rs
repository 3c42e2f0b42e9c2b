//! The brokers of a cluster.

use kafka_protocol::messages::MetadataRequest;

use super::KafkaClient;
use crate::error::KafkaError;

impl KafkaClient {
    /// Returns the ids of the brokers in the cluster, sorted, according to the first broker that
    /// answers.
    ///
    /// # Errors
    /// See [`KafkaClient::topics`].
    pub fn broker_ids(&mut self) -> Result<Vec<i32>, KafkaError> {
        let request = MetadataRequest::default()
            .with_topics(Some(Vec::new()))
            .with_allow_auto_topic_creation(false);
        let deadline = self.deadline();
        let response = self.call_any_broker(&request, deadline)?;
        let mut ids: Vec<i32> = response.brokers.iter().map(|broker| broker.node_id.0).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}
