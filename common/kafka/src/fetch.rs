//! Records read from an offset on, and where a log begins and ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest};
use uuid::Uuid;

use super::address::Address;
use super::admin::unanswered;
use super::client::{Client, known, topic_name};
use super::connection::Sent;
use super::error::{Error, Verdict, verdict};
use super::records::{FetchedRecord, read_batches};

/// Where to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition<'a> {
    /// The topic's name, to find its leader.
    pub topic: &'a str,
    /// The topic's id: what is read can't be of another topic with the same name.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The offset of the first record wanted.
    pub offset: i64,
}

/// How much to read and how long to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// How long the broker may wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: u32,
    /// The bytes that end the wait; 1: answer as soon as there is a record.
    pub min_bytes: u32,
    /// The bytes to read from each partition; a first batch that is larger comes
    /// whole, up to the 100 MiB that a broker can be set to take.
    pub max_bytes: u32,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { max_wait_ms: 500, min_bytes: 1, max_bytes: 1024 * 1024 }
    }
}

/// What was read from one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The records in their order; none when the wait ended, or when all that is
    /// there is not for consumers.
    pub records: Vec<FetchedRecord>,
    /// The offset to fetch next; above the asked one even without records where
    /// empty or control batches were passed.
    pub next_offset: i64,
    /// The first offset that is kept.
    pub log_start_offset: i64,
    /// The offset up to which records may be read: replicated on all in-sync brokers.
    pub high_watermark: i64,
}

/// An end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// The offset of the first record that is kept.
    Earliest,
    /// The offset of the next record to be written.
    Latest,
}

/// The records of all are read, not only those of committed transactions: our
/// trackers use none, and who waits for the end of a foreign one that hangs
/// would stand still.
const READ_UNCOMMITTED: i8 = 0;

/// No fetch session: one partition is asked for, so there is no list to save.
const NO_SESSION_EPOCH: i32 = -1;

/// An id that is not known is believed at the second look, this much later.
const DOUBT: Duration = Duration::from_secs(1);

impl Client {
    /// Reads from one partition; see [`Client::fetch_partitions`].
    ///
    /// # Errors
    /// See [`Client::fetch_partitions`].
    pub fn fetch(
        &mut self,
        position: &FetchPosition<'_>,
        limits: &FetchLimits,
    ) -> Result<Fetched, Error> {
        let mut results = self.fetch_partitions(std::slice::from_ref(position), limits);
        results.pop().unwrap_or_else(|| Err(unanswered("Fetch", position.topic)))
    }

