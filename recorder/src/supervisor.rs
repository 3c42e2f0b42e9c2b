//! The thread that renews the leases, and that runs one worker for each lease it holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use common::log_throttle::LogThrottle;
use common::stop::{self, Stop, Stopper};
use crossbeam_channel::{Receiver, bounded, select};
use crossbeam_utils::sync::WaitGroup;

use crate::domain::shared::SharedState;
use crate::domain::worker::{DomainWorker, STACK_BYTES};
use crate::lease::plan::{LeaseSnapshot, plan_changes};
use crate::lease::store::LeaseStore;
use crate::postgres::error::TransactionError;
use crate::report::outage_log::GRACE;
use crate::schema::SCHEMA_HINT;
use crate::settings::domains::DomainSelection;

/// The most bytes that the last fetches of all domains may hold together.
const FETCH_BYTES_ALL: usize = 64 * 1024 * 1024;
/// The most bytes of one fetch.
const FETCH_BYTES_MAX: usize = 1024 * 1024;
/// The fewest bytes of one fetch: below that, a backlog would take too many requests.
const FETCH_BYTES_MIN: usize = 64 * 1024;
/// How long a fetch waits for records, for each domain: any number of idle domains
/// together send 200 requests a second, within the bounds below.
const FETCH_WAIT_MS_PER_DOMAIN: u32 = 5;
/// The shortest and the longest wait. A stop, and the hand-over of a lease, may have to
/// wait as long.
const FETCH_WAIT_MS_MIN: u32 = 3_000;
const FETCH_WAIT_MS_MAX: u32 = 5_000;

/// Renews leases, and starts and stops workers.
#[derive(Debug)]
pub(crate) struct Supervisor {
    store: LeaseStore,
    shared: Arc<SharedState>,
    selection: DomainSelection,
    /// The existing topics, from the discovery thread.
    discovered: Receiver<Vec<String>>,
    /// The last list of existing topics, until it is added to the selection.
    new_topics: Option<Vec<String>>,
    workers: BTreeMap<String, RunningWorker>,
    /// Cloned by each worker, so that the end of all workers can be awaited.
    running: WaitGroup,
    /// The topics that the last plan deferred.
    deferred: HashSet<String>,
    outage: LogThrottle,
    last_logged: Option<LeaseCounts>,
}

#[derive(Debug)]
struct RunningWorker {
    thread: JoinHandle<()>,
    /// `None`: the worker was asked to stop.
    stopper: Option<Stopper>,
}

/// The numbers that are logged when they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LeaseCounts {
    held: usize,
    domains: usize,
    recorders: usize,
}

impl Supervisor {
    /// Supervises these domains, and the domains of `discovered` topics.
    pub(crate) fn new(
        store: LeaseStore,
        shared: Arc<SharedState>,
        selection: DomainSelection,
        discovered: Receiver<Vec<String>>,
    ) -> Self {
        Self {
            store,
            shared,
            selection,
            discovered,
            new_topics: None,
            workers: BTreeMap::new(),
            running: WaitGroup::new(),
            deferred: HashSet::new(),
            outage: LogThrottle::new(GRACE),
            last_logged: None,
        }
    }

    /// Supervises until a stop is requested, then releases the leases and waits for the
    /// workers, at most for the shutdown time-out.
    pub(crate) fn run(mut self, stop: &Stop) {
        while !stop.is_requested() {
            let started = Instant::now();
            let result = self.update(started);
            self.log_result(result);
            let interval = self.shared.timings.lease_interval;
            select! {
                recv(self.discovered) -> topics => match topics {
                    Ok(topics) => self.new_topics = Some(topics),
                    // The discovery thread has ended.
                    Err(_) => self.discovered = crossbeam_channel::never(),
                },
                recv(stop.channel()) -> _ => {}
                default(interval.saturating_sub(started.elapsed())) => {}
            }
        }
        self.shut_down();
    }

