//! The client: connections, metadata, and requests that need a leader or a coordinator.

mod broker_ids;
mod fetch;
mod group_offset;
mod leader_epoch;
mod list_offset;
mod metadata;
mod probe;
mod stale_broker;
mod topic_id;
mod topics;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::address::BrokerAddress;
use crate::connection::BrokerConnection;
use crate::error::KafkaError;
use metadata::ClusterMetadata;

use crate::connection::versions::KafkaRequest;
use crate::settings::KafkaSettings;
pub use fetch::{FetchLimits, FetchPosition, FetchedRecords};
pub use group_offset::GroupOffset;
pub use leader_epoch::EpochEnd;
pub use list_offset::LogEnd;
pub use metadata::{PartitionMetadata, TopicMetadata};
pub use probe::probe_broker;
pub use topics::{CreateResult, TopicSpec};

/// A client of one cluster, for one thread. Every call blocks until it is answered or fails.
///
/// The client connects on first use. It stays usable after an error: a broken connection is
/// replaced by the next call that needs it. Every call ends within the settings' connect and
/// request time-outs together, plus the time that a fetch may wait for records.
#[derive(Debug)]
pub struct KafkaClient {
    pub(crate) settings: Arc<KafkaSettings>,
    pub(crate) cluster: ClusterMetadata,
    connections: HashMap<BrokerAddress, BrokerConnection>,
    /// Selects the first broker to try when none is connected. Increases with each failure.
    next_broker: usize,
    /// Selects the first partition of the next fetch.
    fetch_count: usize,
    /// The coordinator of each group.
    coordinators: HashMap<String, BrokerAddress>,
    /// Topics whose id has changed: the new id, and when it was first seen.
    changed_topic_ids: HashMap<String, (Uuid, Instant)>,
}

impl KafkaClient {
    /// Creates a client. It does not connect.
    pub fn new(settings: Arc<KafkaSettings>) -> Self {
        let max_age = Duration::from_millis(settings.metadata_max_age_ms);
        Self {
            settings,
            cluster: ClusterMetadata::new(max_age),
            connections: HashMap::new(),
            next_broker: 0,
            fetch_count: 0,
            coordinators: HashMap::new(),
            changed_topic_ids: HashMap::new(),
        }
    }

    /// Closes all connections. The next call opens the connections it needs.
    pub fn disconnect(&mut self) {
        self.connections.clear();
    }

    /// Returns the metadata of the topics, in any order. A topic that does not exist is returned
    /// with its error. Topics are never created.
    ///
    /// # Errors
    /// An error of the connection, of the last broker that was tried.
    pub fn topics(&mut self, names: &[String]) -> Result<Vec<TopicMetadata>, KafkaError> {
        let deadline = self.deadline();
        self.topics_by(names, deadline)
    }

    /// Like [`KafkaClient::topics`], with a deadline in place of the request time-out.
    ///
    /// # Errors
    /// See [`KafkaClient::topics`].
    pub fn topics_by(
        &mut self,
        names: &[String],
        deadline: Instant,
    ) -> Result<Vec<TopicMetadata>, KafkaError> {
        let requested = names
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
            .collect();
        let topics = self.metadata(Some(requested), deadline)?;
        for topic in &topics {
            self.cluster.store(topic);
        }
        Ok(topics)
    }

    /// Returns the names of all topics that begin with `prefix` and that the user may describe,
    /// sorted.
    ///
    /// # Errors
    /// See [`KafkaClient::topics`].
    pub fn topics_with_prefix(&mut self, prefix: &str) -> Result<Vec<String>, KafkaError> {
        let deadline = self.deadline();
        let mut names: Vec<_> = self
            .metadata(None, deadline)?
            .into_iter()
            .filter(|topic| topic.error.is_none() && topic.name.starts_with(prefix))
            .map(|topic| topic.name)
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn metadata(
        &mut self,
        topics: Option<Vec<MetadataRequestTopic>>,
        deadline: Instant,
    ) -> Result<Vec<TopicMetadata>, KafkaError> {
        let request =
            MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        let response = self.call_any_broker(&request, deadline)?;
        let topics = self.cluster.update(response);
        let (cluster, bootstrap) = (&self.cluster, &self.settings.bootstrap);
        self.connections.retain(|address, _| {
            bootstrap.contains(address) || cluster.addresses().any(|known| known == address)
        });
        Ok(topics)
    }

    /// The deadline of a call that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline_after(Duration::ZERO)
    }

