//! Fewer connections to Kafka than domains.

use std::time::Duration;

use common::domain::Domain;
use testkit::services::{Services, fresh_name, shared};

use crate::support::{Recorder, World, ok};

/// The sum of the positions of all domains of a database.
const POSITIONS: &str = "select sum(next_offset)::bigint from availability_offset";
const LINE: &str = "domains without a connection take turns";

/// Domains in one database, each with its own topic.
struct Domains {
    world: World,
    domains: Vec<Domain>,
}

impl Domains {
    fn new(services: &Services, count: usize) -> Self {
        let world = World::new(services);
        let domain = |_| Domain::parse(&format!("{}.example", fresh_name("d"))).unwrap();
        let mut domains = Self { world, domains: (0..count).map(domain).collect() };
        domains.for_each_topic(|world| {
            world.client().create_topic_with(&world.topic, 1, 1, &[]).unwrap();
        });
        domains
    }

    fn for_each_topic(&mut self, run: impl Fn(&World)) {
        for domain in &self.domains {
            self.world.topic = domain.topic(&self.world.prefix).unwrap();
            run(&self.world);
        }
    }

    /// Writes a record to each topic, and closes the connections at once.
    fn produce(&mut self, second: i64) {
        self.for_each_topic(|world| world.produce_to(0, [ok(second)]));
    }

    fn recorder(&self, variables: &[(&str, &str)]) -> Recorder {
        let names: Vec<_> = self.domains.iter().map(Domain::to_string).collect();
        let names = names.join(",");
        self.world.recorder_with(&[&[("DOMAIN", names.as_str())], variables].concat())
    }
}

#[test]
fn domains_share_the_connections_to_kafka_that_are_allowed() {
    let mut domains = Domains::new(&shared().unwrap(), 12);
    domains.produce(0);
    let recorder = domains.recorder(&[("KAFKA_CONNECTIONS", "6")]);
    domains.world.expect(POSITIONS, 12);
    domains.produce(1);
    // Within a minute.
    domains.world.expect(POSITIONS, 24);
    let (status, took, log) = recorder.stop();
    assert!(status.success() && took < Duration::from_secs(8), "{status} {took:?} {log}");
    assert_eq!((log.matches(LINE).count(), log.matches("WARN").count()), (1, 1), "{log}");
    assert!(log.contains("all of the 6 connections"), "{log}");
}

/// Tests that break services, and therefore use their own services.
mod broken_on_purpose {
    use kafka_protocol::messages::incremental_alter_configs_request::{
        AlterConfigsResource, AlterableConfig,
    };
    use kafka_protocol::messages::{
        ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    };
    use kafka_protocol::protocol::StrBytes;
    use testkit::raw_request::send_raw_request;

    use super::*;
    use crate::own_services::with_own_services;

    /// A broker closes connections above `max.connections.per.ip` before it answers.
    #[test]
    fn a_broker_that_allows_few_connections_is_read_in_turns() {
        with_own_services(1, |services| {
            let mut domains = Domains::new(services, 20);
            domains.produce(0);
            set_connections_max(services, "12");
            let recorder = domains.recorder(&[]);
            domains.world.expect(POSITIONS, 20);
            let (status, took, log) = recorder.stop();
            assert!(status.success() && took < Duration::from_secs(8), "{status} {took:?} {log}");
            assert_eq!(log.matches(LINE).count(), 1, "{log}");
            assert!(log.contains("is max.connections.per.ip of the broker reached?"), "{log}");
            // The next test on these services needs more connections.
            set_connections_max(services, "2147483647");
        });
    }

    /// Changes `max.connections.per.ip` of broker 1.
    fn set_connections_max(services: &Services, value: &'static str) {
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str("max.connections.per.ip"))
            .with_value(Some(StrBytes::from_static_str(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(4)
            .with_resource_name(StrBytes::from_static_str("1"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let broker = &services.kafka_plain;
        let api = ApiKey::IncrementalAlterConfigs;
        let response: IncrementalAlterConfigsResponse =
            send_raw_request(broker, api, &request, 1).unwrap();
        assert_eq!(response.responses[0].error_code, 0, "{response:?}");
    }
}
