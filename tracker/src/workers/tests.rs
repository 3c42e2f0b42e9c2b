use std::net::TcpListener;
use std::time::Instant;

use super::*;
use crate::probe::Roots;
use crate::probe::net::resolver::Sources;
use crate::targets::Defaults;

/// The one idle worker is caught while it takes the first of two targets,
/// in some of many rounds.
#[test]
fn each_target_that_waits_has_a_worker() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = hanging.local_addr().unwrap();
    let list = format!("http://127.0.0.1:1/,http://{site}/1,http://{site}/2");
    let timeout = Duration::from_millis(2);
    let defaults = Defaults { timeout, retries: 0, ..Defaults::default() };
    let targets = crate::targets::parse(&list, "x-", &defaults).unwrap();
    let entry = |target: &Target| Arc::new(Entry::new(Arc::new(target.clone())));
    let (_stopper, stop) = common::stop::pair();
    for round in 0..500 {
        let prober = Prober::new(Sources::default(), &Roots::These(vec![])).unwrap();
        let network = Network::new(vec![]);
        let (results_in, results) = bounded(3);
        let mut pool = Pool::new(3, "oslo", prober, network, results_in, stop.clone());
        let entries: Vec<_> = targets.iter().map(entry).collect();
        pool.offer(&entries[0], None);
        results.recv().unwrap();
        while pool.shared.spare.load(Ordering::Acquire) < 1 {
            std::hint::spin_loop();
        }
        pool.offer(&entries[1], None);
        let offered = Instant::now();
        while offered.elapsed() < Duration::from_micros(round % 100) {
            std::hint::spin_loop();
        }
        pool.offer(&entries[2], None);
        // On a busy machine the first may be done with already.
        assert!(pool.workers.len() == 2 || !results.is_empty(), "round {round}");
        pool.finish(&stop, Duration::from_secs(1));
        // What the system keeps of the connections is taken, so that its queue has room.
        hanging.set_nonblocking(true).unwrap();
        while hanging.accept().is_ok() {}
    }
}

#[test]
fn a_record_says_slot_missed_attempts_and_whether_others_fail() {
    let refusing = testkit::sites::Refusing::new().unwrap();
    let port = refusing.port().unwrap();
    let list: Vec<_> = (1..=4).map(|host| format!("http://127.0.0.{host}:{port}")).collect();
    let defaults = Defaults { retries: 0, ..Defaults::default() };
    let targets = crate::targets::parse(&list.join(","), "x-", &defaults).unwrap();
    let (_stopper, stop) = common::stop::pair();
    let prober = Prober::new(Sources::default(), &Roots::These(vec![])).unwrap();
    let (results_in, results) = bounded(9);
    let network = Network::new(vec![]);
    let mut pool = Pool::new(9, "oslo", prober, network, results_in, stop.clone());
    let entries: Vec<_> =
        targets.into_iter().map(|target| Arc::new(Entry::new(Arc::new(target)))).collect();
    for (index, entry) in entries.iter().enumerate() {
        entry.miss(crate::schedule::slot_account::Cause::Stalled, index as u64);
        let slot = Slot { number: index as u64, due_at: clock::now() };
        assert_eq!(pool.offer(entry, Some(slot)), Offer::Queue);
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

/// A sentinel that is gone excuses no site that answered.
#[test]
fn what_answers_was_not_without_a_network() {
    let refusing = testkit::sites::Refusing::new().unwrap();
    let site = testkit::sites::Site::http(|_| {
        vec![testkit::sites::Step::Send(testkit::sites::answer(500))]
    });
    let hosts = std::env::temp_dir().join(format!("workers-{}", std::process::id()));
    std::fs::write(&hosts, "127.0.0.1 site.test\n").unwrap();
    let sources = Sources { hosts: hosts.clone(), ..Sources::default() };
    let prober = Prober::new(sources, &Roots::These(vec![])).unwrap();
    let ports = [refusing.port().unwrap(), site.as_ref().unwrap().port()];
    let list = ports.map(|port| format!("http://site.test:{port}")).join(",");
    let defaults = Defaults { retries: 0, ..Defaults::default() };
    let targets = crate::targets::parse(&list, "x-", &defaults).unwrap();
    let gone =
        crate::workers::network::Sentinel::parse_list(&format!("127.0.0.1:{}", ports[0])).unwrap();
    let (_stopper, stop) = common::stop::pair();
    let (results_in, results) = bounded(9);
    let mut pool = Pool::new(1, "oslo", prober, Network::new(gone), results_in, stop.clone());
    for (target, expected) in targets.into_iter().zip([Some(true), None]) {
        pool.offer(&Arc::new(Entry::new(Arc::new(target))), None);
        let record = results.recv().unwrap().record;
        assert_eq!(record.extra.no_network, expected, "{record:?}");
    }
    pool.finish(&stop, Duration::from_secs(1));
    std::fs::remove_file(&hosts).unwrap();
}
