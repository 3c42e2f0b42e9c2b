//! Records that a broker refuses, among others that it takes.

use std::sync::Arc;

use common::kafka::*;
use kafka_protocol::messages::produce_response::*;
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::scripted::{Broker, Reply, encoded, identity};
use crate::support::*;

#[test]
fn a_record_that_is_refused_takes_no_other_with_it() {
    let mut first = true;
    let broker = Broker::start(move |request| {
        let is_produce = request.key == ApiKey::Produce;
        if !is_produce || !std::mem::take(&mut first) {
            return Reply::Answer(request.good_answer());
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
        Reply::Answer(encoded(&ProduceResponse::default().with_responses(vec![topic]), request))
    });
    let mut producer = Producer::new(Arc::new(broker.settings()), ProducerOptions::default());
    let outcomes = producer.send(vec![batch("t", &["a", "b", "c"])], None);
    let [(_, Outcome::Lost { records: 1, cause, maybe_delivered: false })] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert!(cause.is_of_records());
    assert!(producer.is_pending("t"));
    let outcomes = producer.send(vec![], None);
    assert!(matches!(outcomes[..], [(_, Outcome::Delivered { records: 2, .. })]), "{outcomes:?}");
    let batches = broker.batches("t");
    assert_eq!(identity(&batches[0]), identity(&batches[1]));
    drop(producer);
    broker.stop();
}

#[test]
fn a_record_of_tomorrow_is_refused_alone_by_a_real_broker() {
    let topic = topic("tomorrow");
    let mut producer = producer();
    let mut mixed = batch(&topic, &["a", "b", "c"]);
    mixed.records[1].timestamp_ms += 86_400_000;
    let outcomes = deliver(&mut producer, vec![mixed]);
    let [(_, Outcome::Lost { records: 1, .. }), (_, Outcome::Delivered { records: 2, .. })] =
        &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    let mut client = Client::new(plain());
    assert_eq!(values(&mut client, &topic), ["a", "c"]);
}
