use std::time::Duration;

use kafka_client::{BrokerAddress, KafkaClient, KafkaSettings, Security};
use kafka_protocol::messages::ApiKey;

use super::*;
use crate::services::{Services, connect, shared};

const TIMEOUT: Duration = Duration::from_secs(10);

fn client(proxy: &KafkaProxy) -> KafkaClient {
    let mut settings =
        KafkaSettings::new(BrokerAddress::parse_list(&proxy.addresses()).unwrap(), Security::Plain);
    settings.request_timeout_ms = 500;
    settings.connect_timeout_ms = 500;
    KafkaClient::new(Arc::new(settings))
}

/// Metadata and coordinator responses name the proxy's addresses only.
#[test]
fn clients_get_the_addresses_of_the_proxy_only() {
    let (proxy, mut client) = connected();
    let coordinator = proxy.add_rule(
        ApiKey::FindCoordinator,
        0,
        Direction::Response,
        ProxyFault::Cut(usize::MAX),
    );
    let _ = client.committed_offset("proxied", "nothing", 0);
    let offsets =
        proxy.add_rule(ApiKey::OffsetFetch, 0, Direction::Request, ProxyFault::Cut(usize::MAX));
    // A new coordinator may not be available at once.
    let deadline = Instant::now() + TIMEOUT;
    while client.committed_offset("proxied", "nothing", 0).is_err() && Instant::now() < deadline {}
    assert!(coordinator.matched() && offsets.matched() && !offsets.fired());
}

/// A proxy, and a client that is connected through it.
fn connected() -> (KafkaProxy, KafkaClient) {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let mut client = client(&proxy);
    client.topics(&[]).unwrap();
    (proxy, client)
}

#[test]
fn a_rule_discards_the_response_to_the_nth_request() {
    let (proxy, mut client) = connected();
    let third = proxy.add_rule(ApiKey::Metadata, 2, Direction::Response, ProxyFault::Discard);
    client.topics(&[]).unwrap();
    client.topics(&[]).unwrap();
    assert!(!third.matched());
    assert!(client.topics(&[]).is_err());
    assert!(third.fired());
}

/// The client succeeds, because it reconnects once when an established connection breaks.
#[test]
fn a_rule_cuts_a_request_after_its_number_of_bytes() {
    let (proxy, mut client) = connected();
    let cut = proxy.add_rule(ApiKey::Metadata, 0, Direction::Request, ProxyFault::Cut(7));
    client.topics(&[]).unwrap();
    assert_eq!((cut.fired(), cut.bytes_passed()), (true, 7));
}

#[test]
fn a_rule_holds_a_response_until_its_release() {
    let (proxy, mut client) = connected();
    let held = proxy.add_rule(ApiKey::Metadata, 0, Direction::Response, ProxyFault::Hold);
    std::thread::scope(|scope| {
        let request = scope.spawn(|| client.topics(&[]));
        assert!(held.wait_until_fired(TIMEOUT));
        held.release();
        request.join().unwrap().unwrap();
    });
}

/// Dropping a proxy releases held messages, else the drop would never return.
#[test]
fn dropping_the_proxy_releases_held_messages() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let mut client = client(&proxy);
    let held = proxy.add_rule(ApiKey::ApiVersions, 0, Direction::Request, ProxyFault::Hold);
    std::thread::scope(|scope| {
        let request = scope.spawn(|| client.topics(&[]));
        assert!(held.wait_until_fired(TIMEOUT));
        drop(proxy);
        let _ = request.join().unwrap();
    });
}

/// A PostgreSQL proxy, to run transactions through.
struct ProxiedPostgres {
    services: Services,
    uri: String,
    proxy: PostgresProxy,
}

impl ProxiedPostgres {
    fn start() -> Self {
        let services = shared().unwrap();
        let server = format!("127.0.0.1:{}", services.postgres_port).parse().unwrap();
        let proxy = PostgresProxy::start(server).unwrap();
        let uri = format!(
            "postgres://postgres:{}@{}/postgres?sslmode=disable",
            services.postgres_password,
            proxy.address()
        );
        Self { services, uri, proxy }
    }

    /// Cuts the responses of a transaction after this many bytes.
    fn cut(&self, bytes: usize) -> RuleHandle {
        self.proxy.add_rule(b'Q', "begin", 0, Direction::Response, ProxyFault::Cut(bytes))
    }

    /// Runs a transaction. Returns whether it succeeded.
    fn run_transaction(&self) -> bool {
        let mut client = connect(&self.services, &self.uri).unwrap();
        let mut run = || {
            client.batch_execute("begin")?;
            client.query_one("select 1", &[])?;
            client.batch_execute("commit")
        };
        run().is_ok()
    }
}

/// A cut counts bytes across messages.
#[test]
fn a_cut_acts_at_any_byte_of_a_transaction() {
    let postgres = ProxiedPostgres::start();
    let uncut = postgres.cut(usize::MAX);
    assert!(postgres.run_transaction() && !uncut.fired());
    let all = uncut.bytes_passed();
    assert!(all > 60, "{all}");
    for bytes in [0, 1, all / 2, all - 1] {
        let cut = postgres.cut(bytes);
        assert!(!postgres.run_transaction() && cut.fired(), "{bytes} of {all}");
        assert_eq!(cut.bytes_passed(), bytes);
    }
}

#[test]
fn a_rule_for_another_statement_does_nothing() {
    let postgres = ProxiedPostgres::start();
    let rule = postgres.proxy.add_rule(
        b'Q',
        "no such statement",
        0,
        Direction::Request,
        ProxyFault::Discard,
    );
    assert!(postgres.run_transaction() && !rule.fired());
}
