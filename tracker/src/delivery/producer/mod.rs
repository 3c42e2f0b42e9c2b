//! The producer: the one thread that speaks to Kafka. It takes what the saver has
//! made safe and writes it, for as long as that takes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::backoff::{Backoff, Outage};
use common::domain;
use common::identity::{ENDED_HEADER, Ended, Run};
use kafka_client::{Error, Outcome, ProduceRecord, ProducerOptions, TopicBatch, TopicSpec};

use crate::delivery::Account;
use crate::delivery::shared_spool::{Handover, State};

/// The most records of a batch: what a broker can check and append in
/// milliseconds, while an outage of hours still goes out in a few batches.
const BATCH_RECORDS_MAX: usize = 5_000;
/// The most topics of one round, so that a round's requests stay bounded.
const ROUND_TOPICS_MAX: usize = 500;
/// The most bytes of one round, below the 100 MiB that brokers take as a request.
const ROUND_BYTES_MAX: usize = 32 * 1024 * 1024;

/// More than one header takes that tells how a run ended.
const ENDED_BYTES_MAX: usize = 48;

/// The delays after a round that left something unsettled.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// Shorter outages are not logged.
const OUTAGE_GRACE: Duration = Duration::from_secs(2);
/// The pause when results wait on disk and can't be read.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);
/// How often losses are logged.
const SAY_AFTER: Duration = Duration::from_secs(60);

/// The thread's own state.
#[derive(Debug)]
pub struct Producer {
    kafka: kafka_client::Producer,
    topic_prefix: String,
    other_prefix: Option<&'static str>,
    /// Topics whose other spelling was looked for.
    seen: HashSet<Arc<str>>,
    handover: Arc<Handover>,
    /// This start of the tracker.
    run: Run,
    /// Topics whose batch in flight tells how earlier runs ended.
    telling: HashSet<String>,
    outage: Outage,
    /// Topics whose batch Kafka has not taken, until it is settled.
    stuck: HashSet<String>,
    backoff: Backoff,
    /// No round before this.
    retry_at: Option<Instant>,
}

impl Producer {
    /// A producer that has not connected yet, of what is handed over.
    pub fn new(
        settings: Arc<kafka_client::Settings>,
        topic_spec: TopicSpec,
        topic_prefix: String,
        handover: Arc<Handover>,
        run: Run,
    ) -> Self {
        let options = ProducerOptions { topic_spec, ..ProducerOptions::default() };
        Self {
            kafka: kafka_client::Producer::new(settings, options),
            other_prefix: domain::other_prefix(&topic_prefix),
            topic_prefix,
            seen: HashSet::new(),
            handover,
            run,
            telling: HashSet::new(),
            outage: Outage::new(OUTAGE_GRACE),
            stuck: HashSet::new(),
            backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
            retry_at: None,
        }
    }

    /// Writes results until no more will come, and then what still waits, until
    /// all must be over: what became of all.
    pub fn run(mut self) -> Account {
        let deadline = loop {
            if let Some(deadline) = self.handover.wait(self.kafka.pending() > 0, self.retry_at) {
                break deadline;
            }
            self.round(None);
            self.say_lost(Some(SAY_AFTER));
        };
        while self.has_work() && Instant::now() < deadline {
            let pause = self.retry_at.take().map(|at| at.min(deadline));
            if let Some(pause) = pause.and_then(|at| at.checked_duration_since(Instant::now())) {
                // Nothing can wake this thread earlier with better news.
                std::thread::park_timeout(pause);
            }
            self.round(Some(deadline));
        }
        let account = self.give_up();
        self.say_lost(None);
        account
    }

    fn has_work(&self) -> bool {
        self.kafka.pending() > 0 || !self.handover.state().spool.is_empty()
    }

    fn say_lost(&self, after: Option<Duration>) {
        // Not under the lock, as the log may be slow.
        let lines = self.handover.state().lost.lines(after);
        lines.iter().for_each(|line| log::error!("{line}"));
    }

