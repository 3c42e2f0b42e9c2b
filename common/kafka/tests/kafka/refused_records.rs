//! Records and topics that a broker refuses while it accepts others.

use std::sync::Arc;

use kafka_client::*;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::produce_response::*;
use kafka_protocol::messages::{ApiKey, CreateAclsRequest, CreateAclsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use testkit::raw_request::send_raw_request;
use testkit::services::shared;

use crate::scripted_broker::{ScriptedBroker, ScriptedReply, encoded, identity};
use crate::support::*;

/// Values of an ACL (AclCreation in Kafka's protocol).
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const DENY: i8 = 2;
const READ: i8 = 3;
const WRITE: i8 = 4;

/// Denies the SASL user an operation on a topic.
fn deny(topic: &str, operation: i8) {
    let services = shared().unwrap();
    let creation = AclCreation::default()
        .with_resource_type(TOPIC)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_resource_pattern_type(LITERAL)
        .with_principal(StrBytes::from_string(format!("User:{}", services.sasl_username)))
        .with_host(StrBytes::from_static_str("*"))
        .with_operation(operation)
        .with_permission_type(DENY);
    let request = CreateAclsRequest::default().with_creations(vec![creation]);
    let answer: CreateAclsResponse =
        send_raw_request(&services.kafka_plain, ApiKey::CreateAcls, &request, 3).unwrap();
    assert_eq!(answer.results[0].error_code, 0, "{:?}", answer.results[0].error_message);
}

/// A missing right is permanent: the topic's batch is lost at once, and other topics continue.
#[test]
fn denied_topic_loses_its_batch_and_no_other() {
    let [mine, other] = ["denied", "allowed"].map(topic);
    let settings = Arc::new(sasl(false, SaslMechanism::Plain, None));
    let mut producer = KafkaProducer::new(Arc::clone(&settings), ProducerOptions::default());
    deliver(&mut producer, vec![batch(&mine, &["0"]), batch(&other, &["0"])]);
    deny(&mine, WRITE);
    // The ACL takes effect a moment later.
    let mut written = vec!["0".to_owned()];
    let cause = loop {
        let value = written.len().to_string();
        let outcomes = deliver(&mut producer, vec![batch(&mine, &[&value])]);
        match <[_; 1]>::try_from(outcomes).unwrap() {
            [(_, ProduceOutcome::Delivered { .. })] => written.push(value),
            [(_, ProduceOutcome::Lost { records: 1, cause, maybe_delivered: false })] => {
                break cause;
            }
            other => panic!("{other:?}"),
        }
        assert!(written.len() < 10_000);
    };
    assert_eq!(cause.to_string(), format!("Produce topic {mine}: topic authorization failed"));
    let outcomes = producer.send(vec![batch(&mine, &["no"]), batch(&other, &["1"])], None);
    for (topic, outcome) in outcomes {
        match outcome {
            ProduceOutcome::Lost { maybe_delivered: false, .. } => assert_eq!(topic, mine),
            ProduceOutcome::Delivered { .. } => assert_eq!(topic, other),
            outcome => panic!("{topic}: {outcome:?}"),
        }
    }
    let mut client = KafkaClient::new(plain());
    assert_eq!(read_values(&mut client, &mine), written);
    assert_eq!(read_values(&mut client, &other), ["0", "1"]);

    deny(&other, READ);
    let topic_id = wait_for_topic(&mut client, &other).id;
    let mut client = KafkaClient::new(settings);
    let position =
        FetchPosition { topic: &other, topic_id, partition: 0, offset: 0, leader_epoch: None };
    let refused = retry_until(
        || client.fetch(&position, &FetchLimits::default()),
        |error| !error.is_retryable(),
    );
    // The user may not describe the topic either, so a request other than Fetch can fail.
    let text = refused.to_string();
    assert!(text.contains(&other) && text.ends_with(": topic authorization failed"), "{text}");
}

#[test]
fn refused_record_does_not_affect_other_records() {
    let mut first = true;
    let broker = ScriptedBroker::start(move |request| {
        let is_produce = request.key == ApiKey::Produce;
        if !is_produce || !std::mem::take(&mut first) {
            return ScriptedReply::Answer(request.good_answer());
        }
        let errors = vec![
            BatchIndexAndErrorMessage::default().with_batch_index(1),
            BatchIndexAndErrorMessage::default().with_batch_index(-1),
            BatchIndexAndErrorMessage::default().with_batch_index(9),
        ];
        let refused = PartitionProduceResponse::default()
            .with_error_code(ResponseError::InvalidTimestamp.code())
            .with_record_errors(errors);
        let topic = TopicProduceResponse::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_responses(vec![refused]);
        ScriptedReply::Answer(encoded(
            &ProduceResponse::default().with_responses(vec![topic]),
            request,
        ))
    });
    let mut producer = KafkaProducer::new(Arc::new(broker.settings()), ProducerOptions::default());
    let outcomes = producer.send(vec![batch("t", &["a", "b", "c"])], None);
    let [(_, ProduceOutcome::Lost { records: 1, cause, maybe_delivered: false })] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert!(cause.is_record_error());
    assert!(producer.is_pending("t"));
    let outcomes = producer.send(vec![], None);
    assert!(
        matches!(outcomes[..], [(_, ProduceOutcome::Delivered { records: 2, .. })]),
        "{outcomes:?}"
    );
    let batches = broker.batches("t");
    assert_eq!(identity(&batches[0]), identity(&batches[1]));
    drop(producer);
    broker.stop();
}

#[test]
fn record_with_a_future_time_is_refused_alone_by_a_real_broker() {
    let topic = topic("tomorrow");
    let mut producer = producer();
    let mut mixed = batch(&topic, &["a", "b", "c"]);
    mixed.records[1].timestamp_ms += 86_400_000;
    let outcomes = deliver(&mut producer, vec![mixed]);
    let [
        (_, ProduceOutcome::Lost { records: 1, .. }),
        (_, ProduceOutcome::Delivered { records: 2, .. }),
    ] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    let mut client = KafkaClient::new(plain());
    assert_eq!(read_values(&mut client, &topic), ["a", "c"]);
}
