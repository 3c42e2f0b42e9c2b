//! A client: its connections, and who leads what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::address::Address;
use super::connection::Connection;
use super::error::Error;
use super::metadata::{Cluster, TopicMetadata};
use super::settings::Settings;
use super::versions::Call;

/// Speaks to a cluster, for one thread: every call blocks until it is answered,
/// fails, or its time is over.
///
/// It starts with nothing and learns as it goes; an error leaves it usable. A
/// broken connection is dropped and made anew by the next call that needs it.
/// Every call ends within the settings' connect and request time-outs together,
/// plus what a fetch may wait for records.
#[derive(Debug)]
pub struct Client {
    pub(super) settings: Arc<Settings>,
    pub(super) cluster: Cluster,
    pub(super) connections: HashMap<Address, Connection>,
    /// Which broker to try first when none is connected; moves on with failures.
    turn: usize,
    /// Which partition is asked for first; moves on with each fetch.
    pub(super) fetches: usize,
    /// The coordinators of groups.
    pub(super) coordinators: HashMap<String, Address>,
    /// Topics seen once with another id than asked for, which one, and when.
    pub(super) doubts: HashMap<String, (Uuid, Instant)>,
}

impl Client {
    /// A client without a connection yet.
    pub fn new(settings: Arc<Settings>) -> Self {
        let max_age = Duration::from_millis(settings.metadata_max_age_ms);
        Self {
            settings,
            cluster: Cluster::new(max_age),
            connections: HashMap::new(),
            turn: 0,
            fetches: 0,
            coordinators: HashMap::new(),
            doubts: HashMap::new(),
        }
    }

    /// What the brokers know of `names`, in no particular order; a topic that is
    /// not there is in the answer with its error. Creates nothing.
    ///
    /// # Errors
    /// Of the connection to every broker that was tried; the last one is given.
    pub fn topics(&mut self, names: &[String]) -> Result<Vec<TopicMetadata>, Error> {
        let deadline = self.deadline();
        self.topics_until(names, deadline)
    }

    pub(super) fn topics_until(
        &mut self,
        names: &[String],
        deadline: Instant,
    ) -> Result<Vec<TopicMetadata>, Error> {
        let asked = names
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
            .collect();
        let topics = self.metadata(Some(asked), deadline)?;
        for topic in &topics {
            self.cluster.keep(topic);
        }
        Ok(topics)
    }

    /// The names of all topics whose names begin with `prefix`, sorted, as far
    /// as the brokers let us see them.
    ///
    /// # Errors
    /// See [`Client::topics`].
    pub fn topics_with_prefix(&mut self, prefix: &str) -> Result<Vec<String>, Error> {
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
    ) -> Result<Vec<TopicMetadata>, Error> {
        let request =
            MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        let response = self.call_any(&request, deadline)?;
        let topics = self.cluster.learn(response);
        let (cluster, bootstrap) = (&self.cluster, &self.settings.bootstrap);
        self.connections.retain(|address, _| {
            bootstrap.contains(address) || cluster.addresses().any(|known| known == address)
        });
        Ok(topics)
    }

    /// When a call that begins now must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline_after(Duration::ZERO)
    }

    /// As [`Client::deadline`], for a call that is meant to take some time.
    pub(super) fn deadline_after(&self, wait: Duration) -> Instant {
        let settings = &self.settings;
        let work = Duration::from_millis(settings.connect_timeout_ms + settings.request_timeout_ms);
        Instant::now() + wait + work
    }

    /// A request that any broker can answer, asked of one after the other.
    pub(super) fn call_any<R: Call>(
        &mut self,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, Error> {
        let mut last = None;
        for address in self.candidates() {
            match self.call_at(&address, request, deadline) {
                Err(error) if error.is_transport() => {
                    log::debug!("{error}");
                    self.turn = self.turn.wrapping_add(1);
                    last = Some(error);
                }
                done => return done,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Error::Request {
            api: "bootstrap",
            what: "no broker given".to_owned(),
        }))
    }

    /// The brokers to ask: connected ones, then the others from `turn` on.
    fn candidates(&self) -> Vec<Address> {
        let mut rest: Vec<&Address> = self.cluster.addresses().collect();
        rest.sort_unstable();
        for address in &self.settings.bootstrap {
            if !rest.contains(&address) {
                rest.push(address);
            }
        }
        if !rest.is_empty() {
            let start = self.turn % rest.len();
            rest.rotate_left(start);
        }
        let is_open =
            |address: &&Address| self.connections.get(address).is_some_and(Connection::is_usable);
        let (open, closed): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_open);
        open.into_iter().chain(closed).cloned().collect()
    }

    /// A request to one broker. A connection that broke while it lay idle is
    /// made anew once; all requests that go this way may be sent twice.
    pub(super) fn call_at<R: Call>(
        &mut self,
        address: &Address,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, Error> {
        let (connection, reused) = self.connection(address, deadline)?;
        let mut result = connection.call(request, deadline);
        if reused && matches!(result, Err(Error::Disconnected { .. })) {
            self.connections.remove(address);
            let (connection, _) = self.connection(address, deadline)?;
            result = connection.call(request, deadline);
        }
        if result.as_ref().is_err_and(Error::is_transport) {
            self.connections.remove(address);
        }
        result
    }

    /// The open connection to a broker, or a new one; true: it was open.
    pub(super) fn connection(
        &mut self,
        address: &Address,
        deadline: Instant,
    ) -> Result<(&mut Connection, bool), Error> {
        let reused = self.connections.get(address).is_some_and(Connection::is_usable);
        if !reused {
            self.connections.remove(address);
            let connect = Duration::from_millis(self.settings.connect_timeout_ms);
            let until = deadline.min(Instant::now() + connect);
            let connection = Connection::open(&self.settings, address, until)?;
            self.connections.insert(address.clone(), connection);
        }
        match self.connections.get_mut(address) {
            Some(connection) => Ok((connection, reused)),
            None => Err(Error::Connect {
                address: address.clone(),
                cause: Arc::new(std::io::ErrorKind::NotConnected.into()),
            }),
        }
    }

    /// Where the partition's leader listens, asked for when it is not known.
    pub(super) fn leader(
        &mut self,
        topic: &str,
        partition: i32,
        deadline: Instant,
    ) -> Result<Address, Error> {
        if !self.cluster.has_leader(topic, partition) {
            let topics = self.topics_until(&[topic.to_owned()], deadline)?;
            if let Some(topic) = topics.iter().find(|found| found.name == topic) {
                known(topic)?;
            }
        }
        self.cluster.leader(topic, partition).cloned()
    }
}

/// The error that metadata gives for a topic, if any.
pub(super) fn known(topic: &TopicMetadata) -> Result<(), Error> {
    let Some(code) = topic.error else { return Ok(()) };
    if topic.is_missing() {
        return Err(Error::UnknownTopic { topic: topic.name.clone() });
    }
    let subject = format!("topic {}", topic.name);
    Error::from_code("Metadata", subject, code.code(), None)
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
