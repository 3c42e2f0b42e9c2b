use std::net::TcpListener;
use std::time::Instant;

use super::*;
use crate::probe::Roots;
use crate::probe::net::resolver::ResolverConfig;
use crate::schedule::slot_account::MissedCause;
use crate::targets::{Target, TargetDefaults, parse_websites};
use retry::RETRY_PAUSE;

fn pool(
    workers_max: usize,
    prober: Prober,
    network: NetworkCheck,
    records: Sender<TargetRecord>,
    stop: &Stop,
) -> Pool {
    let fan_out = ResultFanOut::new("oslo", records);
    Pool::new(workers_max, prober, network, RETRY_PAUSE, fan_out, stop.clone())
}

/// Each waiting target gets a worker, even if it is enqueued while the only idle worker receives
/// another target. Some of the many rounds hit this moment.
#[test]
fn each_waiting_target_gets_a_worker() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = hanging.local_addr().unwrap();
    let list = format!("http://127.0.0.1:1/,http://{site}/1,http://{site}/2");
    let timeout = Duration::from_millis(2);
    let defaults = TargetDefaults { timeout, retries: 0, ..TargetDefaults::default() };
    let targets = parse_websites(&list, "x-", &defaults).unwrap();
    let schedule = |target: &Target| Arc::new(ScheduledTarget::new(Arc::new(target.clone())));
    let (_stopper, stop) = common::stop::pair();
    for round in 0..500 {
        let prober = Prober::new(ResolverConfig::default(), &Roots::Custom(vec![])).unwrap();
        let network = NetworkCheck::new(vec![]);
        let (records, results) = bounded(3);
        let mut pool = pool(3, prober, network, records, &stop);
        let scheduled: Vec<_> = targets.iter().map(schedule).collect();
        pool.enqueue(&scheduled[0], None);
        results.recv().unwrap();
        while pool.shared.spare_workers.load(Ordering::Acquire) < 1 {
            std::hint::spin_loop();
        }
        pool.enqueue(&scheduled[1], None);
        let enqueued = Instant::now();
        while enqueued.elapsed() < Duration::from_micros(round % 100) {
            std::hint::spin_loop();
        }
        pool.enqueue(&scheduled[2], None);
        // On a busy machine the first probe may be over already.
        assert!(pool.workers.len() == 2 || !results.is_empty(), "round {round}");
        pool.finish(&stop, Duration::from_secs(1));
        // Empties the backlog of the listener for the next round.
        hanging.set_nonblocking(true).unwrap();
        while hanging.accept().is_ok() {}
    }
}

#[test]
fn a_record_has_slot_missed_slots_attempts_and_marks() {
    let refusing = testkit::sites::RefusingPort::new().unwrap();
    let port = refusing.port().unwrap();
    let list: Vec<_> = (1..=4).map(|host| format!("http://127.0.0.{host}:{port}")).collect();
    let defaults = TargetDefaults { retries: 0, ..TargetDefaults::default() };
    let targets = parse_websites(&list.join(","), "x-", &defaults).unwrap();
    let (_stopper, stop) = common::stop::pair();
    let prober = Prober::new(ResolverConfig::default(), &Roots::Custom(vec![])).unwrap();
    let (records, results) = bounded(9);
    let network = NetworkCheck::new(vec![]);
    let mut pool = pool(9, prober, network, records, &stop);
    let scheduled: Vec<_> = targets
        .into_iter()
        .map(|target| Arc::new(ScheduledTarget::new(Arc::new(target))))
        .collect();
    for (index, target) in scheduled.iter().enumerate() {
        target.record_missed(MissedCause::Stalled, index as u64);
        let slot = Slot { number: index as u64, due_at: clock::now() };
        assert_eq!(pool.enqueue(target, Some(slot)), Enqueue::Queued);
        let extra = results.recv().unwrap().record.extra;
        assert_eq!((extra.slot, extra.period_ms), (Some(index as i64), Some(300_000)));
        assert_eq!(extra.missed.get("stalled").copied().unwrap_or(0), index as i64);
        assert_eq!((extra.attempts, extra.first_reason), (Some(1), None));
        assert_eq!(extra.others_failing, (index == 3).then_some(true), "{index}");
        assert_eq!(extra.no_network, None);
    }
    assert_eq!(pool.lateness().summary().count, 4);
    assert_eq!(pool.finish(&stop, Duration::from_secs(1)), 0);
}

/// A result with a response is never marked no_network, even if no sentinel can be reached.
#[test]
fn a_response_proves_that_there_is_a_network() {
    let refusing = testkit::sites::RefusingPort::new().unwrap();
    let site = testkit::sites::Site::http(|_| {
        vec![testkit::sites::Step::Send(testkit::sites::status_response(500))]
    });
    let hosts = std::env::temp_dir().join(format!("workers-{}", std::process::id()));
    std::fs::write(&hosts, "127.0.0.1 site.test\n").unwrap();
    let sources = ResolverConfig { hosts: hosts.clone(), ..ResolverConfig::default() };
    let prober = Prober::new(sources, &Roots::Custom(vec![])).unwrap();
    let ports = [refusing.port().unwrap(), site.as_ref().unwrap().port()];
    let list = ports.map(|port| format!("http://site.test:{port}")).join(",");
    let defaults = TargetDefaults { retries: 0, ..TargetDefaults::default() };
    let targets = parse_websites(&list, "x-", &defaults).unwrap();
    let unreachable = network::Sentinel::parse_list(&format!("127.0.0.1:{}", ports[0])).unwrap();
    let (_stopper, stop) = common::stop::pair();
    let (records, results) = bounded(9);
    let mut pool = pool(1, prober, NetworkCheck::new(unreachable), records, &stop);
    for (target, expected) in targets.into_iter().zip([Some(true), None]) {
        pool.enqueue(&Arc::new(ScheduledTarget::new(Arc::new(target))), None);
        let record = results.recv().unwrap().record;
        assert_eq!(record.extra.no_network, expected, "{record:?}");
    }
    pool.finish(&stop, Duration::from_secs(1));
    std::fs::remove_file(&hosts).unwrap();
}
