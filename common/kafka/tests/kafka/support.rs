//! The cluster of the tests, and functions that several tests use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::pem::Pem;
use common::secret::Secret;
use kafka_client::*;
pub(crate) use testkit::services::fresh_name as topic;
use testkit::services::shared;

pub(crate) fn addresses(list: &str) -> Vec<BrokerAddress> {
    BrokerAddress::parse_list(list).unwrap()
}

pub(crate) fn plain() -> Arc<KafkaSettings> {
    Arc::new(KafkaSettings::new(addresses(&shared().unwrap().kafka_plain), Security::Plain))
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

pub(crate) fn tls(identity: Option<(&str, &str)>) -> KafkaSettings {
    KafkaSettings::new(addresses(&shared().unwrap().kafka_tls), tls_with("ca.crt", identity))
}

pub(crate) fn sasl(
    over_tls: bool,
    mechanism: SaslMechanism,
    password: Option<&str>,
) -> KafkaSettings {
    let services = shared().unwrap();
    let mut settings = if over_tls {
        KafkaSettings::new(addresses(&services.kafka_sasl_tls), tls_with("ca.crt", None))
    } else {
        KafkaSettings::new(addresses(&services.kafka_sasl_plaintext), Security::Plain)
    };
    let password = Secret::new(password.unwrap_or(&services.sasl_password));
    settings.sasl = Some(Sasl { mechanism, username: services.sasl_username, password });
    settings
}

/// A time of this run: retention deletes records that are older than a week.
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

/// Repeats a call for up to a minute until it succeeds or fails permanently.
pub(crate) fn with_retries<T>(
    mut call: impl FnMut() -> Result<T, KafkaError>,
) -> Result<T, KafkaError> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match call() {
            Err(error) if error.is_retryable() && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Repeats a call for up to a minute until it fails with an expected error.
pub(crate) fn retry_until<T>(
    mut call: impl FnMut() -> Result<T, KafkaError>,
    is_expected: impl Fn(&KafkaError) -> bool,
) -> KafkaError {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match call() {
            Err(error) if is_expected(&error) => return error,
            Err(error) => assert!(error.is_retryable() && Instant::now() < end, "{error}"),
            Ok(_) => assert!(Instant::now() < end),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends for up to a minute until no batch is pending. After a broken connection it sends again at
/// once.
pub(crate) fn deliver(
    producer: &mut KafkaProducer,
    batches: Vec<TopicBatch>,
) -> Vec<(String, ProduceOutcome)> {
    let mut settled = Vec::new();
    let mut offered = batches;
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        for (topic, outcome) in producer.send(std::mem::take(&mut offered), None) {
            match outcome {
                ProduceOutcome::Pending { reason: KafkaError::Disconnected { .. } } => {}
                ProduceOutcome::Pending { reason } => {
                    assert!(reason.is_retryable() && Instant::now() < end, "{topic}: {reason}");
                    std::thread::sleep(Duration::from_millis(20));
                }
                outcome => settled.push((topic, outcome)),
            }
        }
        if producer.pending_count() == 0 {
            return settled;
        }
        assert!(Instant::now() < end, "not delivered");
    }
}

pub(crate) fn producer() -> KafkaProducer {
    KafkaProducer::new(plain(), ProducerOptions::default())
}

/// Waits until the topic exists and all its partitions have a leader.
pub(crate) fn wait_for_topic(client: &mut KafkaClient, topic: &str) -> TopicMetadata {
    with_retries(|| {
        let metadata = client.topics(&[topic.to_owned()])?.remove(0);
        let has_leaders = metadata.partitions.iter().all(|partition| partition.leader.is_some());
        if metadata.error.is_some() || !has_leaders {
            return Err(KafkaError::UnknownTopic { topic: topic.to_owned() });
        }
        Ok(metadata)
    })
    .unwrap()
}

/// Reads all values of partition 0.
pub(crate) fn read_values(client: &mut KafkaClient, topic: &str) -> Vec<String> {
    let topic_id = wait_for_topic(client, topic).id;
    let end = with_retries(|| client.list_offset(topic, 0, LogEnd::Latest)).unwrap();
    let mut offset = with_retries(|| client.list_offset(topic, 0, LogEnd::Earliest)).unwrap();
    let mut values = Vec::new();
    while offset < end {
        let position = FetchPosition { topic, topic_id, partition: 0, offset, leader_epoch: None };
        let fetched = with_retries(|| client.fetch(&position, &FetchLimits::default())).unwrap();
        offset = fetched.next_offset;
        values.extend(
            fetched.records.into_iter().map(|record| {
                String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap()
            }),
        );
    }
    values
}
