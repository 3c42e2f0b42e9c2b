//! The thread of one domain: fetch, decode, one transaction, group offset.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::kafka::{
    Client, Error as KafkaError, FetchLimits, FetchPosition, Fetched, FetchedRecord,
};
use common::stop::Stop;

use crate::counts::Counts;
use crate::database::WorkError;
use crate::failure::Failure;
use crate::marks::{Marks, Sayings};
use crate::offsets::Partition;
use crate::position::{self, LogRange, Position};
use crate::rows::Labels;
use crate::schema;
use crate::shared::Shared;
use crate::smart::Memory;
use crate::sql::TableSql;
use crate::unreadable::Doubts;
use crate::write::Writer;

mod session;
mod trouble;

pub use trouble::HINT;

use session::{Reading, Session, TOPIC_LOOK_EVERY};
use trouble::Trouble;

/// How long a fetch waits at the broker for a record. It is also how long a
/// stop may have to wait for it.
const FETCH_WAIT_MS: u32 = 3_000;
/// The most records that are written in one transaction.
pub const BATCH_RECORDS_MAX: usize = 2_000;
/// The most bytes of their values, unless a single one has more.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
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
    table: TableSql,
    memory: Option<Memory>,
    marks: Marks,
    doubts: Doubts,
    sayings: Sayings,
    counts: Counts,
    /// Whether the table of 1.1.0 was counted since the start.
    counted: bool,
    /// When another recorder was seen at work on the domain.
    doubted: Option<Instant>,
    trouble: Trouble,
}

impl DomainThread {
    /// For this domain, whose topic has this name. Connects to nothing yet.
    pub fn new(domain: Domain, topic: String, shared: Arc<Shared>, stop: Stop) -> Self {
        let trouble = Trouble::new(domain.clone(), Arc::clone(&shared));
        Self {
            client: Client::new(Arc::clone(&shared.kafka)),
            table: TableSql::new(&domain),
            memory: shared.smart.then(Memory::default),
            domain,
            topic,
            shared,
            stop,
            marks: Marks::default(),
            doubts: Doubts::default(),
            sayings: Sayings::default(),
            counts: Counts::default(),
            counted: false,
            doubted: None,
            trouble,
        }
    }

    /// Records until a stop is asked for, whatever fails in between, and only
    /// while its lease is sure to hold.
    pub fn run(mut self) -> Counts {
        while !self.stop.requested() {
            if !self.shared.lease.holds(self.doubted) {
                self.stop.wait(LEASE_LOOK_EVERY);
                continue;
            }
            match self.record() {
                Ok(()) | Err(Failure::Work(WorkError::Stopped)) => {}
                Err(Failure::LeaseOver) => self.forget(),
                Err(failure) => {
                    if matches!(failure, Failure::Work(WorkError::Fenced)) {
                        // Goes on when a look from now on says that the lease is ours.
                        self.doubted = Some(Instant::now());
                        self.forget();
                    }
                    let delay = self.trouble.failed(&failure);
                    self.stop.wait(delay);
                }
            }
        }
        self.sayings.say(&self.topic, true);
        self.counts
    }

    /// What another recorder may have changed is not known any more.
    fn forget(&mut self) {
        self.memory = self.shared.smart.then(Memory::default);
        self.counted = false;
    }

    /// Nothing is written after the lease: it would be fenced, but only after
    /// it was in another recorder's way.
    fn check_lease(&self) -> Result<(), Failure> {
        if self.shared.lease.holds(self.doubted) { Ok(()) } else { Err(Failure::LeaseOver) }
    }

    /// From nothing known to the first failure. A position is read from the
    /// database at each start, as after a failure nobody else knows it.
    fn record(&mut self) -> Result<(), Failure> {
        self.marks.forget();
        let labels = schema::ensure(&self.shared.database, &self.stop, &self.domain)?;
        let topic = self.find_topic()?;
        let mut session = Session { labels, readings: Vec::new(), looked: Instant::now() };
        self.add_partitions(&mut session, &topic)?;
        while !self.stop.requested() {
            if session.looked.elapsed() >= TOPIC_LOOK_EVERY {
                let topic = self.find_topic()?;
                self.add_partitions(&mut session, &topic)?;
            }
            self.fetch_and_write(&mut session)?;
            self.trouble.over();
            self.sayings.say(&self.topic, false);
            self.check_lease()?;
        }
        Ok(())
    }

