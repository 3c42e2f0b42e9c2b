//! Tests the turns of a worker with a log, a store and a clock in memory.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Instant;

use common::stop::{self, Stopper};
use kafka_client::{
    EpochEnd, FetchPosition, FetchedRecord, FetchedRecords, LogEnd, PartitionMetadata,
    ResponseError, Security, Uuid,
};
use postgres_client::{PostgresSettings, PostgresUri};

use super::super::group_offset::DashboardOffset;
use super::super::legacy::table_count::TableCount;
use super::super::prefetch::Semaphore;
use super::super::resume::ResumePoint;
use super::super::turns::ConnectionTurns;
use super::*;
use crate::decode::batch::WriteBatch;
use crate::lease::kafka_health::KafkaHealth;
use crate::postgres::pool::Database;
use crate::report::outage_log::{SharedOutage, SharedRefusals};
use crate::timings::Timings;
use crate::transaction::position::{Position, TopicPartition};
use crate::transaction::{WriteState, Written};

const TOPIC: &str = "webactivity-a.example";
const TOPIC_ID: Uuid = Uuid::from_u128(1);

/// A topic in memory. A partition is stored as the range of its offsets.
#[derive(Debug, Default)]
struct MemoryLog {
    partitions: Vec<(i64, i64)>,
    /// The number of following fetches that panic.
    panics: usize,
    /// The offset of a record on which the decoder panics.
    unreadable: Option<i64>,
    disconnects: usize,
    is_down: bool,
    leader_epoch: i32,
    /// The end offsets of earlier leader epochs.
    epoch_ends: HashMap<i32, i64>,
    /// Whether each offset is refused as out of range.
    refuses_offsets: bool,
}

impl MemoryLog {
    fn range(&self, partition: i32) -> (i64, i64) {
        self.partitions[usize::try_from(partition).unwrap()]
    }
}

impl RecordLog for MemoryLog {
    fn disconnect(&mut self) {
        self.disconnects += 1;
    }

    fn topics(&mut self, _names: &[String]) -> Result<Vec<TopicMetadata>, KafkaError> {
        if self.is_down {
            return Err(KafkaError::UnknownTopic { topic: TOPIC.to_owned() });
        }
        let leader_epoch = self.leader_epoch;
        let metadata = |index| PartitionMetadata { index, leader: Some(1), leader_epoch };
        let count = i32::try_from(self.partitions.len()).unwrap();
        Ok(vec![TopicMetadata {
            name: TOPIC.to_owned(),
            id: TOPIC_ID,
            partitions: (0..count).map(metadata).collect(),
            error: None,
        }])
    }

    fn list_offset(&mut self, _: &str, partition: i32, end: LogEnd) -> Result<i64, KafkaError> {
        let (start, log_end) = self.range(partition);
        Ok(if end == LogEnd::Earliest { start } else { log_end })
    }

    fn epoch_end(
        &mut self,
        _: &str,
        _: i32,
        leader_epoch: i32,
        current_epoch: i32,
    ) -> Result<Option<EpochEnd>, KafkaError> {
        assert_eq!(current_epoch, self.leader_epoch);
        let end = self.epoch_ends.get(&leader_epoch);
        Ok(end.map(|&end_offset| EpochEnd { leader_epoch, end_offset }))
    }

