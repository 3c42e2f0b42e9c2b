//! The services that a worker uses: a log (Kafka), a store (PostgreSQL) and a clock. They are
//! traits, so that tests can replace them.

use std::time::Instant;

use kafka_client::{
    EpochEnd, FetchLimits, FetchPosition, FetchedRecords, KafkaClient, KafkaError, LogEnd,
    TopicMetadata, Uuid,
};

use super::legacy::table_count::TableCount;
use super::resume::ResumePoint;
use crate::decode::batch::WriteBatch;
use crate::decode::labels::Labels;
use crate::postgres::error::TransactionError;
use crate::schema::TargetIndex;
use crate::transaction::position::{Position, TopicPartition};
use crate::transaction::{WriteState, Written};

/// The topics of Kafka. The trait requires `Send`, because another thread prefetches.
pub(crate) trait RecordLog: Send {
    /// Closes all connections. The next request opens them again.
    fn disconnect(&mut self);

    /// The metadata of topics; a topic that does not exist has an error.
    fn topics(&mut self, names: &[String]) -> Result<Vec<TopicMetadata>, KafkaError>;

    /// The first offset of a partition, or the offset after its last record.
    fn list_offset(&mut self, topic: &str, partition: i32, end: LogEnd) -> Result<i64, KafkaError>;

    /// Returns where the records of `leader_epoch` end in the log of the leader. `current_epoch` is
    /// the epoch of the leader itself. `None`: the leader does not know.
    fn epoch_end(
        &mut self,
        topic: &str,
        partition: i32,
        leader_epoch: i32,
        current_epoch: i32,
    ) -> Result<Option<EpochEnd>, KafkaError>;

    /// Fetches from all positions. Returns one result for each position.
    fn fetch(
        &mut self,
        positions: &[FetchPosition<'_>],
        limits: &FetchLimits,
    ) -> Vec<Result<FetchedRecords, KafkaError>>;

    /// Fails unless a majority of the brokers names the same leader of the partition. A replaced
    /// leader may not know yet that it was replaced.
    fn confirm_leader(
        &mut self,
        topic: &str,
        topic_id: Uuid,
        partition: i32,
    ) -> Result<(), KafkaError>;
}

impl RecordLog for KafkaClient {
    fn disconnect(&mut self) {
        KafkaClient::disconnect(self);
    }

    fn topics(&mut self, names: &[String]) -> Result<Vec<TopicMetadata>, KafkaError> {
        KafkaClient::topics(self, names)
    }

    fn list_offset(&mut self, topic: &str, partition: i32, end: LogEnd) -> Result<i64, KafkaError> {
        KafkaClient::list_offset(self, topic, partition, end)
    }

    fn epoch_end(
        &mut self,
        topic: &str,
        partition: i32,
        leader_epoch: i32,
        current_epoch: i32,
    ) -> Result<Option<EpochEnd>, KafkaError> {
        KafkaClient::epoch_end(self, topic, partition, leader_epoch, current_epoch)
    }

    fn fetch(
        &mut self,
        positions: &[FetchPosition<'_>],
        limits: &FetchLimits,
    ) -> Vec<Result<FetchedRecords, KafkaError>> {
        self.fetch_partitions(positions, limits)
    }

    fn confirm_leader(
        &mut self,
        topic: &str,
        topic_id: Uuid,
        partition: i32,
    ) -> Result<(), KafkaError> {
        self.confirm_with_majority(topic, topic_id, partition)
    }
}

/// The labels of the enum types.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownLabels {
    /// The labels.
    pub(crate) labels: Labels,
    /// Whether the schema is complete. If not, it is checked again later.
    pub(crate) is_schema_complete: bool,
}

/// The tables of one domain.
pub(crate) trait RecordStore {
    /// The state that is kept from batch to batch. It is dropped after every error.
    type Steps;

    /// Creates missing parts of the schema, and returns the labels of the enum types.
    fn ensure_schema(&mut self) -> Result<KnownLabels, TransactionError>;

    /// Creates the index that smart mode uses, if it is missing.
    fn ensure_target_index(&mut self) -> Result<TargetIndex, TransactionError>;

    /// The stored position of a partition.
    fn read_position(
        &mut self,
        partition: &TopicPartition,
    ) -> Result<Option<Position>, TransactionError>;

    /// Moves the position from `from` to a resume point, and stores the gaps of the resume point.
    fn skip_to(
        &mut self,
        partition: &TopicPartition,
        from: Option<Position>,
        point: &ResumePoint,
    ) -> Result<(), TransactionError>;

    /// Reads the position of 1.1.0 from the rows with an `id` above `after_id`.
    fn count_table(&mut self, after_id: i64) -> Result<TableCount, TransactionError>;

    /// Creates steps without state.
    fn new_steps(&self) -> Self::Steps;

    /// Writes a batch, and moves the position from `from` to the end of the batch. After an error,
    /// the caller drops the steps and keeps `state`.
    fn write(
        &mut self,
        steps: &mut Self::Steps,
        labels: &Labels,
        partition: &TopicPartition,
        from: Position,
        batch: WriteBatch,
        state: &mut WriteState,
    ) -> Result<Written, TransactionError>;

    /// Removes the marks of runs that stopped long ago. Must be called only when all records of the
    /// partition are recorded.
    fn clean_up_marks(&mut self, partition: &TopicPartition) -> Result<(), TransactionError>;
}

/// A source of the current time.
pub(crate) trait Clock {
    /// The current time.
    fn now(&self) -> Instant;
}

/// The monotonic clock of the system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}
