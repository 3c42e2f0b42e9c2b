//! The way to Kafka: a blocking client over the messages of `kafka-protocol`.
//!
//! One thread owns a [`Client`] and reads; one owns a [`Producer`] and writes.

mod address;
mod admin;
mod agreement;
mod batch;
mod brokers;
mod client;
mod compression;
mod connection;
mod error;
mod fetch;
pub mod flags;
mod group;
mod guard;
mod metadata;
mod producer;
mod records;
mod sasl;
mod settings;
mod stream;
mod tls;
mod versions;

pub use kafka_protocol::ResponseError;
pub use uuid::Uuid;

pub use address::{Address, PORT_DEFAULT};
pub use admin::{Creation, TopicSpec};
pub use batch::{BATCH_HEADER_LEN, ProduceRecord, batch_len};
pub use client::Client;
pub use compression::Codec;
pub use error::Error;
pub use fetch::{FetchLimits, FetchPosition, Fetched, LogEnd};
pub use metadata::{PartitionMetadata, TopicMetadata};
pub use producer::{BATCH_BYTES_MAX, Outcome, Producer, ProducerOptions, TopicBatch};
pub use records::{BatchFailure, FetchedRecord};
pub use sasl::{Mechanism, Sasl};
pub use settings::{CONNECT_TIMEOUT_MS, METADATA_MAX_AGE_MS, REQUEST_TIMEOUT_MS, Settings};
pub use tls::{Security, TlsFailure};
