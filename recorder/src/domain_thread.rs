//! The thread of one domain: fetch, decode, one transaction, group offset.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::backoff::{Backoff, Outage};
use common::domain::{Domain, TOPIC_PREFIX, TOPIC_PREFIX_OF_1_1_0, other_prefix};
use common::kafka::{
    Client, Error as KafkaError, FetchLimits, FetchPosition, Fetched, FetchedRecord, LogEnd,
    TopicMetadata,
};
use common::stop::Stop;

use crate::counts::Counts;
use crate::database::WorkError;
use crate::failure::Failure;
use crate::marks::{Marks, Sayings};
use crate::offsets::{Partition, count_table, read_position, store_start};
use crate::outage::GRACE;
use crate::position::{self, LogRange, Position};
use crate::rows::Labels;
use crate::schema;
use crate::shared::Shared;
use crate::smart::Memory;
use crate::sql::TableSql;
use crate::write::Writer;

/// How long a fetch waits at the broker for a record. It is also how long a
/// stop may have to wait for it.
const FETCH_WAIT_MS: u32 = 3_000;
/// The most records, and bytes of values unless a single one has more, that
/// are written in one transaction.
const BATCH_RECORDS_MAX: usize = 2_000;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a topic is looked at for partitions that were added.
const TOPIC_LOOK_EVERY: Duration = Duration::from_secs(30);
/// The first and the longest wait between two tries.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// How often a thread that waits for its lease looks for it.
const LEASE_LOOK_EVERY: Duration = Duration::from_millis(200);

/// For whoever lacks a right to complete the schema.
pub const HINT: &str = " (`recorder schema` prints what must be there)";

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
    sayings: Sayings,
    counts: Counts,
    /// Whether the table of 1.1.0 was counted since the start.
    counted: bool,
    /// When another recorder was seen at work on the domain.
    doubted: Option<Instant>,
    missing: Missing,
    trouble: Trouble,
}

/// A topic that is not there yet, and what was said of it.
#[derive(Debug, Default)]
struct Missing {
    said: bool,
}

/// What goes wrong for this domain alone or for all, and for how long.
#[derive(Debug)]
struct Trouble {
    own: Outage,
    /// Never over: two recorders take turns, each well for a moment.
    fenced: Outage,
    backoff: Backoff,
    kafka: bool,
    postgres: bool,
}

/// The topic as it is now, and where each of its partitions is read.
struct Session {
    labels: Labels,
    readings: Vec<Reading>,
    looked: Instant,
}

/// One partition: its position as the database has it, and what Kafka's group
/// has of it as far as is known.
struct Reading {
    partition: Partition,
    position: Position,
    committed: Option<i64>,
}

