//! The worker of one domain: fetches, decodes, writes one transaction for each batch, publishes
//! group offsets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::panics;
use common::stop::Stop;
use kafka_client::{BatchFailure, FetchLimits, KafkaClient, KafkaError, TopicMetadata};

use super::error::SessionError;
use super::fetch::{PartitionReader, fetch, fetch_positions, prefetch_positions};
use super::resume::{LogRange, resume_after_batch, resume_after_gap};
use super::retry::RetryState;
use super::services::{Clock, KnownLabels, RecordLog, RecordStore, SystemClock};
use super::session::Session;
use super::shared::SharedState;
use super::store::PostgresStore;
use super::topic::DomainTopic;
use super::turns::DomainTurn;
use super::unreadable::UnreadableBatches;
use super::writer::DomainWriter;
use crate::decode::batch::FetchedBatches;
use crate::decode::labels::Labels;
use crate::lease::progress::WorkerProgress;
use crate::postgres::error::TransactionError;
use crate::schema::TargetIndex;

/// The stack size of a worker and of its prefetch thread. It is small, because a thousand workers
/// must fit into memory.
pub(crate) const STACK_BYTES: usize = 512 * 1024;

/// The worker of one domain.
#[derive(Debug)]
pub(crate) struct DomainWorker<L, S: RecordStore, C> {
    domain: Domain,
    shared: Arc<SharedState>,
    stop: Stop,
    topic: DomainTopic<L>,
    clock: C,
    writer: DomainWriter<S>,
    retry: RetryState,
    progress: Arc<WorkerProgress>,
    /// The start of the current attempt. The time of transactions does not count.
    attempt_began: Instant,
    unreadable: UnreadableBatches,
    /// Whether the table of 1.1.0 was counted since the start.
    is_table_counted: bool,
    /// Whether the index of smart mode exists, or will not be tried again.
    is_index_settled: bool,
    /// The labels from the last check of the schema.
    labels: Option<Labels>,
    /// The time of the next check of an incomplete schema.
    schema_check_at: Option<Instant>,
    session: Option<Session<S::Steps>>,
    turn: DomainTurn,
}

impl DomainWorker<KafkaClient, PostgresStore, SystemClock> {
    /// Creates a worker for this domain and the topic of this name. Opens no connection yet.
    pub(crate) fn new(domain: Domain, topic: String, shared: Arc<SharedState>, stop: Stop) -> Self {
        let log = KafkaClient::new(Arc::clone(&shared.kafka));
        let store = PostgresStore::new(domain.clone(), Arc::clone(&shared), stop.clone());
        Self::over(log, store, SystemClock, domain, topic, shared, stop)
    }
}

impl<L: RecordLog, S: RecordStore, C: Clock> DomainWorker<L, S, C> {
    /// Creates a worker that uses these services.
    fn over(
        log: L,
        store: S,
        clock: C,
        domain: Domain,
        topic: String,
        shared: Arc<SharedState>,
        stop: Stop,
    ) -> Self {
        let prefix = shared.topic_prefix.clone();
        Self {
            writer: DomainWriter::new(store, domain.clone(), topic.clone(), Arc::clone(&shared)),
            topic: DomainTopic::new(log, topic, domain.clone(), prefix),
            attempt_began: clock.now(),
            clock,
            progress: Arc::default(),
            retry: RetryState::new(domain.clone(), Arc::clone(&shared)),
            unreadable: UnreadableBatches::new(shared.timings.unreadable_batch_after),
            is_table_counted: false,
            is_index_settled: !shared.smart,
            labels: None,
            schema_check_at: None,
            session: None,
            turn: DomainTurn::new(Arc::clone(&shared.turns)),
            domain,
            shared,
            stop,
        }
    }

    /// The progress that this worker reports.
    pub(crate) fn progress(&self) -> Arc<WorkerProgress> {
        Arc::clone(&self.progress)
    }

