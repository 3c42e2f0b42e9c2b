//! The workers: threads that probe, started when they are first needed.
//!
//! A worker receives a due target from the [`Dispatcher`], probes it with its retries, makes a
//! [`ProbeResult`] and publishes it to the [`ResultFanOut`].

pub(crate) mod cgroup;
mod dispatch;
mod fan_out;
pub(crate) mod lateness;
pub(crate) mod network;
mod open_files;
mod others_failing;
mod record;
mod result;
pub(crate) mod retry;
pub(crate) mod sizing;

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use common::stop::Stop;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use crate::probe::Prober;
use crate::schedule::clock;
use crate::schedule::slot_account::{Enqueue, ProbeJob, ScheduledTarget, Slot};
use dispatch::Dispatcher;
pub(crate) use fan_out::{ResultFanOut, TargetRecord};
use lateness::Lateness;
use network::NetworkCheck;
use others_failing::OthersFailing;
use result::{ProbeResult, ResultMarks};
use retry::RetriedProbe;
use sizing::WORKER_STACK_BYTES;

/// State that all workers share.
#[derive(Debug)]
struct WorkerShared {
    prober: Prober,
    network: NetworkCheck,
    others_failing: OthersFailing,
    lateness: Lateness,
    retry_pause: Duration,
    /// Bounded by the number of targets: each is in it at most once.
    dispatcher: Dispatcher<Arc<ScheduledTarget>>,
    /// Number of idle workers minus number of waiting targets.
    ///
    /// It stays the same when a worker receives a target, so that a worker never counts as idle
    /// while its target no longer counts as waiting.
    spare_workers: AtomicIsize,
    stop: Stop,
}

/// The pool of workers. Dropping it closes the dispatcher; [`Pool::finish`] also joins the workers.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<WorkerShared>,
    closer: DispatcherCloser,
    fan_out: ResultFanOut,
    workers: Vec<JoinHandle<()>>,
    workers_max: usize,
    /// Each worker holds a clone and never sends: the channel disconnects with the last worker.
    alive: Sender<()>,
    all_ended: Receiver<()>,
}

/// Closes the dispatcher when it is dropped.
#[derive(Debug)]
struct DispatcherCloser(Arc<WorkerShared>);

impl Drop for DispatcherCloser {
    fn drop(&mut self) {
        self.0.dispatcher.close();
    }
}

impl Pool {
    /// Makes a pool that starts at most `workers_max` workers, and none before the first target.
    pub(crate) fn new(
        workers_max: usize,
        prober: Prober,
        network: NetworkCheck,
        retry_pause: Duration,
        fan_out: ResultFanOut,
        stop: Stop,
    ) -> Self {
        let shared = Arc::new(WorkerShared {
            prober,
            network,
            others_failing: OthersFailing::default(),
            lateness: Lateness::default(),
            retry_pause,
            dispatcher: Dispatcher::new(),
            spare_workers: AtomicIsize::new(0),
            stop,
        });
        let allowed = workers_max.min(open_files::raise_limit_for_workers());
        if allowed < workers_max {
            log::warn!(
                "the limit on open files allows {allowed} of {workers_max} workers: raise it (ulimit -n)"
            );
        }
        let (alive, all_ended) = bounded(0);
        let closer = DispatcherCloser(Arc::clone(&shared));
        let workers = Vec::new();
        Self { shared, closer, fan_out, workers, workers_max: allowed, alive, all_ended }
    }

    pub(crate) fn workers_max(&self) -> usize {
        self.workers_max
    }

    /// Raises the limit on workers. A lower number changes nothing.
    pub(crate) fn raise_workers_max(&mut self, workers_max: usize) {
        let allowed = workers_max.min(open_files::raise_limit_for_workers());
        self.workers_max = self.workers_max.max(allowed);
    }

    /// Returns how late probes started.
    pub(crate) fn lateness(&self) -> &Lateness {
        &self.shared.lateness
    }

    /// Makes a target wait for a worker, and starts a worker if all are busy. `slot` is `None` for
    /// the first round. See [`ScheduledTarget::enqueue`] for targets whose last probe is not over.
    pub(crate) fn enqueue(&mut self, target: &Arc<ScheduledTarget>, slot: Option<Slot>) -> Enqueue {
        let enqueued = target.enqueue(slot, self.fan_out.is_blocked());
        if enqueued == Enqueue::Queued {
            self.shared.dispatcher.dispatch(Arc::clone(target));
            if self.shared.spare_workers.fetch_sub(1, Ordering::AcqRel) <= 0 {
                self.start_worker();
            }
        }
        enqueued
    }

    fn start_worker(&mut self) {
        if self.workers.len() >= self.workers_max {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let (fan_out, alive) = (self.fan_out.clone(), self.alive.clone());
        let started = std::thread::Builder::new()
            .name(format!("worker-{}", self.workers.len()))
            .stack_size(WORKER_STACK_BYTES)
            .spawn(move || {
                let _alive = alive;
                shared.run_worker(&fan_out);
            });
        match started {
            Ok(worker) => {
                self.shared.spare_workers.fetch_add(1, Ordering::AcqRel);
                self.workers.push(worker);
            }
            Err(cause) => {
                // The target stays queued: a worker that already runs receives it.
                let running = self.workers.len();
                log::error!(
                    "worker {running} can't be started: {cause}: the tracker continues with {running} workers"
                );
                self.workers_max = running.max(1);
            }
        }
    }

    /// Closes the dispatcher and waits for running probes; after a stop at most `grace` longer.
    /// Joins the workers that have ended. Returns the number of workers that still run.
    pub(crate) fn finish(self, stop: &Stop, grace: Duration) -> usize {
        let Self { closer, fan_out, workers, alive, all_ended, .. } = self;
        drop((closer, fan_out, alive));
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

impl WorkerShared {
    /// Probes targets until the dispatcher is closed, a stop is requested, or nobody receives
    /// results any more.
    fn run_worker(&self, fan_out: &ResultFanOut) {
        while let Some(target) = self.dispatcher.receive() {
            if self.stop.is_requested() {
                return;
            }
            if let Some(job) = target.start_job() {
                if fan_out.publish(self.run_job(job)).is_err() {
                    return;
                }
                // After the result is published, so that results of a target stay in order.
                target.finish_job();
            }
            self.spare_workers.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn run_job(&self, job: ProbeJob) -> ProbeResult {
        let ProbeJob { target, slot, missed } = job;
        if let Some(slot) = slot {
            self.lateness.add(clock::now().saturating_sub(slot.due_at));
        }
        let started_at = SystemTime::now();
        let RetriedProbe { outcome, attempts, first_reason } =
            retry::probe_with_retries(&target, &self.prober, self.retry_pause, &self.stop);
        let healthy = outcome.healthy();
        let host = target.url.host_str().unwrap_or_default();
        let others_failing = self.others_failing.record(host, healthy, clock::now(), target.period);
        // A complete response proves that there is a network, even if no sentinel can be reached.
        // After a stop there is no time to try the sentinels.
        let no_network = !healthy
            && !outcome.has_response()
            && !self.stop.is_requested()
            && self.network.is_down(&target.url, &self.prober);
        let marks = ResultMarks { others_failing, no_network };
        ProbeResult { target, slot, missed, started_at, attempts, first_reason, outcome, marks }
    }
}

#[cfg(test)]
mod tests;
