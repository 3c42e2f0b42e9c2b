//! A producer that brokers do not remember any more, on brokers that forget within
//! seconds.

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
use testkit::services::OwnSet;

use crate::support::*;

/// All brokers, in IncrementalAlterConfigs.
const BROKER: i8 = 4;

/// Waits until the topic's leader knows no producer of it.
fn wait_until_forgotten(set: &OwnSet, client: &mut Client, topic: &str) {
    let leader = known(client, topic).partitions[0].leader.unwrap();
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
        assert!(Instant::now() < end, "the producer is still known");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// One that was idle for longer than it is remembered goes on, and nothing is
/// lost or doubled. What was in doubt meanwhile is the one thing that is written
/// twice, as `producer/partition.rs` says: the same to the byte, so that who reads
/// can tell.
///
/// Goes red when `refused` gives up what is in doubt.
pub(crate) fn a_producer_that_is_forgotten_goes_on(set: &OwnSet) {
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
    let settings = Settings::new(addresses(&proxy.addresses()), Security::Plain);
    let mut producer = Producer::new(Arc::new(settings), ProducerOptions::default());
    let topic = topic("forgotten");
    deliver(&mut producer, vec![batch(&topic, &["a"])]);
    deliver(&mut producer, vec![batch(&topic, &["b"])]);
    let direct = Settings::new(addresses(&set.kafka_plain), Security::Plain);
    let mut client = Client::new(Arc::new(direct));
    wait_until_forgotten(set, &mut client, &topic);
    let outcomes = deliver(&mut producer, vec![batch(&topic, &["c"])]);
    assert!(matches!(outcomes[..], [(_, Outcome::Delivered { .. })]), "{outcomes:?}");
    assert_eq!(values(&mut client, &topic), ["a", "b", "c"]);

    let told = proxy.add_rule(ApiKey::Produce, 0, Direction::Response, ProxyFault::Cut(0));
    let outcomes = producer.send(vec![batch(&topic, &["d"])], None);
    assert!(told.fired() && matches!(outcomes[..], [(_, Outcome::Pending { .. })]), "{outcomes:?}");
    wait_until_forgotten(set, &mut client, &topic);
    let outcomes = deliver(&mut producer, vec![]);
    assert!(matches!(outcomes[..], [(_, Outcome::Delivered { .. })]), "{outcomes:?}");
    deliver(&mut producer, vec![batch(&topic, &["e"])]);
    assert_eq!(values(&mut client, &topic), ["a", "b", "c", "d", "d", "e"]);
}
