//! The workers: threads that probe, started when first needed.

pub mod cgroup;
mod dispatch;
pub mod lateness;
pub mod network;
mod others_failing;
mod record;
pub mod retry;
pub mod sizing;

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use common::record::Record;
use common::stop::Stop;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::probe::Prober;
use crate::schedule::clock;
use crate::schedule::slot_account::{Entry, Job, Offer, Slot};
use crate::targets::Target;
use dispatch::Queue;
use lateness::Lateness;
use network::Network;
use others_failing::Board;
use retry::Attempted;

/// A probe's needs are small, and a thousand workers wait at a time.
pub(crate) const STACK_BYTES: usize = 256 * 1024;

/// Files that a probe has open at a time: a socket for each name server, or a
/// few for addresses that it tries; and as many for the other family of one by
/// both.
const FILES_A_PROBE: u64 = 8;

/// Files for all else: the brokers, the log, certificates that are read.
const FILES_BESIDE: u64 = 64;

/// The most workers that can have their files open at once. The soft limit,
/// 1024 on most machines, is raised to the hard one first: a probe that can't
/// open its socket would show a healthy site as down.
fn workers_for_files() -> usize {
    let found = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: found.maximum, ..found });
    let limit = if raised.is_ok() { found.maximum } else { found.current };
    let workers =
        limit.map_or(u64::MAX, |files| files.saturating_sub(FILES_BESIDE) / FILES_A_PROBE);
    usize::try_from(workers).unwrap_or(usize::MAX).max(1)
}

/// A target's result.
#[derive(Debug)]
pub struct Probed {
    /// Whose.
    pub target: Arc<Target>,
    /// What goes to Kafka; boxed, as the channel has room for many thousands.
    pub record: Box<Record>,
}

/// What all workers share.
#[derive(Debug)]
struct Shared {
    location: String,
    prober: Prober,
    network: Network,
    board: Board,
    lateness: Lateness,
    /// No bound of its own: a target is in it once at most.
    queue: Queue<Arc<Entry>>,
    /// Workers that do not probe, less targets that wait. A worker that takes a
    /// target changes nothing, so there is no moment at which it counts as idle
    /// and its target no more as waiting.
    spare: AtomicIsize,
    stop: Stop,
}

/// The pool. Dropping it closes the queue; [`Pool::finish`] also joins.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    open: Open,
    results: Sender<Probed>,
    workers: Vec<JoinHandle<()>>,
    workers_max: usize,
    /// Held by each worker and never used: the channel ends with the last one.
    alive: Sender<()>,
    all_ended: Receiver<()>,
}

