//! The thread of one domain: fetch, decode, one transaction, group offset.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::stop::Stop;
use kafka_client::{Client, Error as KafkaError, FetchLimits};

use crate::decode::batch::Most;
use crate::domain::failure::Failure;
use crate::domain::resume::{self as position, LogRange};
use crate::domain::unreadable::Doubts;
use crate::postgres::pool::WorkError;
use crate::report::counts::Counts;
use crate::schema::{self, TargetIndex};
use crate::shared::Shared;

pub(crate) mod failure;
mod fetch;
pub(crate) mod group_offset;
pub(crate) mod prefetch;
pub mod resume;
mod retry;
mod session;
mod unreadable;
mod writer;

pub(crate) use retry::HINT;

use fetch::{Reading, next_wanted, read, wanted};
use retry::Trouble;
use session::{Session, is_of_partition};
use writer::Writing;

/// How often the group's offset is committed while there is a backlog; without
/// one it is after each fetch.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// The stack of a domain's thread, and of one that reads ahead for it: a thousand
/// of them must fit.
pub const STACK_BYTES: usize = 512 * 1024;
/// How often a thread that waits for its lease looks for it.
const LEASE_LOOK_EVERY: Duration = Duration::from_millis(200);

/// One domain's thread.
#[derive(Debug)]
pub struct DomainThread {
    domain: Domain,
    topic: String,
    shared: Arc<Shared>,
    stop: Stop,
    client: Client,
    writing: Writing,
    doubts: Doubts,
    /// Whether the table of 1.1.0 was counted since the start.
    counted: bool,
    /// Whether there is nothing to do for the index of smart mode any more.
    indexed: bool,
    trouble: Trouble,
}

impl DomainThread {
    /// For this domain, whose topic has this name. Connects to nothing yet.
    pub fn new(domain: Domain, topic: String, shared: Arc<Shared>, stop: Stop) -> Self {
        let is_smart = shared.smart;
        let trouble = Trouble::new(domain.clone(), Arc::clone(&shared));
        Self {
            client: Client::new(Arc::clone(&shared.kafka)),
            writing: Writing::new(&domain, Arc::clone(&shared), stop.clone()),
            domain,
            topic,
            shared,
            stop,
            doubts: Doubts::default(),
            counted: false,
            indexed: !is_smart,
            trouble,
        }
    }

    /// Records until a stop is asked for, whatever fails in between, and only
    /// while its lease is sure to hold.
    pub fn run(mut self) -> Counts {
        while !self.stop.requested() {
            if !self.shared.lease.holds(self.writing.doubted) {
                self.stop.wait(LEASE_LOOK_EVERY);
                continue;
            }
            match self.record() {
                Ok(()) | Err(Failure::Work(WorkError::Stopped)) => {}
                // Whoever had the lease meanwhile counted by itself, and moved the
                // position that is read anew.
                Err(Failure::LeaseOver) => self.writing.forget(),
                Err(failure) => {
                    if matches!(failure, Failure::Work(WorkError::Fenced)) {
                        // Goes on when a look from now on says that the lease is ours.
                        self.writing.doubted = Some(Instant::now());
                        self.writing.forget();
                        self.counted = false;
                    }
                    let delay = self.trouble.failed(&failure);
                    self.stop.wait(delay);
                }
            }
        }
        self.writing.sayings.say(&self.topic, true);
        self.writing.counts
    }

    /// From nothing known to the first failure. A position is read from the
    /// database at each start, as after a failure nobody else knows it.
    fn record(&mut self) -> Result<(), Failure> {
        self.writing.marks.forget();
        let labels = schema::ensure(&self.shared.database, &self.stop, &self.domain)?;
        if !self.indexed {
            self.make_index()?;
        }
        let topic = self.find_topic()?;
        let mut session = Session::new(labels);
        self.add_partitions(&mut session, &topic)?;
        while !self.stop.requested() {
            if Instant::now() >= session.look_at {
                let topic = self.find_topic()?;
                self.add_partitions(&mut session, &topic)?;
            }
            self.fetch_and_write(&mut session)?;
            if session.is_whole {
                self.trouble.over();
            } else {
                self.trouble.database_over();
            }
            self.writing.sayings.say(&self.topic, false);
            self.writing.check_lease()?;
        }
        Ok(())
    }

