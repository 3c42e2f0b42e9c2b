//! The producer: takes results from the workers and writes them to Kafka, for
//! as long as that takes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::backoff::{Backoff, Outage};
use common::domain;
use common::identity::Run;
use common::kafka::{
    self, BATCH_HEADER_LEN, Error, Outcome, ProduceRecord, ProducerOptions, TopicBatch, TopicSpec,
};
use crossbeam_channel::{Receiver, never, select_biased};

use crate::Account;
use crate::spool::{Folder, SPOOL_BYTES_MAX, Spool};
use crate::workers::Probed;

/// The most records of a batch: what a broker can check and append in
/// milliseconds, while an outage of hours still goes out in a few batches.
const BATCH_RECORDS_MAX: usize = 5_000;
/// The most topics of one round, so that a round's requests stay bounded.
const ROUND_TOPICS_MAX: usize = 500;
/// The most bytes of one round, below the 100 MiB that brokers take as a request.
const ROUND_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The delays after a round that left something unsettled.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// Shorter outages are not logged.
const OUTAGE_GRACE: Duration = Duration::from_secs(2);
/// The shortest time from one write to the spool's disk to the next: what comes
/// meanwhile is synced together.
const SAVE_EVERY: Duration = Duration::from_millis(20);
/// The pause when results wait on disk and can't be read.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);
/// How often losses are logged.
const SAY_AFTER: Duration = Duration::from_secs(60);

/// Why the thread goes on.
enum Wake {
    /// There is something to write.
    Work,
    /// No more results will come, and all must be over by then.
    NoMore(Instant),
}

/// The thread's own state.
#[derive(Debug)]
pub struct Producer {
    kafka: kafka::Producer,
    topic_prefix: String,
    other_prefix: Option<&'static str>,
    /// Topics whose other spelling was looked for.
    seen: HashSet<Arc<str>>,
    spool: Spool,
    /// This start of the tracker, in each result's identity.
    run: Run,
    /// Topics by name, so that each name is kept once, with the number of the
    /// next result.
    topics: HashMap<String, (Arc<str>, i64)>,
    account: Account,
    lost: Lost,
    outage: Outage,
    /// Topics whose batch Kafka has not taken, until it is settled.
    stuck: HashSet<String>,
    backoff: Backoff,
    /// No round before this.
    retry_at: Option<Instant>,
    /// When results were last written to disk.
    saved_at: Option<Instant>,
    /// Where they wait on disk, until it is opened.
    disk: Option<(Folder, u64)>,
}

impl Producer {
    /// A producer that has not connected yet, and numbers the results of `run`.
    pub fn new(
        settings: Arc<kafka::Settings>,
        topic_spec: TopicSpec,
        topic_prefix: String,
        run: Run,
    ) -> Self {
        let options = ProducerOptions { topic_spec, ..ProducerOptions::default() };
        Self {
            kafka: kafka::Producer::new(settings, options),
            other_prefix: domain::other_prefix(&topic_prefix),
            topic_prefix,
            seen: HashSet::new(),
            spool: Spool::new(SPOOL_BYTES_MAX),
            run,
            topics: HashMap::new(),
            account: Account::default(),
            lost: Lost::default(),
            outage: Outage::new(OUTAGE_GRACE),
            stuck: HashSet::new(),
            backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
            retry_at: None,
            saved_at: None,
            disk: None,
        }
    }

    /// Lets results wait in a folder, in at most `bytes_max` bytes.
    pub fn wait_on_disk(&mut self, folder: Folder, bytes_max: u64) {
        self.disk = Some((folder, bytes_max));
    }

    /// Writes results until they end, or `no_more` says that no more will come
    /// and by when all must be over, and then what still waits: what became of
    /// all.
    pub fn run(mut self, results: &Receiver<Probed>, no_more: &Receiver<Instant>) -> Account {
        if let Some((folder, bytes_max)) = self.disk.take() {
            self.spool.open(folder, bytes_max);
        }
        let deadline = loop {
            match self.wait_for_results(results, no_more) {
                Wake::Work => {}
                Wake::NoMore(deadline) => break deadline,
            }
            self.save();
            self.round(None);
            self.lost.say(Some(SAY_AFTER));
        };
        while let Ok(probed) = results.try_recv() {
            self.take(probed);
        }
        self.save();
        while self.has_work() && Instant::now() < deadline {
            let pause = self.retry_at.take().map(|at| at.min(deadline));
            if let Some(pause) = pause.and_then(|at| at.checked_duration_since(Instant::now())) {
                // Nothing can wake this thread earlier with better news.
                std::thread::park_timeout(pause);
            }
            self.round(Some(deadline));
        }
        self.give_up();
        self.lost.say(None);
        self.account
    }

