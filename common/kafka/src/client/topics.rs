//! CreateTopics and DeleteTopics.

use std::time::Instant;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use kafka_protocol::protocol::StrBytes;

use crate::client::{KafkaClient, topic_name};
use crate::error::KafkaError;

/// Settings of a new topic. It always gets one partition, which keeps the order of its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicSpec {
    /// The number of replicas, at least 1. `None`: 3, or the number of brokers if lower.
    pub replication_factor: Option<i16>,
    /// The time in milliseconds for which records are retained; -1: forever. `None`: the broker's
    /// default.
    pub retention_ms: Option<i64>,
}

/// The result of creating a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateResult {
    /// The topic was created.
    Created,
    /// The topic existed already; its settings are unchanged.
    Exists,
}

/// The result for one topic of a request.
pub(crate) type TopicResult = (String, Result<CreateResult, KafkaError>);

/// The replication factor if none is set and there are enough brokers.
const REPLICATION_FACTOR_DEFAULT: i16 = 3;

impl KafkaClient {
    /// Creates a topic with one partition. `min.insync.replicas` is the replication factor minus
    /// one, at least 1: with one broker down, writing continues and acknowledged records are still
    /// on another broker.
    ///
    /// Other brokers can need a moment until they know the topic.
    ///
    /// # Errors
    /// The broker's error code, or an error of the connection.
    pub fn create_topic(
        &mut self,
        name: &str,
        spec: &TopicSpec,
    ) -> Result<CreateResult, KafkaError> {
        let deadline = self.deadline();
        let mut created = self.create_topics(&[name.to_owned()], spec, deadline)?;
        created.pop().map_or_else(
            || Err(KafkaError::not_in_response("CreateTopics", name)),
            |(_, result)| result,
        )
    }

    /// Creates topics like [`KafkaClient::create_topic`], with one request.
    pub(crate) fn create_topics(
        &mut self,
        names: &[String],
        spec: &TopicSpec,
        deadline: Instant,
    ) -> Result<Vec<TopicResult>, KafkaError> {
        // Metadata of no topic: refreshes the list of brokers.
        self.topics_by(&[], deadline)?;
        let brokers = i16::try_from(self.cluster.broker_count()).unwrap_or(i16::MAX);
        let factor =
            spec.replication_factor.unwrap_or(REPLICATION_FACTOR_DEFAULT.min(brokers)).max(1);
        let mut configs = vec![("min.insync.replicas", (factor - 1).max(1).to_string())];
        configs.extend(spec.retention_ms.map(|ms| ("retention.ms", ms.to_string())));
        let topics = names.iter().map(|name| creatable_topic(name, 1, factor, &configs)).collect();
        self.send_create_topics(topics, deadline)
    }

    /// Creates a topic with any number of partitions and any configuration, to prepare a cluster.
    ///
    /// # Errors
    /// The broker's error code, or an error of the connection.
    pub fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        replication_factor: i16,
        configs: &[(&str, &str)],
    ) -> Result<CreateResult, KafkaError> {
        let deadline = self.deadline();
        self.topics_by(&[], deadline)?;
        let configs: Vec<_> =
            configs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let topic = creatable_topic(name, partitions, replication_factor, &configs);
        let mut created = self.send_create_topics(vec![topic], deadline)?;
        created.pop().map_or_else(
            || Err(KafkaError::not_in_response("CreateTopics", name)),
            |(_, result)| result,
        )
    }

    fn send_create_topics(
        &mut self,
        topics: Vec<CreatableTopic>,
        deadline: Instant,
    ) -> Result<Vec<TopicResult>, KafkaError> {
        let request = CreateTopicsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(self.broker_timeout_ms());
        // Brokers in ZooKeeper mode do not forward the request to the controller.
        let response = match self.cluster.controller().cloned() {
            Some(controller) => self.call_broker(&controller, &request, deadline)?,
            None => self.call_any_broker(&request, deadline)?,
        };
        let result_of = |code, subject: String, message: Option<&StrBytes>| {
            if code == ResponseError::TopicAlreadyExists.code() {
                return Ok(CreateResult::Exists);
            }
            KafkaError::from_code("CreateTopics", subject, code, message.map(StrBytes::as_str))
                .map(|()| CreateResult::Created)
        };
        Ok(response
            .topics
            .into_iter()
            .map(|topic| {
                let subject = format!("topic {}", topic.name.as_str());
                let result = result_of(topic.error_code, subject, topic.error_message.as_ref());
                (topic.name.to_string(), result)
            })
            .collect())
    }

    /// Deletes a topic with all its records. The tracker and the recorder never do this; tests do.
    ///
    /// The request names the topic by its id (KIP-516). A broker can forward a request to the
    /// controller up to a minute late, and by then the name can belong to another topic.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`], the broker's error code, or an error of the connection.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), KafkaError> {
        let deadline = self.deadline();
        let known = self.topics_by(&[name.to_owned()], deadline)?.into_iter().next();
        let known = known.filter(|topic| !topic.is_missing());
        let id = known.ok_or_else(|| KafkaError::UnknownTopic { topic: name.to_owned() })?.id;
        let topic = DeleteTopicState::default().with_name(None).with_topic_id(id);
        let request = DeleteTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.broker_timeout_ms());
        let response = match self.cluster.controller().cloned() {
            Some(controller) => self.call_broker(&controller, &request, deadline)?,
            None => self.call_any_broker(&request, deadline)?,
        };
        self.cluster.forget(name);
        for topic in response.responses {
            let message = topic.error_message.as_ref().map(StrBytes::as_str);
            KafkaError::from_code(
                "DeleteTopics",
                format!("topic {name}"),
                topic.error_code,
                message,
            )?;
        }
        Ok(())
    }

    /// The time-out that a request gives the broker, in milliseconds: less than the client waits.
    pub(crate) fn broker_timeout_ms(&self) -> i32 {
        i32::try_from(self.settings.request_timeout_ms / 10 * 9).unwrap_or(i32::MAX)
    }
}

fn creatable_topic(
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