    /// Reads from several partitions, with one request to each broker that leads
    /// some of them. The results stand in the order of `positions`.
    ///
    /// Where several brokers lead, the call is over when the last has answered,
    /// so a short wait keeps the others' records fresh. A broker serves partitions
    /// in the order in which they are asked for, and lets the first that has records
    /// alone go beyond its bounds (KIP-74), so that another is first each time.
    ///
    /// # Errors
    /// For each partition: [`Error::OffsetOutOfRange`], [`Error::UnknownTopic`],
    /// [`Error::UnknownTopicId`], [`Error::Batch`] when the very first batch can't
    /// be read (records before a bad batch are given out first), the broker's
    /// refusal, or that of the connection.
    pub fn fetch_partitions(
        &mut self,
        positions: &[FetchPosition<'_>],
        limits: &FetchLimits,
    ) -> Vec<Result<Fetched, Error>> {
        let deadline = self.deadline_after(Duration::from_millis(limits.max_wait_ms.into()));
        let mut results: Vec<Option<Result<Fetched, Error>>> =
            positions.iter().map(|_| None).collect();
        let mut leaders: BTreeMap<Address, Vec<usize>> = BTreeMap::new();
        let first = self.fetches % positions.len().max(1);
        self.fetches = self.fetches.wrapping_add(1);
        for index in (first..positions.len()).chain(0..first) {
            let position = &positions[index];
            match self.leader(position.topic, position.partition, deadline) {
                Ok(leader) => leaders.entry(leader).or_default().push(index),
                Err(error) => results[index] = Some(Err(error)),
            }
        }
        let mut sent = Vec::new();
        for (leader, indexes) in leaders {
            let asked: Vec<_> = indexes.iter().map(|index| &positions[*index]).collect();
            let request = fetch_request(&asked, limits);
            match self.write_at(&leader, &request, deadline) {
                Ok(written) => sent.push((leader, indexes, written)),
                Err(error) => self.fail_all(&indexes, positions, &error, &mut results),
            }
        }
        let mut answers = Vec::new();
        for (leader, indexes, written) in sent {
            match self.read_fetch(&leader, written, deadline) {
                Ok(response) => answers.push((indexes, response)),
                Err(error) => self.fail_all(&indexes, positions, &error, &mut results),
            }
        }
        // To judge can mean to ask any of the brokers, so none may still owe an answer.
        for (indexes, mut response) in answers {
            for index in indexes {
                let found = take_partition(&mut response, &positions[index]);
                results[index] = Some(match found {
                    Some(data) => self.judge(&positions[index], data, deadline),
                    None => Err(unanswered("Fetch", positions[index].topic)),
                });
            }
        }
        let unanswered = |index: usize| Err(unanswered("Fetch", positions[index].topic));
        results
            .into_iter()
            .enumerate()
            .map(|(index, result)| result.unwrap_or_else(|| unanswered(index)))
            .collect()
    }

    /// A leader that can't be reached may not lead any more.
    fn fail_all(
        &mut self,
        indexes: &[usize],
        positions: &[FetchPosition<'_>],
        error: &Error,
        results: &mut [Option<Result<Fetched, Error>>],
    ) {
        for index in indexes {
            self.cluster.forget(positions[*index].topic);
            results[*index] = Some(Err(error.clone()));
        }
    }

    /// Writes a request, on a new connection when an idle one proves broken.
    fn write_at(
        &mut self,
        address: &Address,
        request: &FetchRequest,
        deadline: Instant,
    ) -> Result<Sent, Error> {
        let (connection, reused) = self.connection(address, deadline)?;
        let mut written = connection.write(request, deadline);
        if reused && matches!(written, Err(Error::Disconnected { .. })) {
            self.connections.remove(address);
            let (connection, _) = self.connection(address, deadline)?;
            written = connection.write(request, deadline);
        }
        if written.is_err() {
            self.connections.remove(address);
        }
        written
    }

    fn read_fetch(
        &mut self,
        leader: &Address,
        sent: Sent,
        deadline: Instant,
    ) -> Result<FetchResponse, Error> {
        // The very connection that it was written on, though by now its session may
        // be near its end: on another one no answer would come.
        let Some(mut connection) = self.connections.remove(leader) else {
            let cause = Arc::new(std::io::ErrorKind::NotConnected.into());
            return Err(Error::Disconnected { address: leader.clone(), cause, hint: None });
        };
        let response = connection.read::<FetchRequest>(sent, deadline)?;
        self.connections.insert(leader.clone(), connection);
        Error::from_code("Fetch", leader, response.error_code, None)?;
        Ok(response)
    }

    fn judge(
        &mut self,
        position: &FetchPosition<'_>,
        data: PartitionData,
        deadline: Instant,
    ) -> Result<Fetched, Error> {
        let FetchPosition { topic, partition, offset, .. } = *position;
        match ResponseError::try_from_code(data.error_code) {
            None => {}
            Some(ResponseError::OffsetOutOfRange) => {
                let log_start =
                    self.list_offset_until(topic, partition, LogEnd::Earliest, deadline)?;
                let log_end = self.list_offset_until(topic, partition, LogEnd::Latest, deadline)?;
                let topic = topic.to_owned();
                return Err(Error::OffsetOutOfRange {
                    topic,
                    partition,
                    offset,
                    log_start,
                    log_end,
                });
            }
            Some(
                code @ (ResponseError::UnknownTopicId
                | ResponseError::InconsistentTopicId
                | ResponseError::UnknownTopicOrPartition),
            ) => return Err(self.judge_id(position, code, deadline)),
            Some(code) => {
                if verdict(code) == Verdict::Metadata {
                    self.cluster.forget(topic);
                }
                return Err(partition_error("Fetch", topic, partition, code));
            }
        }
        self.doubts.remove(topic);
        let read = read_batches(data.records.unwrap_or_default(), offset);
        if let Some((place, failure)) = read.failure
            && read.records.is_empty()
            && read.next_offset == offset
        {
            // What a damaged header says may be anywhere.
            let is_behind = place.next_offset > offset && place.next_offset <= data.high_watermark;
            return Err(Error::Batch {
                topic: topic.to_owned(),
                partition,
                base_offset: place.base_offset,
                next_offset: is_behind.then_some(place.next_offset),
                failure,
            });
        }
        Ok(Fetched {
            records: read.records,
            next_offset: read.next_offset,
            log_start_offset: data.log_start_offset,
            high_watermark: data.high_watermark,
        })
    }

    /// The leader does not know the id: the topic is gone, was made again, or is
    /// so new that the leader is behind the broker that told us of it.
    fn judge_id(
        &mut self,
        position: &FetchPosition<'_>,
        code: ResponseError,
        deadline: Instant,
    ) -> Error {
        let name = position.topic;
        self.cluster.forget(name);
        let current = match self.topics_until(&[name.to_owned()], deadline) {
            Ok(topics) => topics.into_iter().find(|found| found.name == name),
            Err(error) => return error,
        };
        let Some(current) = current else { return unanswered("Metadata", name) };
        if let Err(error) = known(&current) {
            self.doubts.remove(name);
            return error;
        }
        if current.id == position.topic_id {
            self.doubts.remove(name);
            return partition_error("Fetch", name, position.partition, code);
        }
        let now = Instant::now();
        let seen = *self.doubts.entry(name.to_owned()).or_insert((current.id, now));
        if seen.0 == current.id && now.duration_since(seen.1) >= DOUBT {
            return Error::UnknownTopicId {
                topic: name.to_owned(),
                topic_id: position.topic_id,
                current_id: current.id,
            };
        }
        if seen.0 != current.id {
            self.doubts.insert(name.to_owned(), (current.id, now));
        }
        partition_error("Fetch", name, position.partition, ResponseError::UnknownTopicId)
    }

    /// The offset of a log's beginning or end.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], the broker's refusal, or that of the connection.
    pub fn list_offset(&mut self, topic: &str, partition: i32, end: LogEnd) -> Result<i64, Error> {
        let deadline = self.deadline();
        self.list_offset_until(topic, partition, end, deadline)
    }

    fn list_offset_until(
        &mut self,
        topic: &str,
        partition: i32,
        end: LogEnd,
        deadline: Instant,
    ) -> Result<i64, Error> {
        let timestamp = match end {
            LogEnd::Earliest => -2,
            LogEnd::Latest => -1,
        };
        let partitions = vec![
            ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp),
        ];
        let topics = vec![
            ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(partitions),
        ];
        // The crate's default is broker 0, which would make us a follower.
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(READ_UNCOMMITTED)
            .with_topics(topics);
        let leader = self.leader(topic, partition, deadline)?;
        let response = self.call_at(&leader, &request, deadline).inspect_err(|_| {
            self.cluster.forget(topic);
        })?;
        let found = response
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .find(|found| found.partition_index == partition)
            .ok_or_else(|| unanswered("ListOffsets", topic))?;
        match ResponseError::try_from_code(found.error_code) {
            None => Ok(found.offset),
            Some(code) => {
                self.cluster.forget(topic);
                Err(partition_error("ListOffsets", topic, partition, code))
            }
        }
    }
}

fn fetch_request(positions: &[&FetchPosition<'_>], limits: &FetchLimits) -> FetchRequest {
    let bounded = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut topics: Vec<FetchTopic> = Vec::new();
    for position in positions {
        let partition = FetchPartition::default()
            .with_partition(position.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(position.offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(bounded(limits.max_bytes));
        match topics.iter_mut().find(|topic| topic.topic_id == position.topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(
                FetchTopic::default()
                    .with_topic_id(position.topic_id)
                    .with_partitions(vec![partition]),
            ),
        }
    }
    let partitions = u32::try_from(positions.len()).unwrap_or(u32::MAX);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(bounded(limits.max_wait_ms))
        .with_min_bytes(bounded(limits.min_bytes))
        .with_max_bytes(bounded(limits.max_bytes.saturating_mul(partitions)))
        .with_isolation_level(READ_UNCOMMITTED)
        .with_session_epoch(NO_SESSION_EPOCH)
        .with_topics(topics)
}

fn take_partition(
    response: &mut FetchResponse,
    position: &FetchPosition<'_>,
) -> Option<PartitionData> {
    response
        .responses
        .iter_mut()
        .filter(|topic| topic.topic_id == position.topic_id)
        .flat_map(|topic| &mut topic.partitions)
        .find(|data| data.partition_index == position.partition)
        .map(std::mem::take)
}

fn partition_error(api: &'static str, topic: &str, partition: i32, code: ResponseError) -> Error {
    match code {
        ResponseError::UnknownTopicOrPartition => Error::UnknownTopic { topic: topic.to_owned() },
        code => Error::Broker {
            api,
            subject: format!("topic {topic} partition {partition}"),
            code,
            message: None,
        },
    }
}