    /// Waits for a result, or until it is time for a round, and takes every
    /// result that is there.
    fn wait_for_results(
        &mut self,
        results: &Receiver<Probed>,
        no_more: &Receiver<Instant>,
    ) -> Wake {
        let round_due = match (self.has_work(), self.retry_at) {
            (false, _) => never(),
            (true, at) => crossbeam_channel::at(at.unwrap_or_else(Instant::now)),
        };
        select_biased! {
            recv(no_more) -> deadline => {
                return Wake::NoMore(deadline.unwrap_or_else(|_| Instant::now()));
            }
            recv(results) -> probed => match probed {
                Ok(probed) => {
                    self.take(probed);
                    self.take_until_save(results);
                }
                // All workers have ended, and the word to end is on its way.
                Err(_) => return Wake::NoMore(no_more.recv().unwrap_or_else(|_| Instant::now())),
            },
            recv(round_due) -> _ => {}
        }
        for probed in results.try_iter().take(results.len()) {
            self.take(probed);
        }
        Wake::Work
    }

    /// Takes what comes until the disk may be written to again.
    fn take_until_save(&mut self, results: &Receiver<Probed>) {
        let save_at = self.saved_at.filter(|_| self.spool.has_disk()).map(|at| at + SAVE_EVERY);
        while let Some(save_at) = save_at
            && let Ok(probed) = results.recv_deadline(save_at)
        {
            self.take(probed);
        }
    }

    /// Makes results safe on disk, if they wait there, before they are sent.
    fn save(&mut self) {
        let Self { lost, account, spool, .. } = self;
        spool.save(|topic| {
            account.lost += 1;
            lost.add(topic, "no room to wait for kafka", 1);
        });
        account.lost += spool.take_unreadable();
        self.saved_at = Some(Instant::now());
    }

    fn has_work(&self) -> bool {
        !self.spool.is_empty() || self.kafka.pending() > 0
    }

    fn take(&mut self, probed: Probed) {
        let Probed { target, record } = probed;
        self.account.unhealthy += usize::from(!record.healthy());
        let (topic, sequence) = self
            .topics
            .entry(target.topic.clone())
            .or_insert_with(|| (Arc::from(target.topic.as_str()), 0));
        let record = ProduceRecord {
            timestamp_ms: milliseconds(record.timestamp),
            value: record.encode().into(),
            headers: self.run.headers(*sequence),
        };
        // Before anything can lose it: a lost result leaves a hole in the numbers.
        *sequence += 1;
        let Self { lost, account, spool, .. } = self;
        spool.push(topic, record, |topic| {
            account.lost += 1;
            lost.add(topic, "no room to wait for kafka", 1);
        });
    }

