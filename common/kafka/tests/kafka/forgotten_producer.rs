//! A producer that the broker has forgotten, on a broker that forgets producers within seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_client::*;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    ApiKey, DescribeProducersRequest, DescribeProducersResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use testkit::proxy::{Direction, KafkaProxy, ProxyFault};
use testkit::raw_request::send_raw_request;
use testkit::services::{OwnSet, Services};

use crate::support::*;

/// The resource type of brokers in IncrementalAlterConfigs.
const BROKER: i8 = 4;

/// Waits until the topic's leader remembers no producer of the topic.
fn wait_until_forgotten(set: &OwnSet, client: &mut KafkaClient, topic: &str) {
    let leader = wait_for_topic(client, topic).partitions[0].leader.unwrap();
    let broker = set.plain_listener(usize::try_from(leader).unwrap()).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let topic = TopicRequest::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let answer: DescribeProducersResponse =
            send_raw_request(broker, ApiKey::DescribeProducers, &request, 0).unwrap();
        let partition = &answer.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        if partition.active_producers.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "the broker still remembers the producer");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// A producer that was idle until the broker forgot it continues without losing or duplicating
/// records. Only a batch whose response was lost before can be appended twice, as
/// `producer/partition` describes: with equal bytes, so that a reader can recognise it.
#[test]
fn forgotten_producer_continues() {
    // This test has its own broker, because the configuration would disturb other tests.
    let set = &Services::start(1).unwrap();
    let expiration = AlterableConfig::default()
        .with_name(StrBytes::from_static_str("producer.id.expiration.ms"))
        .with_value(Some(StrBytes::from_static_str("2000")));
    let all =
        AlterConfigsResource::default().with_resource_type(BROKER).with_configs(vec![expiration]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![all]);
    let first = set.plain_listener(1).unwrap();
    let answer: IncrementalAlterConfigsResponse =
        send_raw_request(first, ApiKey::IncrementalAlterConfigs, &request, 1).unwrap();
    assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0].error_message);

    let proxy = KafkaProxy::start(&set.kafka_plain).unwrap();
    let settings = KafkaSettings::new(addresses(&proxy.addresses()), Security::Plain);
    let mut producer = KafkaProducer::new(Arc::new(settings), ProducerOptions::default());
    let topic = topic("forgotten");
    deliver(&mut producer, vec![batch(&topic, &["a"])]);
    deliver(&mut producer, vec![batch(&topic, &["b"])]);
    let direct = KafkaSettings::new(addresses(&set.kafka_plain), Security::Plain);
    let mut client = KafkaClient::new(Arc::new(direct));
    wait_until_forgotten(set, &mut client, &topic);
    let outcomes = deliver(&mut producer, vec![batch(&topic, &["c"])]);
    assert!(matches!(outcomes[..], [(_, ProduceOutcome::Delivered { .. })]), "{outcomes:?}");
    assert_eq!(read_values(&mut client, &topic), ["a", "b", "c"]);

    let cut = proxy.add_rule(ApiKey::Produce, 0, Direction::Response, ProxyFault::Cut(0));
    let outcomes = producer.send(vec![batch(&topic, &["d"])], None);
    assert!(
        cut.fired() && matches!(outcomes[..], [(_, ProduceOutcome::Pending { .. })]),
        "{outcomes:?}"
    );
    wait_until_forgotten(set, &mut client, &topic);
    let outcomes = deliver(&mut producer, vec![]);
    assert!(matches!(outcomes[..], [(_, ProduceOutcome::Delivered { .. })]), "{outcomes:?}");
    deliver(&mut producer, vec![batch(&topic, &["e"])]);
    assert_eq!(read_values(&mut client, &topic), ["a", "b", "c", "d", "d", "e"]);
}