impl DomainThread {
    /// For this domain, whose topic has this name. Connects to nothing yet.
    pub fn new(domain: Domain, topic: String, shared: Arc<Shared>, stop: Stop) -> Self {
        Self {
            client: Client::new(Arc::clone(&shared.kafka)),
            table: TableSql::new(&domain),
            memory: shared.smart.then(Memory::default),
            domain,
            topic,
            shared,
            stop,
            marks: Marks::default(),
            sayings: Sayings::default(),
            counts: Counts::default(),
            counted: false,
            doubted: None,
            missing: Missing::default(),
            trouble: Trouble {
                own: Outage::new(GRACE),
                fenced: Outage::new(Duration::ZERO),
                backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
                kafka: false,
                postgres: false,
            },
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
                    self.say(&failure);
                    let delay = self.trouble.backoff.next_delay();
                    self.stop.wait(delay);
                }
            }
        }
        self.sayings.say(&self.topic, true);
        self.shared.database.left(self.domain.as_str());
        self.shared.kafka_outage.left(self.domain.as_str());
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
            self.well();
            self.check_lease()?;
        }
        Ok(())
    }

    fn find_topic(&mut self) -> Result<TopicMetadata, Failure> {
        let found = self.client.topics(std::slice::from_ref(&self.topic))?;
        let found = found.into_iter().find(|topic| topic.name == self.topic);
        let Some(topic) = found.filter(|topic| !topic.is_missing()) else {
            self.look_for_other_spelling();
            return Err(Failure::TopicMissing(self.topic.clone()));
        };
        match topic.error {
            Some(code) => Err(Failure::Topic { topic: topic.name, code }),
            None if topic.partitions.is_empty() => Err(Failure::TopicMissing(topic.name)),
            None => Ok(topic),
        }
    }

    /// One line, once, when the topic is there as the other version writes it.
    fn look_for_other_spelling(&mut self) {
        if self.missing.said {
            return;
        }
        let Some(prefix) = other_prefix(&self.shared.topic_prefix) else { return };
        let Ok(other) = self.domain.topic(prefix) else { return };
        let there = self.client.topics(std::slice::from_ref(&other));
        if there.is_ok_and(|found| found.iter().any(|topic| topic.error.is_none())) {
            log::warn!(
                "{}: topic {} is not there, but {other} is: expected --topic-prefix {prefix} (TOPIC_PREFIX)?",
                self.domain,
                self.topic
            );
        }
    }

    fn add_partitions(
        &mut self,
        session: &mut Session,
        topic: &TopicMetadata,
    ) -> Result<(), Failure> {
        session.looked = Instant::now();
        for metadata in &topic.partitions {
            if session.readings.iter().any(|known| known.partition.number == metadata.index) {
                continue;
            }
            let partition = Partition { topic: self.topic.clone(), number: metadata.index };
            let position = self.start_position(&partition, topic)?;
            session.readings.push(Reading { partition, position, committed: None });
        }
        self.counted = true;
        Ok(())
    }

    fn start_position(
        &mut self,
        partition: &Partition,
        topic: &TopicMetadata,
    ) -> Result<Position, Failure> {
        let (database, stop) = (&self.shared.database, &self.stop);
        let stored = read_position(database, stop, partition)?;
        let start =
            self.client.list_offset(&partition.topic, partition.number, LogEnd::Earliest)?;
        let end = self.client.list_offset(&partition.topic, partition.number, LogEnd::Latest)?;
        let is_same = stored.is_some_and(|stored| stored.topic_id == topic.id);
        let may_count = topic.partitions.len() == 1 && !(is_same && self.counted);
        let table = if may_count && self.table_counts()? {
            let after_id = stored.map_or(0, |stored| stored.counted_after_id);
            Some(count_table(database, stop, &self.table, after_id)?)
        } else {
            None
        };
        let found = position::start(stored, topic.id, LogRange { start, end }, table);
        if stored != Some(found.position) {
            store_start(database, stop, partition, stored, &found)?;
        }
        let Partition { topic, number } = partition;
        match &found.note {
            Some(note) => log::warn!("{}: {topic}/{number}: {note}", self.domain),
            None if self.counted => {}
            None => log::info!(
                "{}: {topic}/{number}: starting at offset {} of {end}",
                self.domain,
                found.position.next_offset
            ),
        }
        Ok(found.position)
    }

    /// Whether the table is a record of this topic's offsets: only where 1.1.0
    /// may have written it, and nothing came from the topic of today's spelling.
    fn table_counts(&self) -> Result<bool, Failure> {
        if self.shared.topic_prefix != TOPIC_PREFIX_OF_1_1_0 {
            return Ok(false);
        }
        let Ok(topic) = self.domain.topic(TOPIC_PREFIX) else { return Ok(true) };
        let other = Partition { topic, number: 0 };
        let stored = read_position(&self.shared.database, &self.stop, &other)?;
        Ok(stored.is_none())
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
                    self.pass_hole(partition, position, log)
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

    /// The offset is not in the log: what is lost goes down as a gap, in the
    /// same transaction as the new position.
    fn pass_hole(
        &mut self,
        partition: &Partition,
        position: &mut Position,
        log: LogRange,
    ) -> Result<(), Failure> {
        let found = position::after_hole(*position, log);
        if found.gaps.is_empty() {
            return Ok(());
        }
        store_start(&self.shared.database, &self.stop, partition, Some(*position), &found)?;
        if let Some(note) = &found.note {
            log::warn!("{}: {}/{}: {note}", self.domain, partition.topic, partition.number);
        }
        *position = found.position;
        Ok(())
    }

    fn say(&mut self, failure: &Failure) {
        let domain = self.domain.as_str();
        match failure {
            Failure::Work(WorkError::Postgres(error)) if error.is_connection_lost() => {
                self.trouble.postgres = true;
                self.shared.database.failed(domain, error);
            }
            Failure::Kafka(error) if error.is_retryable() => {
                self.trouble.kafka = true;
                self.shared.kafka_outage.failed(domain, error);
            }
            Failure::TopicMissing(topic) => {
                if !std::mem::replace(&mut self.missing.said, true) {
                    log::info!("{domain}: topic {topic} is not there yet: waiting for it");
                }
            }
            Failure::Work(WorkError::Fenced) => {
                if self.trouble.fenced.failed().is_some() {
                    log::warn!(
                        "{domain}: another recorder is at work on it; each record is written once"
                    );
                }
            }
            failure => {
                if let Some(length) = self.trouble.own.failed() {
                    let hint = if failure.is_denied() { HINT } else { "" };
                    let seconds = length.as_secs();
                    log::warn!("{domain}: {failure}{hint}; trying again for {seconds} s");
                }
            }
        }
    }

    fn well(&mut self) {
        self.trouble.backoff.reset();
        self.missing.said = false;
        self.sayings.say(&self.topic, false);
        if std::mem::take(&mut self.trouble.postgres) {
            self.shared.database.succeeded(self.domain.as_str());
        }
        if std::mem::take(&mut self.trouble.kafka) {
            self.shared.kafka_outage.succeeded(self.domain.as_str());
        }
        if let Some(length) = self.trouble.own.succeeded() {
            log::info!("{}: well again after {:.1} s", self.domain, length.as_secs_f64());
        }
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