    /// One round with Kafka, unless it is too early for one after a failure.
    fn round(&mut self, deadline: Option<Instant>) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        self.spool.load();
        self.look_for_other_prefix();
        let batches = self.batches();
        if batches.is_empty() && self.kafka.pending() == 0 && !self.spool.is_empty() {
            self.retry_at = Some(Instant::now() + UNREADABLE_PAUSE);
            return;
        }
        let mut unsettled = None;
        let mut delivered = 0;
        for (topic, outcome) in self.kafka.send(batches, deadline) {
            self.stuck.remove(&topic);
            match outcome {
                Outcome::Delivered { records, .. } => {
                    self.spool.settled(&topic, records);
                    delivered += records;
                }
                Outcome::Pending { reason } => {
                    self.stuck.insert(topic.clone());
                    unsettled = Some((topic, reason));
                }
                Outcome::TooLarge { records, .. } | Outcome::Busy { records } => {
                    let topic = Arc::from(topic);
                    self.spool.put_back(&topic, records);
                }
                Outcome::Lost { records, cause, maybe_delivered } => {
                    self.refused(&topic, records, &cause, maybe_delivered);
                }
            }
        }
        self.spool.note();
        match unsettled {
            // With nothing settled either, the answers are still to come.
            None if delivered == 0 && self.kafka.pending() > 0 => {}
            // What went wrong is written again, and how that ends is still open,
            // however well it goes for other topics.
            None if !self.stuck.is_empty() => self.backoff.reset(),
            None => self.well(),
            Some((topic, reason)) => self.unwell(&topic, &reason, delivered > 0),
        }
    }

    /// Says once for all topics that have not been written yet, before they
    /// are made, when they stand under the prefix that is easily mistaken for
    /// the one that was asked for.
    fn look_for_other_prefix(&mut self) {
        let Some(other_prefix) = self.other_prefix else { return };
        let new: Vec<_> =
            self.spool.topics().into_iter().filter(|topic| !self.seen.contains(topic)).collect();
        let domains = new.iter().filter_map(|topic| topic.strip_prefix(&self.topic_prefix));
        let others: Vec<_> = domains.map(|domain| format!("{other_prefix}{domain}")).collect();
        let names: Vec<_> = new.iter().map(|topic| topic.to_string()).chain(others).collect();
        if new.is_empty() {
            return;
        }
        // A failure shows in the round that follows, and the next one looks again.
        let Ok(found) = self.kafka.client().topics(&names) else { return };
        let is_there =
            |name: &str| found.iter().any(|topic| topic.name == name && topic.error.is_none());
        for topic in new {
            let domain = topic.strip_prefix(&self.topic_prefix).unwrap_or(&topic);
            let other = format!("{other_prefix}{domain}");
            if !is_there(&topic) && is_there(&other) {
                log::warn!(
                    "topic {topic} is not there and will be made, though {other} is: set TOPIC_PREFIX={other_prefix} to write to that"
                );
            }
            self.seen.insert(topic);
        }
    }

    /// A batch for each topic that has results waiting and none in flight.
    fn batches(&mut self) -> Vec<TopicBatch> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        for topic in self.spool.topics() {
            if batches.len() == ROUND_TOPICS_MAX || bytes >= ROUND_BYTES_MAX {
                break;
            }
            if self.kafka.is_pending(&topic) {
                continue;
            }
            // A batch that is one byte too large would come back, and be taken again.
            let bytes_max = self.kafka.batch_bytes_max(&topic).saturating_sub(BATCH_HEADER_LEN);
            let records = self.spool.take(&topic, BATCH_RECORDS_MAX, bytes_max);
            bytes += records.iter().map(ProduceRecord::bytes_max).sum::<usize>();
            batches.push(TopicBatch { topic: topic.to_string(), records });
        }
        batches
    }

    fn well(&mut self) {
        self.backoff.reset();
        if let Some(length) = self.outage.succeeded() {
            log::info!("kafka takes results again after {} s", length.as_secs());
        }
    }

    fn unwell(&mut self, topic: &str, reason: &Error, some_delivered: bool) {
        if some_delivered {
            // Other topics go on, and so does their pace.
            self.backoff.reset();
        }
        self.retry_at = Some(Instant::now() + self.backoff.next_delay());
        if let Some(length) = self.outage.failed() {
            let in_flight: usize = self.kafka.pending_records().map(|(_, records)| records).sum();
            log::warn!(
                "kafka does not take results for {} s, {} wait: {topic}: {reason}",
                length.as_secs(),
                self.spool.len() + in_flight,
            );
        }
    }

    /// A batch was refused for good, so the topic's other results would be too,
    /// unless it was for what some of its records are.
    fn refused(&mut self, topic: &str, records: usize, cause: &Error, maybe_delivered: bool) {
        self.spool.settled(topic, records);
        let others = if cause.is_of_records() { 0 } else { self.spool.discard(topic) };
        let records = records + others;
        self.account.lost += records;
        let doubt = if maybe_delivered { " (may have been delivered earlier)" } else { "" };
        self.lost.add(topic, &format!("{cause}{doubt}"), records);
    }

    /// The drain has ended: what still waits on disk goes with the next start,
    /// and what is in memory alone is lost, and counted.
    fn give_up(&mut self) {
        self.account.lost += self.spool.take_unreadable();
        let (stay, lost) = self.spool.close();
        if stay > 0 {
            log::info!("{stay} results wait on disk for the next start");
        }
        for (topic, records) in lost {
            self.account.lost += records;
            self.lost.add(&topic, "not delivered before the end", records);
        }
    }
}

/// Results that reached nobody, by topic and reason, said once a minute.
#[derive(Debug, Default)]
struct Lost {
    counts: BTreeMap<(String, String), usize>,
    said: Option<Instant>,
}

/// The most topics that a line names; the others are summed up.
const LOST_TOPICS_SAID: usize = 10;

impl Lost {
    fn add(&mut self, topic: &str, reason: &str, count: usize) {
        *self.counts.entry((topic.to_owned(), reason.to_owned())).or_default() += count;
    }

    /// Says what was lost since it was last said, when that is `after` ago.
    fn say(&mut self, after: Option<Duration>) {
        let early = |said: Instant| after.is_some_and(|after| said.elapsed() < after);
        if self.counts.is_empty() || self.said.is_some_and(early) {
            return;
        }
        self.said = Some(Instant::now());
        let counts = std::mem::take(&mut self.counts);
        let topics = counts.len();
        for (index, ((topic, reason), count)) in counts.into_iter().enumerate() {
            if index == LOST_TOPICS_SAID {
                log::error!("lost results of {} more topics", topics - index);
                break;
            }
            log::error!("lost {count} results for {topic}: {reason}");
        }
    }
}

/// Seconds since 1970 as milliseconds; `as` keeps what a float can't hold at
/// the ends of the range.
fn milliseconds(timestamp_s: f64) -> i64 {
    (timestamp_s * 1_000.0) as i64
}

#[cfg(test)]
mod tests;
