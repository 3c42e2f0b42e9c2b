//! The saver: receives results from the workers, gives each its sequence number,
//! and writes it to the spool, independent of the state of Kafka.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::identity::Run;
use crossbeam_channel::{Receiver, RecvError, never, select_biased};
use kafka_client::ProduceRecord;

use crate::delivery::shared_spool::{SharedSpool, SpoolState};
use crate::delivery::spool::{IssuedNumbers, SpoolFolder, open_issued_numbers};
use crate::workers::TargetRecord;

/// Minimum time between two writes to the spool's disk. Results that arrive in
/// between are synced together.
const DISK_WRITE_INTERVAL: Duration = Duration::from_millis(20);
/// Minimum time between two flushes when results wait in memory only. Results that
/// arrive in between wake no thread and go to Kafka in one request. A result that
/// arrives later is flushed at once.
const LINGER: Duration = Duration::from_millis(50);
/// Bound on results that have a number and are not in the spool yet.
const NUMBERED_MAX: usize = 10_000;

/// The state of the saver thread.
#[derive(Debug)]
pub(crate) struct Saver {
    shared_spool: Arc<SharedSpool>,
    /// This run of the tracker, part of each result's identity.
    run: Run,
    /// Each topic's shared name and the sequence number of its next result.
    topics: HashMap<String, (Arc<str>, i64)>,
    /// The file of issued numbers for the next run. `None` without a disk.
    issued: Option<IssuedNumbers>,
    /// Results that have a number and are not in the spool yet, in order.
    numbered: Vec<(Arc<str>, ProduceRecord)>,
    unhealthy: usize,
    /// The spool's folder and its bound in bytes, until `run` opens it.
    folder: Option<(SpoolFolder, u64)>,
    /// The next flush starts no earlier than this.
    next_flush_at: Option<Instant>,
    /// When to write to the disk again after an error.
    disk_retry_at: Option<Instant>,
}

impl Saver {
    /// Creates a saver for the results of `run`, which wait in memory.
    pub(crate) fn new(shared_spool: Arc<SharedSpool>, run: Run) -> Self {
        Self {
            shared_spool,
            run,
            topics: HashMap::new(),
            issued: None,
            numbered: Vec::new(),
            unhealthy: 0,
            folder: None,
            next_flush_at: None,
            disk_retry_at: None,
        }
    }

    /// Stores waiting results in a folder, in at most `bytes_max` bytes.
    pub(crate) fn use_folder(&mut self, folder: SpoolFolder, bytes_max: u64) {
        self.folder = Some((folder, bytes_max));
    }

    /// Saves results until `results` closes, or until `end` delivers the deadline of the
    /// drain. Then flushes all results that have arrived and passes the deadline to the
    /// producer.
    pub(crate) fn run(mut self, results: &Receiver<TargetRecord>, end: &Receiver<Instant>) {
        // The producer must receive a deadline even if this thread panics.
        let _guard = EndGuard(Arc::clone(&self.shared_spool));
        if let Some((folder, bytes_max)) = self.folder.take() {
            let (issued, ended_runs) = open_issued_numbers(&folder, &self.run);
            self.issued = Some(issued);
            let mut state = self.shared_spool.lock();
            state.ended_runs = ended_runs;
            state.spool.attach_folder(folder, bytes_max);
            drop(state);
            self.shared_spool.notify();
        }
        let deadline = loop {
            if let Some(deadline) = self.collect_results(results, end) {
                break deadline;
            }
            self.flush(None);
        };
        while let Ok(probed) = results.try_recv() {
            self.assign_number(probed);
        }
        self.flush(Some(deadline));
    }

    /// Waits for a result, and numbers the results that arrive until the next flush is
    /// due. Returns early when it is time to retry the disk. Returns the deadline of the
    /// drain once no more results will come.
    fn collect_results(
        &mut self,
        results: &Receiver<TargetRecord>,
        end: &Receiver<Instant>,
    ) -> Option<Instant> {
        let deadline_of = |deadline: Result<Instant, RecvError>| {
            Some(deadline.unwrap_or_else(|_| Instant::now()))
        };
        if self.issued.is_none()
            && let Some(next_flush_at) = self.next_flush_at
        {
            // Without a disk a kill loses these results in any case, so they may wait in
            // the channel, where they wake no thread.
            select_biased! {
                recv(end) -> deadline => return deadline_of(deadline),
                recv(crossbeam_channel::at(next_flush_at)) -> _ => {}
            }
        }
        let retry = self.disk_retry_at.map_or_else(never, crossbeam_channel::at);
        select_biased! {
            recv(end) -> deadline => return deadline_of(deadline),
            recv(results) -> probed => match probed {
                Ok(probed) => self.assign_number(probed),
                // All workers have ended; the deadline follows.
                Err(_) => return deadline_of(end.recv()),
            },
            recv(retry) -> _ => {}
        }
        // With a disk results are numbered at once, because the count of issued numbers
        // is on disk before a kill can lose the results.
        while self.issued.is_some()
            && let Some(next_flush_at) = self.next_flush_at
            && self.numbered.len() < NUMBERED_MAX
            && let Ok(probed) = results.recv_deadline(next_flush_at)
        {
            self.assign_number(probed);
        }
        let room = NUMBERED_MAX.saturating_sub(self.numbered.len());
        results.try_iter().take(room).for_each(|probed| self.assign_number(probed));
        None
    }

    /// Gives a result its sequence number before the result can be lost, so that a
    /// lost result leaves a gap in the sequence.
    fn assign_number(&mut self, TargetRecord { target, record }: TargetRecord) {
        self.unhealthy += usize::from(!record.is_healthy());
        let (topic, sequence) = self
            .topics
            .entry(target.topic.clone())
            .or_insert_with(|| (Arc::from(target.topic.as_str()), 0));
        let record = ProduceRecord {
            timestamp_ms: milliseconds(record.timestamp),
            value: record.encode().into(),
            headers: self.run.headers(*sequence),
        };
        *sequence += 1;
        if let Some(issued) = &mut self.issued {
            issued.record(topic, *sequence);
        }
        self.numbered.push((Arc::clone(topic), record));
    }

    /// Puts the numbered results into the spool and syncs them, under one lock: the
    /// producer finds only results that are on disk, unless the disk refused them.
    fn flush(&mut self, drain_deadline: Option<Instant>) {
        let mut guard = self.shared_spool.lock();
        let SpoolState { spool, totals, losses, .. } = &mut *guard;
        totals.unhealthy += std::mem::take(&mut self.unhealthy);
        for (topic, record) in self.numbered.drain(..) {
            spool.push(&topic, record, SpoolState::count_dropped(totals, losses));
        }
        spool.write_to_disk(SpoolState::count_dropped(totals, losses));
        totals.lost += spool.take_unreadable_count();
        let pause = if spool.has_disk() { DISK_WRITE_INTERVAL } else { LINGER };
        self.next_flush_at = Some(Instant::now() + pause);
        self.disk_retry_at = spool.disk_retry_at();
        guard.drain_deadline = drain_deadline;
        drop(guard);
        self.shared_spool.notify();
    }
}

/// Sets the deadline of the drain when the saver ends, even by a panic. The producer
/// then expects no more results.
struct EndGuard(Arc<SharedSpool>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.lock().drain_deadline.get_or_insert_with(Instant::now);
        self.0.notify();
    }
}

/// Converts seconds since 1970 to milliseconds. `as` saturates at the ends of the
/// range.
fn milliseconds(timestamp_s: f64) -> i64 {
    (timestamp_s * 1_000.0) as i64
}

#[cfg(test)]
mod tests;
