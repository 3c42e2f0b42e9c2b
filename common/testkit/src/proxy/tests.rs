use std::time::Duration;

use kafka_client::{Address, Client, Security, Settings};
use kafka_protocol::messages::ApiKey;

use super::*;
use crate::services::{connect, shared};

const TIMEOUT: Duration = Duration::from_secs(10);

fn client(proxy: &KafkaProxy) -> Client {
    let mut settings =
        Settings::new(Address::parse_list(&proxy.addresses()).unwrap(), Security::Plain);
    settings.request_timeout_ms = 500;
    settings.connect_timeout_ms = 500;
    Client::new(Arc::new(settings))
}

/// Metadata and coordinator responses name the proxy's addresses only.
#[test]
fn clients_get_the_addresses_of_the_proxy_only() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let mut client = client(&proxy);
    client.topics(&[]).unwrap();
    let seen = proxy.add_rule(
        ApiKey::FindCoordinator,
        0,
        Direction::Response,
        ProxyFault::Cut(usize::MAX),
    );
    let _ = client.committed_offset("proxied", "nothing", 0);
    let asked =
        proxy.add_rule(ApiKey::OffsetFetch, 0, Direction::Request, ProxyFault::Cut(usize::MAX));
    // A new coordinator may not be available at once.
    let deadline = Instant::now() + TIMEOUT;
    while client.committed_offset("proxied", "nothing", 0).is_err() && Instant::now() < deadline {}
    assert!(seen.matched() && asked.matched() && !asked.fired());
}

/// Each fault acts on the request that the rule names, and the handle reports it.
#[test]
fn the_nth_request_is_cut_held_or_discarded() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let mut client = client(&proxy);
    client.topics(&[]).unwrap();

    let third = proxy.add_rule(ApiKey::Metadata, 2, Direction::Response, ProxyFault::Discard);
    client.topics(&[]).unwrap();
    client.topics(&[]).unwrap();
    assert!(!third.matched());
    assert!(client.topics(&[]).is_err());
    assert!(third.fired());

    // The client reconnects once when an established connection breaks. It does not retry a new
    // one.
    client.topics(&[]).unwrap();
    let cut = proxy.add_rule(ApiKey::Metadata, 0, Direction::Request, ProxyFault::Cut(7));
    client.topics(&[]).unwrap();
    assert_eq!((cut.fired(), cut.bytes_passed()), (true, 7));

    let held = proxy.add_rule(ApiKey::Metadata, 0, Direction::Response, ProxyFault::Hold);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.topics(&[]));
        assert!(held.wait_until_fired(TIMEOUT));
        held.release();
        asking.join().unwrap().unwrap();
    });
}

/// Dropping a proxy releases held messages, else the drop would never return.
#[test]
fn dropping_the_proxy_releases_held_messages() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let mut client = client(&proxy);
    let held = proxy.add_rule(ApiKey::ApiVersions, 0, Direction::Request, ProxyFault::Hold);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.topics(&[]));
        assert!(held.wait_until_fired(TIMEOUT));
        drop(proxy);
        let _ = asking.join().unwrap();
    });
}

/// A cut counts bytes across messages.
#[test]
fn a_cut_acts_at_any_byte_of_a_transaction() {
    let services = shared().unwrap();
    let server = format!("{}:{}", "127.0.0.1", services.postgres_port).parse().unwrap();
    let proxy = PostgresProxy::start(server).unwrap();
    let uri = format!(
        "postgres://postgres:{}@{}/postgres?sslmode=disable",
        services.postgres_password,
        proxy.address()
    );
    let run = |handle: &RuleHandle| {
        let mut client = connect(&services, &uri).unwrap();
        let mut work = || {
            client.batch_execute("begin")?;
            client.query_one("select 1", &[])?;
            client.batch_execute("commit")
        };
        let done = work();
        (done.is_ok(), handle.fired())
    };
    let count = proxy.add_rule(b'Q', "begin", 0, Direction::Response, ProxyFault::Cut(usize::MAX));
    assert_eq!(run(&count), (true, false));
    let all = count.bytes_passed();
    assert!(all > 60, "{all}");
    for bytes in [0, 1, all / 2, all - 1] {
        let cut = proxy.add_rule(b'Q', "begin", 0, Direction::Response, ProxyFault::Cut(bytes));
        assert_eq!(run(&cut), (false, true), "{bytes} of {all}");
        assert_eq!(cut.bytes_passed(), bytes);
    }
    let swallowed =
        proxy.add_rule(b'Q', "no such statement", 0, Direction::Request, ProxyFault::Discard);
    assert_eq!(run(&swallowed), (true, false));
}
