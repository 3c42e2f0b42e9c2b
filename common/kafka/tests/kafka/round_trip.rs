//! Writing and reading on a real broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_client::*;

use crate::support::*;

fn round_trip(settings: KafkaSettings) {
    let settings = Arc::new(settings);
    settings.check().unwrap();
    let topic = topic("round-trip");
    let mut producer = KafkaProducer::new(Arc::clone(&settings), ProducerOptions::default());
    for n in 0..3 {
        let values: Vec<_> = (0..5).map(|m| format!("{n} {m}")).collect();
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        let outcomes = deliver(&mut producer, vec![batch(&topic, &values)]);
        let [(_, ProduceOutcome::Delivered { records: 5, base_offset: Some(offset) })] =
            outcomes[..]
        else {
            panic!("{outcomes:?}")
        };
        assert_eq!(offset, n * 5);
    }
    let mut client = KafkaClient::new(settings);
    let topic_id = wait_for_topic(&mut client, &topic).id;
    let mut position =
        FetchPosition { topic: &topic, topic_id, partition: 0, offset: 2, leader_epoch: None };
    let fetched = client.fetch(&position, &FetchLimits::default()).unwrap();
    assert_eq!((fetched.next_offset, fetched.log_start_offset), (15, 0));
    assert_eq!((fetched.high_watermark, fetched.records.len()), (15, 13));
    assert!(fetched.leader_epoch.is_some());
    let expected = FetchedRecord {
        offset: 2,
        leader_epoch: fetched.leader_epoch,
        timestamp_ms: now_ms(),
        key: None,
        value: Some(Bytes::from_static(b"0 2")),
        headers: vec![("n".to_owned(), Some(Bytes::from_static(b"\x01")))],
    };
    assert_eq!(fetched.records[0], expected);

    position.offset = 15;
    let limits = FetchLimits { max_wait_ms: 10, ..FetchLimits::default() };
    let fetched = client.fetch(&position, &limits).unwrap();
    assert_eq!((fetched.records.len(), fetched.next_offset), (0, 15));
    assert_eq!(client.list_offset(&topic, 0, LogEnd::Earliest).unwrap(), 0);
    assert_eq!(client.list_offset(&topic, 0, LogEnd::Latest).unwrap(), 15);
}

#[test]
fn over_plain_text() {
    round_trip(KafkaSettings::new(plain().bootstrap.clone(), Security::Plain));
}

#[test]
fn over_tls_with_a_client_certificate() {
    round_trip(tls(Some(("client.crt", "client.key"))));
}

#[test]
fn group_offset_is_committed_and_read() {
    let topic = topic("group");
    deliver(&mut producer(), vec![batch(&topic, &["a"])]);
    let mut client = KafkaClient::new(plain());
    let group = format!("group-{topic}");
    with_retries(|| client.commit_offset(&group, &topic, 0, 7)).unwrap();
    assert_eq!(client.committed_offset(&group, &topic, 0).unwrap(), Some(7));
    client.commit_offset(&group, &topic, 0, 8).unwrap();
    assert_eq!(client.committed_offset(&group, &topic, 0).unwrap(), Some(8));
    let none = with_retries(|| client.committed_offset("no-such-group", &topic, 0)).unwrap();
    assert_eq!(none, None);
}

#[test]
fn many_topics_on_all_brokers_are_written() {
    let prefix = topic("many");
    let topics: Vec<_> = (0..40).map(|n| format!("{prefix}-{n:02}")).collect();
    let mut producer = producer();
    for value in ["first", "second", "third"] {
        let batches = topics.iter().map(|topic| batch(topic, &[value])).collect();
        let outcomes = deliver(&mut producer, batches);
        assert_eq!(outcomes.len(), topics.len());
        for (topic, outcome) in outcomes {
            assert!(
                matches!(outcome, ProduceOutcome::Delivered { records: 1, .. }),
                "{topic} {outcome:?}"
            );
        }
    }
    let mut client = KafkaClient::new(plain());
    assert_eq!(client.topics_with_prefix(&prefix).unwrap(), topics);
    for topic in &topics {
        assert_eq!(read_values(&mut client, topic), ["first", "second", "third"]);
    }
}

