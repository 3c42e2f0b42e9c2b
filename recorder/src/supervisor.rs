//! The supervisor thread. It renews the leases, and runs one worker for each lease it holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::log_throttle::LogThrottle;
use common::stop::{self, Stop, Stopper};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use crossbeam_utils::sync::WaitGroup;

use crate::domain::shared::SharedState;
use crate::domain::worker::{DomainWorker, STACK_BYTES};
use crate::lease::offers::{OfferCause, Offers};
use crate::lease::plan::{
    Access, LeasePlan, LeaseSnapshot, OFFERED_REQUESTS_MAX, OwnState, plan_changes,
};
use crate::lease::progress::WorkerProgress;
use crate::lease::reach::TopicReach;
use crate::lease::store::LeaseStore;
use crate::open_files::OpenFiles;
use crate::postgres::error::TransactionError;
use crate::report::outage_log::GRACE;
use crate::schema::SCHEMA_HINT;
use crate::settings::domains::DomainSelection;

/// The maximum size in bytes of the last fetches of all domains together.
const FETCH_BYTES_ALL: usize = 64 * 1024 * 1024;
/// The maximum size of one fetch in bytes.
const FETCH_BYTES_MAX: usize = 1024 * 1024;
/// The minimum size of one fetch in bytes. With less, a backlog would need too many requests.
const FETCH_BYTES_MIN: usize = 64 * 1024;
/// The time for which a fetch waits for records, for each domain. So any number of idle domains
/// together send 200 requests a second, within the bounds below.
const FETCH_WAIT_MS_PER_DOMAIN: u32 = 5;
/// The shortest and the longest time for which a fetch waits for records. A stop, and the hand-over
/// of a lease, may have to wait as long.
const FETCH_WAIT_MS_MIN: u32 = 3_000;
const FETCH_WAIT_MS_MAX: u32 = 5_000;
/// The maximum number of topics in a log line.
const NAMED_TOPICS_MAX: usize = 5;
/// The interval in which at most [`OFFERED_REQUESTS_MAX`] offered leases are requested.
const OFFERED_REQUESTS_INTERVAL: Duration = Duration::from_secs(1);

/// Renews leases, and starts and stops workers.
#[derive(Debug)]
pub(crate) struct Supervisor {
    store: LeaseStore,
    shared: Arc<SharedState>,
    selection: DomainSelection,
    /// The existing topics. The discovery thread sends them.
    discovered: Receiver<Vec<String>>,
    /// The last list of existing topics, until it is added to the selection.
    new_topics: Option<Vec<String>>,
    /// The channel to the discovery thread for the topics of the selection.
    selected: Sender<Vec<String>>,
    /// The number of topics that were last sent.
    selected_sent: usize,
    open_files: OpenFiles,
    workers: BTreeMap<String, RunningWorker>,
    /// Each worker holds a clone, so that the supervisor can wait until all workers have ended.
    running: WaitGroup,
    /// The topics that the last plan deferred.
    deferred: HashSet<String>,
    offers: Offers,
    /// The topics whose workers could not be started in the last update.
    unstarted: BTreeSet<String>,
    /// The start of the current interval, and the number of offered leases requested in it.
    offered_requests: (Instant, usize),
    outage: LogThrottle,
    /// Limits log lines about reads of leases that are so slow that the leases expire meanwhile.
    slowness: LogThrottle,
    /// Limits log lines about leaders that no recorder reaches.
    unreached: LogThrottle,
    last_logged: Option<LeaseCounts>,
}

