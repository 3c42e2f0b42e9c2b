//! One round of a producer: who it is, where the topics are, write, read.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, ProduceResponse};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProducerId};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::super::address::Address;
use super::super::admin::{Creation, unanswered};
use super::super::batch::Identity;
use super::super::client::{known, topic_name};
use super::super::connection::Sent;
use super::super::error::{Error, Verdict, verdict};
use super::super::metadata::TopicMetadata;
use super::{Outcome, Producer};

/// The only partition that is written, so that a topic keeps its order.
const PARTITION: i32 = 0;

/// Acknowledged by all in-sync replicas.
const ACKS_ALL: i16 = -1;

/// The bytes of batches in one request: far below the 100 MiB that a broker
/// takes, and small enough to be answered well within the time-out.
const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A broker that can't be reached is left alone for this many times as long as
/// it took to find out: not at all when it refuses at once, 30 s when it takes
/// the whole 10 s to connect, in which the topics of the others would wait.
const REST_FACTOR: u32 = 3;

/// What a round has come to so far.
#[derive(Debug)]
pub(super) struct Round {
    deadline: Instant,
    /// Batches that are settled.
    pub(super) outcomes: Vec<(String, Outcome)>,
    /// Why the others are not.
    pub(super) reasons: HashMap<String, Error>,
}

impl Round {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, outcomes: Vec::new(), reasons: HashMap::new() }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// A request that did not go out.
enum WriteError {
    /// Not a byte of it.
    NotWritten(Error),
    /// Perhaps in part; only a whole one is worked on, but how much the other end
    /// has is not ours to say.
    InDoubt(Error),
}

/// The topics and bytes for one broker.
type Queue = Vec<(String, Bytes)>;

