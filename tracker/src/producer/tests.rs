//! What is taken, and what becomes a batch.

use super::*;
use crate::targets::parse;
use common::identity::Identity;
use common::kafka::{Address, BATCH_BYTES_MAX, Security, Settings};
use common::record::{Record, Status};

#[test]
fn a_backlog_of_any_size_gives_batches_that_kafka_takes() {
    let address = Address { host: "127.0.0.1".to_owned(), port: 1 };
    let settings = Arc::new(Settings::new(vec![address], Security::Plain));
    let run = Run::new().unwrap();
    for value_len in 150..400 {
        let record = ProduceRecord {
            timestamp_ms: 0,
            value: vec![b'v'; value_len].into(),
            headers: run.headers(0),
        };
        let (settings, run) = (Arc::clone(&settings), run.clone());
        let mut producer = Producer::new(settings, TopicSpec::default(), String::new(), run);
        let topic = Arc::from("t");
        for _ in 0..=BATCH_BYTES_MAX / record.bytes_max() {
            producer.spool.push(&topic, record.clone(), |_| panic!());
        }
        let batches = producer.batches();
        // No time for a connection: what is taken stays pending.
        let outcomes = producer.kafka.send(batches, Some(Instant::now()));
        assert!(
            matches!(&outcomes[..], [(_, Outcome::Pending { .. })]),
            "values of {value_len} bytes"
        );
    }
}

/// Goes red when `take` counts `sequence` back down for a dropped result.
#[test]
fn what_a_full_spool_drops_leaves_a_hole_in_the_numbers() {
    let address = Address { host: "127.0.0.1".to_owned(), port: 1 };
    let settings = Arc::new(Settings::new(vec![address], Security::Plain));
    let run = Run::new().unwrap();
    let mut producer =
        Producer::new(settings, TopicSpec::default(), "webactivity-".to_owned(), run);
    producer.spool = Spool::new(2_000);
    let target = Arc::new(parse("http://a.example/", "webactivity-").unwrap().remove(0));
    for _ in 0..50 {
        let record = Record {
            from: "oslo".to_owned(),
            url: target.recorded_url.clone(),
            timestamp: 1.0,
            status: Status::Unresponsive,
            phrase: "connection refused".to_owned(),
            dns_ms: None,
            response_ms: None,
            detail: None,
            offset: -1,
        };
        producer.take(Probed { target: Arc::clone(&target), record });
    }
    let waiting = producer.spool.take(&target.topic, 50, usize::MAX);
    assert_eq!(waiting.len() + producer.account.lost, 50);
    let numbers: Vec<_> = waiting
        .into_iter()
        .map(|record| {
            let headers: Vec<_> =
                record.headers.into_iter().map(|(key, value)| (key, Some(value))).collect();
            Identity::from_headers(&headers).unwrap().unwrap().sequence as usize
        })
        .collect();
    assert_eq!(numbers, (producer.account.lost..50).collect::<Vec<_>>());
}
