//! Delivery to a real Kafka, over TLS with client certificates.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::identity::Identity;
use common::record::Record;
use kafka_client::{
    BrokerAddress, FetchLimits, FetchPosition, FetchedRecord, KafkaClient, KafkaSettings, Security,
    TopicSpec,
};
use testkit::acls::{self, TopicOperation};
use testkit::forwarder::Forwarder;
use testkit::program::Program;
use testkit::services::{Services, fresh_name, shared};

use crate::{TIMEOUT, hello_site, run, tracker};

/// The tracker's variables for Kafka over TLS, with a topic prefix for this test alone.
pub(crate) struct TestKafka {
    pub(crate) services: Services,
    pub(crate) prefix: String,
    certificates: [String; 3],
}

impl TestKafka {
    pub(crate) fn new() -> Self {
        let services = shared().expect("services");
        let path = |name: &str| services.cert(name).display().to_string();
        let certificates = [path("ca.crt"), path("client.crt"), path("client.key")];
        Self { services, prefix: fresh_name("t") + "-", certificates }
    }

    pub(crate) fn variables(&self) -> Vec<(&str, &str)> {
        let [ca, cert, key] = self.certificates.each_ref().map(String::as_str);
        vec![
            ("KAFKA", &self.services.kafka_tls),
            ("CA", ca),
            ("CERT", cert),
            ("KEY", key),
            ("TOPIC_PREFIX", &self.prefix),
            ("LOCATION", "oslo"),
        ]
    }

    fn client(&self) -> KafkaClient {
        let bootstrap = BrokerAddress::parse_list(&self.services.kafka_plain).unwrap();
        KafkaClient::new(Arc::new(KafkaSettings::new(bootstrap, Security::Plain)))
    }

    /// The records of a topic, none if the topic does not exist.
    fn records(&self, topic: &str) -> Vec<Record> {
        let values = self.fetched(topic).into_iter().map(|record| record.value.unwrap());
        values.map(|value| Record::decode(&value).unwrap()).collect()
    }

    /// The identities of a topic's records.
    pub(crate) fn identities(&self, topic: &str) -> Vec<Identity> {
        let records = self.fetched(topic);
        records.iter().map(|r| Identity::from_headers(&r.headers).unwrap().unwrap()).collect()
    }

    fn fetched(&self, topic: &str) -> Vec<FetchedRecord> {
        let mut client = self.client();
        let found = client.topics(&[topic.to_owned()]).unwrap();
        let Some(id) = found.first().filter(|found| found.error.is_none()).map(|found| found.id)
        else {
            return Vec::new();
        };
        let position =
            FetchPosition { topic, topic_id: id, partition: 0, offset: 0, leader_epoch: None };
        let limits = FetchLimits { max_wait_ms: 100, min_bytes: 1, max_bytes: 1 << 20 };
        // The leader of a new topic may not be elected yet; the caller asks again.
        client.fetch(&position, &limits).map_or_else(|_| Vec::new(), |fetched| fetched.records)
    }

    pub(crate) fn wait_for_records(&self, topic: &str, count: usize) -> Vec<Record> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let records = self.records(topic);
            if records.len() >= count {
                return records;
            }
            assert!(Instant::now() < deadline, "{} of {count} records", records.len());
        }
    }
}

#[test]
fn results_arrive_in_the_topics_of_their_domains() {
    let kafka = TestKafka::new();
    let site = hello_site();
    let websites = format!("{site} x{{2\\,}},HTTP://Nothing.INVALID/Path");
    let ended = run(&["--once", "-w", &websites], &kafka.variables());
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);

    let record = &kafka.records(&format!("{}127.0.0.1", kafka.prefix))[0];
    assert_eq!((record.from.as_str(), record.url.as_str()), ("oslo", site.as_str()));
    assert_eq!(record.phrase, "page content not expected");
    assert_eq!(record.detail.as_deref(), Some("x{2,}"));
    assert_eq!(record.offset, -1);
    assert!(record.response_ms.is_some() && record.dns_ms.is_some());

    let records = kafka.records(&format!("{}nothing.invalid", kafka.prefix));
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].url, "http://nothing.invalid/path");
    assert_eq!((records[0].dns_ms, records[0].response_ms), (None, None));
}

