//! One round of a producer: producer id, leaders, queues per leader, exchange.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};

use super::{KafkaProducer, PARTITION, ProduceOutcome, ProducerPartition};
use crate::address::BrokerAddress;
use crate::batch::encode::ProducerIdentity;
use crate::error::KafkaError;

/// The state of one round.
#[derive(Debug)]
pub(super) struct ProduceRound {
    pub(super) deadline: Instant,
    /// The outcomes of settled batches.
    pub(super) outcomes: Vec<(String, ProduceOutcome)>,
    /// The reasons why the batches of the other topics are pending.
    pub(super) reasons: HashMap<String, KafkaError>,
}

impl ProduceRound {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, outcomes: Vec::new(), reasons: HashMap::new() }
    }

    pub(super) fn set_reason(&mut self, topics: &[String], error: &KafkaError) {
        for topic in topics {
            self.reasons.insert(topic.clone(), error.clone());
        }
    }
}

/// Topics and encoded batches for one leader.
pub(super) type LeaderQueue = Vec<(String, Bytes)>;

impl KafkaProducer {
    pub(super) fn run(&mut self, round: &mut ProduceRound) {
        if self.pending_count() == 0 {
            return;
        }
        self.connections.retain(|_, connection| connection.is_usable());
        let awaiting = self.topics_awaiting_response();
        self.ensure_identity(round);
        self.find_leaders(&awaiting, round);
        let (connected, others): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .queues(&awaiting, round)
            .into_iter()
            .partition(|(leader, _)| self.connections.contains_key(leader));
        // Connected brokers come first, because connecting to other brokers can take long.
        self.exchange(connected, round);
        self.exchange(others, round);
    }

    /// Requests a producer id if a partition needs one.
    fn ensure_identity(&mut self, round: &mut ProduceRound) {
        if self.identity.is_some()
            || !self.partitions.values().any(ProducerPartition::needs_identity)
        {
            return;
        }
        // The default of kafka-protocol is an empty transactional id.
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let identity = self.client.call_any_broker(&request, round.deadline).and_then(|response| {
            KafkaError::from_code("InitProducerId", "new producer", response.error_code, None)?;
            Ok(ProducerIdentity {
                producer_id: response.producer_id.0,
                epoch: response.producer_epoch,
            })
        });
        match identity {
            Ok(identity) => self.identity = Some(identity),
            Err(error) => {
                for (topic, partition) in &self.partitions {
                    if partition.needs_identity() {
                        round.reasons.insert(topic.clone(), error.clone());
                    }
                }
            }
        }
    }

    /// The batches to send, by leader.
    fn queues(
        &mut self,
        awaiting: &HashSet<String>,
        round: &mut ProduceRound,
    ) -> BTreeMap<BrokerAddress, LeaderQueue> {
        let now = Instant::now();
        let mut queues: BTreeMap<BrokerAddress, LeaderQueue> = BTreeMap::new();
        // With a single broker, no other broker's topics are delayed by connecting to it.
        let may_skip_brokers = self.client.cluster.broker_count() > 1;
        for (topic, partition) in &mut self.partitions {
            if partition.in_flight.is_none() || awaiting.contains(topic) {
                continue;
            }
            let leader = match self.client.cluster.leader(topic, PARTITION) {
                Ok(leader) => leader,
                Err(error) => {
                    round.reasons.entry(topic.clone()).or_insert(error);
                    continue;
                }
            };
            let unreachable_until = self.unreachable_until.get(leader);
            if may_skip_brokers && unreachable_until.is_some_and(|until| now < *until) {
                let cause = std::io::Error::other("skipped after a failed connection attempt");
                let address = leader.clone();
                let error = KafkaError::Connect { address, cause: cause.into() };
                round.reasons.insert(topic.clone(), error);
                // Another broker may lead the partition by the next round.
                self.client.cluster.forget(topic);
                continue;
            }
            if let Some(bytes) = partition.encode(self.identity) {
                queues.entry(leader.clone()).or_default().push((topic.clone(), bytes));
            }
        }
        queues
    }

    /// Handles an error that prevented the batches of `topics` from being written.
    pub(super) fn handle_unsent(
        &mut self,
        topics: Vec<String>,
        error: &KafkaError,
        round: &mut ProduceRound,
    ) {
        for topic in topics {
            self.client.cluster.forget(&topic);
            let Some(partition) = self.partitions.get_mut(&topic) else { continue };
            let (outcome, abandoned_id) = partition.handle_unsent(error);
            self.retire_id(abandoned_id);
            match outcome {
                Some(outcome) => round.outcomes.push((topic, outcome)),
                None => drop(round.reasons.insert(topic, error.clone())),
            }
        }
    }
}