    /// Renews the leases, changes them by a new plan, and starts and stops workers to
    /// match.
    fn update(&mut self, started: Instant) -> Result<(), TransactionError> {
        self.join_finished_workers();
        let kafka_is_unreachable = self.shared.kafka_health.is_unreachable();
        let snapshot = self.store.renew_and_read(!kafka_is_unreachable)?;
        if let Some(topics) = self.new_topics.take() {
            let leases = snapshot.leases.iter().map(|lease| lease.topic.as_str());
            let leased: HashSet<&str> = leases.collect();
            self.selection.add_topics(topics, |topic| leased.contains(topic));
        }
        let holder = self.store.holder();
        if kafka_is_unreachable {
            let has_others = snapshot.recorders.iter().any(|other| *other != holder.id);
            if has_others || !self.store.is_registered() {
                return self.yield_leases(&snapshot);
            }
        }
        let topics = self.selection.domains().keys().map(String::as_str).collect();
        let mut plan = plan_changes(&snapshot, holder, &topics, &self.deferred);
        if kafka_is_unreachable {
            // The only recorder keeps its leases, so that an outage moves none.
            plan.insert.clear();
            plan.acquire.clear();
            plan.request.clear();
        }
        let requested: Vec<String> =
            plan.hand_over.iter().map(|(topic, _)| topic.clone()).collect();
        // A lease is handed over by a later update, when its worker has ended.
        plan.hand_over.retain(|(topic, _)| !self.workers.contains_key(topic));
        self.deferred = std::mem::take(&mut plan.deferred);
        let acquired = self.store.apply(&plan)?;
        let own = snapshot.leases.iter().filter(|lease| lease.holder == Some(holder.id));
        let mut held: BTreeSet<String> = own.map(|lease| lease.topic.clone()).collect();
        held.extend(acquired);
        for topic in &requested {
            held.remove(topic);
        }
        self.stop_workers_except(|topic| held.contains(topic));
        // Last, because a worker that was fenced waits for this.
        let timings = &self.shared.timings;
        let expires_at = started + timings.lease_duration - timings.lease_margin;
        self.shared.lease.extend(started, expires_at);
        self.log_counts(held.len(), &snapshot);
        self.share_fetch_limits(held.len());
        for topic in held {
            self.start_worker(topic);
        }
        Ok(())
    }

    /// Releases all leases, because Kafka cannot be reached from here, but perhaps by
    /// other recorders. Workers wait for their lease, and stop once another recorder has
    /// acquired it.
    fn yield_leases(&mut self, snapshot: &LeaseSnapshot) -> Result<(), TransactionError> {
        self.shared.lease.revoke();
        self.deferred.clear();
        let mut released = Ok(());
        if self.store.is_registered() {
            log::warn!(
                "leases: kafka is not reachable from this host: releasing all leases to other recorders"
            );
            released = self.store.release();
        }
        let previous_id = Some(self.store.holder().previous_id);
        let unclaimed = snapshot.leases.iter().filter(|lease| lease.holder == previous_id);
        let unclaimed: HashSet<&str> = unclaimed.map(|lease| lease.topic.as_str()).collect();
        self.stop_workers_except(|topic| unclaimed.contains(topic));
        self.log_counts(0, snapshot);
        released
    }

