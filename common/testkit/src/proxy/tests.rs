use std::time::Duration;

use kafka_client::{BrokerAddress, KafkaClient, KafkaSettings, Security};
use kafka_protocol::messages::ApiKey;

use super::*;
use crate::services::{connect, shared};

const SOON: Duration = Duration::from_secs(10);

fn client(proxy: &KafkaProxy) -> KafkaClient {
    let mut settings =
        KafkaSettings::new(BrokerAddress::parse_list(&proxy.addresses()).unwrap(), Security::Plain);
    settings.request_timeout_ms = 500;
    settings.connect_timeout_ms = 500;
    KafkaClient::new(Arc::new(settings))
}

/// Goes red when `move_to` leaves the address as it is.
#[test]
fn a_client_of_the_proxy_learns_of_the_proxy_alone() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let mut client = client(&proxy);
    client.topics(&[]).unwrap();
    let seen = proxy.tell(ApiKey::FindCoordinator, 0, Side::Answer, Fault::Cut(usize::MAX));
    let _ = client.committed_offset("proxied", "nothing", 0);
    let asked = proxy.tell(ApiKey::OffsetFetch, 0, Side::Request, Fault::Cut(usize::MAX));
    // A coordinator that has just been made may not be there at once.
    let deadline = Instant::now() + SOON;
    while client.committed_offset("proxied", "nothing", 0).is_err() && Instant::now() < deadline {}
    assert!(seen.matched() && asked.matched() && !asked.fired());
}

/// Goes red when `pass` closes nothing, or forgets to fire.
#[test]
fn the_nth_request_is_cut_held_or_swallowed() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let mut client = client(&proxy);
    client.topics(&[]).unwrap();

    let third = proxy.tell(ApiKey::Metadata, 2, Side::Answer, Fault::Swallow);
    client.topics(&[]).unwrap();
    client.topics(&[]).unwrap();
    assert!(!third.matched());
    assert!(client.topics(&[]).is_err());
    assert!(third.fired());

    // A connection that was good before is made again, a new one is not.
    client.topics(&[]).unwrap();
    let cut = proxy.tell(ApiKey::Metadata, 0, Side::Request, Fault::Cut(7));
    client.topics(&[]).unwrap();
    assert_eq!((cut.fired(), cut.bytes()), (true, 7));

    let held = proxy.tell(ApiKey::Metadata, 0, Side::Answer, Fault::Hold);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.topics(&[]));
        assert!(held.wait(SOON));
        held.release();
        asking.join().unwrap().unwrap();
    });
}

/// Goes red when `Rules::end` releases nothing: the drop would wait for ever.
#[test]
fn a_proxy_that_ends_holds_nothing() {
    let proxy = KafkaProxy::start(&shared().unwrap().kafka_plain).unwrap();
    let mut client = client(&proxy);
    let held = proxy.tell(ApiKey::ApiVersions, 0, Side::Request, Fault::Hold);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.topics(&[]));
        assert!(held.wait(SOON));
        drop(proxy);
        let _ = asking.join().unwrap();
    });
}

/// Goes red when a way forgets its cut after one message.
#[test]
fn a_cut_finds_its_place_in_a_transaction() {
    let services = shared().unwrap();
    let server = format!("{}:{}", "127.0.0.1", services.postgres_port).parse().unwrap();
    let proxy = PostgresProxy::start(server).unwrap();
    let uri = format!(
        "postgres://postgres:{}@{}/postgres?sslmode=disable",
        services.postgres_password,
        proxy.address()
    );
    let run = |told: &Told| {
        let mut client = connect(&services, &uri).unwrap();
        let mut work = || {
            client.batch_execute("begin")?;
            client.query_one("select 1", &[])?;
            client.batch_execute("commit")
        };
        let done = work();
        (done.is_ok(), told.fired())
    };
    let count = proxy.tell(b'Q', "begin", 0, Side::Answer, Fault::Cut(usize::MAX));
    assert_eq!(run(&count), (true, false));
    let all = count.bytes();
    assert!(all > 60, "{all}");
    for bytes in [0, 1, all / 2, all - 1] {
        let cut = proxy.tell(b'Q', "begin", 0, Side::Answer, Fault::Cut(bytes));
        assert_eq!(run(&cut), (false, true), "{bytes} of {all}");
        assert_eq!(cut.bytes(), bytes);
    }
    let swallowed = proxy.tell(b'Q', "nobody says this", 0, Side::Request, Fault::Swallow);
    assert_eq!(run(&swallowed), (true, false));
}