#[test]
fn topic_with_several_partitions_is_written_to_partition_0() {
    let topic = topic("partitions");
    let mut client = KafkaClient::new(plain());
    client.create_topic_with(&topic, 3, 1, &[]).unwrap();
    let topic_id = wait_for_topic(&mut client, &topic).id;
    deliver(&mut producer(), vec![batch(&topic, &["a", "b"])]);
    let positions: Vec<_> = (0..3)
        .map(|partition| FetchPosition {
            topic: &topic,
            topic_id,
            partition,
            offset: 0,
            leader_epoch: None,
        })
        .collect();
    let limits = FetchLimits { max_wait_ms: 100, ..FetchLimits::default() };
    // A broker can be behind with the partitions of a new topic and return no records. The next
    // offset must not move then.
    let end = Instant::now() + Duration::from_secs(60);
    let read = loop {
        let fetched: Vec<FetchedRecords> =
            with_retries(|| client.fetch_partitions(&positions, &limits).into_iter().collect())
                .unwrap();
        let read: Vec<_> = fetched.iter().map(|fetched| fetched.records.len()).collect();
        let passed: Vec<_> = fetched.iter().map(|fetched| fetched.next_offset as usize).collect();
        assert_eq!(passed, read);
        if read != [0, 0, 0] || Instant::now() > end {
            break read;
        }
    };
    assert_eq!(read, [2, 0, 0]);
}

#[test]
fn topic_is_created_by_its_spec() {
    let topic = topic("made");
    let mut client = KafkaClient::new(plain());
    let spec = TopicSpec { replication_factor: Some(1), retention_ms: Some(3_600_000) };
    assert_eq!(client.create_topic(&topic, &spec).unwrap(), CreateResult::Created);
    assert_eq!(with_retries(|| client.create_topic(&topic, &spec)).unwrap(), CreateResult::Exists);
    assert_eq!(wait_for_topic(&mut client, &topic).partitions.len(), 1);
    let error = client.create_topic("no/such name", &spec).unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(error.to_string().starts_with("CreateTopics topic no/such name: invalid topic"));
}

#[test]
fn batch_larger_than_the_topic_allows_is_returned_until_it_fits() {
    let topic = topic("small");
    let mut client = KafkaClient::new(plain());
    client.create_topic_with(&topic, 1, 1, &[("max.message.bytes", "2000")]).unwrap();
    wait_for_topic(&mut client, &topic);
    let mut producer = producer();
    let big = "x".repeat(800);
    let mut queue: std::collections::VecDeque<_> = (0..8).map(|_| record(&big)).collect();
    queue.push_back(record(&"y".repeat(3000)));
    let mut lost = 0;
    while !queue.is_empty() {
        let count = batch_len(&queue, producer.batch_bytes_max(&topic), 1000);
        let records = queue.drain(..count).collect();
        let batch = TopicBatch { topic: topic.clone(), records };
        for (_, outcome) in deliver(&mut producer, vec![batch]) {
            match outcome {
                ProduceOutcome::TooLarge { records, .. } => {
                    records.into_iter().rev().for_each(|record| queue.push_front(record));
                }
                ProduceOutcome::Lost { indexes, cause, maybe_delivered: false } => {
                    assert!(cause.to_string().contains("message too large"), "{cause}");
                    lost += indexes.len();
                }
                ProduceOutcome::Delivered { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(lost, 1);
    assert_eq!(read_values(&mut client, &topic), vec![big; 8]);
}

#[test]
fn large_batches_need_several_requests_and_several_fetches() {
    let prefix = topic("large");
    let topics: Vec<_> = (0..12).map(|n| format!("{prefix}-{n:02}")).collect();
    let value = "v".repeat(890_000);
    let batches = topics.iter().map(|topic| batch(topic, &[&value])).collect();
    let mut producer = producer();
    let outcomes = deliver(&mut producer, batches);
    assert!(
        outcomes.iter().all(|(_, it)| matches!(it, ProduceOutcome::Delivered { records: 1, .. }))
    );
    let mut client = KafkaClient::new(plain());
    for topic in &topics {
        deliver(&mut producer, vec![batch(topic, &["small"])]);
        let lengths: Vec<_> = read_values(&mut client, topic).iter().map(String::len).collect();
        assert_eq!(lengths, [value.len(), "small".len()]);
    }
}