    /// Records until a stop is requested. Retries after every failure.
    pub(crate) fn run(mut self) {
        while !self.stop.is_requested() {
            let delay = self.turn();
            if !delay.is_zero() {
                self.stop.wait(delay);
            }
        }
        self.shared.group_offset.release(&self.topic.name);
        self.writer.flush_logs();
    }

    /// Takes one turn if the lease is valid: opens a session if there is none, fetches once and
    /// writes the fetched records. Returns the delay before the next turn.
    pub(crate) fn turn(&mut self) -> Duration {
        if !self.writer.has_lease() {
            // The position is moved by the lease holder, which is not this recorder now.
            if self.session.take().is_some() {
                self.shared.group_offset.release(&self.topic.name);
            }
            if self.turn.leave() {
                self.topic.log.disconnect();
            }
            return self.shared.timings.lease_poll_interval;
        }
        if !self.turn.may_connect(self.clock.now()) {
            return self.shared.timings.turn_poll_interval;
        }
        self.attempt_began = self.clock.now();
        // An error drops the session.
        match panics::catch(|| self.record()).unwrap_or_else(|panic| Err(panic.into())) {
            Ok(session) => {
                if session.is_complete {
                    self.progress.record_write();
                }
                self.session = Some(session);
                self.turn.yield_if_due(self.clock.now(), || self.topic.log.disconnect());
                Duration::ZERO
            }
            Err(
                SessionError::LeaseExpired | SessionError::Transaction(TransactionError::Stopped),
            ) => Duration::ZERO,
            Err(SessionError::Kafka(error @ KafkaError::TooManyConnections { .. })) => {
                self.topic.log.disconnect();
                self.turn.record_refusal(&error, self.clock.now());
                Duration::ZERO
            }
            Err(failure) => {
                if matches!(failure, SessionError::Transaction(TransactionError::Fenced)) {
                    // Continues after the lease is confirmed later than this time.
                    self.writer.fenced_at = Some(self.clock.now());
                    self.is_table_counted = false;
                }
                if matches!(failure, SessionError::Panicked(_)) {
                    self.shared.metrics.panics.add(1);
                    // A response to an earlier request may still arrive on the connection.
                    self.topic.log.disconnect();
                }
                self.turn.yield_if_due(self.clock.now(), || self.topic.log.disconnect());
                if failure.is_of_schema() {
                    self.labels = None;
                }
                self.record_failure(&failure)
            }
        }
    }

    /// Records a failure, and returns the delay before the next attempt.
    fn record_failure(&mut self, failure: &SessionError) -> Duration {
        self.progress.record_failure(failure.worker_failure(), self.attempt_began);
        self.retry.record_failure(failure)
    }