    fn fetch_and_write(&mut self, session: &mut Session) -> Result<(), Failure> {
        let wanted: Vec<_> = session
            .readings
            .iter()
            .map(|Reading { partition, position, .. }| FetchPosition {
                topic: &partition.topic,
                topic_id: position.topic_id,
                partition: partition.number,
                offset: position.next_offset,
            })
            .collect();
        let bytes = self.shared.fetch_bytes.load(Ordering::Relaxed);
        let limits = FetchLimits {
            max_wait_ms: FETCH_WAIT_MS,
            min_bytes: 1,
            max_bytes: bytes / u32::try_from(wanted.len()).unwrap_or(1).max(1),
        };
        let fetched = self.client.fetch_partitions(&wanted, &limits);
        self.check_lease()?;
        let mut first_failure = None;
        for (reading, fetched) in session.readings.iter_mut().zip(fetched) {
            let Reading { partition, position, committed } = reading;
            let result = match fetched {
                Ok(fetched) => self.write(&session.labels, partition, position, &fetched),
                Err(KafkaError::OffsetOutOfRange { log_start, log_end, .. }) => {
                    let log = LogRange { start: log_start, end: log_end };
                    self.pass(partition, position, position::after_hole(*position, log))
                }
                Err(KafkaError::Batch {
                    base_offset,
                    next_offset: Some(next),
                    ref failure,
                    ..
                }) if self.doubts.is_over(
                    partition.number,
                    base_offset,
                    failure,
                    Instant::now(),
                ) =>
                {
                    let behind = position::after_batch(*position, next, failure);
                    self.pass(partition, position, behind)
                }
                Err(error) => Err(error.into()),
            };
            if let Err(failure) = result {
                // The other partitions were read as well; they go first.
                first_failure.get_or_insert(failure);
                continue;
            }
            let next_offset = position.next_offset;
            if *committed != Some(next_offset)
                && self.shared.group.commit(&mut self.client, partition, next_offset)
            {
                *committed = Some(next_offset);
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    fn write(
        &mut self,
        labels: &Labels,
        partition: &Partition,
        position: &mut Position,
        fetched: &Fetched,
    ) -> Result<(), Failure> {
        let mut rest = fetched.records.as_slice();
        while position.next_offset != fetched.next_offset {
            let (records, tail) = rest.split_at(batch_len(rest));
            rest = tail;
            // The last batch also passes what is in the log for others to read.
            let next_offset = match records.last() {
                Some(last) if !rest.is_empty() => last.offset + 1,
                _ => fetched.next_offset,
            };
            let to = Position { next_offset, ..*position };
            self.check_lease()?;
            let mut writer = Writer {
                database: &self.shared.database,
                stop: &self.stop,
                table: &self.table,
                labels,
                memory: self.memory.as_mut(),
                marks: &mut self.marks,
            };
            let written = writer.write(partition, *position, to, records)?;
            self.counts.add(written);
            self.sayings.add(written.irregular);
            *position = to;
        }
        if position.next_offset == fetched.high_watermark {
            // Nothing waits to be recorded, so that a run that is silent is over.
            self.marks.remove_old(&self.shared.database, &self.stop, partition)?;
        }
        Ok(())
    }
}

/// How many of these records one transaction takes: at least one.
fn batch_len(records: &[FetchedRecord]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&FetchedRecord| {
        bytes += record.value.as_ref().map_or(0, |value| value.len());
        bytes <= BATCH_BYTES_MAX
    };
    let count = records.iter().take(BATCH_RECORDS_MAX).take_while(fits).count();
    count.max(1).min(records.len())
}
