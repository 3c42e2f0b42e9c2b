//! The producer: the thread that sends results to Kafka. It dequeues results that the
//! saver has saved, and retries until Kafka accepts them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::backoff::Backoff;
use common::counted::counted;
use common::domain;
use common::identity::{ENDED_HEADER, EndedRun, Run};
use common::log_throttle::LogThrottle;
use kafka_client::{
    KafkaError, ProduceOutcome, ProduceRecord, ProducerOptions, TopicBatch, TopicSpec,
};

use crate::delivery::RunTotals;
use crate::delivery::shared_spool::{SharedSpool, SpoolState};

/// Most records in one batch. A broker checks and appends this many in milliseconds, and
/// the backlog of an outage of hours still needs few batches.
const BATCH_RECORDS_MAX: usize = 5_000;
/// Most topics in one round, so that the number of its requests is bounded.
const ROUND_TOPICS_MAX: usize = 500;
/// Most bytes in one round, below the 100 MiB that brokers accept as a request.
const ROUND_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Upper bound for the size of one `ended` header.
const ENDED_BYTES_MAX: usize = 48;

/// Delays after a round in which Kafka did not accept a batch.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// Outages shorter than this are not logged.
const OUTAGE_GRACE: Duration = Duration::from_secs(2);
/// The pause when results on disk can't be read.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);
/// How often lost results are logged.
const LOSS_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The state of the producer thread.
#[derive(Debug)]
pub(crate) struct ResultProducer {
    kafka: kafka_client::KafkaProducer,
    /// The principal of Kafka's ACLs, for the log.
    principal: Option<String>,
    topic_prefix: String,
    other_prefix: Option<&'static str>,
    /// Topics that were already checked for a topic with the other prefix.
    prefix_checked: HashSet<Arc<str>>,
    shared_spool: Arc<SharedSpool>,
    /// This run of the tracker.
    run: Run,
    /// Topics whose batch in flight carries `ended` headers.
    ended_in_flight: HashSet<String>,
    outage: LogThrottle,
    /// Topics with a batch that failed and is being retried.
    retrying: HashSet<String>,
    backoff: Backoff,
    /// The next round starts no earlier than this.
    retry_at: Option<Instant>,
}

impl ResultProducer {
    /// Creates a producer that has not connected yet.
    pub(crate) fn new(
        settings: Arc<kafka_client::KafkaSettings>,
        topic_spec: TopicSpec,
        topic_prefix: String,
        shared_spool: Arc<SharedSpool>,
        run: Run,
    ) -> Self {
        let options = ProducerOptions { topic_spec, ..ProducerOptions::default() };
        Self {
            principal: settings.principal(),
            kafka: kafka_client::KafkaProducer::new(settings, options),
            other_prefix: domain::other_prefix(&topic_prefix),
            topic_prefix,
            prefix_checked: HashSet::new(),
            shared_spool,
            run,
            ended_in_flight: HashSet::new(),
            outage: LogThrottle::new(OUTAGE_GRACE),
            retrying: HashSet::new(),
            backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
            retry_at: None,
        }
    }

    /// Sends results until no more will come. Then drains the spool until the
    /// deadline. Returns the totals of the run.
    pub(crate) fn run(mut self) -> RunTotals {
        let deadline = loop {
            if let Some(deadline) =
                self.shared_spool.wait_for_work(self.kafka.pending_count() > 0, self.retry_at)
            {
                break deadline;
            }
            self.send_round(None);
            self.log_losses(Some(LOSS_LOG_INTERVAL));
        };
        while self.has_work() && Instant::now() < deadline {
            let pause = self.retry_at.take().map(|at| at.min(deadline));
            if let Some(pause) = pause.and_then(|at| at.checked_duration_since(Instant::now())) {
                // No event can end the pause early: no more results will come.
                std::thread::park_timeout(pause);
            }
            self.send_round(Some(deadline));
        }
        let totals = self.finish();
        self.log_losses(None);
        totals
    }

    fn has_work(&self) -> bool {
        self.kafka.pending_count() > 0 || !self.shared_spool.lock().spool.is_empty()
    }

    fn log_losses(&self, interval: Option<Duration>) {
        // Logged without the lock, because writing a log line may block.
        let lines = self.shared_spool.lock().losses.take_due_lines(interval);
        lines.iter().for_each(|line| log::error!("{line}"));
    }

