//! Records and topics that a broker refuses while it accepts others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_client::*;
use kafka_protocol::messages::produce_response::*;
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;

use testkit::acls::{self, TopicOperation};
use testkit::services::shared;

use crate::scripted_broker::{ScriptedBroker, ScriptedReply, encoded, identity};
use crate::support::*;

/// A missing right is an outage of the topic: its batch stays pending until the right is granted,
/// and other topics continue.
#[test]
fn batch_of_a_denied_topic_is_delivered_when_the_right_is_granted() {
    let services = shared().unwrap();
    let [mine, other] = ["denied", "allowed"].map(topic);
    let settings = Arc::new(sasl(false, SaslMechanism::Plain, None));
    let mut producer = KafkaProducer::new(Arc::clone(&settings), ProducerOptions::default());
    deliver(&mut producer, vec![batch(&mine, &["0"]), batch(&other, &["0"])]);
    acls::deny(&services, &mine, TopicOperation::Write).unwrap();
    // The ACL takes effect a moment later.
    let mut written = vec!["0".to_owned()];
    let reason = loop {
        let value = written.len().to_string();
        written.push(value.clone());
        let mut outcomes = producer.send(vec![batch(&mine, &[&value])], None);
        match outcomes.pop() {
            Some((_, ProduceOutcome::Delivered { .. })) => {}
            Some((_, ProduceOutcome::Pending { reason })) => break reason,
            other => panic!("{other:?}"),
        }
        assert!(written.len() < 10_000);
    };
    assert_eq!(reason.to_string(), format!("Produce topic {mine}: topic authorization failed"));
    assert_eq!(reason.missing_operation(), Some("Write"));
    assert_eq!(settings.principal(), Some(format!("User:{}", services.sasl_username)));
    // The other topic continues.
    let mut is_delivered = false;
    let mut batches = vec![batch(&other, &["1"])];
    while !is_delivered {
        for (topic, outcome) in producer.send(std::mem::take(&mut batches), None) {
            match outcome {
                ProduceOutcome::Pending { .. } => assert_eq!(topic, mine),
                ProduceOutcome::Delivered { .. } => is_delivered = topic == other,
                outcome => panic!("{topic}: {outcome:?}"),
            }
        }
    }
    acls::remove_all(&services, &mine).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while producer.is_pending(&mine) {
        let outcomes = producer.send(vec![], None);
        assert!(Instant::now() < end, "still refused: {outcomes:?}");
    }
    let mut client = KafkaClient::new(plain());
    assert_eq!(read_values(&mut client, &mine), written);
    assert_eq!(read_values(&mut client, &other), ["0", "1"]);

    acls::deny(&services, &other, TopicOperation::Read).unwrap();
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
    let [(_, ProduceOutcome::Lost { indexes, cause, maybe_delivered: false })] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert_eq!(*indexes, BTreeSet::from([1]));
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
    let [(_, ProduceOutcome::Lost { .. }), (_, ProduceOutcome::Delivered { records: 2, .. })] =
        &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    let mut client = KafkaClient::new(plain());
    assert_eq!(read_values(&mut client, &topic), ["a", "c"]);
}