    /// One round with Kafka, unless it is too early for one after a failure.
    fn round(&mut self, deadline: Option<Instant>) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        let handover = Arc::clone(&self.handover);
        handover.state().spool.load();
        self.look_for_other_prefix();
        let batches = {
            let mut state = handover.state();
            let batches = self.batches(&mut state);
            if batches.is_empty() && self.kafka.pending() == 0 {
                let waits = !state.spool.is_empty();
                self.retry_at = waits.then(|| Instant::now() + UNREADABLE_PAUSE);
                return;
            }
            batches
        };
        let outcomes = self.kafka.send(batches, deadline);
        let mut state = handover.state();
        let mut unsettled = None;
        let mut delivered = 0;
        for (topic, outcome) in outcomes {
            match self.settle(&mut state, topic.clone(), outcome) {
                Ok(records) => delivered += records,
                Err(reason) => unsettled = Some((topic, reason)),
            }
        }
        state.spool.note();
        let waiting = state.spool.len();
        drop(state);
        match unsettled {
            // With nothing settled either, the answers are still to come.
            None if delivered == 0 && self.kafka.pending() > 0 => {}
            // What went wrong is written again, and how that ends is still open,
            // however well it goes for other topics.
            None if !self.stuck.is_empty() => self.backoff.reset(),
            None => self.well(),
            Some((topic, reason)) => self.unwell(&topic, &reason, delivered > 0, waiting),
        }
    }

    /// What becomes of a batch: how many were delivered, or why it is not settled.
    fn settle(
        &mut self,
        state: &mut State,
        topic: String,
        outcome: Outcome,
    ) -> Result<usize, Error> {
        if let Outcome::Pending { reason } = outcome {
            self.stuck.insert(topic);
            return Err(reason);
        }
        self.stuck.remove(&topic);
        // One that is lost may be the one that tells; it is then told with the next.
        let telling = self.telling.remove(&topic);
        match outcome {
            Outcome::Delivered { records, .. } => {
                state.spool.settled(&topic, records);
                if telling {
                    state.untold.told(&topic);
                }
                return Ok(records);
            }
            Outcome::TooLarge { mut records, .. } | Outcome::Busy { mut records } => {
                for record in &mut records {
                    record.headers.retain(|(key, _)| key != ENDED_HEADER);
                }
                state.spool.put_back(&Arc::from(topic), records);
            }
            Outcome::Lost { records, cause, maybe_delivered } => {
                refused(state, &topic, records, &cause, maybe_delivered);
            }
            Outcome::Pending { .. } => {}
        }
        Ok(0)
    }

    /// Says once for all topics that have not been written yet, before they
    /// are made, when they stand under the prefix that is easily mistaken for
    /// the one that was asked for.
    fn look_for_other_prefix(&mut self) {
        let Some(other_prefix) = self.other_prefix else { return };
        let topics = self.handover.state().spool.topics();
        let new: Vec<_> = topics.into_iter().filter(|topic| !self.seen.contains(topic)).collect();
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
    fn batches(&mut self, State { spool, untold, .. }: &mut State) -> Vec<TopicBatch> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        for topic in spool.topics() {
            if batches.len() == ROUND_TOPICS_MAX || bytes >= ROUND_BYTES_MAX {
                break;
            }
            if self.kafka.is_pending(&topic) {
                continue;
            }
            // A batch that is one byte too large would come back, and be taken again.
            let bytes_max = self.kafka.batch_bytes_max(&topic);
            let ended = untold.of(&topic);
            let bytes_max = bytes_max.saturating_sub(ended.len() * ENDED_BYTES_MAX);
            let mut records = spool.take(&topic, BATCH_RECORDS_MAX, bytes_max);
            // Behind all that is left of the runs that it tells of.
            if ended.len() > 0
                && let Some(first) = records.iter_mut().find(|it| self.run.made(&it.headers))
            {
                first.headers.extend(ended.map(Ended::header));
                self.telling.insert(topic.to_string());
            }
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

    fn unwell(&mut self, topic: &str, reason: &Error, some_delivered: bool, waiting: usize) {
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
                waiting + in_flight,
            );
        }
    }

    /// The drain has ended: what still waits on disk goes with the next start,
    /// and what is in memory alone is lost, and counted.
    fn give_up(&mut self) -> Account {
        let mut guard = self.handover.state();
        let State { spool, account, lost, .. } = &mut *guard;
        account.lost += spool.take_unreadable();
        let (stay, gone) = spool.close();
        if stay > 0 {
            log::info!("{stay} results wait on disk for the next start");
        }
        for (topic, records) in gone {
            account.lost += records;
            lost.add(&topic, "not delivered before the end", records);
        }
        *account
    }
}

/// A batch was refused for good, so the topic's other results would be too,
/// unless it was for what some of its records are.
fn refused(state: &mut State, topic: &str, records: usize, cause: &Error, maybe_delivered: bool) {
    state.spool.settled(topic, records);
    let others = if cause.is_of_records() { 0 } else { state.spool.discard(topic) };
    let records = records + others;
    state.account.lost += records;
    let doubt = if maybe_delivered { " (may have been delivered earlier)" } else { "" };
    state.lost.add(topic, &format!("{cause}{doubt}"), records);
}

#[cfg(test)]
mod tests;