    /// Sends one batch per topic, unless the delay after a failure has not passed.
    fn send_round(&mut self, deadline: Option<Instant>) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        let shared_spool = Arc::clone(&self.shared_spool);
        shared_spool.lock().spool.load_from_disk();
        self.warn_about_other_prefix(deadline);
        let batches = {
            let mut state = shared_spool.lock();
            let batches = self.build_batches(&mut state);
            if batches.is_empty() && self.kafka.pending_count() == 0 {
                let has_waiting = !state.spool.is_empty();
                self.retry_at = has_waiting.then(|| Instant::now() + UNREADABLE_PAUSE);
                return;
            }
            batches
        };
        let outcomes = self.kafka.send(batches, deadline);
        let mut state = shared_spool.lock();
        let mut unsettled = None;
        let mut delivered = 0;
        for (topic, outcome) in outcomes {
            match self.settle(&mut state, topic.clone(), outcome) {
                Ok(records) => delivered += records,
                Err(reason) => unsettled = Some((topic, reason)),
            }
        }
        state.spool.write_delivered_marks();
        let waiting = state.spool.len();
        drop(state);
        match unsettled {
            // No batch failed and none was delivered: the brokers have not responded yet.
            None if delivered == 0 && self.kafka.pending_count() > 0 => {}
            // A failed batch is in flight again. The outage lasts until that batch is
            // accepted, even if other topics are delivered.
            None if !self.retrying.is_empty() => self.backoff.reset(),
            None => self.record_recovery(),
            Some((topic, reason)) => self.record_failure(&topic, &reason, delivered > 0, waiting),
        }
    }

    /// Records the outcome of a batch. Returns the number of delivered records, or why
    /// the batch has to be retried.
    fn settle(
        &mut self,
        state: &mut SpoolState,
        topic: String,
        outcome: ProduceOutcome,
    ) -> Result<usize, KafkaError> {
        if let ProduceOutcome::Pending { reason } = outcome {
            self.retrying.insert(topic);
            return Err(reason);
        }
        self.retrying.remove(&topic);
        // If the batch with the `ended` headers is lost, the next batch carries them.
        let carried_ended = self.ended_in_flight.remove(&topic);
        match outcome {
            ProduceOutcome::Delivered { records, .. } => {
                state.spool.settle_all(&topic);
                if carried_ended {
                    state.ended_runs.remove_delivered(&topic);
                }
                return Ok(records);
            }
            ProduceOutcome::TooLarge { mut records, .. } | ProduceOutcome::Busy { mut records } => {
                remove_ended_headers(&mut records);
                state.spool.return_unsent(&Arc::from(topic), records);
            }
            ProduceOutcome::Refused { mut records, cause } => {
                remove_ended_headers(&mut records);
                state.spool.return_unsent(&Arc::from(topic.as_str()), records);
                self.retrying.insert(topic);
                return Err(cause);
            }
            ProduceOutcome::Lost { indexes, cause, maybe_delivered } => {
                record_loss(state, &topic, &indexes, &cause, maybe_delivered);
            }
            ProduceOutcome::Pending { .. } => {}
        }
        Ok(0)
    }

    /// Before a topic is created: warns once if it does not exist but a topic with
    /// the other prefix does, which is easily mistaken for the configured one.
    fn warn_about_other_prefix(&mut self, deadline: Option<Instant>) {
        let Some(other_prefix) = self.other_prefix else { return };
        let topics = self.shared_spool.lock().spool.topics();
        let new: Vec<_> =
            topics.into_iter().filter(|topic| !self.prefix_checked.contains(topic)).collect();
        let domains = new.iter().filter_map(|topic| topic.strip_prefix(&self.topic_prefix));
        let others: Vec<_> = domains.map(|domain| format!("{other_prefix}{domain}")).collect();
        let names: Vec<_> = new.iter().map(|topic| topic.to_string()).chain(others).collect();
        if new.is_empty() {
            return;
        }
        // An error is reported by the round that follows; the next round asks again.
        let client = self.kafka.client();
        let found = match deadline {
            Some(deadline) => client.topics_by(&names, deadline),
            None => client.topics(&names),
        };
        let Ok(found) = found else { return };
        let exists =
            |name: &str| found.iter().any(|topic| topic.name == name && topic.error.is_none());
        for topic in new {
            let domain = topic.strip_prefix(&self.topic_prefix).unwrap_or(&topic);
            let other = format!("{other_prefix}{domain}");
            if !exists(&topic) && exists(&other) {
                log::warn!(
                    "topic {topic} does not exist and will be created, but {other} exists: set TOPIC_PREFIX={other_prefix} to write to {other}"
                );
            }
            self.prefix_checked.insert(topic);
        }
    }

    /// Builds a batch for each topic that has results waiting and no batch in flight.
    fn build_batches(
        &mut self,
        SpoolState { spool, ended_runs, .. }: &mut SpoolState,
    ) -> Vec<TopicBatch> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        for topic in spool.topics() {
            if batches.len() == ROUND_TOPICS_MAX || bytes >= ROUND_BYTES_MAX {
                break;
            }
            if self.kafka.is_pending(&topic) {
                continue;
            }
            // A batch that is too large by one byte would be refused and built again.
            let bytes_max = self.kafka.batch_bytes_max(&topic);
            let ended = ended_runs.pending(&topic);
            let bytes_max = bytes_max.saturating_sub(ended.len() * ENDED_BYTES_MAX);
            let mut records = spool.take_batch(&topic, BATCH_RECORDS_MAX, bytes_max);
            // The first record of this run carries the headers, because all remaining
            // records of the earlier runs precede it.
            if ended.len() > 0
                && let Some(first) =
                    records.iter_mut().find(|it| self.run.created_headers(&it.headers))
            {
                first.headers.extend(ended.map(EndedRun::header));
                self.ended_in_flight.insert(topic.to_string());
            }
            bytes += records.iter().map(ProduceRecord::bytes_max).sum::<usize>();
            batches.push(TopicBatch { topic: topic.to_string(), records });
        }
        batches
    }

    fn record_recovery(&mut self) {
        self.backoff.reset();
        if let Some(length) = self.outage.record_success() {
            log::info!("kafka: delivery recovered after {:.1} s", length.as_secs_f64());
        }
    }

    fn record_failure(
        &mut self,
        topic: &str,
        reason: &KafkaError,
        some_delivered: bool,
        waiting: usize,
    ) {
        if some_delivered {
            // Other topics are delivered, so the delay starts again from its minimum.
            self.backoff.reset();
        }
        self.retry_at = Some(Instant::now() + self.backoff.next_delay());
        if let Some(length) = self.outage.record_failure() {
            let in_flight: usize = self.kafka.pending_records().map(|(_, records)| records).sum();
            let right = reason.missing_operation().map(|operation| {
                let principal = self.principal.as_deref().unwrap_or("the tracker's user");
                format!(" ({principal} needs the right {operation})")
            });
            log::warn!(
                "kafka: no delivery for {} s, {} results wait: {topic}: {reason}{}",
                length.as_secs(),
                waiting + in_flight,
                right.unwrap_or_default(),
            );
        }
    }

    /// Ends the drain. Results on disk are sent after the next start; results that are
    /// only in memory are counted as lost.
    fn finish(&mut self) -> RunTotals {
        let mut guard = self.shared_spool.lock();
        let SpoolState { spool, totals, losses, .. } = &mut *guard;
        totals.lost += spool.take_unreadable_count();
        let (kept, dropped) = spool.close();
        if kept > 0 {
            log::info!("{} left on disk for the next start", counted(kept, "result"));
        }
        for (topic, records) in dropped {
            totals.lost += records;
            losses.add(&topic, "not delivered before the program ended", records);
        }
        *totals
    }
}

fn remove_ended_headers(records: &mut [ProduceRecord]) {
    for record in records {
        record.headers.retain(|(key, _)| key != ENDED_HEADER);
    }
}

/// Counts results that Kafka refused for good. Kafka would refuse the topic's other
/// results too, unless the cause lies in single records.
fn record_loss(
    state: &mut SpoolState,
    topic: &str,
    indexes: &BTreeSet<usize>,
    cause: &KafkaError,
    maybe_delivered: bool,
) {
    state.spool.settle_positions(topic, indexes);
    let others = if cause.is_record_error() { 0 } else { state.spool.discard_topic(topic) };
    let records = indexes.len() + others;
    state.totals.lost += records;
    let note = if maybe_delivered { " (may have been delivered earlier)" } else { "" };
    state.losses.add(topic, &format!("{cause}{note}"), records);
}

#[cfg(test)]
mod tests;
