//! One round of a producer from the writing on: requests out, answers in.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::Producer;
use super::round::{PARTITION, Queue, Round};
use crate::address::Address;
use crate::admin::unanswered;
use crate::client::topic_name;
use crate::connection::{Connection, Sent};
use crate::error::{Error, Verdict, verdict};

/// Acknowledged by all in-sync replicas.
const ACKS_ALL: i16 = -1;

/// The bytes of batches in one request: far below the 100 MiB that a broker
/// takes, and small enough to be answered well within the time-out.
const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A broker that can't be reached is left alone for this many times as long as
/// it took to find out: not at all when it refuses at once, 30 s when it takes
/// the whole 10 s to connect, in which the topics of the others would wait.
const REST_FACTOR: u32 = 3;

/// How long a round waits for answers once none comes any more. A broker that
/// stands still keeps its own topics waiting, and no others.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long one broker's answer is waited for before another's is looked for.
const TURN: Duration = Duration::from_millis(2);

/// How long the reading of an answer that has begun may take in any case.
const GRACE: Duration = Duration::from_millis(500);

/// A connection that only Produce goes over, so that nothing else waits behind
/// what a broker takes to replicate, and the request on it, if one is.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    sent: Sent,
    topics: Vec<String>,
    deadline: Instant,
}

impl Writer {
    /// Whether it is worth keeping.
    pub(super) fn is_alive(&self) -> bool {
        self.is_waiting() || self.connection.is_usable()
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The topics whose answer it waits for.
    pub(super) fn topics(&self) -> impl Iterator<Item = &String> {
        self.waiting.iter().flat_map(|waiting| &waiting.topics)
    }
}

impl Producer {
    /// Writes a request to each broker that is free and takes the answers as they
    /// come, until all is answered or what is left keeps silent.
    pub(super) fn exchange(&mut self, mut queues: BTreeMap<Address, Queue>, round: &mut Round) {
        loop {
            for (leader, queue) in &mut queues {
                if !self.is_busy(leader) {
                    self.write(leader, queue, round);
                }
            }
            queues.retain(|_, queue| !queue.is_empty());
            if !self.collect(round) {
                return;
            }
        }
    }

    pub(super) fn is_busy(&self, leader: &Address) -> bool {
        self.writers.get(leader).is_some_and(Writer::is_waiting)
    }

    /// Writes what one request takes of the queue; at a failure none of the queue
    /// is left.
    fn write(&mut self, leader: &Address, queue: &mut Queue, round: &mut Round) {
        let mut writer = match self.writer(leader, round) {
            Ok(writer) => writer,
            Err(error) => {
                let topics = queue.drain(..).map(|(topic, _)| topic).collect();
                return self.not_written(topics, &error, round);
            }
        };
        let (request, topics) = next_request(queue, self.client.broker_timeout_ms());
        match writer.connection.write(&request, round.deadline) {
            Ok(sent) => {
                let request_timeout =
                    Duration::from_millis(self.client.settings.request_timeout_ms);
                let deadline = Instant::now() + request_timeout;
                writer.waiting = Some(Waiting { sent, topics, deadline });
                self.writers.insert(leader.clone(), writer);
            }
            Err(error) => {
                // Only a whole request is worked on, but how much of it has arrived
                // is not ours to say.
                let rest = queue.drain(..).map(|(topic, _)| topic).collect();
                self.in_doubt(topics, &error, round);
                self.not_written(rest, &error, round);
            }
        }
    }

    /// The open connection to a leader, or a new one.
    fn writer(&mut self, leader: &Address, round: &Round) -> Result<Writer, Error> {
        if let Some(writer) = self.writers.remove(leader).filter(Writer::is_alive) {
            return Ok(writer);
        }
        let settings = &self.client.settings;
        let start = Instant::now();
        let until = start + Duration::from_millis(settings.connect_timeout_ms);
        match Connection::open(settings, leader, until.min(round.deadline)) {
            Ok(connection) => {
                self.resting.remove(leader);
                Ok(Writer { connection, waiting: None })
            }
            Err(error) => {
                let rest = start.elapsed() * REST_FACTOR;
                self.resting.insert(leader.clone(), Instant::now() + rest);
                Err(error)
            }
        }
    }

    /// Takes at least one answer, or learns that there will be none; false when
    /// nothing is waited for, or nothing came.
    fn collect(&mut self, round: &mut Round) -> bool {
        let end = round.deadline.min(Instant::now() + PATIENCE);
        loop {
            let waiting: Vec<Address> = self
                .writers
                .iter()
                .filter(|(_, writer)| writer.is_waiting())
                .map(|(leader, _)| leader.clone())
                .collect();
            let mut any = false;
            for leader in &waiting {
                any |= self.look(leader, round);
            }
            if any || waiting.is_empty() || Instant::now() >= end {
                return any;
            }
        }
    }

    /// Takes a broker's answer if it is there or overdue.
    fn look(&mut self, leader: &Address, round: &mut Round) -> bool {
        let Some(mut writer) = self.writers.remove(leader) else { return false };
        let Some(waiting) = writer.waiting.take() else { return false };
        let there = writer.connection.has_answer(TURN);
        if !there && Instant::now() < waiting.deadline {
            writer.waiting = Some(waiting);
            self.writers.insert(leader.clone(), writer);
            return false;
        }
        // An answer that came while nobody looked is read however late that is.
        let grace = if there { GRACE } else { Duration::ZERO };
        let deadline = waiting.deadline.max(Instant::now() + grace);
        match writer.connection.read::<ProduceRequest>(waiting.sent, deadline) {
            Ok(response) => {
                self.writers.insert(leader.clone(), writer);
                self.settle(waiting.topics, &response, round);
            }
            Err(error) => self.in_doubt(waiting.topics, &error, round),
        }
        true
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
                Err(error) => {
                    let places = answer.map(refused_places).unwrap_or_default();
                    let partition = self.partitions.get_mut(&topic);
                    match partition.and_then(|it| it.without(&places, &error)) {
                        Some(outcome) => round.outcomes.push((topic, outcome)),
                        None => self.refuse(topic, error, round),
                    }
                }
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

    fn refuse(&mut self, topic: String, error: Error, round: &mut Round) {
        let Some(partition) = self.partitions.get_mut(&topic) else { return };
        let look = match &error {
            Error::Broker { code, .. } => match verdict(*code) {
                Verdict::Metadata => true,
                Verdict::Unknown | Verdict::Again => partition.doubts_leader(),
                _ => false,
            },
            _ => false,
        };
        if look {
            self.client.cluster.forget(&topic);
        }
        let (outcome, spent) = partition.refused(&error);
        if outcome.is_none() && spent.is_some() && spent == self.identity {
            log::warn!("topic {topic}: {error}; it goes on under a new producer id");
        }
        self.leave(spent);
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

/// The records that a broker names as the reason for its refusal of their batch.
fn refused_places(answer: &PartitionProduceResponse) -> HashSet<usize> {
    let places = answer.record_errors.iter().map(|it| usize::try_from(it.batch_index));
    places.filter_map(Result::ok).collect()
}

fn judge(topic: &str, answer: &PartitionProduceResponse) -> Result<Option<i64>, Error> {
    let message = answer.error_message.as_ref().map(StrBytes::as_str);
    let subject = format!("topic {topic}");
    Error::from_code("Produce", subject, answer.error_code, message)?;
    Ok(Some(answer.base_offset).filter(|offset| *offset >= 0))
}
