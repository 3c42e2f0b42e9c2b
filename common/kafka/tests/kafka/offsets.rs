//! Offsets outside the log, and deleted and recreated topics, on a real broker.

use kafka_client::*;

use crate::support::*;

#[test]
fn offset_outside_the_log_is_reported_with_the_range_of_the_log() {
    let topic = topic("range");
    deliver(&mut producer(), vec![batch(&topic, &["a", "b"])]);
    let mut client = KafkaClient::new(plain());
    let topic_id = wait_for_topic(&mut client, &topic).id;
    let position =
        FetchPosition { topic: &topic, topic_id, partition: 0, offset: 9, leader_epoch: None };
    let error = client.fetch(&position, &FetchLimits::default()).unwrap_err();
    assert!(
        matches!(error, KafkaError::OffsetOutOfRange { offset: 9, log_start: 0, log_end: 2, .. }),
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[test]
fn recreated_topic_is_not_read_as_the_old_one() {
    let topic = topic("again");
    let mut producer = producer();
    deliver(&mut producer, vec![batch(&topic, &["old"])]);
    let mut client = KafkaClient::new(plain());
    let old = wait_for_topic(&mut client, &topic).id;
    let position =
        FetchPosition { topic: &topic, topic_id: old, partition: 0, offset: 0, leader_epoch: None };
    with_retries(|| client.fetch(&position, &FetchLimits::default())).unwrap();

    with_retries(|| client.delete_topic(&topic)).unwrap();
    let gone = retry_until(
        || client.fetch(&position, &FetchLimits::default()),
        |error| matches!(error, KafkaError::UnknownTopic { .. }),
    );
    assert_eq!(gone.to_string(), format!("topic {topic}: does not exist"));

    // The producer creates the topic again, without the old records.
    deliver(&mut producer, vec![batch(&topic, &["new 1"])]);
    deliver(&mut producer, vec![batch(&topic, &["new 2"])]);
    let error = retry_until(
        || client.fetch(&position, &FetchLimits::default()),
        |error| !error.is_retryable(),
    );
    let new = wait_for_topic(&mut client, &topic).id;
    let KafkaError::UnknownTopicId { topic_id, current_id, .. } = error else { panic!("{error}") };
    assert_eq!((topic_id, current_id), (old, new));
    assert_eq!(read_values(&mut client, &topic), ["new 1", "new 2"]);
}

#[test]
fn missing_topic_is_reported_and_not_created() {
    let topic = topic("nowhere");
    let mut client = KafkaClient::new(plain());
    let metadata = client.topics(std::slice::from_ref(&topic)).unwrap().remove(0);
    assert!(metadata.is_missing());
    let error = client.list_offset(&topic, 0, LogEnd::Latest).unwrap_err();
    assert!(matches!(error, KafkaError::UnknownTopic { .. }), "{error}");
    assert!(client.topics(std::slice::from_ref(&topic)).unwrap()[0].is_missing());
}
