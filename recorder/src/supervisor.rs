//! The thread that keeps the leases, and a thread for each domain while its
//! lease is held.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::backoff::Outage;
use common::stop::{self, Stop, Stopper};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use crate::domain::failure::Failure;
use crate::domain::{DomainThread, HINT, STACK_BYTES};
use crate::lease::plan::{Look, plan};
use crate::lease::store::{LEASE, LeaseStore};
use crate::postgres::pool::WorkError;
use crate::report::counts::Counts;
use crate::report::outage_log::GRACE;
use crate::settings::domains::Wanted;
use crate::shared::Shared;

/// How often leases are renewed and looked at: what a recorder that stops lets
/// go is missed for this long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A lease counts as over this much before it is, by this host's clock.
const MARGIN: Duration = Duration::from_millis(500);
/// What all domains together may have fetched, the most of one, and the least,
/// below which it would be small requests without end.
const FETCH_BYTES_ALL: usize = 64 * 1024 * 1024;
const FETCH_BYTES_MAX: usize = 1024 * 1024;
const FETCH_BYTES_MIN: usize = 64 * 1024;
/// How long a fetch waits for a record: 5 ms for each domain, so that any number of
/// idle ones ask 200 times a second together, within these bounds. A stop, and a
/// lease that is given, may have to wait for it.
const FETCH_WAIT_MS_OF_DOMAIN: u32 = 5;
const FETCH_WAIT_MS_MIN: u32 = 3_000;
const FETCH_WAIT_MS_MAX: u32 = 5_000;
/// The longest that threads may take to end. A container is killed after 10 s,
/// and a domain that waits for a server that does not answer loses nothing by
/// being left: its transaction takes place as a whole or not at all.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(7);

/// Keeps leases; see the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    store: LeaseStore,
    shared: Arc<Shared>,
    wanted: Wanted,
    found: Receiver<Vec<String>>,
    topics: Option<Vec<String>>,
    running: BTreeMap<String, Running>,
    left: HashSet<String>,
    counts: Counts,
    trouble: Outage,
    said: [usize; 3],
}

/// A domain's thread; none in `stopper`: it was told to end.
#[derive(Debug)]
struct Running {
    thread: JoinHandle<Counts>,
    stopper: Option<Stopper>,
}

/// Nothing comes through it: it is over when every thread that has a clone of
/// the sender has ended, however that came.
type Done = (Sender<()>, Receiver<()>);

impl Keeper {
    /// For these domains, and those of the topics that are `found`.
    pub(crate) fn new(
        store: LeaseStore,
        shared: Arc<Shared>,
        wanted: Wanted,
        found: Receiver<Vec<String>>,
    ) -> Self {
        Self {
            store,
            shared,
            wanted,
            found,
            topics: None,
            running: BTreeMap::new(),
            left: HashSet::new(),
            counts: Counts::default(),
            trouble: Outage::new(GRACE),
            said: [0; 3],
        }
    }

    /// Keeps until a stop, and then ends what it started: what that did.
    pub(crate) fn run(mut self, stop: &Stop) -> Counts {
        let done: Done = bounded(0);
        while !stop.requested() {
            let looked = Instant::now();
            let result = self.look(looked, &done.0);
            self.say(result.err());
            select! {
                recv(self.found) -> topics => match topics {
                    Ok(topics) => self.topics = Some(topics),
                    // Nobody looks for topics.
                    Err(_) => self.found = crossbeam_channel::never(),
                },
                recv(stop.channel()) -> _ => {}
                default(LOOK_EVERY.saturating_sub(looked.elapsed())) => {}
            }
        }
        self.end(done)
    }

    /// One look: leases renewed, changed, and threads to go with them.
    fn look(&mut self, looked: Instant, done: &Sender<()>) -> Result<(), WorkError> {
        self.join_ended();
        let is_away = self.shared.reach.is_away();
        let look = self.store.look(!is_away)?;
        if let Some(topics) = self.topics.take() {
            let known: HashSet<&str> = look.leases.iter().map(|l| l.topic.as_str()).collect();
            self.wanted.found(topics, |topic| known.contains(topic));
        }
        let me = self.store.me();
        if is_away {
            let has_others = look.recorders.iter().any(|other| *other != me.holder);
            if has_others || !self.store.is_registered() {
                return self.stand_back(&look);
            }
        }
        let wanted: BTreeSet<&str> = self.wanted.domains().keys().map(String::as_str).collect();
        let mut plan = plan(&look, me, &wanted, &self.left);
        if is_away {
            // Alone it keeps what it has, so that an outage moves nothing.
            (plan.insert, plan.take, plan.ask) = Default::default();
        }
        let giving: Vec<String> = plan.give.iter().map(|(topic, _)| topic.clone()).collect();
        // A domain is given when its thread has ended, at one of the next looks.
        plan.give.retain(|(topic, _)| !self.running.contains_key(topic));
        self.left = std::mem::take(&mut plan.left);
        let taken = self.store.change(&plan)?;
        let mine = look.leases.iter().filter(|lease| lease.holder == Some(me.holder));
        let mut held: BTreeSet<String> = mine.map(|lease| lease.topic.clone()).collect();
        held.extend(taken);
        for topic in &giving {
            held.remove(topic);
        }
        for (_, running) in self.running.iter_mut().filter(|(topic, _)| !held.contains(*topic)) {
            running.stopper = None;
        }
        // Only now: whoever is in doubt of its own lease waits for this.
        self.shared.lease.confirm(looked, looked + LEASE - MARGIN);
        self.tell(&held, &look);
        let bytes = FETCH_BYTES_ALL / held.len().max(1);
        let bytes = bytes.clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX);
        let wait_ms = u32::try_from(held.len()).unwrap_or(u32::MAX);
        let wait_ms = wait_ms.saturating_mul(FETCH_WAIT_MS_OF_DOMAIN);
        let wait_ms = wait_ms.clamp(FETCH_WAIT_MS_MIN, FETCH_WAIT_MS_MAX);
        self.shared.fetch_wait_ms.store(wait_ms, Ordering::Relaxed);
        self.shared.fetch_bytes.store(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
        for topic in held {
            self.start(topic, done);
        }
        Ok(())
    }