impl Producer {
    pub(super) fn run(&mut self, round: &mut Round) {
        if self.pending() == 0 {
            return;
        }
        self.ensure_identity(round);
        self.find_leaders(round);
        // Brokers that are connected answer before the others are dialled.
        let (connected, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.queues(round).into_iter().partition(|(leader, _)| {
                self.client.connections.get(leader).is_some_and(|it| it.is_usable())
            });
        self.exchange(connected, round);
        self.exchange(others, round);
    }

    /// Topics that begin, or begin again, need a producer id.
    fn ensure_identity(&mut self, round: &mut Round) {
        if self.identity.is_some()
            || !self.partitions.values().any(super::Partition::lacks_identity)
        {
            return;
        }
        // The crate's default is a transactional id of no characters.
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let identity = self.client.call_any(&request, round.deadline).and_then(|response| {
            Error::from_code("InitProducerId", "of ours", response.error_code, None)?;
            Ok(Identity { producer_id: response.producer_id.0, epoch: response.producer_epoch })
        });
        match identity {
            Ok(identity) => self.identity = Some(identity),
            Err(error) => {
                for (topic, partition) in &self.partitions {
                    if partition.lacks_identity() {
                        round.reasons.insert(topic.clone(), error.clone());
                    }
                }
            }
        }
    }

    /// Asks for the topics whose leader is not known, and makes those that are
    /// not there.
    fn find_leaders(&mut self, round: &mut Round) {
        let wanted: Vec<String> = self
            .partitions
            .iter()
            .filter(|(topic, partition)| {
                partition.in_flight.is_some() && !self.client.cluster.has_leader(topic, PARTITION)
            })
            .map(|(topic, _)| topic.clone())
            .collect();
        if wanted.is_empty() {
            return;
        }
        let missing = self.look_up(&wanted, round);
        if missing.is_empty() {
            return;
        }
        match self.client.create_topics(&missing, &self.options.topic_spec, round.deadline) {
            Ok(created) => {
                for (topic, result) in created {
                    self.judge_creation(topic, result, round);
                }
                self.look_up(&missing, round);
            }
            Err(error) => {
                for topic in missing {
                    round.reasons.insert(topic, error.clone());
                }
            }
        }
    }

    /// Learns the topics' leaders; gives back those that are not there.
    fn look_up(&mut self, wanted: &[String], round: &mut Round) -> Vec<String> {
        let topics = match self.client.topics_until(wanted, round.deadline) {
            Ok(topics) => topics,
            Err(error) => {
                for topic in wanted {
                    round.reasons.insert(topic.clone(), error.clone());
                }
                return Vec::new();
            }
        };
        let mut missing = Vec::new();
        for topic in topics {
            match known(&topic) {
                Ok(()) => self.remember(&topic),
                Err(Error::UnknownTopic { topic }) => {
                    let error = Error::UnknownTopic { topic: topic.clone() };
                    round.reasons.insert(topic.clone(), error);
                    missing.push(topic);
                }
                Err(error) => self.not_written(vec![topic.name], &error, round),
            }
        }
        missing
    }

    fn remember(&mut self, topic: &TopicMetadata) {
        let before = self.topic_ids.insert(topic.name.clone(), topic.id);
        if before.is_some_and(|id: Uuid| id != topic.id) {
            log::warn!("topic {}: deleted and made again", topic.name);
        }
    }

    fn judge_creation(
        &mut self,
        topic: String,
        result: Result<Creation, Error>,
        round: &mut Round,
    ) {
        match result {
            Ok(Creation::Created) if self.topic_ids.contains_key(&topic) => {
                log::warn!("topic {topic}: was gone, made again");
                // Said here; its new id is nothing to be told of once more.
                self.topic_ids.remove(&topic);
            }
            Ok(Creation::Created) => log::info!("topic {topic}: created"),
            Ok(Creation::Exists) => {}
            Err(error) => self.not_written(vec![topic], &error, round),
        }
    }

    /// What is in flight, by the broker that must take it.
    fn queues(&mut self, round: &mut Round) -> BTreeMap<Address, Queue> {
        let now = Instant::now();
        let mut queues: BTreeMap<Address, Queue> = BTreeMap::new();
        // With one broker there is nobody to be held up.
        let may_rest = self.client.cluster.broker_count() > 1;
        for (topic, partition) in &mut self.partitions {
            if partition.in_flight.is_none() {
                continue;
            }
            let leader = match self.client.cluster.leader(topic, PARTITION) {
                Ok(leader) => leader,
                Err(error) => {
                    round.reasons.entry(topic.clone()).or_insert(error);
                    continue;
                }
            };
            if may_rest && self.resting.get(leader).is_some_and(|until| now < *until) {
                // It may be led by another by the next round.
                let cause = std::io::Error::other("was not reached, left alone for a moment");
                let address = leader.clone();
                let error = Error::Connect { address, cause: cause.into() };
                round.reasons.insert(topic.clone(), error);
                self.client.cluster.forget(topic);
                continue;
            }
            if let Some(bytes) = partition.bytes(self.identity) {
                queues.entry(leader.clone()).or_default().push((topic.clone(), bytes));
            }
        }
        queues
    }

    /// Writes a request to each broker, then reads each answer, until the queues
    /// are empty or the time is over.
    fn exchange(&mut self, mut queues: BTreeMap<Address, Queue>, round: &mut Round) {
        while !queues.is_empty() && !round.is_over() {
            let mut sent = Vec::new();
            for (leader, queue) in &mut queues {
                let (request, topics) = next_request(queue, self.client.broker_timeout_ms());
                match self.write(leader, &request, round.deadline) {
                    Ok(written) => sent.push((leader.clone(), topics, written)),
                    Err(error) => {
                        let rest: Vec<_> = queue.drain(..).map(|(topic, _)| topic).collect();
                        match error {
                            WriteError::NotWritten(error) => {
                                self.not_written(topics, &error, round);
                                self.not_written(rest, &error, round);
                            }
                            WriteError::InDoubt(error) => {
                                self.in_doubt(topics, &error, round);
                                self.not_written(rest, &error, round);
                            }
                        }
                    }
                }
            }
            for (leader, topics, written) in sent {
                match self.read(&leader, written, round.deadline) {
                    Ok(response) => self.settle(topics, &response, round),
                    Err(error) => {
                        let queue = queues.remove(&leader).unwrap_or_default();
                        let rest = queue.into_iter().map(|(topic, _)| topic).collect();
                        self.in_doubt(topics, &error, round);
                        self.not_written(rest, &error, round);
                    }
                }
            }
            queues.retain(|_, queue| !queue.is_empty());
        }
        for (topic, _) in queues.into_values().flatten() {
            round.reasons.entry(topic.clone()).or_insert_with(|| unanswered("Produce", &topic));
        }
    }

    fn write(
        &mut self,
        leader: &Address,
        request: &ProduceRequest,
        deadline: Instant,
    ) -> Result<Sent, WriteError> {
        let start = Instant::now();
        if let Err(error) = self.client.connection(leader, deadline) {
            let rest = start.elapsed() * REST_FACTOR;
            self.resting.insert(leader.clone(), Instant::now() + rest);
            return Err(WriteError::NotWritten(error));
        }
        self.resting.remove(leader);
        let (connection, _) =
            self.client.connection(leader, deadline).map_err(WriteError::NotWritten)?;
        let written = connection.write(request, deadline);
        if written.is_err() {
            self.client.connections.remove(leader);
        }
        written.map_err(WriteError::InDoubt)
    }

    fn read(
        &mut self,
        leader: &Address,
        sent: Sent,
        deadline: Instant,
    ) -> Result<ProduceResponse, Error> {
        let (connection, _) = self.client.connection(leader, deadline)?;
        let response = connection.read::<ProduceRequest>(sent, deadline);
        if response.is_err() {
            self.client.connections.remove(leader);
        }
        response
    }

    fn settle(&mut self, topics: Vec<String>, response: &ProduceResponse, round: &mut Round) {
        for topic in topics {
            let answer = response
                .responses
                .iter()
                .filter(|found| found.name.as_str() == topic)
                .flat_map(|found| &found.partition_responses)
                .find(|found| found.index == PARTITION);
            match answer.map_or_else(|| Err(unanswered("Produce", &topic)), |it| judge(&topic, it))
            {
                Ok(base_offset) => {
                    let partition = self.partitions.get_mut(&topic);
                    let outcome = partition.and_then(|it| it.delivered(base_offset));
                    round.outcomes.extend(outcome.map(|outcome| (topic, outcome)));
                }
                Err(error) => self.refuse(topic, error, round),
            }
        }
    }

    /// A broker that can't be spoken to may not lead any more.
    fn in_doubt(&mut self, topics: Vec<String>, error: &Error, round: &mut Round) {
        for topic in topics {
            self.client.cluster.forget(&topic);
            self.refuse(topic, error.clone(), round);
        }
    }

    fn not_written(&mut self, topics: Vec<String>, error: &Error, round: &mut Round) {
        for topic in topics {
            self.client.cluster.forget(&topic);
            let partition = self.partitions.get_mut(&topic);
            match partition.and_then(|partition| partition.not_written(error)) {
                Some(outcome) => round.outcomes.push((topic, outcome)),
                None => {
                    round.reasons.insert(topic, error.clone());
                }
            }
        }
    }

    fn refuse(&mut self, topic: String, error: Error, round: &mut Round) {
        if matches!(&error, Error::Broker { code, .. } if verdict(*code) == Verdict::Metadata) {
            self.client.cluster.forget(&topic);
        }
        let Some(partition) = self.partitions.get_mut(&topic) else { return };
        let (outcome, refused) = partition.refused(&error);
        if refused.is_some() && refused == self.identity {
            log::warn!("topic {topic}: {error}; it goes on under a new producer id");
            self.identity = None;
        }
        match outcome {
            Some(outcome) => round.outcomes.push((topic, outcome)),
            None => {
                round.reasons.insert(topic, error);
            }
        }
    }
}

/// As much of the queue's front as one request takes, at least one batch.
fn next_request(queue: &mut Queue, timeout_ms: i32) -> (ProduceRequest, Vec<String>) {
    let mut bytes = 0;
    let fitting = queue
        .iter()
        .take_while(|(_, batch)| {
            bytes += batch.len();
            bytes <= REQUEST_BYTES_MAX
        })
        .count();
    let taken: Queue = queue.drain(..fitting.max(1).min(queue.len())).collect();
    let topics = taken.iter().map(|(topic, _)| topic.clone()).collect();
    let data = taken
        .into_iter()
        .map(|(topic, batch)| {
            let partition =
                PartitionProduceData::default().with_index(PARTITION).with_records(Some(batch));
            TopicProduceData::default()
                .with_name(topic_name(&topic))
                .with_partition_data(vec![partition])
        })
        .collect();
    // The crate's default is to ask for no acknowledgement.
    let request = ProduceRequest::default()
        .with_acks(ACKS_ALL)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(data);
    (request, topics)
}

fn judge(topic: &str, answer: &PartitionProduceResponse) -> Result<Option<i64>, Error> {
    let message = answer.error_message.as_ref().map(StrBytes::as_str);
    let subject = format!("topic {topic}");
    Error::from_code("Produce", subject, answer.error_code, message)?;
    Ok(Some(answer.base_offset).filter(|offset| *offset >= 0))
}
