//! Checks whether a broker is reachable from this host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::MetadataRequest;

use super::KafkaClient;
use crate::address::BrokerAddress;
use crate::error::KafkaError;
use crate::settings::KafkaSettings;

/// Connects to a broker, with TLS and SASL, sends the smallest request, and closes the connection.
/// Always opens a new connection, because an open connection does not show whether the next one
/// succeeds.
///
/// # Errors
/// An error of the connection, after `timeout` at the latest.
pub fn probe_broker(
    settings: &Arc<KafkaSettings>,
    address: &BrokerAddress,
    timeout: Duration,
) -> Result<(), KafkaError> {
    // Requests metadata without any topic.
    let request = MetadataRequest::default()
        .with_topics(Some(Vec::new()))
        .with_allow_auto_topic_creation(false);
    let mut client = KafkaClient::new(Arc::clone(settings));
    client.call_broker(address, &request, Instant::now() + timeout).map(|_| ())
}

impl KafkaClient {
    /// Returns the address of a broker according to the last metadata that this client received.
    pub fn broker_address(&self, id: i32) -> Option<&BrokerAddress> {
        self.cluster.address(id)
    }
}
