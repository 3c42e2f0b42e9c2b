//! What becomes a batch.

use super::*;
use common::identity::Run;
use common::kafka::{Address, BATCH_BYTES_MAX, ProduceRecord, Security, Settings};

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
        let handover = Arc::new(Handover::new(usize::MAX));
        let (settings, shared) = (Arc::clone(&settings), Arc::clone(&handover));
        let mut producer = Producer::new(settings, TopicSpec::default(), String::new(), shared);
        let topic = Arc::from("t");
        let mut state = handover.state();
        for _ in 0..=BATCH_BYTES_MAX / record.bytes_max() {
            state.spool.push(&topic, record.clone(), |_| panic!());
        }
        let batches = producer.batches(&mut state.spool);
        // No time for a connection: what is taken stays pending.
        let outcomes = producer.kafka.send(batches, Some(Instant::now()));
        assert!(
            matches!(&outcomes[..], [(_, Outcome::Pending { .. })]),
            "values of {value_len} bytes"
        );
    }
}