    /// Divides the bytes and the requests for Kafka among the domains that are held.
    fn share_fetch_limits(&self, held: usize) {
        let bytes = FETCH_BYTES_ALL / held.max(1);
        let bytes = bytes.clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX);
        let wait_ms = u32::try_from(held).unwrap_or(u32::MAX);
        let wait_ms = wait_ms.saturating_mul(FETCH_WAIT_MS_PER_DOMAIN);
        let wait_ms = wait_ms.clamp(FETCH_WAIT_MS_MIN, FETCH_WAIT_MS_MAX);
        self.shared.fetch_wait_ms.store(wait_ms, Ordering::Relaxed);
        self.shared.fetch_bytes.store(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn start_worker(&mut self, topic: String) {
        if self.workers.contains_key(&topic) {
            return;
        }
        let Some(domain) = self.selection.domains().get(&topic) else { return };
        let (stopper, stop) = stop::pair();
        let name = domain.to_string();
        let worker =
            DomainWorker::new(domain.clone(), topic.clone(), Arc::clone(&self.shared), stop);
        let running = self.running.clone();
        let run = move || {
            // Dropped when the worker ends, also by a panic.
            let _running = running;
            worker.run();
        };
        match thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(run) {
            Ok(thread) => {
                self.workers.insert(topic, RunningWorker { thread, stopper: Some(stopper) });
            }
            // The next update retries.
            Err(error) => {
                if self.outage.record_failure().is_some() {
                    log::error!("{topic}: cannot start a thread: {error}");
                }
            }
        }
    }

    fn stop_workers_except(&mut self, is_kept: impl Fn(&str) -> bool) {
        for (topic, worker) in &mut self.workers {
            if !is_kept(topic) {
                worker.stopper = None;
            }
        }
    }

    /// Removes workers that have ended. A worker catches the panics of its turns. Should it
    /// panic outside of them, the next update starts it again.
    fn join_finished_workers(&mut self) {
        for (topic, worker) in std::mem::take(&mut self.workers) {
            if worker.thread.is_finished() {
                if worker.thread.join().is_err() {
                    self.shared.metrics.panics.add(1);
                    log::error!("{topic}: the worker panicked: starting it again");
                }
            } else {
                self.workers.insert(topic, worker);
            }
        }
    }

    /// Releases all leases at once, so that other recorders acquire them, and then waits
    /// for the workers. They begin no transaction any more, and an open transaction is
    /// fenced if another recorder moves the position first.
    fn shut_down(mut self) {
        let timeout = self.shared.timings.shutdown_timeout;
        let deadline = Instant::now() + timeout;
        self.stop_workers_except(|_| false);
        self.store.release_at_stop();
        if wait_until(std::mem::take(&mut self.running), deadline) {
            // All workers are past their last statement.
            for worker in std::mem::take(&mut self.workers).into_values() {
                // The panic hook has logged a panic.
                let _ = worker.thread.join();
            }
        }
        self.join_finished_workers();
        let unfinished: Vec<&str> = self.workers.keys().map(String::as_str).collect();
        if !unfinished.is_empty() {
            log::warn!(
                "{} of the domains did not stop within {} s (such as {}): nothing is lost, they \
                 continue from the stored position at the next start",
                unfinished.len(),
                timeout.as_secs(),
                unfinished.iter().take(5).copied().collect::<Vec<_>>().join(", ")
            );
        }
    }

    /// Logs the numbers of leases and recorders when they change.
    fn log_counts(&mut self, held: usize, snapshot: &LeaseSnapshot) {
        let counts = LeaseCounts {
            held,
            domains: self.selection.domains().len(),
            recorders: snapshot.recorders.len(),
        };
        if self.last_logged.replace(counts) != Some(counts) {
            let LeaseCounts { held, domains, recorders } = counts;
            log::info!("leases: holding {held} of {domains}; active recorders: {recorders}");
        }
    }

    fn log_result(&mut self, result: Result<(), TransactionError>) {
        match result {
            Ok(()) => {
                self.store.record_success();
                if let Some(length) = self.outage.record_success() {
                    log::info!("leases: recovered after {:.1} s", length.as_secs_f64());
                }
            }
            Err(TransactionError::Postgres(error)) if error.is_connection_lost() => {
                self.store.record_failure(&error);
            }
            Err(TransactionError::Stopped) => {}
            Err(error) => {
                if let Some(length) = self.outage.record_failure() {
                    let hint = if error.is_denied() { SCHEMA_HINT } else { "" };
                    let seconds = length.as_secs();
                    log::warn!("leases: {error}{hint}; retrying for {seconds} s");
                }
            }
        }
    }
}

/// Waits until all clones of the wait group are dropped. Returns `false` if that takes
/// longer than `deadline`.
fn wait_until(running: WaitGroup, deadline: Instant) -> bool {
    let (ended_sender, ended) = bounded(1);
    // `WaitGroup::wait` has no time-out, so a thread waits that may be abandoned.
    let waiter = thread::Builder::new().name("shutdown".to_owned()).spawn(move || {
        running.wait();
        // The receiver is gone after the deadline.
        let _ = ended_sender.send(());
    });
    waiter.is_ok() && ended.recv_deadline(deadline).is_ok()
}