#[derive(Debug)]
struct RunningWorker {
    thread: JoinHandle<()>,
    progress: Arc<WorkerProgress>,
    /// Stops the worker. `None`: the worker was already asked to stop.
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
    /// Supervises these domains, and the domains of `discovered` topics. The topics of all these
    /// domains are sent to `selected`.
    pub(crate) fn new(
        store: LeaseStore,
        shared: Arc<SharedState>,
        selection: DomainSelection,
        discovered: Receiver<Vec<String>>,
        selected: Sender<Vec<String>>,
    ) -> Self {
        let offers = Offers::new(shared.timings.offer_pause);
        let grace = shared.timings.lease_grace;
        let mut supervisor = Self {
            store,
            shared,
            selection,
            discovered,
            new_topics: None,
            selected,
            selected_sent: 0,
            open_files: OpenFiles::raise_limit(),
            workers: BTreeMap::new(),
            running: WaitGroup::new(),
            deferred: HashSet::new(),
            offers,
            unstarted: BTreeSet::new(),
            offered_requests: (Instant::now(), 0),
            outage: LogThrottle::new(GRACE),
            slowness: LogThrottle::new(grace),
            unreached: LogThrottle::new(grace),
            last_logged: None,
        };
        supervisor.send_selection();
        supervisor
    }

    /// Sends the topics of the selection to the discovery thread if there are new topics.
    fn send_selection(&mut self) {
        let domains = self.selection.domains();
        self.open_files.check(domains.len());
        if domains.len() > self.selected_sent
            && self.selected.try_send(domains.keys().cloned().collect()).is_ok()
        {
            self.selected_sent = domains.len();
        }
    }

    /// Supervises until a stop is requested. Then releases the leases and waits for the workers, at
    /// most for the shutdown time-out.
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

    /// Renews the leases, changes them by a new plan, and starts and stops workers accordingly.
    fn update(&mut self, started: Instant) -> Result<(), TransactionError> {
        self.join_finished_workers();
        let snapshot = self.store.renew_and_read(!self.is_kafka_unreachable(started))?;
        if let Some(topics) = self.new_topics.take() {
            let leases = snapshot.leases.iter().map(|lease| lease.topic.as_str());
            let leased: HashSet<&str> = leases.collect();
            self.selection.add_topics(topics, |topic| leased.contains(topic));
        }
        self.send_selection();
        if !self.store.is_registered() {
            self.wait_for_kafka(&snapshot);
            return Ok(());
        }
        let holder = self.store.holder();
        let own = snapshot.leases.iter().filter(|lease| lease.holder == Some(holder.id));
        let own: BTreeSet<&str> = own.map(|lease| lease.topic.as_str()).collect();
        if self.store.has_offers() {
            let failing = self.failing_topics(started);
            self.offers.update(&own, &failing, started);
        }
        let mut plan = self.plan(&snapshot, started);
        let requested: HashSet<String> =
            plan.hand_over.iter().map(|(topic, _)| topic.clone()).collect();
        let offers = &self.offers;
        // A lease is handed over in a later update, after its worker has ended. The supervisor does
        // not wait for a worker without progress. If that worker writes later, it is fenced.
        plan.hand_over
            .retain(|(topic, _)| !self.workers.contains_key(topic) || offers.contains(topic));
        self.log_hand_over(&plan);
        self.deferred = std::mem::take(&mut plan.deferred);
        let acquired = self.store.apply(&plan)?;
        let mut held: BTreeSet<String> = own.into_iter().map(str::to_owned).collect();
        held.extend(acquired);
        held.retain(|topic| !requested.contains(topic));
        self.stop_workers_except(|topic| held.contains(topic));
        // This must be last, because a worker that was fenced waits for it.
        let timings = &self.shared.timings;
        let expires_at = started + timings.lease_duration - timings.lease_margin;
        let is_lapsed = self.shared.lease.extend(started, expires_at);
        self.log_counts(held.len(), &snapshot);
        self.log_slowness(is_lapsed, started, held.len());
        self.log_unreached(&held, &snapshot);
        self.share_fetch_limits(held.len());
        self.unstarted.clear();
        for topic in held {
            self.start_worker(topic);
        }
        Ok(())
    }

