//! Sending the requests of a round and reading their responses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::round::{LeaderQueue, ProduceRound};
use super::{KafkaProducer, PARTITION};
use crate::address::BrokerAddress;
use crate::client::topic_name;
use crate::connection::{BrokerConnection, PendingResponse};
use crate::error::KafkaError;
use crate::error::retryable::{ErrorClass, classify};

/// Acknowledged by all in-sync replicas.
const ACKS_ALL: i16 = -1;

/// The maximum size in bytes of the batches in one request. It is far below the 100 MiB that a
/// broker accepts (`socket.request.max.bytes`), and small enough for a response well within the
/// time-out.
const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The time to wait for the response of one broker before the connection of the next broker is
/// checked.
const POLL_WAIT: Duration = Duration::from_millis(2);

/// The shortest time to read a response that has begun to arrive.
const READ_TIME_MIN: Duration = Duration::from_millis(500);

/// A connection for Produce requests only, so that no other request waits behind replication.
#[derive(Debug)]
pub(super) struct LeaderConnection {
    connection: BrokerConnection,
    pending: Option<PendingRequest>,
}

#[derive(Debug)]
struct PendingRequest {
    response: PendingResponse,
    topics: Vec<String>,
    deadline: Instant,
}

impl LeaderConnection {
    /// Whether the connection waits for a response or can carry another request.
    pub(super) fn is_usable(&self) -> bool {
        self.is_waiting() || self.connection.is_usable()
    }

    fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// The topics of the request that waits for its response.
    pub(super) fn topics(&self) -> impl Iterator<Item = &String> {
        self.pending.iter().flat_map(|pending| &pending.topics)
    }
}

impl KafkaProducer {
    /// Sends a request to each leader without one in flight, and reads responses, until all are
    /// read or the remaining brokers stay silent.
    pub(super) fn exchange(
        &mut self,
        mut queues: BTreeMap<BrokerAddress, LeaderQueue>,
        round: &mut ProduceRound,
    ) {
        loop {
            for (leader, queue) in &mut queues {
                if !self.connections.get(leader).is_some_and(LeaderConnection::is_waiting) {
                    self.write_request(leader, queue, round);
                }
            }
            queues.retain(|_, queue| !queue.is_empty());
            if !self.read_responses(round) {
                return;
            }
        }
    }

    /// Writes one request with batches from the front of the queue. An error empties the queue.
    fn write_request(
        &mut self,
        leader: &BrokerAddress,
        queue: &mut LeaderQueue,
        round: &mut ProduceRound,
    ) {
        let mut connection = match self.leader_connection(leader, round) {
            Ok(connection) => connection,
            Err(error) => {
                let topics = queue.drain(..).map(|(topic, _)| topic).collect();
                return self.handle_unsent(topics, &error, round);
            }
        };
        let (request, topics) = next_request(queue, self.client.broker_timeout_ms());
        match connection.connection.write(&request, round.deadline) {
            Ok(response) => {
                let request_timeout =
                    Duration::from_millis(self.client.settings.request_timeout_ms);
                let deadline = Instant::now() + request_timeout;
                connection.pending = Some(PendingRequest { response, topics, deadline });
                self.connections.insert(leader.clone(), connection);
            }
            Err(error) => {
                // The broker may have received the whole request.
                let unsent = queue.drain(..).map(|(topic, _)| topic).collect();
                self.handle_unknown_outcome(topics, &error, round);
                self.handle_unsent(unsent, &error, round);
            }
        }
    }

    /// Returns the open connection to a leader, or a new connection.
    fn leader_connection(
        &mut self,
        leader: &BrokerAddress,
        round: &ProduceRound,
    ) -> Result<LeaderConnection, KafkaError> {
        let open = self.connections.remove(leader).filter(LeaderConnection::is_usable);
        if let Some(connection) = open {
            return Ok(connection);
        }
        let settings = &self.client.settings;
        let start = Instant::now();
        let until = start + Duration::from_millis(settings.connect_timeout_ms);
        match BrokerConnection::open(settings, leader, until.min(round.deadline)) {
            Ok(connection) => {
                self.unreachable_until.remove(leader);
                Ok(LeaderConnection { connection, pending: None })
            }
            Err(error) => {
                let skipped_for = start.elapsed() * settings.timings.unreachable_factor;
                self.unreachable_until.insert(leader.clone(), Instant::now() + skipped_for);
                Err(error)
            }
        }
    }

    /// Reads at least one response or time-out. Returns `false` if no request waits, or none was
    /// answered within the response wait.
    fn read_responses(&mut self, round: &mut ProduceRound) -> bool {
        let response_wait = self.client.settings.timings.response_wait;
        let end = round.deadline.min(Instant::now() + response_wait);
        loop {
            let waiting: Vec<BrokerAddress> = self
                .connections
                .iter()
                .filter(|(_, connection)| connection.is_waiting())
                .map(|(leader, _)| leader.clone())
                .collect();
            let mut any = false;
            for leader in &waiting {
                any |= self.read_response(leader, round);
            }
            if any || waiting.is_empty() || Instant::now() >= end {
                return any;
            }
        }
    }

