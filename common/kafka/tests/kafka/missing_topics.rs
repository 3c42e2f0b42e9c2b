//! Topics that do not exist, and brokers that refuse to create them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_client::*;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::metadata_response::*;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, StrBytes};

use crate::scripted_broker::{ReceivedRequest, ScriptedBroker, ScriptedReply, encoded};
use crate::support::batch;

/// A broker with all topics except `absent`, which it refuses to create with `code`.
fn broker(code: i16) -> ScriptedBroker {
    ScriptedBroker::start(move |request| {
        ScriptedReply::Answer(match request.key {
            ApiKey::Metadata => metadata_without_absent(request),
            ApiKey::CreateTopics => {
                let topic =
                    CreatableTopicResult::default().with_name(name("absent")).with_error_code(code);
                encoded(&CreateTopicsResponse::default().with_topics(vec![topic]), request)
            }
            _ => request.good_answer(),
        })
    })
}

fn name(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

fn metadata_without_absent(request: &ReceivedRequest) -> Vec<u8> {
    let mut good = Bytes::from(request.metadata(&|_| request.port));
    let mut response = MetadataResponse::decode(&mut good, request.version).unwrap();
    for topic in &mut response.topics {
        if topic.name == Some(name("absent")) {
            *topic = MetadataResponseTopic::default()
                .with_name(topic.name.clone())
                .with_error_code(ResponseError::UnknownTopicOrPartition.code());
        }
    }
    encoded(&response, request)
}

fn reason(outcomes: Vec<(String, ProduceOutcome)>) -> String {
    match <[_; 1]>::try_from(outcomes).unwrap() {
        [(_, ProduceOutcome::Pending { reason })] => reason.to_string(),
        [other] => panic!("{other:?}"),
    }
}

#[test]
fn batch_of_a_topic_that_can_not_be_created_stays_pending_with_the_reason() {
    for (code, expected) in [
        (ResponseError::TopicAuthorizationFailed, "topic authorization failed"),
        (ResponseError::PolicyViolation, "policy violation"),
        (ResponseError::InvalidReplicationFactor, "invalid replication factor"),
    ] {
        let broker = broker(code.code());
        let mut producer =
            KafkaProducer::new(Arc::new(broker.settings()), ProducerOptions::default());
        let reason = reason(producer.send(vec![batch("absent", &["a"])], None));
        assert_eq!(reason, format!("CreateTopics topic absent: {expected}"));
        drop(producer);
        broker.stop();
    }
}

#[test]
fn batch_of_an_invalid_topic_name_is_lost() {
    let broker = broker(ResponseError::InvalidTopicException.code());
    let mut producer = KafkaProducer::new(Arc::new(broker.settings()), ProducerOptions::default());
    let outcomes = producer.send(vec![batch("absent", &["a"])], None);
    assert!(matches!(&outcomes[..], [(_, ProduceOutcome::Lost { .. })]), "{outcomes:?}");
    drop(producer);
    broker.stop();
}

#[test]
fn missing_topic_is_not_looked_up_in_every_round() {
    let broker = broker(ResponseError::InvalidReplicationFactor.code());
    let mut producer = KafkaProducer::new(Arc::new(broker.settings()), ProducerOptions::default());
    let mut offered = vec![batch("absent", &["a"])];
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(1) {
        offered.push(batch("there", &["a"]));
        let outcomes = producer.send(std::mem::take(&mut offered), None);
        let is_delivered = |(topic, outcome): &(String, ProduceOutcome)| {
            topic == "there" && matches!(outcome, ProduceOutcome::Delivered { .. })
        };
        assert!(outcomes.iter().any(is_delivered), "{outcomes:?}");
        // The reason of the missing topic is reported in every round.
        assert_eq!(outcomes.len(), 2, "{outcomes:?}");
        rounds += 1;
    }
    let tries = broker.seen(ApiKey::CreateTopics).len();
    assert!((2..=10).contains(&tries) && rounds > 10, "{tries} tries in {rounds} rounds");
    drop(producer);
    broker.stop();
}
