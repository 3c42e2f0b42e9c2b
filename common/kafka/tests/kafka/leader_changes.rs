//! Leaders that stop, pause and come back, on three brokers of these tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use kafka_client::*;
use testkit::services::{OwnSet, Services};

use crate::support::*;

/// Three brokers that the tests of this file stop and start, one test at a time. `scripts/test`
/// stops them at its end.
fn three_brokers() -> MutexGuard<'static, OwnSet> {
    static BROKERS: OnceLock<Mutex<OwnSet>> = OnceLock::new();
    let brokers = BROKERS.get_or_init(|| Mutex::new(Services::start(3).unwrap()));
    brokers.lock().unwrap()
}

fn settings(set: &OwnSet) -> Arc<KafkaSettings> {
    let mut settings = KafkaSettings::new(addresses(&set.kafka_plain), Security::Plain);
    settings.connect_timeout_ms = 2_000;
    settings.request_timeout_ms = 5_000;
    Arc::new(settings)
}

/// Writes numbers to several topics while brokers are killed, paused and started one after the
/// other, then reads each number once and in order.
#[test]
fn records_are_appended_once_and_in_order_while_leaders_change() {
    let set = three_brokers();
    let settings = settings(&set);
    let topics: Vec<_> = (0..6).map(|n| topic(&format!("leaders-{n}"))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (settings, topics, stop) = (Arc::clone(&settings), topics.clone(), Arc::clone(&stop));
        std::thread::spawn(move || write_until_stopped(settings, &topics, &stop))
    };
    for broker in 1..=2 {
        std::thread::sleep(Duration::from_secs(1));
        set.kill_broker(broker).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        set.start_broker(broker).unwrap();
        set.pause_broker(broker + 1).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        set.resume_broker(broker + 1).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let (counts, pending) = writer.join().unwrap();
    assert!(pending > 0, "no batch was ever pending, so nothing was tested");
    let mut client = KafkaClient::new(settings);
    for (topic, count) in topics.iter().zip(counts) {
        assert!(count > 10, "{topic}: {count}");
        let expected: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        assert_eq!(read_values(&mut client, topic), expected, "{topic}");
    }
}

/// Returns how many numbers of each topic were delivered, and how often a batch was pending.
fn write_until_stopped(
    settings: Arc<KafkaSettings>,
    topics: &[String],
    stop: &AtomicBool,
) -> (Vec<usize>, usize) {
    let mut producer = KafkaProducer::new(settings, ProducerOptions::default());
    let mut counts = vec![0; topics.len()];
    let mut pending = 0;
    while !stop.load(Ordering::Relaxed) || producer.pending_count() > 0 {
        let batches = topics
            .iter()
            .zip(&counts)
            .filter(|(topic, _)| !stop.load(Ordering::Relaxed) && !producer.is_pending(topic))
            .map(|(topic, count)| batch(topic, &[&count.to_string(), &(count + 1).to_string()]))
            .collect();
        for (topic, outcome) in producer.send(batches, None) {
            let place = topics.iter().position(|known| *known == topic).unwrap();
            match outcome {
                ProduceOutcome::Delivered { records, .. } => counts[place] += records,
                ProduceOutcome::Pending { .. } => pending += 1,
                other => panic!("{topic}: {other:?}"),
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (counts, pending)
}

/// A batch of a topic without enough in-sync replicas stays pending, and is appended once when the
/// replicas are back.
#[test]
fn batch_waits_for_enough_replicas() {
    let set = three_brokers();
    let settings = settings(&set);
    let mut client = KafkaClient::new(Arc::clone(&settings));
    let topic = topic("replicas");
    with_retries(|| client.create_topic_with(&topic, 1, 3, &[("min.insync.replicas", "3")]))
        .unwrap();
    let mut producer = KafkaProducer::new(settings, ProducerOptions::default());
    deliver(&mut producer, vec![batch(&topic, &["before"])]);
    set.kill_broker(3).unwrap();
    let mut batches = vec![batch(&topic, &["meanwhile 1", "meanwhile 2"])];
    let end = Instant::now() + Duration::from_secs(90);
    let mut is_reported = false;
    while !is_reported {
        assert!(Instant::now() < end, "no broker reported missing replicas");
        for (_, outcome) in producer.send(std::mem::take(&mut batches), None) {
            let ProduceOutcome::Pending { reason } = outcome else { panic!("{outcome:?}") };
            assert!(reason.is_retryable(), "{reason}");
            is_reported |= reason.to_string().contains("not enough replicas");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    set.start_broker(3).unwrap();
    let end = Instant::now() + Duration::from_secs(90);
    while producer.is_pending(&topic) {
        assert!(Instant::now() < end, "still pending");
        for (_, outcome) in producer.send(vec![], None) {
            let is_expected = matches!(
                &outcome,
                ProduceOutcome::Pending { .. } | ProduceOutcome::Delivered { .. }
            );
            assert!(is_expected, "{outcome:?}");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    deliver(&mut producer, vec![batch(&topic, &["after"])]);
    let expected = ["before", "meanwhile 1", "meanwhile 2", "after"];
    assert_eq!(read_values(&mut client, &topic), expected);
}
