//! The input and the output of a producer.

use std::collections::BTreeSet;

use crate::batch::encode::ProduceRecord;
use crate::client::TopicSpec;
use crate::error::KafkaError;

/// Options for the topics and the batches that a producer creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Settings of topics that the producer creates because they do not exist.
    pub topic_spec: TopicSpec,
    /// The maximum size of a batch in bytes. Brokers accept 1 MiB by default (`message.max.bytes`).
    pub batch_bytes_max: usize,
}

/// The default of [`ProducerOptions::batch_bytes_max`].
pub const BATCH_BYTES_MAX: usize = 900 * 1024;

impl Default for ProducerOptions {
    fn default() -> Self {
        Self { topic_spec: TopicSpec::default(), batch_bytes_max: BATCH_BYTES_MAX }
    }
}

/// Records for one topic, oldest first. They are appended as one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicBatch {
    /// The topic's name.
    pub topic: String,
    /// At least one record; [`batch_len`](crate::batch_len) calculates how many fit.
    pub records: Vec<ProduceRecord>,
}

/// The outcome of a topic's batch.
#[derive(Debug)]
pub enum ProduceOutcome {
    /// The batch is in the log, acknowledged by all in-sync replicas.
    Delivered {
        /// The number of records.
        records: usize,
        /// The offset of the first record. `None`: the broker did not send it.
        base_offset: Option<i64>,
    },
    /// The producer keeps the batch and sends it again in the next
    /// [`KafkaProducer::send`](crate::KafkaProducer::send).
    Pending {
        /// The reason why the batch is not delivered yet.
        reason: KafkaError,
    },
    /// The batch is not in the log and returned to the caller, who can offer smaller batches.
    TooLarge {
        /// The records in their order.
        records: Vec<ProduceRecord>,
        /// The maximum size in bytes of this topic's batches from now on.
        bytes_max: usize,
    },
    /// The broker refused the records themselves, because of their time, or because they have no
    /// key in a compacted topic. The other records of the batch were not refused. The batch is not
    /// in the log and is returned to the caller. An operator can change the topic's configuration
    /// so that the broker accepts the batch.
    Refused {
        /// The records in their order.
        records: Vec<ProduceRecord>,
        /// The broker's error.
        cause: KafkaError,
    },
    /// Records that the broker refused permanently. The other records of the batch are still
    /// pending ([`KafkaProducer::is_pending`](crate::KafkaProducer::is_pending)).
    Lost {
        /// The indexes of the lost records in the batch as it was pending.
        indexes: BTreeSet<usize>,
        /// The broker's error.
        cause: KafkaError,
        /// Whether an earlier request with an unknown outcome may have delivered the batch.
        maybe_delivered: bool,
    },
    /// Another batch of the topic is still pending. The new batch is returned unsent.
    Busy {
        /// The records in their order.
        records: Vec<ProduceRecord>,
    },
}
