//! The account of slots against a model: a clock that stalls and is suspended, slow probes, too few
//! workers, blocked delivery, reloads.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::schedule::slot_account::ProbeJob;
use crate::targets::{TargetDefaults, parse_websites};
use crate::workers::ResultFanOut;
use crate::workers::network::NetworkCheck;
use crate::workers::retry::RETRY_PAUSE;

/// A simulated tracker with its own clock. Workers are a number.
struct Simulation {
    now: Duration,
    schedule: Schedule,
    queue: VecDeque<Arc<ScheduledTarget>>,
    running: Vec<(Duration, Arc<ScheduledTarget>)>,
    workers: usize,
    is_delivery_blocked: bool,
    /// For each target: slots that were due by the grid, records, missed slots in these records.
    accounts: HashMap<String, (u64, u64, u64)>,
    logged: MissedSlots,
    reported: MissedSlots,
}

impl Simulation {
    fn pass(&mut self, time: Duration, unnoticed_cause: MissedCause) {
        self.now += time;
        while let Some(due) = self.schedule.pop_due(self.now) {
            let account = self.accounts.entry(due.target.target().url.to_string()).or_default();
            account.0 += due.missed + u64::from(due.slot.is_some());
            let (is_delivery_blocked, queue) = (self.is_delivery_blocked, &mut self.queue);
            enqueue_and_count(&due, unnoticed_cause, &mut self.logged, || {
                let enqueued = due.target.enqueue(due.slot, is_delivery_blocked);
                if enqueued == Enqueue::Queued {
                    queue.push_back(Arc::clone(&due.target));
                }
                enqueued
            });
        }
    }

    /// Ends the probes that are over, and starts others. `duration` returns how long each takes.
    fn run_workers(&mut self, duration: impl Fn() -> Duration) {
        let now = self.now;
        if !self.is_delivery_blocked {
            self.running.retain(|(until, target)| {
                if *until <= now {
                    target.finish_job();
                }
                *until > now
            });
        }
        while self.running.len() < self.workers
            && let Some(target) = self.queue.pop_front()
        {
            let Some(job) = target.start_job() else { continue };
            self.record(&job);
            self.running.push((now + duration(), target));
        }
    }

    fn record(&mut self, job: &ProbeJob) {
        let slot = job.slot.unwrap();
        let account = self.accounts.get_mut(job.target.url.as_str()).unwrap();
        account.1 += 1;
        account.2 += job.missed.total();
        MissedCause::ALL
            .into_iter()
            .for_each(|cause| self.reported.add(cause, job.missed.count(cause)));
        // Each slot up to this one has a record or is counted by one.
        assert_eq!(slot.number + 1, account.1 + account.2, "{job:?}");
        assert!(slot.number < account.0);
        assert!(slot.due_at <= self.now);
    }
}

fn list(random: &mut fastrand::Rng) -> Vec<Arc<Target>> {
    let mut list = Vec::new();
    for number in 0..8 {
        let period = Duration::from_secs([1, 7, 60][random.usize(..3)]);
        let defaults = TargetDefaults { period, ..TargetDefaults::default() };
        // Targets 5 to 7 are in some lists only.
        if number < 5 || random.bool() {
            let url = format!("http://a.io/{number}");
            list.extend(parse_websites(&url, "x-", &defaults).unwrap().into_iter().map(Arc::new));
        }
    }
    list
}

#[test]
fn each_due_slot_has_a_record_or_is_counted_by_one() {
    let mut reported = MissedSlots::default();
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let start = Duration::from_secs(1_000);
        let mut simulation = Simulation {
            now: start,
            schedule: Schedule::new(start, "oslo", &list(&mut random)),
            queue: VecDeque::new(),
            running: Vec::new(),
            workers: random.usize(1..6),
            is_delivery_blocked: false,
            accounts: HashMap::new(),
            logged: MissedSlots::default(),
            reported: MissedSlots::default(),
        };
        for _ in 0..400 {
            let (time_ms, unnoticed_cause) = match random.u32(..100) {
                0 => (random.u64(..1_000_000), MissedCause::Suspended),
                1..5 => (random.u64(..20_000), MissedCause::Stalled),
                _ => (random.u64(..500), MissedCause::Stalled),
            };
            simulation.pass(Duration::from_millis(time_ms), unnoticed_cause);
            simulation.is_delivery_blocked =
                random.u32(..50) == 0 || (simulation.is_delivery_blocked && random.u32(..20) != 0);
            let duration_ms = std::cell::RefCell::new(random.fork());
            simulation.run_workers(|| Duration::from_millis(duration_ms.borrow_mut().u64(..3_000)));
            if random.u32(..100) == 0 {
                simulation.schedule.apply(&list(&mut random), simulation.now);
            }
        }
        for cause in MissedCause::ALL {
            // Slots of removed targets are not logged: they were removed on request.
            let is_logged = cause != MissedCause::Reload;
            assert!(
                !is_logged || simulation.reported.count(cause) <= simulation.logged.count(cause),
                "{cause:?}"
            );
            reported.add(cause, simulation.reported.count(cause));
        }
    }
    for cause in MissedCause::ALL {
        assert!(reported.count(cause) > 0, "{cause:?} never occurred");
    }
}

#[test]
fn a_reload_changes_the_targets_and_raises_workers_max() {
    let (_stopper, stop) = common::stop::pair();
    let prober =
        crate::probe::Prober::new(Default::default(), &crate::probe::Roots::Custom(vec![]))
            .unwrap();
    let (records, _receiver) = crossbeam_channel::bounded(1);
    let network = NetworkCheck::new(vec![]);
    let fan_out = ResultFanOut::new("oslo", records);
    let mut pool = Pool::new(1, prober, network, RETRY_PAUSE, fan_out, stop);
    let start = ClockReadings::read();
    let mut random = fastrand::Rng::with_seed(1);
    let targets = list(&mut random);
    let schedule = Schedule::new(start.now, "oslo", &targets);
    let missed_log = MissedLog::new(start.now);
    let mut ticker = Ticker { schedule, clocks: start, missed_log };
    let reloaded = Reloaded { targets: targets[1..].to_vec(), workers_max: 3 };
    ticker.apply_reload(&reloaded, &mut pool);
    assert_eq!((ticker.schedule.targets().count(), pool.workers_max()), (targets.len() - 1, 3));
    // A lower limit changes nothing.
    ticker.apply_reload(&Reloaded { targets, workers_max: 2 }, &mut pool);
    assert_eq!(pool.workers_max(), 3);
}
