//! Connections cut at every byte of an exchange with a real broker.

use std::sync::Arc;
use std::time::Instant;

use kafka_client::*;
use kafka_protocol::messages::ApiKey;
use testkit::proxy::{Direction, KafkaProxy, ProxyFault, RuleHandle};
use testkit::services::shared;

use crate::support::*;

fn through(proxy: &KafkaProxy) -> Arc<KafkaSettings> {
    Arc::new(KafkaSettings::new(addresses(&proxy.addresses()), Security::Plain))
}

/// Repeats an exchange and cuts it one byte later each time, until it is complete. Returns the
/// number of cuts.
fn walk(
    proxy: &KafkaProxy,
    kind: ApiKey,
    direction: Direction,
    mut exchange: impl FnMut(&RuleHandle),
) -> usize {
    let start = Instant::now();
    for position in 0.. {
        let cut = proxy.add_rule(kind, 0, direction, ProxyFault::Cut(position));
        exchange(&cut);
        assert!(cut.matched(), "{kind:?} {direction:?} at byte {position}");
        if !cut.fired() {
            println!("{kind:?} {direction:?}: {position} positions in {:?}", start.elapsed());
            return position;
        }
        assert_eq!(cut.bytes_passed(), position);
    }
    unreachable!()
}

/// A batch keeps its sequence when it is sent again.
#[test]
fn produce_cut_at_any_byte_appends_each_record_once_and_in_order() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let topic = topic("cut-produce");
    let mut producer = KafkaProducer::new(through(&proxy), ProducerOptions::default());
    let mut expected = Vec::new();
    let mut next = |producer: &mut KafkaProducer| {
        let values = [format!("{} a", expected.len()), format!("{} b", expected.len())];
        let outcomes = deliver(producer, vec![batch(&topic, &[&values[0], &values[1]])]);
        assert!(matches!(outcomes[..], [(_, ProduceOutcome::Delivered { .. })]), "{outcomes:?}");
        expected.extend(values);
    };
    next(&mut producer);
    let requests = walk(&proxy, ApiKey::Produce, Direction::Request, |_| next(&mut producer));
    let answers = walk(&proxy, ApiKey::Produce, Direction::Response, |_| next(&mut producer));
    assert!(requests > 150 && answers > 50, "{requests} {answers}");
    assert_eq!(read_values(&mut KafkaClient::new(plain()), &topic), expected);
}

/// The broker appends the batch and the connection stays open, but the response is lost.
/// A batch keeps its sequence when it is sent again.
#[test]
fn lost_produce_response_does_not_duplicate_records() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let topic = topic("discarded-produce");
    let mut settings = KafkaSettings::new(addresses(&proxy.addresses()), Security::Plain);
    settings.request_timeout_ms = 1_000;
    let mut producer = KafkaProducer::new(Arc::new(settings), ProducerOptions::default());
    deliver(&mut producer, vec![batch(&topic, &["a"])]);
    let discarded = proxy.add_rule(ApiKey::Produce, 0, Direction::Response, ProxyFault::Discard);
    deliver(&mut producer, vec![batch(&topic, &["b", "c"])]);
    deliver(&mut producer, vec![batch(&topic, &["d"])]);
    assert!(discarded.fired());
    assert_eq!(read_values(&mut KafkaClient::new(plain()), &topic), ["a", "b", "c", "d"]);
}

/// A cut response is an error, not a short response.
#[test]
fn fetch_cut_at_any_byte_returns_each_record_once() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let topic = topic("cut-fetch");
    let expected = ["a", "b", "c", "d"];
    let mut producer = producer();
    deliver(&mut producer, vec![batch(&topic, &expected[..2])]);
    deliver(&mut producer, vec![batch(&topic, &expected[2..])]);
    let mut client = KafkaClient::new(through(&proxy));
    let topic_id = wait_for_topic(&mut client, &topic).id;
    let mut read = |cut: &RuleHandle| {
        let (mut offset, mut found, mut failures) = (0, Vec::new(), 0);
        while offset < 4 {
            let position =
                FetchPosition { topic: &topic, topic_id, partition: 0, offset, leader_epoch: None };
            match client.fetch(&position, &FetchLimits::default()) {
                Ok(fetched) => {
                    offset = fetched.next_offset;
                    found.extend(fetched.records.into_iter().filter_map(|record| record.value));
                }
                Err(error) => {
                    assert!(matches!(error, KafkaError::Disconnected { .. }), "{error}");
                    failures += 1;
                }
            }
            // A response that was complete before the cut is valid; the next fetch then fails once.
            assert!(failures <= 1, "a broken connection was used again");
        }
        assert_eq!(found, expected, "cut after {} bytes", cut.bytes_passed());
    };
    let requests = walk(&proxy, ApiKey::Fetch, Direction::Request, &mut read);
    let answers = walk(&proxy, ApiKey::Fetch, Direction::Response, &mut read);
    assert!(requests > 80 && answers > 200, "{requests} {answers}");
}