    /// Kafka is away from here, and perhaps not from the others: they may have all
    /// that is held. Its threads wait for a lease, and end where another has it.
    fn stand_back(&mut self, look: &Look) -> Result<(), WorkError> {
        self.shared.lease.revoke();
        self.left.clear();
        let mut left = Ok(());
        if self.store.is_registered() {
            log::warn!("leases: kafka does not answer here: leaving the domains to others");
            left = self.store.leave();
        }
        let before = Some(self.store.me().before);
        let mine = look.leases.iter().filter(|lease| lease.holder == before);
        let mine: HashSet<&str> = mine.map(|lease| lease.topic.as_str()).collect();
        for (_, running) in self.running.iter_mut().filter(|(t, _)| !mine.contains(t.as_str())) {
            running.stopper = None;
        }
        self.tell(&BTreeSet::new(), look);
        left
    }

    fn start(&mut self, topic: String, done: &Sender<()>) {
        if self.running.contains_key(&topic) {
            return;
        }
        let Some(domain) = self.wanted.domains().get(&topic) else { return };
        let (stopper, stop) = stop::pair();
        let name = domain.to_string();
        let work = DomainThread::new(domain.clone(), topic.clone(), Arc::clone(&self.shared), stop);
        let done = done.clone();
        let run = move || {
            let counts = work.run();
            drop(done);
            counts
        };
        match thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(run) {
            Ok(thread) => {
                self.running.insert(topic, Running { thread, stopper: Some(stopper) });
            }
            // Tried again at the next look.
            Err(error) => {
                if self.trouble.failed().is_some() {
                    log::error!("{topic}: can't start a thread: {error}");
                }
            }
        }
    }

    /// Joins the threads that were told to end, and starts again, by being
    /// forgotten, one that ended by a panic, which it has printed.
    fn join_ended(&mut self) {
        let running = std::mem::take(&mut self.running);
        for (topic, running) in running {
            if running.thread.is_finished() {
                self.counts += running.thread.join().unwrap_or_default();
            } else {
                self.running.insert(topic, running);
            }
        }
    }

    /// Lets go of all leases at once, so that others take them, and then waits
    /// for the threads, but not for ever. None of them begins a transaction any
    /// more, and one that is under way is fenced like any other's.
    fn end(mut self, (done, all_done): Done) -> Counts {
        let deadline = Instant::now() + END_WITHIN;
        for running in self.running.values_mut() {
            running.stopper = None;
        }
        self.store.release();
        drop(done);
        if all_done.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected) {
            // All are past their work, though some may still be on their way out.
            for (_, running) in std::mem::take(&mut self.running) {
                self.counts += running.thread.join().unwrap_or_default();
            }
        }
        self.join_ended();
        let open: Vec<&str> = self.running.keys().map(String::as_str).collect();
        if !open.is_empty() {
            log::warn!(
                "{} domains did not end within {} s (such as {}); nothing is lost, they go on from their stored position",
                open.len(),
                END_WITHIN.as_secs(),
                open.iter().take(5).copied().collect::<Vec<_>>().join(", ")
            );
        }
        self.counts
    }

    /// One line when the share changed.
    fn tell(&mut self, held: &BTreeSet<String>, look: &Look) {
        let now = [held.len(), self.wanted.domains().len(), look.recorders.len()];
        if now != std::mem::replace(&mut self.said, now) {
            let [held, wanted, recorders] = now;
            log::info!(
                "leases: {held} of {wanted} domains are ours, recorders at work: {recorders}"
            );
        }
    }

    fn say(&mut self, failure: Option<WorkError>) {
        match failure {
            None => {
                self.store.tell(Ok(()));
                if let Some(length) = self.trouble.succeeded() {
                    log::info!("leases: well again after {:.1} s", length.as_secs_f64());
                }
            }
            Some(WorkError::Postgres(error)) if error.is_connection_lost() => {
                self.store.tell(Err(&WorkError::Postgres(error)));
            }
            Some(WorkError::Stopped) => {}
            Some(error) => {
                if let Some(length) = self.trouble.failed() {
                    let failure = Failure::Work(error);
                    let hint = if failure.is_denied() { HINT } else { "" };
                    let seconds = length.as_secs();
                    log::warn!("leases: {failure}{hint}; trying again for {seconds} s");
                }
            }
        }
    }
}
