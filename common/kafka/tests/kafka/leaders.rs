//! Leaders that go and come, on three brokers of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_client::*;
use testkit::services::{OwnSet, Services};

use crate::support::*;

/// Three brokers take a while to start, so that these share them.
#[test]
fn brokers_broken_on_purpose() {
    let set = Services::start(3).unwrap();
    let mut settings = Settings::new(addresses(&set.kafka_plain), Security::Plain);
    settings.connect_timeout_ms = 2_000;
    settings.request_timeout_ms = 5_000;
    let settings = Arc::new(settings);
    every_record_is_there_once_and_in_order_while_leaders_change(&set, Arc::clone(&settings));
    replicas_are_waited_for(&set, settings);
    crate::forgotten::a_producer_that_is_forgotten_goes_on(&set);
}

/// Writes numbers to a few topics all the while that brokers are killed, paused
/// and started, one after the other, and reads each back once and in order.
fn every_record_is_there_once_and_in_order_while_leaders_change(
    set: &OwnSet,
    settings: Arc<Settings>,
) {
    let topics: Vec<_> = (0..6).map(|n| topic(&format!("leaders-{n}"))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (settings, topics, stop) = (Arc::clone(&settings), topics.clone(), Arc::clone(&stop));
        std::thread::spawn(move || write(settings, &topics, &stop))
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
    let (counts, in_doubt) = writer.join().unwrap();
    assert!(in_doubt > 0, "no batch was ever in doubt, so nothing was shown");
    let mut client = Client::new(settings);
    for (topic, count) in topics.iter().zip(counts) {
        assert!(count > 10, "{topic}: {count}");
        let expected: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        assert_eq!(values(&mut client, topic), expected, "{topic}");
    }
}

/// How many numbers of each topic were delivered, and how often a batch was pending.
fn write(settings: Arc<Settings>, topics: &[String], stop: &AtomicBool) -> (Vec<usize>, usize) {
    let mut producer = Producer::new(settings, ProducerOptions::default());
    let mut counts = vec![0; topics.len()];
    let mut pending = 0;
    while !stop.load(Ordering::Relaxed) || producer.pending() > 0 {
        let batches = topics
            .iter()
            .zip(&counts)
            .filter(|(topic, _)| !stop.load(Ordering::Relaxed) && !producer.is_pending(topic))
            .map(|(topic, count)| batch(topic, &[&count.to_string(), &(count + 1).to_string()]))
            .collect();
        for (topic, outcome) in producer.send(batches, None) {
            let place = topics.iter().position(|known| *known == topic).unwrap();
            match outcome {
                Outcome::Delivered { records, .. } => counts[place] += records,
                Outcome::Pending { .. } => pending += 1,
                other => panic!("{topic}: {other:?}"),
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (counts, pending)
}

/// Not on as many brokers as the topic wants: it waits, and goes when they are
/// back, once.
///
/// Goes red when `verdict` takes the broker's word for permanent.
fn replicas_are_waited_for(set: &OwnSet, settings: Arc<Settings>) {
    let mut client = Client::new(Arc::clone(&settings));
    let topic = topic("replicas");
    patiently(|| client.create_topic_with(&topic, 1, 3, &[("min.insync.replicas", "3")])).unwrap();
    let mut producer = Producer::new(settings, ProducerOptions::default());
    deliver(&mut producer, vec![batch(&topic, &["before"])]);
    set.kill_broker(3).unwrap();
    let mut batches = vec![batch(&topic, &["meanwhile 1", "meanwhile 2"])];
    let end = Instant::now() + Duration::from_secs(90);
    let mut lacked = false;
    while !lacked {
        assert!(Instant::now() < end, "the brokers never said that replicas are missing");
        for (_, outcome) in producer.send(std::mem::take(&mut batches), None) {
            let Outcome::Pending { reason } = outcome else { panic!("{outcome:?}") };
            assert!(reason.is_retryable(), "{reason}");
            lacked |= reason.to_string().contains("not enough replicas");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    set.start_broker(3).unwrap();
    let end = Instant::now() + Duration::from_secs(90);
    while producer.is_pending(&topic) {
        assert!(Instant::now() < end, "still pending");
        for (_, outcome) in producer.send(vec![], None) {
            let well = matches!(&outcome, Outcome::Pending { .. } | Outcome::Delivered { .. });
            assert!(well, "{outcome:?}");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    deliver(&mut producer, vec![batch(&topic, &["after"])]);
    let expected = ["before", "meanwhile 1", "meanwhile 2", "after"];
    assert_eq!(values(&mut client, &topic), expected);
}
