//! Detection of deleted and recreated topics by their topic id (KIP-516).

use std::time::Instant;

use kafka_protocol::ResponseError;

use super::fetch::FetchPosition;
use super::{KafkaClient, partition_error};
use crate::error::KafkaError;

impl KafkaClient {
    /// The error of a topic id that the leader does not know: the topic was deleted or recreated,
    /// or is so new that the leader does not know it yet.
    pub(super) fn unknown_topic_id(
        &mut self,
        position: &FetchPosition<'_>,
        code: ResponseError,
        deadline: Instant,
    ) -> KafkaError {
        let name = position.topic;
        self.cluster.forget(name);
        let current = match self.topics_by(&[name.to_owned()], deadline) {
            Ok(topics) => topics.into_iter().find(|topic| topic.name == name),
            Err(error) => return error,
        };
        let Some(current) = current else {
            return KafkaError::not_in_response("Metadata", name);
        };
        if let Err(error) = current.ensure_exists() {
            self.changed_topic_ids.remove(name);
            return error;
        }
        if current.id == position.topic_id {
            self.changed_topic_ids.remove(name);
            return partition_error("Fetch", name, position.partition, code);
        }
        let now = Instant::now();
        let confirm = self.settings.timings.topic_id_confirm;
        let (seen_id, seen_at) =
            *self.changed_topic_ids.entry(name.to_owned()).or_insert((current.id, now));
        if seen_id == current.id && now.duration_since(seen_at) >= confirm {
            return KafkaError::UnknownTopicId {
                topic: name.to_owned(),
                topic_id: position.topic_id,
                current_id: current.id,
            };
        }
        if seen_id != current.id {
            self.changed_topic_ids.insert(name.to_owned(), (current.id, now));
        }
        partition_error("Fetch", name, position.partition, ResponseError::UnknownTopicId)
    }
}