    /// Plans the changes of leases.
    fn plan(&mut self, snapshot: &LeaseSnapshot, now: Instant) -> LeasePlan {
        let topics = self.selection.domains().keys().map(String::as_str);
        let reach = self.shared.reach.of(topics, now).into_iter();
        let access = |(topic, reach)| (topic, self.offers.access(topic, reach, now));
        let topics: BTreeMap<&str, Access> = reach.map(access).collect();
        let (since, count) = &mut self.offered_requests;
        if now.saturating_duration_since(*since) >= OFFERED_REQUESTS_INTERVAL {
            (*since, *count) = (now, 0);
        }
        let plan = plan_changes(
            snapshot,
            &OwnState {
                holder: self.store.holder(),
                topics: &topics,
                deferred: &self.deferred,
                offers: &self.offers.topics(),
                offered_requests_max: OFFERED_REQUESTS_MAX - *count,
            },
        );
        *count += plan.request.iter().filter(|lease| lease.is_offered()).count();
        plan
    }

    /// Whether Kafka counts as unreachable. Asks the workers if there are any, otherwise the
    /// discovery thread.
    fn is_kafka_unreachable(&self, now: Instant) -> bool {
        let after = self.shared.timings.kafka_unreachable_after;
        let mut workers =
            self.workers.values().filter(|worker| worker.stopper.is_some()).peekable();
        if workers.peek().is_none() || !self.store.is_registered() {
            return self.shared.kafka_health.is_unreachable();
        }
        workers.all(|worker| worker.progress.offer_cause(now, after) == Some(OfferCause::NoAnswer))
    }

    /// The topics that this recorder holds but cannot record.
    fn failing_topics(&self, now: Instant) -> BTreeMap<String, OfferCause> {
        let after = self.shared.timings.kafka_unreachable_after;
        let reach = self.shared.reach.of(self.workers.keys().map(String::as_str), now);
        let cause = |(topic, worker): (&String, &RunningWorker)| {
            let cause = worker.progress.offer_cause(now, after)?;
            // A topic without a leader can't be recorded by any recorder.
            let has_leader =
                reach.get(topic.as_str()).is_none_or(|(reach, _)| *reach != TopicReach::NoLeader);
            (has_leader || cause != OfferCause::NoAnswer).then(|| (topic.clone(), cause))
        };
        let unstarted = self.unstarted.iter().map(|topic| (topic.clone(), OfferCause::NoThread));
        self.workers.iter().filter_map(cause).chain(unstarted).collect()
    }

    /// Waits until Kafka is reachable before this recorder registers. Workers wait for their lease,
    /// and stop once another recorder has acquired it.
    fn wait_for_kafka(&mut self, snapshot: &LeaseSnapshot) {
        self.shared.lease.revoke();
        self.deferred.clear();
        let previous_id = Some(self.store.holder().previous_id);
        let unclaimed = snapshot.leases.iter().filter(|lease| lease.holder == previous_id);
        let unclaimed: HashSet<&str> = unclaimed.map(|lease| lease.topic.as_str()).collect();
        self.stop_workers_except(|topic| unclaimed.contains(topic));
        self.log_counts(0, snapshot);
    }