/// Sequence numbers count up in each topic; the run is the same in all topics.
#[test]
fn each_record_carries_its_run_and_its_sequence_in_the_topic() {
    let kafka = TestKafka::new();
    let site = hello_site();
    let websites = format!("{site},{site} hello,{site} world,http://nothing.invalid/");
    run(&["--once", "-w", &websites], &kafka.variables());
    run(&["--once", "-w", &websites], &kafka.variables());
    let found = kafka.identities(&format!("{}127.0.0.1", kafka.prefix));
    assert_eq!(found.iter().map(|one| one.sequence).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    assert!(found[..3].iter().all(|one| one.run == found[0].run), "{found:?}");
    assert!(found[3..].iter().all(|one| one.run == found[3].run), "{found:?}");
    assert_ne!(found[0].run, found[3].run);
    // Another topic has its own sequence in the same run.
    let other = kafka.identities(&format!("{}nothing.invalid", kafka.prefix));
    assert_eq!(other.iter().map(|one| one.sequence).collect::<Vec<_>>(), [0, 0]);
    assert_eq!([other[0].run, other[1].run], [found[0].run, found[3].run]);
}

#[test]
fn results_from_before_kafka_was_reachable_are_delivered() {
    let kafka = TestKafka::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let real = kafka.services.plain_listener(1).unwrap().parse().unwrap();
    // The port is reserved and refuses connections.
    let site = hello_site();
    let address_text = address.to_string();
    let variables = [
        ("KAFKA", address_text.as_str()),
        ("TOPIC_PREFIX", &kafka.prefix),
        ("WEBSITES", &site),
        ("PERIOD", "1"),
    ];
    drop(listener);
    let tracker = tracker(&[], &variables);
    tracker.wait_for_line("kafka: no delivery for", TIMEOUT).unwrap();
    let _forwarder = Forwarder::start(TcpListener::bind(address).unwrap(), real).unwrap();
    let forwarded_at =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    tracker.wait_for_line("kafka: delivery recovered", TIMEOUT).unwrap();
    let records = kafka.wait_for_records(&format!("{}127.0.0.1", kafka.prefix), 3);
    assert!(records[0].timestamp < forwarded_at, "{} from before", records[0].timestamp);
    assert!(records.is_sorted_by(|one, next| one.timestamp < next.timestamp));
    assert_eq!(tracker.stop(TIMEOUT).unwrap().status.code(), Some(0));
}

#[test]
fn a_stop_ends_within_eight_seconds_and_counts_lost_results() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging_url = format!("http://{}/", hanging.local_addr().unwrap());
    // The system accepts connections to this port; no program answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let websites = format!("{},{hanging_url}", hello_site());
    let tracker =
        tracker(&["-p", "1", "-t", "30"], &[("KAFKA", &silent_address), ("WEBSITES", &websites)]);
    // From now on a probe and a request to Kafka both hang.
    let _probe = hanging.accept().unwrap();
    let _request = silent.accept().unwrap();
    let start = Instant::now();
    let ended = tracker.stop(TIMEOUT).unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let lost =
        ended.log.iter().filter(|line| line.contains("not delivered before the program ended"));
    assert_eq!(lost.count(), 1, "{:?}", ended.log);
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_tls_refusal_is_one_clear_line() {
    let kafka = TestKafka::new();
    let site = hello_site();
    let path = |name: &str| kafka.services.cert(name).display().to_string();
    for (ca, certificate, expected) in [
        (
            "ca.crt",
            "foreign-client",
            "the broker refused the client certificate: a CA that the broker trusts must have signed it",
        ),
        ("ca.crt", "expired-client", "the client certificate expired"),
        ("foreign-ca.crt", "client", "unknown issuer"),
    ] {
        let certificates =
            [path(ca), path(&format!("{certificate}.crt")), path(&format!("{certificate}.key"))];
        let mut variables = kafka.variables();
        for (name, value) in &mut variables {
            match *name {
                "CA" => *value = &certificates[0],
                "CERT" => *value = &certificates[1],
                "KEY" => *value = &certificates[2],
                _ => {}
            }
        }
        let tracker: Program =
            tracker(&["-p", "1", "-t", "0.5", "--retries", "0", "-w", &site], &variables);
        let line = tracker.wait_for_line("kafka: no delivery for", TIMEOUT).unwrap();
        assert!(line.contains(expected), "{line}");
        let log = tracker.log();
        let lines = log.iter().filter(|line| line.contains("WARN") || line.contains("ERROR"));
        assert_eq!(lines.count(), 1, "{log:?}");
    }
}

#[test]
fn a_topic_with_the_other_prefix_is_named() {
    let kafka = TestKafka::new();
    let domain = fresh_name("other") + ".invalid";
    let spec = TopicSpec::default();
    let other = [format!("webactiviity-{domain}")];
    let mut client = kafka.client();
    client.create_topic(&other[0], &spec).unwrap();
    // A broker may not know a new topic at once.
    let end = Instant::now() + TIMEOUT;
    while client.topics(&other).unwrap()[0].error.is_some() {
        assert!(Instant::now() < end, "never there");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let websites = format!("http://{domain}/");
    let mut variables = kafka.variables();
    variables.retain(|(name, _)| *name != "TOPIC_PREFIX");
    let ended = run(&["--once", "-w", &websites], &variables);
    let expected = format!(
        "topic webactivity-{domain} does not exist and will be created, but webactiviity-{domain} exists: set TOPIC_PREFIX=webactiviity- to write to webactiviity-{domain}"
    );
    assert_eq!(
        ended.log.iter().filter(|line| line.contains(&expected)).count(),
        1,
        "{:?}",
        ended.log
    );
}

/// A missing right is an outage: one line names principal, operation and topic, the results wait,
/// and all arrive once the right is granted.
#[test]
fn results_wait_for_a_missing_right() {
    let kafka = TestKafka::new();
    let topic = format!("{}127.0.0.1", kafka.prefix);
    kafka.client().create_topic(&topic, &TopicSpec::default()).unwrap();
    acls::deny(&kafka.services, &topic, TopicOperation::Write).unwrap();
    let site = hello_site();
    let tracker = tracker(
        &["-p", "1", "-w", &site],
        &[
            ("KAFKA", &kafka.services.kafka_sasl_plaintext),
            ("SASL_MECHANISM", "SCRAM-SHA-256"),
            ("SASL_USERNAME", &kafka.services.sasl_username),
            ("SASL_PASSWORD", &kafka.services.sasl_password),
            ("TOPIC_PREFIX", &kafka.prefix),
            ("LOCATION", "oslo"),
        ],
    );
    let line = tracker.wait_for_line("kafka: no delivery for", TIMEOUT).unwrap();
    // Once a topic has an ACL, Kafka denies all that no ACL allows, Describe too.
    let right = format!("(User:{} needs the right ", kafka.services.sasl_username);
    assert!(line.contains(&topic) && line.contains(&right), "{line}");
    acls::remove_all(&kafka.services, &topic).unwrap();
    tracker.wait_for_line("kafka: delivery recovered after", TIMEOUT).unwrap();
    let ended = tracker.stop(TIMEOUT).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
    assert!(!ended.log.iter().any(|line| line.contains(" lost ")), "{:?}", ended.log);
    let sequences: Vec<i64> = kafka.identities(&topic).iter().map(|it| it.sequence).collect();
    assert_eq!(sequences, (0..sequences.len() as i64).collect::<Vec<_>>());
    assert!(sequences.len() > 2, "{sequences:?}");
}