    /// The index of smart mode, which it can do without; said once for all domains.
    fn make_index(&mut self) -> Result<(), Failure> {
        let (database, domain) = (&self.shared.database, &self.domain);
        let index = schema::ensure_target_index(database, &self.stop, domain)?;
        self.indexed = index != TargetIndex::NotNow;
        if let TargetIndex::Refused(reason) = index
            && !self.shared.index_said.swap(true, Ordering::Relaxed)
        {
            log::warn!(
                "{domain}: smart mode goes on without an index, slower the larger the table: \
                 {reason} (`recorder schema --smart` prints it for all domains)"
            );
        }
        Ok(())
    }

    /// One fetch and what follows. While there is a backlog, another thread reads
    /// what comes next, and makes it ready, as this one writes: a transaction is
    /// mostly waiting for the database.
    fn fetch_and_write(&mut self, session: &mut Session) -> Result<(), Failure> {
        let most = if self.shared.smart { &Most::SMART } else { &Most::NORMAL };
        let limits = self.limits(session.readings.len());
        let Session { labels, readings, ahead, committed, .. } = session;
        let found = match ahead.take() {
            Some(found) => found,
            None => read(&mut self.client, &wanted(readings), &limits, labels, most),
        };
        self.writing.check_lease()?;
        let (client, writing) = (&mut self.client, &mut self.writing);
        let permit = next_wanted(readings, &found).and_then(|next| {
            let permit = self.shared.ahead.take()?;
            Some((next, permit))
        });
        let results = match &permit {
            None => writing.write_all(labels, readings, found),
            Some((next, _)) => thread::scope(|scope| {
                let read = || read(client, next, &limits, labels, most);
                let reader = thread::Builder::new().stack_size(STACK_BYTES);
                // Without a thread to be had it is read when its turn comes.
                let reader = reader.spawn_scoped(scope, read).ok();
                let results = writing.write_all(labels, readings, found);
                *ahead = reader.and_then(|reader| reader.join().ok());
                results
            }),
        };
        drop(permit);
        let mut first_failure = None;
        let (mut aside, mut of_partition) = (Vec::new(), None);
        for (reading, result) in readings.iter_mut().zip(results) {
            let Reading { partition, position, .. } = reading;
            let result = match result {
                Err(Failure::Kafka(KafkaError::OffsetOutOfRange {
                    log_start, log_end, ..
                })) => {
                    let log = LogRange { start: log_start, end: log_end };
                    self.pass(partition, position, position::after_hole(*position, log))
                }
                Err(Failure::Kafka(KafkaError::Batch {
                    base_offset,
                    next_offset: Some(next),
                    ref failure,
                    ..
                })) if self.doubts.is_over(
                    partition.number,
                    base_offset,
                    failure,
                    Instant::now(),
                ) =>
                {
                    let behind = position::after_batch(*position, next, failure);
                    self.pass(partition, position, behind)
                }
                result => result,
            };
            // The other partitions were read as well; they go first.
            match result {
                Ok(()) => {}
                Err(failure) if is_of_partition(&failure) => {
                    aside.push(partition.number);
                    of_partition.get_or_insert(failure);
                }
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                }
            }
        }
        if ahead.is_none() || committed.elapsed() >= COMMIT_EVERY {
            *committed = Instant::now();
            self.commit(readings);
        }
        readings.retain(|reading| !aside.contains(&reading.partition.number));
        match (first_failure, of_partition) {
            (Some(failure), _) => Err(failure),
            (None, Some(failure)) => self.set_aside(session, failure),
            (None, None) => Ok(()),
        }
    }

    fn limits(&self, partitions: usize) -> FetchLimits {
        let bytes = self.shared.fetch_bytes.load(Ordering::Relaxed);
        FetchLimits {
            max_wait_ms: self.shared.fetch_wait_ms.load(Ordering::Relaxed),
            min_bytes: 1,
            max_bytes: bytes / u32::try_from(partitions).unwrap_or(1).max(1),
        }
    }

    /// Commits the group's offsets that have moved.
    fn commit(&mut self, readings: &mut [Reading]) {
        for Reading { partition, position, committed } in readings {
            let next_offset = position.next_offset;
            if *committed != Some(next_offset)
                && self.shared.group.commit(&mut self.client, partition, next_offset)
            {
                *committed = Some(next_offset);
            }
        }
    }
}
