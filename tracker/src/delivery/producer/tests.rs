//! How batches are built.

use super::*;
use crate::delivery::spool::{SpoolFolder, open_issued_numbers};
use common::identity::Run;
use kafka_client::{
    BATCH_BYTES_MAX, BATCH_HEADER_LEN, BrokerAddress, KafkaSettings, ProduceRecord, Security,
};

fn producer(shared_spool: &Arc<SharedSpool>, run: &Run) -> ResultProducer {
    let address = BrokerAddress { host: "127.0.0.1".to_owned(), port: 1 };
    let settings = Arc::new(KafkaSettings::new(vec![address], Security::Plain));
    let (spec, shared_spool) = (TopicSpec::default(), Arc::clone(shared_spool));
    ResultProducer::new(settings, spec, String::new(), shared_spool, run.clone())
}

/// The `ended` headers go on the first record of this run, and the batch has room for them.
#[test]
fn the_first_record_of_this_run_carries_the_ended_headers() {
    let folder = std::env::temp_dir().join(format!("ended_in_flight-{}", std::process::id()));
    let open =
        |run: &Run| open_issued_numbers(&SpoolFolder::open(folder.to_str().unwrap()).unwrap(), run);
    let (older, old, run) = (Run::new().unwrap(), Run::new().unwrap(), Run::new().unwrap());
    let topic: Arc<str> = Arc::from("t");
    open(&older).0.record(&topic, 9);
    open(&old).0.record(&topic, 3);
    let shared_spool = Arc::new(SharedSpool::new(usize::MAX));
    let mut producer = producer(&shared_spool, &run);
    let mut state = shared_spool.lock();
    state.ended_runs = open(&run).1;
    let sized = |run: &Run, sequence, len| ProduceRecord {
        timestamp_ms: 0,
        value: vec![b'v'; len].into(),
        headers: run.headers(sequence),
    };
    // A length that leaves hardly any room in a batch.
    let left = |len| (BATCH_BYTES_MAX - BATCH_HEADER_LEN) % sized(&run, 0, len).bytes_max();
    let len = (200..).find(|len| left(*len) < 20).unwrap();
    let record = |run: &Run, sequence| sized(run, sequence, len);
    let count = BATCH_BYTES_MAX / record(&run, 0).bytes_max();
    state.spool.push(&topic, record(&old, 2), |_| panic!());
    for sequence in 0..=count as i64 {
        state.spool.push(&topic, record(&run, sequence), |_| panic!());
    }
    let mut batches = producer.build_batches(&mut state);
    let TopicBatch { topic: name, records } = batches.remove(0);
    let headers: Vec<usize> = records.iter().map(|record| record.headers.len()).collect();
    assert_eq!((headers[0], headers[1]), (2, 4));
    assert!(headers[2..].iter().all(|count| *count == 2) && headers.len() > 100);
    let bytes: usize = records.iter().map(ProduceRecord::bytes_max).sum();
    assert!(bytes + BATCH_HEADER_LEN <= BATCH_BYTES_MAX, "{bytes}");
    // The headers are sent again until a batch with them is delivered.
    producer.settle(&mut state, name, ProduceOutcome::Busy { records }).unwrap();
    assert!(!producer.ended_in_flight.contains("t"));
    let TopicBatch { topic: name, records } = producer.build_batches(&mut state).remove(0);
    assert_eq!((records[0].headers.len(), records[1].headers.len()), (2, 4));
    assert_eq!(state.ended_runs.pending("t").len(), 2);
    let delivered = ProduceOutcome::Delivered { records: records.len(), base_offset: None };
    producer.settle(&mut state, name, delivered).unwrap();
    assert_eq!(state.ended_runs.pending("t").len(), 0);
    assert_eq!(producer.build_batches(&mut state)[0].records[0].headers.len(), 2);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_backlog_of_any_size_becomes_batches_within_the_limits() {
    let run = Run::new().unwrap();
    for value_len in 150..400 {
        let record = ProduceRecord {
            timestamp_ms: 0,
            value: vec![b'v'; value_len].into(),
            headers: run.headers(0),
        };
        let shared_spool = Arc::new(SharedSpool::new(usize::MAX));
        let mut producer = producer(&shared_spool, &run);
        let topic = Arc::from("t");
        let mut state = shared_spool.lock();
        for _ in 0..=BATCH_BYTES_MAX / record.bytes_max() {
            state.spool.push(&topic, record.clone(), |_| panic!());
        }
        let batches = producer.build_batches(&mut state);
        // The deadline leaves no time for a connection, so the batch stays pending.
        let outcomes = producer.kafka.send(batches, Some(Instant::now()));
        assert!(
            matches!(&outcomes[..], [(_, ProduceOutcome::Pending { .. })]),
            "values of {value_len} bytes"
        );
    }
}

/// A partly refused batch loses exactly the refused results; records that Kafka refuses without
/// accepted ones return to the spool and wait.
#[test]
fn refused_results_are_lost_alone_or_wait() {
    let run = Run::new().unwrap();
    let shared_spool = Arc::new(SharedSpool::new(usize::MAX));
    let mut producer = producer(&shared_spool, &run);
    let mut state = shared_spool.lock();
    let topic: Arc<str> = Arc::from("t");
    for sequence in 0..3 {
        let (value, headers) = (vec![sequence as u8].into(), run.headers(sequence));
        state.spool.push(&topic, ProduceRecord { timestamp_ms: 0, value, headers }, |_| panic!());
    }
    let refusal = || KafkaError::Broker {
        api: "Produce",
        subject: "topic t".to_owned(),
        code: kafka_client::ResponseError::InvalidTimestamp,
        message: None,
    };
    let TopicBatch { topic: name, mut records } = producer.build_batches(&mut state).remove(0);
    let lost =
        ProduceOutcome::Lost { indexes: [1].into(), cause: refusal(), maybe_delivered: false };
    assert_eq!(producer.settle(&mut state, name.clone(), lost).unwrap(), 0);
    assert_eq!((state.totals.lost, state.spool.len()), (1, 0));
    records.remove(1);
    let refused = ProduceOutcome::Refused { records, cause: refusal() };
    producer.settle(&mut state, name, refused).unwrap_err();
    assert_eq!((state.totals.lost, state.spool.len()), (1, 2));
    let again = state.spool.take_batch("t", 9, usize::MAX);
    let values: Vec<u8> = again.iter().map(|record| record.value[0]).collect();
    assert_eq!(values, [0, 2]);
}
