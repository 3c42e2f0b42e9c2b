//! Fetch: reading records from an offset on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use uuid::Uuid;

use super::leader_epoch::NO_EPOCH;
use super::list_offset::{LogEnd, READ_UNCOMMITTED};
use super::{KafkaClient, partition_error};
use crate::address::BrokerAddress;
use crate::batch::decode::{FetchedRecord, decode_batches};
use crate::connection::PendingResponse;
use crate::error::KafkaError;
use crate::error::retryable::{ErrorClass, classify};

/// A partition and the offset to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition<'a> {
    /// The topic's name, to find its leader.
    pub topic: &'a str,
    /// The topic's id. Records of another topic with the same name are never returned.
    pub topic_id: Uuid,
    /// The partition, from 0.
    pub partition: i32,
    /// The offset of the first record to return.
    pub offset: i64,
    /// The leader epoch at which the offset was confirmed to be in the log. A leader of another
    /// epoch refuses the request (KIP-320). `None`: any leader answers.
    pub leader_epoch: Option<i32>,
}

/// The bounds of a fetch: bytes, and the time to wait for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// The time in milliseconds for which the broker may wait for `min_bytes`.
    pub max_wait_ms: u32,
    /// The broker answers as soon as this many bytes can be read.
    pub min_bytes: u32,
    /// The maximum number of bytes to read from each partition. A larger first batch is returned
    /// whole (KIP-74), up to 100 MiB.
    pub max_bytes: u32,
}

impl Default for FetchLimits {
    /// Up to 1 MiB per partition, waiting up to 500 ms for the first record.
    fn default() -> Self {
        Self { max_wait_ms: 500, min_bytes: 1, max_bytes: 1024 * 1024 }
    }
}

/// The records read from one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecords {
    /// The records by offset. Empty if the wait ended, or if only control or empty batches were
    /// read.
    pub records: Vec<FetchedRecord>,
    /// The offset to fetch next. Control and empty batches move it forward without records.
    pub next_offset: i64,
    /// The epoch of the leader that appended the last batch before `next_offset`. `None` if no
    /// batch was read.
    pub leader_epoch: Option<i32>,
    /// The offset of the first record in the log.
    pub log_start_offset: i64,
    /// The high watermark: records below it are replicated on all in-sync brokers and can be
    /// read.
    pub high_watermark: i64,
}

type FetchResult = Result<FetchedRecords, KafkaError>;

/// No fetch session (KIP-227): the partitions change with each request.
const NO_SESSION_EPOCH: i32 = -1;

impl KafkaClient {
    /// Reads from one partition; see [`KafkaClient::fetch_partitions`].
    ///
    /// # Errors
    /// See [`KafkaClient::fetch_partitions`].
    pub fn fetch(&mut self, position: &FetchPosition<'_>, limits: &FetchLimits) -> FetchResult {
        let mut results = self.fetch_partitions(std::slice::from_ref(position), limits);
        results.pop().unwrap_or_else(|| Err(KafkaError::not_in_response("Fetch", position.topic)))
    }

