//! Brokers that lost their leadership without returning an error for it, and fairness of fetches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use kafka_client::*;
use kafka_protocol::messages::ApiKey;

use crate::scripted_broker::{ReceivedRequest, ScriptedBroker, ScriptedReply};
use crate::support::*;

/// The response of a broker that reports the broker at port `leader` as the leader.
fn answer(request: &ReceivedRequest, leader: &AtomicU16) -> Vec<u8> {
    match request.key {
        ApiKey::Metadata => request.metadata(&|_| leader.load(Ordering::SeqCst)),
        _ => request.good_answer(),
    }
}

/// After three retryable errors the leader is looked up again.
#[test]
fn leader_is_looked_up_after_repeated_retryable_errors() {
    // Not enough replicas, not enough replicas after append, request timed out.
    for code in [19, 20, 7] {
        let new = ScriptedBroker::start(|request| ScriptedReply::Answer(request.good_answer()));
        let leader = Arc::new(AtomicU16::new(0));
        let (new_port, reported) = (new.port, Arc::clone(&leader));
        let old = ScriptedBroker::start(move |request| match request.key {
            ApiKey::Produce => {
                reported.store(new_port, Ordering::SeqCst);
                ScriptedReply::Answer(request.produce_answer(code))
            }
            _ => ScriptedReply::Answer(answer(request, &reported)),
        });
        leader.store(old.port, Ordering::SeqCst);
        let mut producer = KafkaProducer::new(Arc::new(old.settings()), ProducerOptions::default());
        let mut outcomes = producer.send(vec![batch("t", &["a"])], None);
        let mut pending = 0;
        while let [(_, ProduceOutcome::Pending { reason })] = &outcomes[..] {
            assert!(reason.is_retryable() && pending < 10, "{code}: {reason}");
            pending += 1;
            outcomes = producer.send(vec![], None);
        }
        assert!(matches!(outcomes[..], [(_, ProduceOutcome::Delivered { .. })]), "{outcomes:?}");
        assert_eq!(pending, 3, "{code}");
        assert_eq!(old.batches("t")[0], new.batches("t")[0]);
        drop(producer);
        old.stop();
        new.stop();
    }
}

/// The leader is looked up again at the maximum age of metadata, although no broker returns an
/// error.
#[test]
fn leader_is_looked_up_at_the_maximum_metadata_age() {
    let new = ScriptedBroker::start(|request| ScriptedReply::Answer(request.good_answer()));
    let leader = Arc::new(AtomicU16::new(0));
    let reported = Arc::clone(&leader);
    let old =
        ScriptedBroker::start(move |request| ScriptedReply::Answer(answer(request, &reported)));
    leader.store(old.port, Ordering::SeqCst);
    let mut settings = old.settings();
    settings.metadata_max_age_ms = 1_000;
    let mut producer = KafkaProducer::new(Arc::new(settings), ProducerOptions::default());
    let start = Instant::now();
    let mut sent = 0;
    let one_more = |producer: &mut KafkaProducer| {
        // More than one round may look up the leader: on a loaded machine new metadata can be old
        // at once.
        let outcomes = deliver(producer, vec![batch("t", &["a"])]);
        assert!(matches!(outcomes[..], [(_, ProduceOutcome::Delivered { .. })]), "{outcomes:?}");
    };
    one_more(&mut producer);
    leader.store(new.port, Ordering::SeqCst);
    while new.batches("t").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30));
        one_more(&mut producer);
        sent += 1;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    let asked = old.seen(ApiKey::Metadata).len() as u64;
    assert!(sent > 1 && asked < 4 + start.elapsed().as_secs(), "{sent} {asked}");
    drop(producer);
    old.stop();
    new.stop();
}

/// Each partition comes first in turn, so a backlog in one does not crowd out a large batch in
/// another.
#[test]
fn partition_with_a_backlog_does_not_starve_the_others() {
    let topics = [topic("turns-long"), topic("turns-large")];
    let mut producer = producer();
    let long = "x".repeat(1_000);
    deliver(&mut producer, vec![batch(&topics[0], &[long.as_str(); 20])]);
    deliver(&mut producer, vec![batch(&topics[1], &["y".repeat(20_000).as_str()])]);
    let mut client = KafkaClient::new(plain());
    let ids: Vec<_> = topics.iter().map(|topic| wait_for_topic(&mut client, topic).id).collect();
    // The first partition always has a backlog: it is read from its start each time.
    let positions: Vec<_> = topics
        .iter()
        .zip(&ids)
        .map(|(topic, id)| FetchPosition {
            topic,
            topic_id: *id,
            partition: 0,
            offset: 0,
            leader_epoch: None,
        })
        .collect();
    let limits = FetchLimits { max_bytes: 5_000, ..FetchLimits::default() };
    let mut read = [0; 2];
    for _ in 0..4 {
        for (index, result) in client.fetch_partitions(&positions, &limits).iter().enumerate() {
            let records = result.as_ref().map_or(0, |fetched| fetched.records.len());
            read[index] += usize::from(records > 0);
        }
    }
    assert_eq!(read, [2, 2]);
}
