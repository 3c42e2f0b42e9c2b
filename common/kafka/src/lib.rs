//! A blocking Apache Kafka client: an idempotent producer, a consumer that reads partitions by
//! offset, TLS and SASL. No async runtime and no background threads.
//!
//! Messages are encoded and decoded by the crate `kafka-protocol`. Brokers must be Kafka 3.1 or
//! newer; the request versions in use are tested on Kafka 3.9 to 4.4.
//!
//! - [`KafkaClient`] reads topics, partitions and offsets. One thread owns it.
//! - [`KafkaProducer`] writes to partition 0 of many topics, each batch once. One thread owns it.
//! - [`KafkaSettings`] are shared by all clients and producers of a program.
//! - [`KafkaError::is_retryable`] decides whether the same call can succeed later.
//!
//! Every call is bounded by the time-outs in [`KafkaSettings`].
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use kafka_client::{
//!     BrokerAddress, FetchLimits, FetchPosition, KafkaClient, KafkaError, KafkaProducer,
//!     KafkaSettings, ProduceRecord, ProducerOptions, Security, TopicBatch,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bootstrap = BrokerAddress::parse_list("broker-1:9092,broker-2:9092")?;
//! let settings = Arc::new(KafkaSettings::new(bootstrap, Security::Plain));
//! settings.check()?;
//!
//! let mut producer = KafkaProducer::new(Arc::clone(&settings), ProducerOptions::default());
//! let record =
//!     ProduceRecord { timestamp_ms: 1_700_000_000_000, value: "hello".into(), headers: vec![] };
//! let mut batches = vec![TopicBatch { topic: "greetings".to_owned(), records: vec![record] }];
//! while !batches.is_empty() || producer.is_pending("greetings") {
//!     for (topic, outcome) in producer.send(std::mem::take(&mut batches), None) {
//!         println!("{topic}: {outcome:?}");
//!     }
//! }
//!
//! let mut client = KafkaClient::new(settings);
//! let topic = client.topics(&["greetings".to_owned()])?.remove(0);
//! let position = FetchPosition {
//!     topic: "greetings",
//!     topic_id: topic.id,
//!     partition: 0,
//!     offset: 0,
//!     leader_epoch: None,
//! };
//! let fetched = client.fetch(&position, &FetchLimits::default())?;
//! println!("{} records, next offset {}", fetched.records.len(), fetched.next_offset);
//! # Ok(())
//! # }
//! ```

mod address;
mod batch;
mod client;
mod connection;
mod error;
pub mod flags;
mod producer;
mod security;
mod settings;
mod text;

pub use kafka_protocol::ResponseError;
pub use uuid::Uuid;

pub use address::{BrokerAddress, PORT_DEFAULT};
pub use batch::compression::Codec;
pub use batch::decode::{BatchFailure, FetchedRecord};
pub use batch::encode::{BATCH_HEADER_LEN, ProduceRecord, batch_len};
pub use client::{
    CreateResult, EpochEnd, FetchLimits, FetchPosition, FetchedRecords, GroupOffset, KafkaClient,
    LogEnd, PartitionMetadata, TopicMetadata, TopicSpec, probe_broker,
};
pub use error::KafkaError;
pub use producer::{BATCH_BYTES_MAX, KafkaProducer, ProduceOutcome, ProducerOptions, TopicBatch};
pub use security::sasl::{Sasl, SaslMechanism};
pub use security::tls::{Security, TlsFailure};
pub use settings::{
    CONNECT_TIMEOUT_MS, KafkaSettings, KafkaTimings, METADATA_MAX_AGE_MS, REQUEST_TIMEOUT_MS,
};
