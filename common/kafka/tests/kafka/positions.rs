//! Offsets that are not in the log, and topics that come and go, on a real broker.

use kafka_client::*;

use crate::support::*;

#[test]
fn an_offset_outside_the_log_is_told_with_where_the_log_lies() {
    let topic = topic("range");
    deliver(&mut producer(), vec![batch(&topic, &["a", "b"])]);
    let mut client = Client::new(plain());
    let topic_id = known(&mut client, &topic).id;
    let position = FetchPosition { topic: &topic, topic_id, partition: 0, offset: 9 };
    let error = client.fetch(&position, &FetchLimits::default()).unwrap_err();
    assert!(
        matches!(error, Error::OffsetOutOfRange { offset: 9, log_start: 0, log_end: 2, .. }),
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[test]
fn a_topic_made_again_is_not_read_as_the_old_one() {
    let topic = topic("again");
    let mut producer = producer();
    deliver(&mut producer, vec![batch(&topic, &["old"])]);
    let mut client = Client::new(plain());
    let old = known(&mut client, &topic).id;
    let position = FetchPosition { topic: &topic, topic_id: old, partition: 0, offset: 0 };
    patiently(|| client.fetch(&position, &FetchLimits::default())).unwrap();

    patiently(|| client.delete_topic(&topic)).unwrap();
    let gone = patiently_until(
        || client.fetch(&position, &FetchLimits::default()),
        |error| matches!(error, Error::UnknownTopic { .. }),
    );
    assert_eq!(gone.to_string(), format!("topic {topic}: not there"));

    // The producer goes on by making it again, and nothing of the old is there.
    deliver(&mut producer, vec![batch(&topic, &["new 1"])]);
    deliver(&mut producer, vec![batch(&topic, &["new 2"])]);
    let error = patiently_until(
        || client.fetch(&position, &FetchLimits::default()),
        |error| !error.is_retryable(),
    );
    let new = known(&mut client, &topic).id;
    let Error::UnknownTopicId { topic_id, current_id, .. } = error else { panic!("{error}") };
    assert_eq!((topic_id, current_id), (old, new));
    assert_eq!(values(&mut client, &topic), ["new 1", "new 2"]);
}

#[test]
fn a_topic_that_is_not_there_is_said_so_and_not_made() {
    let topic = topic("nowhere");
    let mut client = Client::new(plain());
    let known = client.topics(std::slice::from_ref(&topic)).unwrap().remove(0);
    assert!(known.is_missing());
    let error = client.list_offset(&topic, 0, LogEnd::Latest).unwrap_err();
    assert!(matches!(error, Error::UnknownTopic { .. }), "{error}");
    assert!(client.topics(std::slice::from_ref(&topic)).unwrap()[0].is_missing());
}
