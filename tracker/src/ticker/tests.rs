//! The account against a model of the whole: a clock that stalls and sleeps,
//! probes that take their time, too few workers, results that are not taken,
//! new lists.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::schedule::slot_account::Job;
use crate::targets::{Defaults, parse};

/// A world with a clock of its own; workers are counters.
struct World {
    now: Duration,
    schedule: Schedule,
    queue: VecDeque<Arc<Entry>>,
    running: Vec<(Duration, Arc<Entry>)>,
    workers: usize,
    full: bool,
    /// Of each target: slots that were due, by the grid alone; records; what they
    /// count as missed.
    accounts: HashMap<String, (u64, u64, u64)>,
    logged: Missed,
    told: Missed,
}

impl World {
    fn pass(&mut self, time: Duration, unseen: Cause) {
        self.now += time;
        while let Some(due) = self.schedule.pop(self.now) {
            let account = self.accounts.entry(due.entry.target().url.to_string()).or_default();
            account.0 += due.missed + u64::from(due.slot.is_some());
            let (full, queue) = (self.full, &mut self.queue);
            offer(&due, unseen, &mut self.logged, || {
                let offer = due.entry.offer(due.slot, full);
                if offer == Offer::Queue {
                    queue.push_back(Arc::clone(&due.entry));
                }
                offer
            });
        }
    }

    /// Ends the probes that are over, and begins others, each for so long.
    fn work(&mut self, took: impl Fn() -> Duration) {
        let now = self.now;
        if !self.full {
            self.running.retain(|(until, entry)| {
                if *until <= now {
                    entry.done();
                }
                *until > now
            });
        }
        while self.running.len() < self.workers
            && let Some(entry) = self.queue.pop_front()
        {
            let Some(job) = entry.take() else { continue };
            self.record(&job);
            self.running.push((now + took(), entry));
        }
    }

    fn record(&mut self, job: &Job) {
        let slot = job.slot.unwrap();
        let account = self.accounts.get_mut(job.target.url.as_str()).unwrap();
        account.1 += 1;
        account.2 += job.missed.total();
        Cause::ALL.into_iter().for_each(|cause| self.told.add(cause, job.missed.of(cause)));
        // Every slot up to this one is a record or is counted by one.
        assert_eq!(slot.number + 1, account.1 + account.2, "{job:?}");
        assert!(slot.number < account.0);
        assert!(slot.due_at <= self.now);
    }
}

fn list(random: &mut fastrand::Rng) -> Vec<Arc<Target>> {
    let mut list = Vec::new();
    for number in 0..8 {
        let period = Duration::from_secs([1, 7, 60][random.usize(..3)]);
        let defaults = Defaults { period, ..Defaults::default() };
        // The last ones come and go.
        if number < 5 || random.bool() {
            let url = format!("http://a.io/{number}");
            list.extend(parse(&url, "x-", &defaults).unwrap().into_iter().map(Arc::new));
        }
    }
    list
}

#[test]
fn every_due_slot_is_a_record_or_is_counted_by_one() {
    let mut told = Missed::default();
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let start = Duration::from_secs(1_000);
        let mut world = World {
            now: start,
            schedule: Schedule::new(start, "oslo", &list(&mut random)),
            queue: VecDeque::new(),
            running: Vec::new(),
            workers: random.usize(1..6),
            full: false,
            accounts: HashMap::new(),
            logged: Missed::default(),
            told: Missed::default(),
        };
        for _ in 0..400 {
            let (time_ms, unseen) = match random.u32(..100) {
                0 => (random.u64(..1_000_000), Cause::Suspended),
                1..5 => (random.u64(..20_000), Cause::Stalled),
                _ => (random.u64(..500), Cause::Stalled),
            };
            world.pass(Duration::from_millis(time_ms), unseen);
            world.full = random.u32(..50) == 0 || (world.full && random.u32(..20) != 0);
            let took_ms = std::cell::RefCell::new(random.fork());
            world.work(|| Duration::from_millis(took_ms.borrow_mut().u64(..3_000)));
            if random.u32(..100) == 0 {
                world.schedule.apply(&list(&mut random), world.now);
            }
        }
        for cause in Cause::ALL {
            // Whoever takes a target off the list knows.
            let is_logged = cause != Cause::Reload;
            assert!(!is_logged || world.told.of(cause) <= world.logged.of(cause), "{cause:?}");
            told.add(cause, world.told.of(cause));
        }
    }
    for cause in Cause::ALL {
        assert!(told.of(cause) > 0, "{cause:?} never came");
    }
}

#[test]
fn a_new_list_is_applied_and_its_workers_allowed() {
    let (_stopper, stop) = common::stop::pair();
    let prober =
        crate::probe::Prober::new(Default::default(), &crate::probe::Roots::These(vec![])).unwrap();
    let (results, _taken) = crossbeam_channel::bounded(1);
    let network = crate::workers::network::Network::new(vec![]);
    let mut pool = Pool::new(1, "oslo", prober, network, results, stop);
    let start = Look::take();
    let mut random = fastrand::Rng::with_seed(1);
    let targets = list(&mut random);
    let schedule = Schedule::new(start.now, "oslo", &targets);
    let mut ticker = Ticker { schedule, last: start, report: Report::new(start.now) };
    ticker.take(List { targets: targets[1..].to_vec(), workers: 3 }, &mut pool);
    assert_eq!((ticker.schedule.entries().count(), pool.workers_max()), (targets.len() - 1, 3));
    // Fewer are no reason to end one.
    ticker.take(List { targets, workers: 2 }, &mut pool);
    assert_eq!(pool.workers_max(), 3);
}