    fn fetch(
        &mut self,
        positions: &[FetchPosition<'_>],
        _limits: &FetchLimits,
    ) -> Vec<Result<FetchedRecords, KafkaError>> {
        if let Some(left) = self.panics.checked_sub(1) {
            self.panics = left;
            panic!("on purpose");
        }
        let fetch = |position: &FetchPosition<'_>| {
            let &FetchPosition { partition, offset, .. } = position;
            let (log_start, log_end) = self.range(partition);
            if position.leader_epoch != Some(self.leader_epoch) {
                return Err(KafkaError::Broker {
                    api: "Fetch",
                    subject: TOPIC.to_owned(),
                    code: ResponseError::FencedLeaderEpoch,
                    message: None,
                });
            }
            if offset < log_start || offset > log_end || self.refuses_offsets {
                let topic = TOPIC.to_owned();
                return Err(KafkaError::OffsetOutOfRange {
                    topic,
                    partition,
                    offset,
                    log_start,
                    log_end,
                });
            }
            if self.unreadable == Some(offset) {
                return Err(KafkaError::Batch {
                    topic: TOPIC.to_owned(),
                    partition,
                    base_offset: offset,
                    next_offset: Some(offset + 1),
                    failure: BatchFailure::Panicked,
                });
            }
            let record = |offset| FetchedRecord {
                offset,
                leader_epoch: Some(self.leader_epoch),
                timestamp_ms: 0,
                key: None,
                value: None,
                headers: Vec::new(),
            };
            Ok(FetchedRecords {
                records: (offset..log_end).map(record).collect(),
                next_offset: log_end,
                leader_epoch: Some(self.leader_epoch),
                log_start_offset: log_start,
                high_watermark: log_end,
            })
        };
        positions.iter().map(fetch).collect()
    }

    fn confirm_leader(&mut self, _: &str, _: Uuid, _: i32) -> Result<(), KafkaError> {
        Ok(())
    }
}

/// Positions and gaps in memory, with the compare-and-set of the real store.
#[derive(Debug, Default)]
struct MemoryStore {
    positions: HashMap<i32, Position>,
    gaps: Vec<(i64, Option<i64>)>,
    /// The number of the steps that wrote each batch. Steps are numbered in the order of creation.
    written_by: Vec<usize>,
    steps_made: Cell<usize>,
    /// The number of checks of the schema, and the number of checks that find it incomplete.
    schema_checks: usize,
    incomplete_checks: usize,
    /// The number of reads of a position: one for each session and partition.
    position_reads: usize,
    next_error: Option<TransactionError>,
}

impl MemoryStore {
    fn move_position(
        &mut self,
        partition: i32,
        from: Option<Position>,
        to: Position,
    ) -> Result<(), TransactionError> {
        if let Some(error) = self.next_error.take() {
            return Err(error);
        }
        if self.positions.get(&partition) != from.as_ref() {
            return Err(TransactionError::Fenced);
        }
        self.positions.insert(partition, to);
        Ok(())
    }
}

impl RecordStore for MemoryStore {
    type Steps = usize;

    fn ensure_schema(&mut self) -> Result<KnownLabels, TransactionError> {
        self.schema_checks += 1;
        let is_schema_complete = self.schema_checks > self.incomplete_checks;
        Ok(KnownLabels { labels: Labels::default(), is_schema_complete })
    }

    fn ensure_target_index(&mut self) -> Result<TargetIndex, TransactionError> {
        Ok(TargetIndex::Ready)
    }

    fn read_position(
        &mut self,
        partition: &TopicPartition,
    ) -> Result<Option<Position>, TransactionError> {
        self.position_reads += 1;
        Ok(self.positions.get(&partition.number).copied())
    }

    fn skip_to(
        &mut self,
        partition: &TopicPartition,
        from: Option<Position>,
        point: &ResumePoint,
    ) -> Result<(), TransactionError> {
        self.move_position(partition.number, from, point.position)?;
        self.gaps.extend(point.gaps.iter().map(|gap| (gap.from_offset, gap.to_offset)));
        Ok(())
    }

    fn count_table(&mut self, _after_id: i64) -> Result<TableCount, TransactionError> {
        Ok(TableCount { highest_offset: None, last_id: 0 })
    }

    fn new_steps(&self) -> usize {
        self.steps_made.set(self.steps_made.get() + 1);
        self.steps_made.get()
    }

    fn write(
        &mut self,
        steps: &mut usize,
        _labels: &Labels,
        partition: &TopicPartition,
        from: Position,
        batch: WriteBatch,
        _state: &mut WriteState,
    ) -> Result<Written, TransactionError> {
        let to = from.after(&batch);
        self.move_position(partition.number, Some(from), to)?;
        self.written_by.push(*steps);
        Ok(Written { quarantined: batch.decoded.quarantined.len(), ..Written::default() })
    }

