//! Topics made, and unmade.

use std::time::Instant;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, topic_name};
use super::error::Error;

/// How a topic is made; always with one partition, so that a domain keeps its order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicSpec {
    /// On how many brokers each record lies, 1 or more; none: on 3, or on all
    /// where there are fewer.
    pub replication_factor: Option<i16>,
    /// How long records are kept, in milliseconds, -1 for ever; none: as the
    /// broker is set.
    pub retention_ms: Option<i64>,
}

/// What became of a topic that should be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It was made.
    Created,
    /// It was there before, as it is.
    Exists,
}

/// What became of each topic of a request.
pub(super) type TopicCreation = (String, Result<Creation, Error>);

/// The replication factor where none is set and there are brokers enough.
const REPLICATION_FACTOR_DEFAULT: i16 = 3;

impl Client {
    /// Makes a topic of one partition, with min.insync.replicas at one less than
    /// the replication factor (1 at least): one broker can be away without that
    /// writing stops, and what was acknowledged is then still on another.
    ///
    /// Brokers other than the one asked can need a moment to know of it.
    ///
    /// # Errors
    /// The broker's refusal, or that of the connection.
    pub fn create_topic(&mut self, name: &str, spec: &TopicSpec) -> Result<Creation, Error> {
        let deadline = self.deadline();
        let mut created = self.create_topics(&[name.to_owned()], spec, deadline)?;
        created.pop().map_or_else(|| Err(unanswered("CreateTopics", name)), |(_, result)| result)
    }

    /// As [`Client::create_topic`], in one request for all of `names`.
    pub(super) fn create_topics(
        &mut self,
        names: &[String],
        spec: &TopicSpec,
        deadline: Instant,
    ) -> Result<Vec<TopicCreation>, Error> {
        // Asking for no topic is asking for the brokers, as many as there are now.
        self.topics_until(&[], deadline)?;
        let brokers = i16::try_from(self.cluster.broker_count()).unwrap_or(i16::MAX);
        let factor =
            spec.replication_factor.unwrap_or(REPLICATION_FACTOR_DEFAULT.min(brokers)).max(1);
        let mut configs = vec![("min.insync.replicas", (factor - 1).max(1).to_string())];
        configs.extend(spec.retention_ms.map(|ms| ("retention.ms", ms.to_string())));
        let topics = names.iter().map(|name| creatable(name, 1, factor, &configs)).collect();
        self.create(topics, deadline)
    }

    /// Makes a topic of any shape. The programs make topics by
    /// [`Client::create_topic`] alone; this is for who prepares a cluster.
    ///
    /// # Errors
    /// The broker's refusal, or that of the connection.
    pub fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        replication_factor: i16,
        configs: &[(&str, &str)],
    ) -> Result<Creation, Error> {
        let deadline = self.deadline();
        self.topics_until(&[], deadline)?;
        let configs: Vec<_> =
            configs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let topic = creatable(name, partitions, replication_factor, &configs);
        let mut created = self.create(vec![topic], deadline)?;
        created.pop().map_or_else(|| Err(unanswered("CreateTopics", name)), |(_, result)| result)
    }

    fn create(
        &mut self,
        topics: Vec<CreatableTopic>,
        deadline: Instant,
    ) -> Result<Vec<TopicCreation>, Error> {
        let request = CreateTopicsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(self.broker_timeout_ms());
        // Brokers of KRaft pass it on to the controller; older ones do not.
        let response = match self.cluster.controller().cloned() {
            Some(controller) => self.call_at(&controller, &request, deadline)?,
            None => self.call_any(&request, deadline)?,
        };
        let judge = |code, subject: String, message: Option<&StrBytes>| {
            if code == ResponseError::TopicAlreadyExists.code() {
                return Ok(Creation::Exists);
            }
            Error::from_code("CreateTopics", subject, code, message.map(StrBytes::as_str))
                .map(|()| Creation::Created)
        };
        Ok(response
            .topics
            .into_iter()
            .map(|topic| {
                let subject = format!("topic {}", topic.name.as_str());
                let result = judge(topic.error_code, subject, topic.error_message.as_ref());
                (topic.name.to_string(), result)
            })
            .collect())
    }

    /// Deletes a topic and all that is in it. Neither program does; tests do.
    ///
    /// By its id (KIP-516): a broker passes a request on to the controller as much as
    /// a minute later, when nobody waits for it any more and the name may be that of
    /// another topic.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], the broker's refusal, or that of the connection.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), Error> {
        let deadline = self.deadline();
        let known = self.topics_until(&[name.to_owned()], deadline)?.into_iter().next();
        let known = known.filter(|topic| !topic.is_missing());
        let id = known.ok_or_else(|| Error::UnknownTopic { topic: name.to_owned() })?.id;
        let topic = DeleteTopicState::default().with_name(None).with_topic_id(id);
        let request = DeleteTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.broker_timeout_ms());
        let response = match self.cluster.controller().cloned() {
            Some(controller) => self.call_at(&controller, &request, deadline)?,
            None => self.call_any(&request, deadline)?,
        };
        self.cluster.forget(name);
        for topic in response.responses {
            let message = topic.error_message.as_ref().map(StrBytes::as_str);
            Error::from_code("DeleteTopics", format!("topic {name}"), topic.error_code, message)?;
        }
        Ok(())
    }

    /// How long a broker may work on a request: less than we wait for it.
    pub(super) fn broker_timeout_ms(&self) -> i32 {
        i32::try_from(self.settings.request_timeout_ms / 10 * 9).unwrap_or(i32::MAX)
    }
}

fn creatable(
    name: &str,
    partitions: i32,
    factor: i16,
    configs: &[(&str, String)],
) -> CreatableTopic {
    let configs = configs
        .iter()
        .map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string((*name).to_owned()))
                .with_value(Some(StrBytes::from_string(value.clone())))
        })
        .collect();
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(factor)
        .with_configs(configs)
}

/// An answer that leaves out what was asked: nothing is known, so try again.
pub(super) fn unanswered(api: &'static str, topic: &str) -> Error {
    Error::Broker {
        api,
        subject: format!("topic {topic}"),
        code: ResponseError::UnknownServerError,
        message: Some("the answer leaves it out".to_owned()),
    }
}
