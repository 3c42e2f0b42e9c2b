//! The producer: appends each batch once.
//!
//! The caller owns the queues. It offers at most one batch per topic, calls
//! [`KafkaProducer::send`] until the batch is settled, and then offers the next batch.
//!
//! One round: `round` gets a producer id, `find_leaders` looks up and creates topics, `exchange`
//! sends requests and reads responses, and `partition` applies each response to its batch.

mod exchange;
mod find_leaders;
mod outcome;
mod partition;
mod round;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::address::BrokerAddress;
use crate::batch::encode::{BATCH_HEADER_LEN, ProduceRecord, ProducerIdentity};
use crate::client::KafkaClient;
use crate::settings::KafkaSettings;
use exchange::LeaderConnection;
use find_leaders::MissingTopics;
use partition::ProducerPartition;
use round::ProduceRound;

pub use outcome::{BATCH_BYTES_MAX, ProduceOutcome, ProducerOptions, TopicBatch};

/// The only partition that is written, so that a topic keeps the order of its records.
const PARTITION: i32 = 0;

/// An idempotent producer for partition 0 of any number of topics, for one thread. Batches are
/// acknowledged by all in-sync replicas, with one batch in flight per topic.
///
/// Topics that do not exist are created. A batch whose response was lost is sent again with the
/// same producer id, epoch and sequence, so the broker appends it once (KIP-98). A batch can be
/// appended twice only if its response was lost and, before it was sent again, the broker forgot
/// the producer (`producer.id.expiration.ms`, 24 hours by default), the topic's records were
/// deleted, or the topic's `max.message.bytes` was lowered.
#[derive(Debug)]
pub struct KafkaProducer {
    client: KafkaClient,
    options: ProducerOptions,
    /// Producer id and epoch for partitions without a producer id. `None`: must be requested.
    identity: Option<ProducerIdentity>,
    partitions: HashMap<String, ProducerPartition>,
    /// The last known id of each topic, to detect a recreated topic.
    topic_ids: HashMap<String, Uuid>,
    missing_topics: MissingTopics,
    connections: BTreeMap<BrokerAddress, LeaderConnection>,
    /// Brokers that could not be reached, with the time until which they are skipped.
    unreachable_until: HashMap<BrokerAddress, Instant>,
}

impl KafkaProducer {
    /// Creates a producer. It does not connect.
    pub fn new(settings: Arc<KafkaSettings>, options: ProducerOptions) -> Self {
        let missing_topics = MissingTopics::new(&settings.timings);
        Self {
            client: KafkaClient::new(settings),
            options,
            identity: None,
            partitions: HashMap::new(),
            topic_ids: HashMap::new(),
            missing_topics,
            connections: BTreeMap::new(),
            unreachable_until: HashMap::new(),
        }
    }

    /// Runs one round: accepts the batches, sends them and all pending batches with one request
    /// at a time to each leader, reads the responses, and returns the outcome of each topic.
    ///
    /// The round creates missing topics and follows leaders that have moved. It ends when no
    /// response has come for 200 ms ([`KafkaTimings::response_wait`]). Topics of a silent broker
    /// are then missing in the outcomes; they stay pending, and later rounds read the response or
    /// report a time-out. Connecting and looking up leaders can take up to the settings' connect
    /// and request time-outs together, or until `deadline` if that is earlier.
    ///
    /// The round does not wait before it retries. If batches are still pending afterwards, the
    /// caller waits, or offers batches of other topics. With nothing to offer, `batches` is empty.
    ///
    /// [`KafkaTimings::response_wait`]: crate::KafkaTimings::response_wait
    pub fn send(
        &mut self,
        batches: Vec<TopicBatch>,
        deadline: Option<Instant>,
    ) -> Vec<(String, ProduceOutcome)> {
        let bound = self.client.deadline();
        let deadline = deadline.map_or(bound, |deadline| deadline.min(bound));
        let mut round = ProduceRound::new(deadline);
        for batch in batches {
            if let Some(outcome) = self.accept(&batch.topic, batch.records) {
                round.outcomes.push((batch.topic, outcome));
            }
        }
        self.run(&mut round);
        let mut outcomes = round.outcomes;
        let pending = round.reasons.into_iter().filter(|(topic, _)| self.is_pending(topic));
        outcomes.extend(pending.map(|(topic, reason)| (topic, ProduceOutcome::Pending { reason })));
        outcomes
    }

    /// Accepts a batch, or returns the outcome of a batch that can't be accepted.
    fn accept(&mut self, topic: &str, records: Vec<ProduceRecord>) -> Option<ProduceOutcome> {
        if records.is_empty() {
            return Some(ProduceOutcome::Delivered { records: 0, base_offset: None });
        }
        let bytes_max = self.options.batch_bytes_max;
        let partition = self
            .partitions
            .entry(topic.to_owned())
            .or_insert_with(|| ProducerPartition::new(bytes_max));
        if partition.in_flight.is_some() {
            return Some(ProduceOutcome::Busy { records });
        }
        let bytes: usize = records.iter().map(ProduceRecord::bytes_max).sum();
        if records.len() > 1 && BATCH_HEADER_LEN + bytes > partition.bytes_max {
            return Some(ProduceOutcome::TooLarge { records, bytes_max: partition.bytes_max });
        }
        partition.accept(records);
        None
    }

    /// Whether a batch of the topic is pending.
    pub fn is_pending(&self, topic: &str) -> bool {
        self.partitions.get(topic).is_some_and(|partition| partition.in_flight.is_some())
    }

    /// The number of topics with a pending batch.
    pub fn pending_count(&self) -> usize {
        self.partitions.values().filter(|partition| partition.in_flight.is_some()).count()
    }

    /// The topics with a pending batch, and the number of its records.
    pub fn pending_records(&self) -> impl Iterator<Item = (String, usize)> {
        self.partitions.iter().filter_map(|(topic, partition)| {
            let in_flight = partition.in_flight.as_ref()?;
            Some((topic.clone(), in_flight.record_count()))
        })
    }

    /// The producer's client, for other requests.
    pub fn client(&mut self) -> &mut KafkaClient {
        &mut self.client
    }

    /// The maximum size in bytes of a batch of the topic, batch header included, for
    /// [`batch_len`](crate::batch_len).
    pub fn batch_bytes_max(&self, topic: &str) -> usize {
        self.partitions
            .get(topic)
            .map_or(self.options.batch_bytes_max, |partition| partition.bytes_max)
    }

    /// The topics whose request waits for a response.
    fn topics_awaiting_response(&self) -> HashSet<String> {
        self.connections.values().flat_map(LeaderConnection::topics).cloned().collect()
    }

    /// Stops using a producer id for further partitions. A broker may hold sequences of this id
    /// that the producer does not know.
    fn retire_id(&mut self, abandoned_id: Option<ProducerIdentity>) {
        if abandoned_id.is_some() && abandoned_id == self.identity {
            self.identity = None;
        }
    }
}