    fn clean_up_marks(&mut self, _partition: &TopicPartition) -> Result<(), TransactionError> {
        Ok(())
    }
}

/// A clock that moves only when a test moves it.
#[derive(Debug)]
struct ManualClock(Cell<Instant>);

impl ManualClock {
    fn advance(&self, duration: Duration) {
        self.0.set(self.0.get() + duration);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.0.get()
    }
}

type TestWorker = DomainWorker<MemoryLog, MemoryStore, ManualClock>;

/// A shared state for one worker. It opens no connections.
fn shared(lease_confirmed_at: Instant) -> Arc<SharedState> {
    let uri = PostgresUri::parse("postgres://nobody@localhost/none").unwrap();
    let settings = PostgresSettings { uri, ca: None, application_name: "test".to_owned() };
    let outage = Arc::new(SharedOutage::new("postgresql"));
    let timings = Timings::default();
    let shared = SharedState {
        database: Database::new(settings, 1, Arc::clone(&outage)),
        postgres_outage: outage,
        postgres_refusals: SharedRefusals::new("postgresql"),
        kafka: Arc::new(kafka_client::KafkaSettings::new(Vec::new(), Security::Plain)),
        kafka_outage: SharedOutage::new("kafka"),
        kafka_refusals: SharedOutage::new("kafka"),
        turns: Arc::new(ConnectionTurns::new(&timings)),
        kafka_health: KafkaHealth::new(timings.kafka_unreachable_after),
        reach: Default::default(),
        lease: Default::default(),
        fetch_wait_ms: 0.into(),
        fetch_bytes: 0.into(),
        prefetch_permits: Semaphore::new(0),
        topic_prefix: "webactivity-".to_owned(),
        group_offset: DashboardOffset::new("group".to_owned()),
        smart: false,
        schema_warned: false.into(),
        index_warned: false.into(),
        metrics: Default::default(),
        timings,
    };
    extend_lease(&shared, lease_confirmed_at);
    Arc::new(shared)
}

fn extend_lease(shared: &SharedState, confirmed_at: Instant) {
    shared.lease.extend(confirmed_at, Instant::now() + Duration::from_secs(3_600));
}

/// Creates a worker for a topic with these partitions.
fn worker(partitions: &[(i64, i64)]) -> (TestWorker, Stopper) {
    let (stopper, stop) = stop::pair();
    let log = MemoryLog { partitions: partitions.to_vec(), ..MemoryLog::default() };
    let start = Instant::now();
    let clock = ManualClock(Cell::new(start));
    let domain = Domain::parse("a.example").unwrap();
    let store = MemoryStore::default();
    let topic = TOPIC.to_owned();
    (DomainWorker::over(log, store, clock, domain, topic, shared(start), stop), stopper)
}

fn next_offset(worker: &TestWorker, partition: i32) -> i64 {
    worker.writer.store.positions[&partition].next_offset
}

#[test]
fn a_turn_writes_what_it_fetches_and_moves_the_position() {
    let (mut worker, _stopper) = worker(&[(0, 3), (5, 6)]);
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!([next_offset(&worker, 0), next_offset(&worker, 1)], [3, 6]);
    let published = |number| {
        let partition = TopicPartition { topic: TOPIC.to_owned(), number };
        worker.shared.group_offset.pending(&partition)
    };
    assert_eq!([published(0), published(1)], [Some(3), Some(6)]);
    assert_eq!(worker.shared.metrics.records_quarantined.get(), 4);
    // The session continues: no position is read from the store again.
    worker.topic.log.partitions[0].1 = 4;
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!(next_offset(&worker, 0), 4);
    assert_eq!(
        (worker.writer.store.position_reads, worker.writer.store.written_by),
        (4, vec![1, 1, 1])
    );
}

