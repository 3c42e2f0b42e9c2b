//! Fetches from all partitions of a topic, in the thread of the worker or, as a
//! prefetch, in another thread.

use kafka_client::{BatchFailure, FetchLimits, FetchPosition, KafkaError};

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
    /// The offset that was published for the consumer group.
    pub(super) published: Option<i64>,
}

/// The result of a fetch for each partition.
pub(super) type FetchResults = Vec<Result<FetchedBatches, KafkaError>>;

/// The positions to fetch from, as they are in the database.
pub(super) fn fetch_positions(readers: &[PartitionReader]) -> Vec<(TopicPartition, Position)> {
    readers.iter().map(|reader| (reader.partition.clone(), reader.position)).collect()
}

/// The positions to fetch from once `fetched` is written. `None` if no partition has
/// more records, or if a fetch failed.
pub(super) fn prefetch_positions(
    readers: &[PartitionReader],
    fetched: &FetchResults,
) -> Option<Vec<(TopicPartition, Position)>> {
    let fetched: Vec<&FetchedBatches> =
        fetched.iter().map(|result| result.as_ref().ok()).collect::<Option<_>>()?;
    fetched.iter().any(|batches| batches.has_more()).then_some(())?;
    let positions = readers.iter().zip(fetched).map(|(reader, batches)| {
        let next_offset = batches.next_offset;
        (reader.partition.clone(), Position { next_offset, ..reader.position })
    });
    Some(positions.collect())
}

/// A record on which the decoder panics is treated as an unreadable batch.
fn unreadable_record(position: &FetchPosition<'_>, panic: RecordPanic) -> KafkaError {
    KafkaError::Batch {
        topic: position.topic.to_owned(),
        partition: position.partition,
        base_offset: panic.offset.unwrap_or(position.offset),
        next_offset: panic.offset.map(|offset| offset + 1),
        failure: BatchFailure::Panicked,
    }
}

/// Fetches from these positions, and decodes the records into batches. The writer cuts
/// them to the size that fits the database by then.
pub(super) fn fetch(
    log: &mut impl RecordLog,
    positions: &[(TopicPartition, Position)],
    fetch_limits: &FetchLimits,
    labels: &Labels,
) -> FetchResults {
    let positions: Vec<_> = positions
        .iter()
        .map(|(partition, position)| FetchPosition {
            topic: &partition.topic,
            topic_id: position.topic_id,
            partition: partition.number,
            offset: position.next_offset,
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