    /// Divides the limits on bytes and requests among the domains that are held.
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
        let progress = worker.progress();
        let running = self.running.clone();
        let run = move || {
            // The guard is dropped when the worker ends, also after a panic.
            let _running = running;
            worker.run();
        };
        match thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(run) {
            Ok(thread) => {
                let worker = RunningWorker { thread, progress, stopper: Some(stopper) };
                self.workers.insert(topic, worker);
            }
            // The next update tries again.
            Err(error) => {
                if self.outage.record_failure().is_some() {
                    log::error!("{topic}: cannot start a thread: {error}");
                }
                self.unstarted.insert(topic);
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

    /// Removes workers that have ended. A worker catches the panics of its turns. After a panic
    /// outside of a turn, the next update starts the worker again.
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

    /// Releases all leases at once, so that other recorders acquire them, and then waits for the
    /// workers. They begin no new transaction. An open transaction is fenced if another recorder
    /// moves the position first.
    fn shut_down(mut self) {
        let timeout = self.shared.timings.shutdown_timeout;
        let deadline = Instant::now() + timeout;
        self.stop_workers_except(|_| false);
        self.store.release_at_stop();
        if wait_until(std::mem::take(&mut self.running), deadline) {
            // All workers have executed their last statement.
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
                named(unfinished.iter().copied())
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

    /// Logs the leases that are handed over because this recorder cannot record their domains.
    fn log_hand_over(&self, plan: &LeasePlan) {
        let topics = plan.hand_over.iter().map(|(topic, _)| topic.as_str());
        let offered: Vec<&str> = topics.filter(|topic| self.offers.contains(topic)).collect();
        if !offered.is_empty() {
            log::warn!(
                "leases: handing over {} of the domains, which this recorder cannot record (such \
                 as {}): another recorder asked for them",
                offered.len(),
                named(offered.iter().copied())
            );
        }
    }

    /// Logs if leases expire for a long time while they are read. The domains are then held but not
    /// recorded.
    fn log_slowness(&mut self, is_lapsed: bool, started: Instant, held: usize) {
        if !is_lapsed || held == 0 {
            if let Some(length) = self.slowness.record_success() {
                log::info!("leases: looked up in time again after {:.1} s", length.as_secs_f64());
            }
        } else if let Some(length) = self.slowness.record_failure() {
            log::warn!(
                "leases: not recording all the time, for {} s: the last look-up took {:.1} s, but a \
                 lease is valid for {:.1} s only: {held} domains wait meanwhile; check the load of \
                 postgresql and the way to it",
                length.as_secs(),
                started.elapsed().as_secs_f64(),
                (self.shared.timings.lease_duration - self.shared.timings.lease_margin)
                    .as_secs_f64()
            );
        }
    }

    /// Logs the domains that no recorder records because their leader is not reached: the held
    /// domains that no other recorder requests, and the free domains.
    fn log_unreached(&mut self, held: &BTreeSet<String>, snapshot: &LeaseSnapshot) {
        let is_free = |topic: &str| {
            let lease = snapshot.leases.iter().find(|lease| lease.topic == topic);
            lease.is_none_or(|lease| {
                !lease.holder.is_some_and(|id| snapshot.recorders.contains(&id))
            })
        };
        let brokers = self
            .shared
            .reach
            .unreached_brokers(self.selection.domains().keys().map(String::as_str));
        let mut parts = Vec::new();
        for (broker, mut topics) in brokers {
            topics.retain(|topic| {
                if held.contains(*topic) { self.offers.contains(topic) } else { is_free(topic) }
            });
            if !topics.is_empty() {
                let (count, topics) = (topics.len(), named(topics.iter().copied()));
                parts.push(format!(
                    "broker {broker}, which leads {count} of the topics (such as {topics})"
                ));
            }
        }
        if parts.is_empty() {
            self.unreached.record_success();
        } else if let Some(length) = self.unreached.record_failure() {
            log::warn!(
                "leases: not recorded for {} s, because no recorder reaches {}",
                length.as_secs(),
                parts.join("; ")
            );
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

/// A few of these topics, for a log line.
fn named<'a>(topics: impl Iterator<Item = &'a str>) -> String {
    topics.take(NAMED_TOPICS_MAX).collect::<Vec<_>>().join(", ")
}

/// Waits until all clones of the wait group are dropped. Returns `false` if this takes until after
/// `deadline`.
fn wait_until(running: WaitGroup, deadline: Instant) -> bool {
    let (ended_sender, ended) = bounded(1);
    // `WaitGroup::wait` has no time-out, so a separate thread waits. It may be abandoned.
    let waiter = thread::Builder::new().name("shutdown".to_owned()).spawn(move || {
        running.wait();
        // After the deadline the receiver no longer exists.
        let _ = ended_sender.send(());
    });
    waiter.is_ok() && ended.recv_deadline(deadline).is_ok()
}
