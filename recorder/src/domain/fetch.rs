//! What is read of a domain's topic: by the domain's own thread, or ahead of it.

use kafka_client::{Client, Error as KafkaError, FetchLimits, FetchPosition};

use crate::decode::batch::{Most, Parts};
use crate::decode::row::Labels;
use crate::domain::resume::Position;
use crate::transaction::position::Partition;

/// One partition: its position as the database has it, and what Kafka's group
/// has of it as far as is known.
pub(super) struct Reading {
    pub(super) partition: Partition,
    pub(super) position: Position,
    pub(super) committed: Option<i64>,
}

/// A partition and from where on it is read.
pub(super) type Wanted = (Partition, Position);

/// What was found in each partition.
pub(super) type Found = Vec<Result<Parts, KafkaError>>;

/// What comes next, by the positions in the database.
pub(super) fn wanted(readings: &[Reading]) -> Vec<Wanted> {
    readings.iter().map(|reading| (reading.partition.clone(), reading.position)).collect()
}

/// What comes after what was found, once that is written; none when that is
/// nothing yet, or not sure.
pub(super) fn next_wanted(readings: &[Reading], found: &Found) -> Option<Vec<Wanted>> {
    let found: Vec<&Parts> =
        found.iter().map(|found| found.as_ref().ok()).collect::<Option<_>>()?;
    found.iter().any(|parts| parts.is_more_there()).then_some(())?;
    let next = readings.iter().zip(found).map(|(reading, parts)| {
        let next_offset = parts.next_offset;
        (reading.partition.clone(), Position { next_offset, ..reading.position })
    });
    Some(next.collect())
}

/// Fetches, and makes ready for the database.
pub(super) fn read(
    client: &mut Client,
    wanted: &[Wanted],
    limits: &FetchLimits,
    labels: &Labels,
    most: &Most,
) -> Found {
    let positions: Vec<_> = wanted
        .iter()
        .map(|(partition, position)| FetchPosition {
            topic: &partition.topic,
            topic_id: position.topic_id,
            partition: partition.number,
            offset: position.next_offset,
        })
        .collect();
    let fetched = client.fetch_partitions(&positions, limits);
    let ready = |(fetched, position): (Result<_, _>, &FetchPosition<'_>)| {
        fetched.map(|fetched| Parts::new(fetched, position.offset, labels, most))
    };
    fetched.into_iter().zip(&positions).map(ready).collect()
}
