//! Fetches from all partitions of a topic. The fetch runs in the thread of the worker or, as a
//! prefetch, in another thread.

use kafka_client::{BatchFailure, FetchLimits, FetchPosition, KafkaError, Uuid};

use super::services::RecordLog;
use crate::decode::batch::{FetchedBatches, RecordPanic};
use crate::decode::labels::Labels;
use crate::transaction::batch_size::RECORDS_MAX;
use crate::transaction::position::{Position, TopicPartition};

/// A partition that is read.
#[derive(Debug)]
pub(super) struct PartitionReader {
    pub(super) partition: TopicPartition,
    /// The position in the database.
    pub(super) position: Position,
    /// The epoch of the leader that confirmed the position. `None`: the epoch is unknown.
    pub(super) leader_epoch: Option<i32>,
    /// The offset that was published for the consumer group. `None`: no offset was published yet.
    pub(super) published: Option<i64>,
}

/// The results of a fetch: one for each partition.
pub(super) type FetchResults = Vec<Result<FetchedBatches, KafkaError>>;

/// The position to fetch from in one partition.
#[derive(Debug)]
pub(super) struct FetchStart {
    partition: TopicPartition,
    topic_id: Uuid,
    offset: i64,
    leader_epoch: Option<i32>,
}

impl FetchStart {
    fn new(reader: &PartitionReader, offset: i64) -> Self {
        Self {
            partition: reader.partition.clone(),
            topic_id: reader.position.topic_id,
            offset,
            leader_epoch: reader.leader_epoch,
        }
    }
}

/// The positions to fetch from, equal to the positions in the database.
pub(super) fn fetch_positions(readers: &[PartitionReader]) -> Vec<FetchStart> {
    readers.iter().map(|reader| FetchStart::new(reader, reader.position.next_offset)).collect()
}

/// The positions to fetch from after the records in `fetched` are written. `None`: no partition has
/// more records, or a fetch failed.
pub(super) fn prefetch_positions(
    readers: &[PartitionReader],
    fetched: &FetchResults,
) -> Option<Vec<FetchStart>> {
    let fetched: Vec<&FetchedBatches> =
        fetched.iter().map(|result| result.as_ref().ok()).collect::<Option<_>>()?;
    fetched.iter().any(|batches| batches.has_more()).then_some(())?;
    let starts = readers.iter().zip(fetched);
    Some(starts.map(|(reader, batches)| FetchStart::new(reader, batches.next_offset)).collect())
}

/// A record on which the decoder panics is handled like an unreadable batch.
fn unreadable_record(position: &FetchPosition<'_>, panic: RecordPanic) -> KafkaError {
    KafkaError::Batch {
        topic: position.topic.to_owned(),
        partition: position.partition,
        base_offset: panic.offset.unwrap_or(position.offset),
        next_offset: panic.offset.map(|offset| offset + 1),
        failure: BatchFailure::Panicked,
    }
}

/// Fetches from these positions, and decodes the records into batches. The writer cuts the batches
/// later to the size that the database can write in time.
pub(super) fn fetch(
    log: &mut impl RecordLog,
    positions: &[FetchStart],
    fetch_limits: &FetchLimits,
    labels: &Labels,
) -> FetchResults {
    let positions: Vec<_> = positions
        .iter()
        .map(|start| FetchPosition {
            topic: &start.partition.topic,
            topic_id: start.topic_id,
            partition: start.partition.number,
            offset: start.offset,
            leader_epoch: start.leader_epoch,
        })
        .collect();
    let results = log.fetch(&positions, fetch_limits).into_iter().zip(&positions);
    results
        .map(|(result, position)| {
            let fetched = result?;
            FetchedBatches::new(fetched, position.offset, labels, RECORDS_MAX)
                .map_err(|panic| unreadable_record(position, panic))
        })
        .collect()
}