    /// Reads a leader's response if it has begun to arrive or is overdue.
    fn read_response(&mut self, leader: &BrokerAddress, round: &mut ProduceRound) -> bool {
        let Some(mut connection) = self.connections.remove(leader) else { return false };
        let Some(pending) = connection.pending.take() else { return false };
        let has_response = connection.connection.has_response(POLL_WAIT);
        if !has_response && Instant::now() < pending.deadline {
            connection.pending = Some(pending);
            self.connections.insert(leader.clone(), connection);
            return false;
        }
        // A response that arrived between two rounds is read even after its deadline.
        let read_time = if has_response { READ_TIME_MIN } else { Duration::ZERO };
        let deadline = pending.deadline.max(Instant::now() + read_time);
        match connection.connection.read::<ProduceRequest>(pending.response, deadline) {
            Ok(response) => {
                self.connections.insert(leader.clone(), connection);
                self.handle_response(pending.topics, &response, round);
            }
            Err(error) => self.handle_unknown_outcome(pending.topics, &error, round),
        }
        true
    }

    fn handle_response(
        &mut self,
        topics: Vec<String>,
        response: &ProduceResponse,
        round: &mut ProduceRound,
    ) {
        for topic in topics {
            let answer = response
                .responses
                .iter()
                .filter(|answer| answer.name.as_str() == topic)
                .flat_map(|answer| &answer.partition_responses)
                .find(|answer| answer.index == PARTITION);
            let base_offset = match answer {
                Some(answer) => read_base_offset(&topic, answer),
                None => Err(KafkaError::not_in_response("Produce", &topic)),
            };
            let Some(partition) = self.partitions.get_mut(&topic) else { continue };
            match base_offset {
                Ok(base_offset) => {
                    let outcome = partition.handle_delivered(base_offset);
                    round.outcomes.extend(outcome.map(|outcome| (topic, outcome)));
                }
                Err(error) => {
                    let refused = answer.map(refused_indexes).unwrap_or_default();
                    match partition.remove_refused(&refused, &error) {
                        Some(outcome) => round.outcomes.push((topic, outcome)),
                        None => self.handle_error(topic, error, round),
                    }
                }
            }
        }
    }

    /// Handles an error that leaves open whether the batches were appended. The leader is looked
    /// up again, because another broker may have become the leader.
    fn handle_unknown_outcome(
        &mut self,
        topics: Vec<String>,
        error: &KafkaError,
        round: &mut ProduceRound,
    ) {
        for topic in topics {
            self.client.cluster.forget(&topic);
            self.handle_error(topic, error.clone(), round);
        }
    }

    fn handle_error(&mut self, topic: String, error: KafkaError, round: &mut ProduceRound) {
        let Some(partition) = self.partitions.get_mut(&topic) else { return };
        let must_look_up = match &error {
            KafkaError::Broker { code, .. } => match classify(*code) {
                ErrorClass::StaleMetadata => true,
                ErrorClass::OutcomeUnknown | ErrorClass::RetryLater => partition.record_delay(),
                _ => false,
            },
            _ => false,
        };
        if must_look_up {
            self.client.cluster.forget(&topic);
        }
        let (outcome, abandoned_id) = partition.handle_error(&error);
        if outcome.is_none() && abandoned_id.is_some() && abandoned_id == self.identity {
            log::warn!("topic {topic}: {error}; continuing with a new producer id");
        }
        self.retire_id(abandoned_id);
        match outcome {
            Some(outcome) => round.outcomes.push((topic, outcome)),
            None => drop(round.reasons.insert(topic, error)),
        }
    }
}

/// Takes batches from the front of the queue into a request: at least one, and as many as fit.
fn next_request(queue: &mut LeaderQueue, timeout_ms: i32) -> (ProduceRequest, Vec<String>) {
    let mut bytes = 0;
    let fitting = queue
        .iter()
        .take_while(|(_, batch)| {
            bytes += batch.len();
            bytes <= REQUEST_BYTES_MAX
        })
        .count();
    let batches: LeaderQueue = queue.drain(..fitting.max(1).min(queue.len())).collect();
    let topics = batches.iter().map(|(topic, _)| topic.clone()).collect();
    let data = batches
        .into_iter()
        .map(|(topic, batch)| {
            let partition =
                PartitionProduceData::default().with_index(PARTITION).with_records(Some(batch));
            TopicProduceData::default()
                .with_name(topic_name(&topic))
                .with_partition_data(vec![partition])
        })
        .collect();
    // The default of kafka-protocol asks for no acknowledgement.
    let request = ProduceRequest::default()
        .with_acks(ACKS_ALL)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(data);
    (request, topics)
}

/// The indexes of the records that the broker names as the reason why it refused the batch
/// (KIP-467).
fn refused_indexes(answer: &PartitionProduceResponse) -> BTreeSet<usize> {
    let indexes = answer.record_errors.iter().map(|error| usize::try_from(error.batch_index));
    indexes.filter_map(Result::ok).collect()
}

fn read_base_offset(
    topic: &str,
    answer: &PartitionProduceResponse,
) -> Result<Option<i64>, KafkaError> {
    let message = answer.error_message.as_ref().map(StrBytes::as_str);
    let subject = format!("topic {topic}");
    KafkaError::from_code("Produce", subject, answer.error_code, message)?;
    Ok(Some(answer.base_offset).filter(|offset| *offset >= 0))
}