    /// The deadline of a call that begins now and may wait for records.
    pub(crate) fn deadline_after(&self, wait: Duration) -> Instant {
        let settings = &self.settings;
        let work = Duration::from_millis(settings.connect_timeout_ms + settings.request_timeout_ms);
        Instant::now() + wait + work
    }

    /// Sends a request that any broker can answer, to one broker after the other.
    pub(crate) fn call_any_broker<R: KafkaRequest>(
        &mut self,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, KafkaError> {
        let mut last = None;
        for address in self.candidates() {
            match self.call_broker(&address, request, deadline) {
                Err(error) if error.is_connection_lost() => {
                    log::debug!("{error}");
                    self.next_broker = self.next_broker.wrapping_add(1);
                    last = Some(error);
                }
                result => return result,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(last.unwrap_or_else(KafkaError::no_bootstrap))
    }

    /// All known brokers: first the connected brokers, then the others from `next_broker` on.
    fn candidates(&self) -> Vec<BrokerAddress> {
        let mut rest: Vec<&BrokerAddress> = self.cluster.addresses().collect();
        rest.sort_unstable();
        for address in &self.settings.bootstrap {
            if !rest.contains(&address) {
                rest.push(address);
            }
        }
        if !rest.is_empty() {
            let start = self.next_broker % rest.len();
            rest.rotate_left(start);
        }
        let is_open = |address: &&BrokerAddress| {
            self.connections.get(address).is_some_and(BrokerConnection::is_usable)
        };
        let (open, closed): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_open);
        open.into_iter().chain(closed).cloned().collect()
    }

    /// Sends a request to one broker. If an idle connection proves broken, it is replaced once, so
    /// the request must be safe to send twice.
    pub(crate) fn call_broker<R: KafkaRequest>(
        &mut self,
        address: &BrokerAddress,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, KafkaError> {
        let (connection, is_reused) = self.connection(address, deadline)?;
        let mut result = connection.call(request, deadline);
        if is_reused && matches!(result, Err(KafkaError::Disconnected { .. })) {
            self.connections.remove(address);
            let (connection, _) = self.connection(address, deadline)?;
            result = connection.call(request, deadline);
        }
        if result.as_ref().is_err_and(KafkaError::is_connection_lost) {
            self.connections.remove(address);
        }
        result
    }

    /// Returns the open connection to a broker, or a new connection. `true`: it was open already.
    pub(crate) fn connection(
        &mut self,
        address: &BrokerAddress,
        deadline: Instant,
    ) -> Result<(&mut BrokerConnection, bool), KafkaError> {
        let is_reused = self.connections.get(address).is_some_and(BrokerConnection::is_usable);
        if !is_reused {
            self.connections.remove(address);
            let connect = Duration::from_millis(self.settings.connect_timeout_ms);
            let until = deadline.min(Instant::now() + connect);
            let connection = BrokerConnection::open(&self.settings, address, until)?;
            self.connections.insert(address.clone(), connection);
        }
        match self.connections.get_mut(address) {
            Some(connection) => Ok((connection, is_reused)),
            None => Err(KafkaError::Connect {
                address: address.clone(),
                cause: Arc::new(std::io::ErrorKind::NotConnected.into()),
            }),
        }
    }

    /// Returns the leader's address, and looks it up if it is unknown or old.
    pub(crate) fn leader(
        &mut self,
        topic: &str,
        partition: i32,
        deadline: Instant,
    ) -> Result<BrokerAddress, KafkaError> {
        if !self.cluster.has_leader(topic, partition) {
            let topics = self.topics_by(&[topic.to_owned()], deadline)?;
            if let Some(topic) = topics.iter().find(|known| known.name == topic) {
                topic.ensure_exists()?;
            }
        }
        self.cluster.leader(topic, partition).cloned()
    }
}

/// The error of a partition in a response.
fn partition_error(
    api: &'static str,
    topic: &str,
    partition: i32,
    code: ResponseError,
) -> KafkaError {
    match code {
        ResponseError::UnknownTopicOrPartition => {
            KafkaError::UnknownTopic { topic: topic.to_owned() }
        }
        code => KafkaError::Broker {
            api,
            subject: format!("topic {topic} partition {partition}"),
            code,
            message: None,
        },
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