/// Closes the queue when it is dropped.
#[derive(Debug)]
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Pool {
    /// A pool without workers, which starts `workers` at most.
    pub fn new(
        workers: usize,
        location: &str,
        prober: Prober,
        network: Network,
        results: Sender<Probed>,
        stop: Stop,
    ) -> Self {
        let shared = Arc::new(Shared {
            location: location.to_owned(),
            prober,
            network,
            board: Board::default(),
            lateness: Lateness::default(),
            queue: Queue::new(),
            spare: AtomicIsize::new(0),
            stop,
        });
        let workers_max = workers.min(workers_for_files());
        if workers_max < workers {
            log::warn!(
                "the limit on open files allows {workers_max} probes at once: expected {workers}"
            );
        }
        let (alive, all_ended) = bounded(0);
        let workers = Vec::new();
        let open = Open(Arc::clone(&shared));
        Self { shared, open, results, workers, workers_max, alive, all_ended }
    }

    /// The most workers that this pool starts.
    pub fn workers_max(&self) -> usize {
        self.workers_max
    }

    /// Lets so many workers be started, if that is more than until now.
    pub fn allow(&mut self, workers: usize) {
        self.workers_max = self.workers_max.max(workers.min(workers_for_files()));
    }

    /// How late probes started.
    pub fn lateness(&self) -> &Lateness {
        &self.shared.lateness
    }

    /// Queues a target for a slot, or for a look beside the grid, and starts a
    /// worker when none is idle; unless its last one is not done with.
    pub fn offer(&mut self, entry: &Arc<Entry>, slot: Option<Slot>) -> Offer {
        let offer = entry.offer(slot, self.results.is_full());
        if offer == Offer::Queue {
            self.shared.queue.push(Arc::clone(entry));
            if self.shared.spare.fetch_sub(1, Ordering::AcqRel) <= 0 {
                self.start_worker();
            }
        }
        offer
    }

    fn start_worker(&mut self) {
        if self.workers.len() >= self.workers_max {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let (results, alive) = (self.results.clone(), self.alive.clone());
        let started = std::thread::Builder::new()
            .name(format!("worker-{}", self.workers.len()))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _alive = alive;
                shared.work(&results);
            });
        match started {
            Ok(worker) => {
                self.shared.spare.fetch_add(1, Ordering::AcqRel);
                self.workers.push(worker);
            }
            Err(cause) => {
                // The target stays queued and is taken by a worker that there is.
                log::error!("worker {} can't be started: {cause}", self.workers.len());
                self.workers_max = self.workers.len().max(1);
            }
        }
    }

    /// Closes the queue and waits for the probes that run; once a stop is asked
    /// for, `grace` at most. Joins the workers that have ended: the number of
    /// those that have not.
    pub fn finish(self, stop: &Stop, grace: Duration) -> usize {
        let Self { open, results, workers, alive, all_ended, .. } = self;
        drop((open, results, alive));
        // Disconnected once the last worker has dropped its sender.
        let all_ended = select! {
            recv(all_ended) -> _ => true,
            recv(stop.channel()) -> _ => {
                all_ended.recv_timeout(grace) == Err(RecvTimeoutError::Disconnected)
            }
        };
        let (ended, running): (Vec<_>, Vec<_>) =
            workers.into_iter().partition(|worker| all_ended || worker.is_finished());
        for worker in ended {
            if worker.join().is_err() {
                log::error!("a worker panicked");
            }
        }
        running.len()
    }
}

impl Shared {
    fn work(&self, results: &Sender<Probed>) {
        while let Some(entry) = self.queue.take() {
            if self.stop.is_requested() {
                return;
            }
            if let Some(job) = entry.take() {
                if results.send(self.probe(job)).is_err() {
                    return;
                }
                // Not before its result is on the way, so that they keep their order.
                entry.done();
            }
            self.spare.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn probe(&self, job: Job) -> Probed {
        let Job { target, slot, missed } = job;
        if let Some(slot) = slot {
            self.lateness.add(clock::now().saturating_sub(slot.due_at));
        }
        let started_at = SystemTime::now();
        let Attempted { outcome, attempts, first_reason } =
            retry::run(&target, &self.prober, &self.stop);
        let healthy = outcome.healthy();
        // What came whole came by a network, whatever became of the sentinels.
        let has_answer = outcome.has_answer();
        let mut record = record::record(&self.location, &target, started_at, outcome);
        record.extra.attempts = Some(i64::from(attempts));
        record.extra.first_reason = first_reason.map(|reason| reason.as_str().to_owned());
        let host = target.url.host_str().unwrap_or_default();
        let others_failing = self.board.note(host, healthy, clock::now(), target.period);
        record.extra.others_failing = others_failing.then_some(true);
        // A stop has no time for sentinels.
        let no_network = !healthy
            && !has_answer
            && !self.stop.is_requested()
            && self.network.is_down(&target.url, &self.prober);
        record.extra.no_network = no_network.then_some(true);
        record.extra.period_ms = slot.and_then(|_| i64::try_from(target.period.as_millis()).ok());
        record.extra.slot = slot.and_then(|slot| i64::try_from(slot.number).ok());
        record.extra.missed = missed.by_name();
        Probed { target, record: Box::new(record) }
    }
}

#[cfg(test)]
mod tests;
