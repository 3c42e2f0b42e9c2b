//! The cluster that the tests of the Kafka client run on, and what they share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::pem::Pem;
use common::secret::Secret;
use kafka_client::*;
pub(crate) use testkit::services::fresh_name as topic;
use testkit::services::shared;

pub(crate) fn addresses(list: &str) -> Vec<Address> {
    Address::parse_list(list).unwrap()
}

pub(crate) fn plain() -> Arc<Settings> {
    Arc::new(Settings::new(addresses(&shared().unwrap().kafka_plain), Security::Plain))
}

pub(crate) fn certificate(name: &str) -> Pem {
    Pem::File(shared().unwrap().cert(name))
}

pub(crate) fn tls_with(roots: &str, identity: Option<(&str, &str)>) -> Security {
    Security::Tls {
        roots: Some(certificate(roots)),
        identity: identity.map(|(chain, key)| (certificate(chain), certificate(key))),
    }
}

pub(crate) fn tls(identity: Option<(&str, &str)>) -> Settings {
    Settings::new(addresses(&shared().unwrap().kafka_tls), tls_with("ca.crt", identity))
}

pub(crate) fn sasl(over_tls: bool, mechanism: Mechanism, password: Option<&str>) -> Settings {
    let services = shared().unwrap();
    let mut settings = if over_tls {
        Settings::new(addresses(&services.kafka_sasl_tls), tls_with("ca.crt", None))
    } else {
        Settings::new(addresses(&services.kafka_sasl_plaintext), Security::Plain)
    };
    let password = Secret::new(password.unwrap_or(&services.sasl_password));
    settings.sasl = Some(Sasl { mechanism, username: services.sasl_username, password });
    settings
}

/// A time of this run, as retention takes what is older than a week.
pub(crate) fn now_ms() -> i64 {
    static NOW: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    *NOW.get_or_init(|| {
        i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
    })
}

pub(crate) fn record(value: &str) -> ProduceRecord {
    ProduceRecord {
        timestamp_ms: now_ms(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        headers: vec![("n".to_owned(), Bytes::from_static(b"\x01"))],
    }
}

pub(crate) fn batch(topic: &str, values: &[&str]) -> TopicBatch {
    TopicBatch {
        topic: topic.to_owned(),
        records: values.iter().map(|value| record(value)).collect(),
    }
}

/// Calls until it succeeds or fails for good, for at most a minute.
pub(crate) fn patiently<T>(mut call: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match call() {
            Err(error) if error.is_retryable() && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

/// Calls until it fails as wanted, for at most a minute.
pub(crate) fn patiently_until<T>(
    mut call: impl FnMut() -> Result<T, Error>,
    wanted: impl Fn(&Error) -> bool,
) -> Error {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match call() {
            Err(error) if wanted(&error) => return error,
            Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error}"),
            Ok(_) => assert!(Instant::now() < end),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends until nothing is pending, for at most a minute: at once again after a cut.
pub(crate) fn deliver(producer: &mut Producer, batches: Vec<TopicBatch>) -> Vec<(String, Outcome)> {
    let mut settled = Vec::new();
    let mut offered = batches;
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        for (topic, outcome) in producer.send(std::mem::take(&mut offered), None) {
            match outcome {
                Outcome::Pending { reason: Error::Disconnected { .. } } => {}
                Outcome::Pending { reason } => {
                    assert!(reason.is_retryable() && Instant::now() < end, "{topic}: {reason}");
                    std::thread::sleep(Duration::from_millis(20));
                }
                done => settled.push((topic, done)),
            }
        }
        if producer.pending() == 0 {
            return settled;
        }
        assert!(Instant::now() < end, "not delivered");
    }
}

pub(crate) fn producer() -> Producer {
    Producer::new(plain(), ProducerOptions::default())
}

/// The topic as it is now, waiting for it to be there.
pub(crate) fn known(client: &mut Client, topic: &str) -> TopicMetadata {
    patiently(|| {
        let known = client.topics(&[topic.to_owned()])?.remove(0);
        let led = known.partitions.iter().all(|partition| partition.leader.is_some());
        if known.error.is_some() || !led {
            return Err(Error::UnknownTopic { topic: topic.to_owned() });
        }
        Ok(known)
    })
    .unwrap()
}

/// All values of partition 0, read from its beginning.
pub(crate) fn values(client: &mut Client, topic: &str) -> Vec<String> {
    let topic_id = known(client, topic).id;
    let end = patiently(|| client.list_offset(topic, 0, LogEnd::Latest)).unwrap();
    let mut offset = patiently(|| client.list_offset(topic, 0, LogEnd::Earliest)).unwrap();
    let mut values = Vec::new();
    while offset < end {
        let position = FetchPosition { topic, topic_id, partition: 0, offset };
        let fetched = patiently(|| client.fetch(&position, &FetchLimits::default())).unwrap();
        offset = fetched.next_offset;
        values.extend(
            fetched.records.into_iter().map(|record| {
                String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap()
            }),
        );
    }
    values
}