/// After an error, no remembered state is used again.
#[test]
fn an_error_drops_the_session_and_the_steps() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.turn();
    worker.topic.log.partitions[0].1 = 5;
    worker.writer.store.next_error = Some(TransactionError::MergeTargetMissing);
    assert!(worker.turn() > Duration::ZERO);
    assert_eq!(next_offset(&worker, 0), 3);
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!(next_offset(&worker, 0), 5);
    assert_eq!(
        (worker.writer.store.position_reads, worker.writer.store.written_by),
        (3, vec![1, 2])
    );
}

/// The steps are dropped even if other partitions are written in the same turn.
#[test]
fn an_error_in_one_partition_drops_the_steps_for_the_others() {
    let (mut worker, _stopper) = worker(&[(0, 3), (0, 3)]);
    worker.turn();
    (worker.topic.log.partitions[0].1, worker.topic.log.partitions[1].1) = (5, 5);
    worker.writer.store.next_error = Some(TransactionError::MergeTargetMissing);
    assert!(worker.turn() > Duration::ZERO);
    assert_eq!([next_offset(&worker, 0), next_offset(&worker, 1)], [3, 5]);
    assert_eq!(worker.writer.store.written_by, [1, 1, 2]);
}

#[test]
fn a_fenced_worker_waits_until_its_lease_is_confirmed_again() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.turn();
    // Another recorder moves the position.
    worker.topic.log.partitions[0].1 = 5;
    worker.writer.store.positions.get_mut(&0).unwrap().next_offset = 4;
    worker.turn();
    let poll = worker.shared.timings.lease_poll_interval;
    assert_eq!([worker.turn(), worker.turn()], [poll, poll]);
    assert_eq!(next_offset(&worker, 0), 4);
    extend_lease(&worker.shared, worker.clock.now() + Duration::from_nanos(1));
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!(next_offset(&worker, 0), 5);
}

#[test]
fn without_a_lease_nothing_is_read_or_written() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.shared.lease.revoke();
    assert_eq!(worker.turn(), worker.shared.timings.lease_poll_interval);
    assert_eq!(worker.writer.store.position_reads, 0);
}

#[test]
fn records_that_kafka_removed_become_a_gap_with_the_new_position() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.turn();
    worker.topic.log.partitions[0] = (7, 9);
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!((next_offset(&worker, 0), &worker.writer.store.gaps[..]), (7, &[(3, Some(7))][..]));
    worker.turn();
    assert_eq!(next_offset(&worker, 0), 9);
    assert_eq!(worker.writer.store.position_reads, 2);
}

/// A new leader refuses the epoch of the old leader. The new session finds that the epoch of the
/// last record ends before the position, although the log ends after it.
#[test]
fn a_log_that_lost_its_tail_is_read_from_the_end_of_the_stored_epoch() {
    let (mut worker, _stopper) = worker(&[(0, 9)]);
    worker.turn();
    let log = &mut worker.topic.log;
    (log.leader_epoch, log.epoch_ends) = (2, HashMap::from([(0, 6)]));
    log.partitions[0] = (0, 12);
    assert!(worker.turn() > Duration::ZERO);
    assert!(worker.writer.store.gaps.is_empty());
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!((next_offset(&worker, 0), &worker.writer.store.gaps[..]), (12, &[(9, Some(6))][..]));
    assert_eq!(worker.writer.store.positions[&0].leader_epoch, Some(2));
    assert_eq!(worker.shared.metrics.records_quarantined.get(), 9 + 6);
}

/// The leader does not know the stored epoch, so the position does not change.
#[test]
fn an_epoch_that_the_leader_does_not_know_moves_nothing() {
    let (mut worker, _stopper) = worker(&[(0, 9)]);
    worker.turn();
    worker.topic.log.leader_epoch = 2;
    worker.topic.log.partitions[0] = (0, 12);
    worker.turn();
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!((next_offset(&worker, 0), &worker.writer.store.gaps[..]), (12, &[][..]));
}