    /// Reads from several partitions, with one request to each of their leaders. The results are
    /// in the order of `positions`.
    ///
    /// The call returns when the last leader has answered, so a short `max_wait_ms` keeps the
    /// records of the other leaders fresh. A broker serves partitions in the order of the
    /// request, and only the first partition with records may exceed the limits (KIP-74). The
    /// partition that comes first therefore changes with each call.
    ///
    /// # Errors
    /// For each partition: [`KafkaError::OffsetOutOfRange`], [`KafkaError::UnknownTopic`],
    /// [`KafkaError::UnknownTopicId`], [`KafkaError::Batch`] if the first batch can't be read
    /// (records before an unreadable batch are returned first), the broker's error code, or an
    /// error of the connection.
    pub fn fetch_partitions(
        &mut self,
        positions: &[FetchPosition<'_>],
        limits: &FetchLimits,
    ) -> Vec<FetchResult> {
        let deadline = self.deadline_after(Duration::from_millis(limits.max_wait_ms.into()));
        let mut results: Vec<Option<FetchResult>> = positions.iter().map(|_| None).collect();
        let leaders = self.group_by_leader(positions, deadline, &mut results);
        let mut pending = Vec::new();
        for (leader, indexes) in leaders {
            let requested: Vec<_> = indexes.iter().map(|index| &positions[*index]).collect();
            let request = fetch_request(&requested, limits);
            match self.write_fetch(&leader, &request, deadline) {
                Ok(response) => pending.push((leader, indexes, response)),
                Err(error) => self.fail_partitions(&indexes, positions, &error, &mut results),
            }
        }
        let mut responses = Vec::new();
        for (leader, indexes, response) in pending {
            match self.read_fetch(&leader, response, deadline) {
                Ok(response) => responses.push((indexes, response)),
                Err(error) => self.fail_partitions(&indexes, positions, &error, &mut results),
            }
        }
        // Responses are handled after all of them are read: handling an error can send requests
        // to any broker, and a connection carries one request at a time.
        for (indexes, mut response) in responses {
            for index in indexes {
                let position = &positions[index];
                results[index] = remove_partition(&mut response, position)
                    .map(|data| self.partition_result(position, data, deadline));
            }
        }
        let not_in_response =
            |index: usize| Err(KafkaError::not_in_response("Fetch", positions[index].topic));
        results
            .into_iter()
            .enumerate()
            .map(|(index, result)| result.unwrap_or_else(|| not_in_response(index)))
            .collect()
    }

    /// Groups the indexes of `positions` by the partition's leader.
    fn group_by_leader(
        &mut self,
        positions: &[FetchPosition<'_>],
        deadline: Instant,
        results: &mut [Option<FetchResult>],
    ) -> BTreeMap<BrokerAddress, Vec<usize>> {
        let mut leaders: BTreeMap<BrokerAddress, Vec<usize>> = BTreeMap::new();
        let first = self.fetch_count % positions.len().max(1);
        self.fetch_count = self.fetch_count.wrapping_add(1);
        for index in (first..positions.len()).chain(0..first) {
            let position = &positions[index];
            match self.leader(position.topic, position.partition, deadline) {
                Ok(leader) => leaders.entry(leader).or_default().push(index),
                Err(error) => results[index] = Some(Err(error)),
            }
        }
        leaders
    }

    /// Sets the error of partitions, and looks up their leader again at the next call.
    fn fail_partitions(
        &mut self,
        indexes: &[usize],
        positions: &[FetchPosition<'_>],
        error: &KafkaError,
        results: &mut [Option<FetchResult>],
    ) {
        for index in indexes {
            self.cluster.forget(positions[*index].topic);
            results[*index] = Some(Err(error.clone()));
        }
    }

    /// Writes a request. If an idle connection proves broken, it is replaced once.
    fn write_fetch(
        &mut self,
        leader: &BrokerAddress,
        request: &FetchRequest,
        deadline: Instant,
    ) -> Result<PendingResponse, KafkaError> {
        let (connection, is_reused) = self.connection(leader, deadline)?;
        let mut written = connection.write(request, deadline);
        if is_reused && matches!(written, Err(KafkaError::Disconnected { .. })) {
            self.connections.remove(leader);
            let (connection, _) = self.connection(leader, deadline)?;
            written = connection.write(request, deadline);
        }
        if written.is_err() {
            self.connections.remove(leader);
        }
        written
    }

    fn read_fetch(
        &mut self,
        leader: &BrokerAddress,
        pending: PendingResponse,
        deadline: Instant,
    ) -> Result<FetchResponse, KafkaError> {
        // Uses the connection of the request even if its SASL session is about to end: the
        // response arrives on this connection only.
        let Some(mut connection) = self.connections.remove(leader) else {
            let cause = Arc::new(std::io::ErrorKind::NotConnected.into());
            return Err(KafkaError::Disconnected { address: leader.clone(), cause, hint: None });
        };
        let response = connection.read::<FetchRequest>(pending, deadline)?;
        self.connections.insert(leader.clone(), connection);
        KafkaError::from_code("Fetch", leader, response.error_code, None)?;
        Ok(response)
    }

    fn partition_result(
        &mut self,
        position: &FetchPosition<'_>,
        data: PartitionData,
        deadline: Instant,
    ) -> FetchResult {
        let FetchPosition { topic, partition, .. } = *position;
        match ResponseError::try_from_code(data.error_code) {
            None => {
                self.changed_topic_ids.remove(topic);
                decode_partition(position, data)
            }
            Some(ResponseError::OffsetOutOfRange) => {
                Err(self.offset_out_of_range(position, deadline))
            }
            Some(
                code @ (ResponseError::UnknownTopicId
                | ResponseError::InconsistentTopicId
                | ResponseError::UnknownTopicOrPartition),
            ) => Err(self.unknown_topic_id(position, code, deadline)),
            Some(code) => {
                if classify(code) == ErrorClass::StaleMetadata {
                    self.cluster.forget(topic);
                }
                Err(partition_error("Fetch", topic, partition, code))
            }
        }
    }

    fn offset_out_of_range(
        &mut self,
        position: &FetchPosition<'_>,
        deadline: Instant,
    ) -> KafkaError {
        let FetchPosition { topic, partition, offset, .. } = *position;
        let log_start = match self.list_offset_by(topic, partition, LogEnd::Earliest, deadline) {
            Ok(log_start) => log_start,
            Err(error) => return error,
        };
        match self.list_offset_by(topic, partition, LogEnd::Latest, deadline) {
            Ok(log_end) => KafkaError::OffsetOutOfRange {
                topic: topic.to_owned(),
                partition,
                offset,
                log_start,
                log_end,
            },
            Err(error) => error,
        }
    }
}

fn decode_partition(position: &FetchPosition<'_>, data: PartitionData) -> FetchResult {
    let FetchPosition { topic, partition, offset, .. } = *position;
    let decoded = decode_batches(data.records.unwrap_or_default(), offset);
    if let Some((range, failure)) = decoded.failure
        && decoded.records.is_empty()
        && decoded.next_offset == offset
    {
        // The header of a damaged batch can name any offset.
        let is_plausible = range.next_offset > offset && range.next_offset <= data.high_watermark;
        return Err(KafkaError::Batch {
            topic: topic.to_owned(),
            partition,
            base_offset: range.base_offset,
            next_offset: is_plausible.then_some(range.next_offset),
            failure,
        });
    }
    Ok(FetchedRecords {
        records: decoded.records,
        next_offset: decoded.next_offset,
        leader_epoch: decoded.leader_epoch,
        log_start_offset: data.log_start_offset,
        high_watermark: data.high_watermark,
    })
}

fn fetch_request(positions: &[&FetchPosition<'_>], limits: &FetchLimits) -> FetchRequest {
    let bounded = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut topics: Vec<FetchTopic> = Vec::new();
    for position in positions {
        let partition = FetchPartition::default()
            .with_partition(position.partition)
            .with_current_leader_epoch(position.leader_epoch.unwrap_or(NO_EPOCH))
            .with_fetch_offset(position.offset)
            // The log's divergence is reported to followers only (KIP-595).
            .with_last_fetched_epoch(NO_EPOCH)
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

/// Removes the partition from the response. `None`: the response does not contain it.
fn remove_partition(
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
