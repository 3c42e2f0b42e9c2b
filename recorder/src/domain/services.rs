//! What a worker needs from outside: a log (Kafka), a store (PostgreSQL) and a
//! clock. They are traits so that a worker can be tested without services.

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

/// The topics of Kafka. It is `Send` because another thread prefetches.
pub(crate) trait RecordLog: Send {
    /// Closes all connections. The next request opens them again.
    fn disconnect(&mut self);

    /// The metadata of topics; a topic that does not exist has an error.
    fn topics(&mut self, names: &[String]) -> Result<Vec<TopicMetadata>, KafkaError>;

    /// The first offset of a partition, or the offset after its last record.
    fn list_offset(&mut self, topic: &str, partition: i32, end: LogEnd) -> Result<i64, KafkaError>;

    /// Where the records of `leader_epoch` end in the log of the leader, whose own epoch is
    /// `current_epoch`. `None` if it does not know.
    fn epoch_end(
        &mut self,
        topic: &str,
        partition: i32,
        leader_epoch: i32,
        current_epoch: i32,
    ) -> Result<Option<EpochEnd>, KafkaError>;

    /// Fetches from all positions; one result for each.
    fn fetch(
        &mut self,
        positions: &[FetchPosition<'_>],
        limits: &FetchLimits,
    ) -> Vec<Result<FetchedRecords, KafkaError>>;

    /// Fails unless a majority of the brokers agrees with the leader of the
    /// partition, which may be a broker that has not noticed that it was replaced.
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
    /// What is remembered from batch to batch. Dropped after every error.
    type Steps;

    /// Creates what is missing of the schema, and returns the labels of the enum
    /// types.
    fn ensure_schema(&mut self) -> Result<KnownLabels, TransactionError>;

    /// Creates the index that smart mode uses, if it is missing.
    fn ensure_target_index(&mut self) -> Result<TargetIndex, TransactionError>;

    /// The stored position of a partition.
    fn read_position(
        &mut self,
        partition: &TopicPartition,
    ) -> Result<Option<Position>, TransactionError>;

    /// Moves the position from `from` to a resume point and stores its gaps.
    fn skip_to(
        &mut self,
        partition: &TopicPartition,
        from: Option<Position>,
        point: &ResumePoint,
    ) -> Result<(), TransactionError>;

    /// What the rows with an `id` above `after_id` show about the position of 1.1.0.
    fn count_table(&mut self, after_id: i64) -> Result<TableCount, TransactionError>;

    /// Steps that remember nothing yet.
    fn new_steps(&self) -> Self::Steps;

    /// Writes a batch and moves the position from `from` to its end. The caller drops
    /// the steps after an error, and keeps the state.
    fn write(
        &mut self,
        steps: &mut Self::Steps,
        labels: &Labels,
        partition: &TopicPartition,
        from: Position,
        batch: WriteBatch,
        state: &mut WriteState,
    ) -> Result<Written, TransactionError>;

    /// Removes marks of runs that stopped long ago. To be called only when all
    /// records of the partition are recorded.
    fn clean_up_marks(&mut self, partition: &TopicPartition) -> Result<(), TransactionError>;
}

/// The time.
pub(crate) trait Clock {
    /// The time now.
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