/// A broker may refuse an offset that is in its log according to its own answer. It is asked again
/// after a delay, and never in a loop.
#[test]
fn an_offset_in_the_log_that_is_refused_is_retried_after_a_growing_delay() {
    let (mut worker, _stopper) = worker(&[(0, 9)]);
    worker.topic.log.refuses_offsets = true;
    let delays: Vec<Duration> = (0..20).map(|_| worker.turn()).collect();
    assert!(delays.iter().all(|delay| !delay.is_zero()), "{delays:?}");
    assert!(delays[19] > delays[0] * 4, "{delays:?}");
    assert!(worker.writer.store.gaps.is_empty());
    worker.topic.log.refuses_offsets = false;
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!(next_offset(&worker, 0), 9);
}

#[test]
fn a_new_partition_is_read_after_the_refresh_interval() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.turn();
    worker.topic.log.partitions.push((0, 2));
    let interval = worker.shared.timings.topic_refresh_interval;
    worker.clock.advance(interval - Duration::from_nanos(1));
    worker.turn();
    assert_eq!(worker.writer.store.positions.len(), 1);
    worker.clock.advance(Duration::from_nanos(1));
    worker.turn();
    assert_eq!(next_offset(&worker, 1), 2);
}

/// A panic ends one turn. The connections and all remembered state are dropped.
#[test]
fn a_panic_is_an_error_of_the_turn() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.turn();
    worker.topic.log.partitions[0].1 = 5;
    worker.topic.log.panics = 2;
    assert!(worker.turn() > Duration::ZERO && worker.turn() > Duration::ZERO);
    assert_eq!((next_offset(&worker, 0), worker.shared.metrics.panics.get()), (3, 2));
    assert_eq!(worker.topic.log.disconnects, 2);
    assert_eq!(worker.turn(), Duration::ZERO);
    assert_eq!((next_offset(&worker, 0), worker.writer.store.steps_made.get()), (5, 2));
    assert_eq!(worker.writer.store.gaps, []);
}

#[test]
fn a_record_on_which_the_decoder_panics_is_a_gap_after_five_fetches_in_a_minute() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.turn();
    worker.topic.log.partitions[0].1 = 5;
    worker.topic.log.unreadable = Some(3);
    for _ in 0..4 {
        assert!(worker.turn() > Duration::ZERO);
        worker.clock.advance(Duration::from_secs(20));
    }
    assert_eq!((next_offset(&worker, 0), &worker.writer.store.gaps[..]), (3, &[][..]));
    worker.turn();
    assert_eq!((next_offset(&worker, 0), &worker.writer.store.gaps[..]), (4, &[(3, Some(4))][..]));
    assert_eq!(worker.shared.metrics.panics.get(), 5);
    worker.turn();
    assert_eq!(next_offset(&worker, 0), 5);
}

/// An outage of Kafka does not load the database.
#[test]
fn the_schema_is_checked_at_the_start_and_once_kafka_answers() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.topic.log.is_down = true;
    for _ in 0..3 {
        assert!(worker.turn() > Duration::ZERO);
    }
    assert_eq!((worker.writer.store.schema_checks, worker.writer.store.position_reads), (0, 0));
    worker.topic.log.is_down = false;
    assert_eq!(worker.turn(), Duration::ZERO);
    // An error that the schema does not cause.
    worker.topic.log.partitions[0].1 = 5;
    worker.writer.store.next_error = Some(TransactionError::MergeTargetMissing);
    worker.turn();
    worker.turn();
    assert_eq!((next_offset(&worker, 0), worker.writer.store.schema_checks), (5, 1));
}

#[test]
fn a_schema_that_is_not_complete_is_checked_again_from_time_to_time() {
    let (mut worker, _stopper) = worker(&[(0, 3)]);
    worker.writer.store.incomplete_checks = 1;
    worker.turn();
    worker.turn();
    assert_eq!(worker.writer.store.schema_checks, 1);
    let interval = worker.shared.timings.schema_check_interval;
    for _ in 0..2 {
        worker.clock.advance(interval);
        worker.turn();
        assert_eq!(worker.writer.store.schema_checks, 2);
    }
}
