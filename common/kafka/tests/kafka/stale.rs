//! Leaders that are others by now though nobody says so, and turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use kafka_client::*;
use kafka_protocol::messages::ApiKey;

use crate::scripted::{Broker, Reply, Request};
use crate::support::*;

/// Tells of the broker at this port as of the leader.
fn answer(request: &Request, leader: &AtomicU16) -> Vec<u8> {
    match request.key {
        ApiKey::Metadata => request.metadata(&|_| leader.load(Ordering::SeqCst)),
        _ => request.good_answer(),
    }
}

/// Goes red when `doubts_leader` is not asked.
#[test]
fn a_broker_that_asks_for_patience_again_and_again_may_not_lead_any_more() {
    // Not enough replicas, before and after the append, and a time-out.
    for code in [19, 20, 7] {
        let new = Broker::start(|request| Reply::Answer(request.good_answer()));
        let leader = Arc::new(AtomicU16::new(0));
        let (new_port, told) = (new.port, Arc::clone(&leader));
        let old = Broker::start(move |request| match request.key {
            ApiKey::Produce => {
                told.store(new_port, Ordering::SeqCst);
                Reply::Answer(request.produced(code))
            }
            _ => Reply::Answer(answer(request, &told)),
        });
        leader.store(old.port, Ordering::SeqCst);
        let mut producer = Producer::new(Arc::new(old.settings()), ProducerOptions::default());
        let mut outcomes = producer.send(vec![batch("t", &["a"])], None);
        let mut pending = 0;
        while let [(_, Outcome::Pending { reason })] = &outcomes[..] {
            assert!(reason.is_retryable() && pending < 10, "{code}: {reason}");
            pending += 1;
            outcomes = producer.send(vec![], None);
        }
        assert!(matches!(outcomes[..], [(_, Outcome::Delivered { .. })]), "{outcomes:?}");
        assert_eq!(pending, 3, "{code}");
        assert_eq!(old.batches("t")[0], new.batches("t")[0]);
        drop(producer);
        old.stop();
        new.stop();
    }
}

/// Goes red when `has_leader` does not look at the age.
#[test]
fn what_is_told_of_a_topic_is_asked_for_anew_when_it_is_old() {
    let new = Broker::start(|request| Reply::Answer(request.good_answer()));
    let leader = Arc::new(AtomicU16::new(0));
    let told = Arc::clone(&leader);
    let old = Broker::start(move |request| Reply::Answer(answer(request, &told)));
    leader.store(old.port, Ordering::SeqCst);
    let mut settings = old.settings();
    settings.metadata_max_age_ms = 1_000;
    let mut producer = Producer::new(Arc::new(settings), ProducerOptions::default());
    let start = Instant::now();
    let mut sent = 0;
    let one_more = |producer: &mut Producer| {
        // Not always in one round: on a busy machine what was just told is old already.
        let outcomes = deliver(producer, vec![batch("t", &["a"])]);
        assert!(matches!(outcomes[..], [(_, Outcome::Delivered { .. })]), "{outcomes:?}");
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

/// Goes red when `fetch_partitions` begins with the first each time: its records
/// then always leave no room for a batch above the bound.
#[test]
fn a_partition_with_a_backlog_does_not_keep_the_others_waiting() {
    let topics = [topic("turns-long"), topic("turns-large")];
    let mut producer = producer();
    let long = "x".repeat(1_000);
    deliver(&mut producer, vec![batch(&topics[0], &[long.as_str(); 20])]);
    deliver(&mut producer, vec![batch(&topics[1], &["y".repeat(20_000).as_str()])]);
    let mut client = Client::new(plain());
    let ids: Vec<_> = topics.iter().map(|topic| known(&mut client, topic).id).collect();
    // The first is never done: it is read from its beginning each time.
    let positions: Vec<_> = topics
        .iter()
        .zip(&ids)
        .map(|(topic, id)| FetchPosition { topic, topic_id: *id, partition: 0, offset: 0 })
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