    fn record(&mut self) -> Result<Session<S::Steps>, SessionError> {
        if self.schema_check_at.is_some_and(|at| self.clock.now() >= at) {
            self.labels = None;
            self.session = None;
        }
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.open_session()?,
        };
        if self.clock.now() >= session.refresh_at {
            let topic = self.find_topic()?;
            self.add_partitions(&mut session, &topic)?;
        }
        self.fetch_and_write(&mut session)?;
        if session.is_complete {
            self.retry.recovered();
        } else {
            self.retry.postgres_recovered();
        }
        self.writer.flush_logs_if_due(self.clock.now());
        Ok(session)
    }

    /// Reads all positions from the database, because no other copy is valid after an error. Asks
    /// Kafka first, so that an outage of Kafka does not load the database.
    fn open_session(&mut self) -> Result<Session<S::Steps>, SessionError> {
        let topic = self.find_topic()?;
        let labels = self.ensure_schema()?;
        if !self.is_index_settled {
            self.ensure_target_index()?;
        }
        self.attempt_began = self.clock.now();
        let mut session = Session::new(labels, self.clock.now());
        self.add_partitions(&mut session, &topic)?;
        Ok(session)
    }

    /// Creates missing parts of the schema: at the start, after an error that the schema may have
    /// caused, and from time to time while a part is missing.
    fn ensure_schema(&mut self) -> Result<Labels, SessionError> {
        if let Some(labels) = &self.labels {
            return Ok(labels.clone());
        }
        let KnownLabels { labels, is_schema_complete } = self.writer.store.ensure_schema()?;
        let check_at = self.clock.now() + self.shared.timings.schema_check_interval;
        self.schema_check_at = (!is_schema_complete).then_some(check_at);
        self.labels = Some(labels.clone());
        Ok(labels)
    }

    fn find_topic(&mut self) -> Result<TopicMetadata, SessionError> {
        self.topic.find(!self.retry.is_missing_topic_logged())
    }

    /// Starts to read the partitions that are not read yet.
    fn add_partitions(
        &mut self,
        session: &mut Session<S::Steps>,
        topic: &TopicMetadata,
    ) -> Result<(), SessionError> {
        let mut first_failure = None;
        let mut failed_leaders = Vec::new();
        for metadata in &topic.partitions {
            // After a leader failed, its other partitions are skipped: each would wait for a
            // time-out.
            if session.reads(metadata.index) || failed_leaders.contains(&metadata.leader) {
                continue;
            }
            self.writer.check_lease()?;
            self.attempt_began = self.clock.now();
            let (store, is_table_counted) = (&mut self.writer.store, self.is_table_counted);
            match self.topic.resume_partition(store, metadata.index, topic, is_table_counted) {
                Ok(reader) => session.add(reader),
                Err(failure) if failure.is_of_partition() => {
                    failed_leaders.push(metadata.leader);
                    first_failure.get_or_insert(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        session.is_complete = true;
        session.refresh_at = self.clock.now() + self.shared.timings.topic_refresh_interval;
        if let Some(failure) = first_failure {
            self.set_aside(session, failure)?;
        }
        self.is_table_counted = true;
        Ok(())
    }

    /// Continues without the failed partition, which is retried after a delay. Fails if no
    /// partition is left.
    fn set_aside(
        &mut self,
        session: &mut Session<S::Steps>,
        failure: SessionError,
    ) -> Result<(), SessionError> {
        if session.readers.is_empty() {
            return Err(failure);
        }
        session.is_complete = false;
        session.prefetched = None;
        session.refresh_at = self.clock.now() + self.record_failure(&failure);
        Ok(())
    }

    /// Creates the index of smart mode. Smart mode works without the index. A failure to create the
    /// index is logged once for all domains.
    fn ensure_target_index(&mut self) -> Result<(), SessionError> {
        let index = self.writer.store.ensure_target_index()?;
        self.is_index_settled = index != TargetIndex::LockBusy;
        if let TargetIndex::Refused(reason) = index
            && !self.shared.index_warned.swap(true, Ordering::Relaxed)
        {
            log::warn!(
                "{}: smart mode continues without an index and gets slower as the table grows: \
                 {reason} (`recorder schema --smart` prints it for all domains)",
                self.domain
            );
        }
        Ok(())
    }

    /// Fetches once and writes the fetched records. While there is a backlog, another thread
    /// fetches and decodes the next records meanwhile, because a transaction mostly waits for the
    /// database.
    fn fetch_and_write(&mut self, session: &mut Session<S::Steps>) -> Result<(), SessionError> {
        let fetch_limits = self.fetch_limits(session.readers.len());
        let is_complete = session.is_complete;
        let Session { labels, readers, prefetched, steps, .. } = session;
        let fetched = match prefetched.take() {
            Some(fetched) => fetched,
            None => {
                let positions = fetch_positions(readers);
                fetch(&mut self.topic.log, &positions, &fetch_limits, labels)
            }
        };
        if is_complete && fetched.iter().all(is_answered) {
            self.progress.record_fetch();
        }
        self.writer.check_lease()?;
        let (log, writer) = (&mut self.topic.log, &mut self.writer);
        let prefetch = prefetch_positions(readers, &fetched).and_then(|positions| {
            let permit = self.shared.prefetch_permits.try_acquire()?;
            Some((positions, permit))
        });
        let results = match &prefetch {
            None => writer.write_all(steps, labels, readers, fetched),
            Some((positions, _)) => thread::scope(|scope| {
                let fetch = || fetch(log, positions, &fetch_limits, labels);
                let prefetcher = thread::Builder::new().stack_size(STACK_BYTES);
                // If no thread can be started, the records are fetched in the next turn.
                let prefetcher = prefetcher.spawn_scoped(scope, fetch).ok();
                let results = writer.write_all(steps, labels, readers, fetched);
                *prefetched = prefetcher.and_then(|prefetcher| prefetcher.join().ok());
                results
            }),
        };
        drop(prefetch);
        let mut first_failure = None;
        let (mut set_aside, mut partition_failure) = (Vec::new(), None);
        for (reader, result) in readers.iter_mut().zip(results) {
            // All partitions were fetched. A failed partition does not stop the others.
            match result.or_else(|failure| self.skip_unreadable(reader, failure)) {
                Ok(()) => {}
                Err(failure) if failure.is_of_partition() => {
                    set_aside.push(reader.partition.number);
                    partition_failure.get_or_insert(failure);
                }
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                }
            }
        }
        publish_group_offsets(&self.shared, readers);
        readers.retain(|reader| !set_aside.contains(&reader.partition.number));
        match (first_failure, partition_failure) {
            (Some(failure), _) => Err(failure),
            (None, Some(failure)) => self.set_aside(session, failure),
            (None, None) => Ok(()),
        }
    }

    /// Skips unreadable records if they are the cause of the failure. Otherwise returns the
    /// failure.
    fn skip_unreadable(
        &mut self,
        reader: &mut PartitionReader,
        failure: SessionError,
    ) -> Result<(), SessionError> {
        if matches!(
            failure,
            SessionError::Kafka(KafkaError::Batch { failure: BatchFailure::Panicked, .. })
        ) {
            self.shared.metrics.panics.add(1);
        }
        let point = match &failure {
            // An offset above the end of the log needs a new session, which uses the leader epoch
            // to find the position. An offset within the log contradicts the broker's own answer.
            // Both are retried after a delay.
            SessionError::Kafka(KafkaError::OffsetOutOfRange {
                log_start,
                log_end,
                offset,
                ..
            }) if offset < log_start => {
                let range = LogRange { start: *log_start, end: *log_end };
                resume_after_gap(reader.position, range, None)
            }
            SessionError::Kafka(KafkaError::Batch {
                base_offset,
                next_offset: Some(next),
                failure,
                ..
            }) if self.unreadable.record_failure(
                reader.partition.number,
                *base_offset,
                failure,
                self.clock.now(),
            ) =>
            {
                resume_after_batch(reader.position, *next, failure)
            }
            _ => return Err(failure),
        };
        self.topic.skip(&mut self.writer.store, reader, &point)
    }

    fn fetch_limits(&self, partitions: usize) -> FetchLimits {
        let bytes = self.shared.fetch_bytes.load(Ordering::Relaxed);
        FetchLimits {
            max_wait_ms: self.turn.bound_wait_ms(self.shared.fetch_wait_ms.load(Ordering::Relaxed)),
            min_bytes: 1,
            max_bytes: bytes / u32::try_from(partitions).unwrap_or(1).max(1),
        }
    }
}

/// Publishes the group offsets that have changed.
fn publish_group_offsets(shared: &SharedState, readers: &mut [PartitionReader]) {
    for PartitionReader { partition, position, published, .. } in readers {
        let next_offset = position.next_offset;
        if published.replace(next_offset) != Some(next_offset) {
            shared.group_offset.publish(partition, next_offset);
        }
    }
}

/// Whether the leader of the partition answered the fetch.
fn is_answered(result: &Result<FetchedBatches, KafkaError>) -> bool {
    !result.as_ref().is_err_and(KafkaError::is_connection_error)
}

#[cfg(test)]
mod tests;
