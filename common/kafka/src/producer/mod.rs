//! Records written, each batch once, whatever happens on the way.
//!
//! The caller owns the queues. It offers at most one batch a topic, calls
//! [`Producer::send`] until the batch is settled, and then offers the next.

mod exchange;
mod partition;
mod round;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::address::Address;
use super::admin::TopicSpec;
use super::batch::{BATCH_HEADER_LEN, Identity, ProduceRecord};
use super::client::Client;
use super::error::Error;
use super::settings::Settings;
use exchange::Writer;
use partition::Partition;
use round::{Absent, Round};

/// How a producer makes topics and batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerOptions {
    /// How a topic that is not there is made.
    pub topic_spec: TopicSpec,
    /// The most bytes of a batch. Brokers take 1 MiB by default.
    pub batch_bytes_max: usize,
}

/// The default of [`ProducerOptions::batch_bytes_max`].
pub const BATCH_BYTES_MAX: usize = 900 * 1024;

impl Default for ProducerOptions {
    fn default() -> Self {
        Self { topic_spec: TopicSpec::default(), batch_bytes_max: BATCH_BYTES_MAX }
    }
}

/// Records for one topic, oldest first; they are written in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicBatch {
    /// The topic's name.
    pub topic: String,
    /// At least one record; see [`super::batch_len`] for how many.
    pub records: Vec<ProduceRecord>,
}

/// What became of a topic's batch.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the log of as many brokers as the topic asks for.
    Delivered {
        /// How many records.
        records: usize,
        /// The offset of the first, where the broker said it.
        base_offset: Option<i64>,
    },
    /// It stays here and is written again by the next [`Producer::send`].
    Pending {
        /// Why it is not settled.
        reason: Error,
    },
    /// It is not in the log, and would be as smaller batches: here it is back.
    TooLarge {
        /// The records, in their order.
        records: Vec<ProduceRecord>,
        /// The most bytes of this topic's batches from now on.
        bytes_max: usize,
    },
    /// It is refused for good, or some of its records are; the others then stay
    /// pending ([`Producer::is_pending`]).
    Lost {
        /// How many records.
        records: usize,
        /// What the broker said.
        cause: Error,
        /// An earlier attempt, whose end is unknown, may have delivered it.
        maybe_delivered: bool,
    },
    /// Another batch of the topic is not settled yet: this one is back unsent.
    Busy {
        /// The records, in their order.
        records: Vec<ProduceRecord>,
    },
}

/// Writes to partition 0 of any number of topics, for one thread: idempotent,
/// acknowledged by all in-sync brokers, one batch in flight a topic.
///
/// Topics that are not there are made. The rules on what is written again, and
/// what can be written twice, are in `producer/partition.rs`.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    options: ProducerOptions,
    /// As whom topics begin to be written.
    identity: Option<Identity>,
    partitions: HashMap<String, Partition>,
    /// The ids that topics had when they were last seen, to tell one made again.
    topic_ids: HashMap<String, Uuid>,
    absent: Absent,
    writers: BTreeMap<Address, Writer>,
    /// Brokers that could not be reached, until when they are left alone.
    resting: HashMap<Address, Instant>,
}

impl Producer {
    /// A producer without a connection yet.
    pub fn new(settings: Arc<Settings>, options: ProducerOptions) -> Self {
        Self {
            client: Client::new(settings),
            options,
            identity: None,
            partitions: HashMap::new(),
            topic_ids: HashMap::new(),
            absent: Absent::none(),
            writers: BTreeMap::new(),
            resting: HashMap::new(),
        }
    }

    /// One round: takes the batches, writes them and all that is still in flight
    /// with one request at a time to each leading broker, takes the answers, and
    /// says what became of them.
    ///
    /// It makes missing topics and follows leaders that have moved. It waits for
    /// answers only as long as they come; a topic whose broker keeps silent is left
    /// out of the outcomes, stays pending, and is looked after by the next rounds
    /// until its request's time is over. To connect or to ask for leaders can take
    /// up to the settings' connect and request time-outs together, or up to
    /// `deadline` if that is earlier.
    ///
    /// It does not wait before it tries again: after a round that left something
    /// pending the caller does, or offers other topics' batches meanwhile. With
    /// nothing to offer it is called with no batches.
    pub fn send(
        &mut self,
        batches: Vec<TopicBatch>,
        deadline: Option<Instant>,
    ) -> Vec<(String, Outcome)> {
        let bound = self.client.deadline();
        let deadline = deadline.map_or(bound, |deadline| deadline.min(bound));
        let mut round = Round::new(deadline);
        for batch in batches {
            if let Some(outcome) = self.accept(&batch.topic, batch.records) {
                round.outcomes.push((batch.topic, outcome));
            }
        }
        self.run(&mut round);
        let mut outcomes = round.outcomes;
        let in_flight = |topic: &String| {
            self.partitions.get(topic).is_some_and(|partition| partition.in_flight.is_some())
        };
        let pending = round.reasons.into_iter().filter(|(topic, _)| in_flight(topic));
        outcomes.extend(pending.map(|(topic, reason)| (topic, Outcome::Pending { reason })));
        outcomes
    }

    /// The topics that wait for a broker's answer.
    fn waiting(&self) -> HashSet<String> {
        self.writers.values().flat_map(Writer::topics).cloned().collect()
    }

    fn accept(&mut self, topic: &str, records: Vec<ProduceRecord>) -> Option<Outcome> {
        if records.is_empty() {
            return Some(Outcome::Delivered { records: 0, base_offset: None });
        }
        let bytes_max = self.options.batch_bytes_max;
        let partition =
            self.partitions.entry(topic.to_owned()).or_insert_with(|| Partition::new(bytes_max));
        if partition.in_flight.is_some() {
            return Some(Outcome::Busy { records });
        }
        let bytes: usize = records.iter().map(ProduceRecord::bytes_max).sum();
        if records.len() > 1 && BATCH_HEADER_LEN + bytes > partition.bytes_max {
            return Some(Outcome::TooLarge { records, bytes_max: partition.bytes_max });
        }
        partition.accept(records);
        None
    }

    /// Whether a batch of the topic is not settled.
    pub fn is_pending(&self, topic: &str) -> bool {
        self.partitions.get(topic).is_some_and(|partition| partition.in_flight.is_some())
    }

    /// How many topics have a batch that is not settled.
    pub fn pending(&self) -> usize {
        self.partitions.values().filter(|partition| partition.in_flight.is_some()).count()
    }

    /// The topics with a batch that is not settled, and its records' number.
    pub fn pending_records(&self) -> impl Iterator<Item = (String, usize)> {
        self.partitions.iter().filter_map(|(topic, partition)| {
            let in_flight = partition.in_flight.as_ref()?;
            Some((topic.clone(), in_flight.record_count()))
        })
    }

    /// The client that it asks for topics and leaders with, to ask something else.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The most bytes of a batch of the topic, its header included, to give
    /// [`super::batch_len`].
    pub fn batch_bytes_max(&self, topic: &str) -> usize {
        self.partitions
            .get(topic)
            .map_or(self.options.batch_bytes_max, |partition| partition.bytes_max)
    }
}
