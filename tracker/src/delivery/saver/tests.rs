//! Results numbered and handed over, with nobody who takes them.

use common::identity::Identity;
use common::record::{Record, Status};
use crossbeam_channel::bounded;

use super::*;
use crate::targets::{Defaults, Target, parse};

fn target() -> Arc<Target> {
    Arc::new(parse("http://a.example/", "webactivity-", &Defaults::default()).unwrap().remove(0))
}

fn probed(target: &Arc<Target>) -> Probed {
    let record = Record {
        from: "oslo".to_owned(),
        url: target.recorded_url.clone(),
        timestamp: 1.0,
        status: Status::Unresponsive,
        phrase: "connection refused".to_owned(),
        dns_ms: None,
        response_ms: None,
        detail: None,
        offset: -1,
        extra: common::record::Extra::default(),
    };
    Probed { target: Arc::clone(target), record: Box::new(record) }
}

fn sequences(records: Vec<ProduceRecord>) -> Vec<usize> {
    let sequence = |record: ProduceRecord| {
        let headers: Vec<_> =
            record.headers.into_iter().map(|(key, value)| (key, Some(value))).collect();
        Identity::from_headers(&headers).unwrap().unwrap().sequence as usize
    };
    records.into_iter().map(sequence).collect()
}

/// Goes red when `take` counts `sequence` back down for a dropped result.
#[test]
fn what_a_full_spool_drops_leaves_a_hole_in_the_numbers() {
    let handover = Arc::new(Handover::new(2_000));
    let mut saver = Saver::new(Arc::clone(&handover), Run::new().unwrap());
    let target = target();
    for _ in 0..50 {
        saver.take(probed(&target));
        saver.hand_over(None);
    }
    let mut state = handover.state();
    let waiting = state.spool.take(&target.topic, 50, usize::MAX);
    let lost = state.account.lost;
    assert!(lost > 0);
    assert_eq!(sequences(waiting), (lost..50).collect::<Vec<_>>());
}

/// Goes red when the saver waits for whoever takes results: nobody does here.
#[test]
fn results_are_numbered_and_handed_over_while_nobody_takes_them() {
    let handover = Arc::new(Handover::new(usize::MAX));
    let saver = Saver::new(Arc::clone(&handover), Run::new().unwrap());
    let (results_in, results) = bounded(10);
    let (say_no_more, no_more) = bounded(1);
    let thread = std::thread::spawn(move || saver.run(&results, &no_more));
    let target = target();
    for count in 1..=25 {
        results_in.send(probed(&target)).unwrap();
        // As the producer does, which finds that there is work.
        assert_eq!(handover.wait(false, None), None);
        if count % 5 == 0 {
            let mut taken = Vec::new();
            while taken.len() < 5 {
                assert_eq!(handover.wait(false, None), None);
                taken.extend(handover.state().spool.take(&target.topic, 5, usize::MAX));
            }
            assert_eq!(sequences(taken), (count - 5..count).collect::<Vec<_>>());
        }
    }
    results_in.send(probed(&target)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    say_no_more.send(deadline).unwrap();
    thread.join().unwrap();
    // What had come by then is there, and the end is said.
    assert_eq!(handover.wait(false, None), Some(deadline));
    let state = handover.state();
    assert_eq!((state.spool.len(), state.account.unhealthy), (1, 26));
}

/// Goes red when `wait_for_results` hands over before `next_at`.
#[test]
fn results_that_follow_each_other_are_handed_over_together() {
    let mut saver = Saver::new(Arc::new(Handover::new(usize::MAX)), Run::new().unwrap());
    let (results_in, results) = bounded(10);
    let (_say_no_more, no_more) = bounded(1);
    let target = target();
    // The first one of all goes at once.
    results_in.send(probed(&target)).unwrap();
    assert_eq!(saver.wait_for_results(&results, &no_more), None);
    assert_eq!((saver.numbered.len(), saver.next_at), (1, None));
    saver.hand_over(None);
    let next_at = saver.next_at.unwrap();
    for _ in 0..3 {
        results_in.send(probed(&target)).unwrap();
    }
    assert_eq!(saver.wait_for_results(&results, &no_more), None);
    assert!(Instant::now() >= next_at);
    assert_eq!(saver.numbered.len(), 3);
}

/// Goes red when `wait_for_results` waits for `next_at` whatever `no_more` says.
#[test]
fn the_end_waits_for_no_results_to_follow() {
    let handover = Arc::new(Handover::new(usize::MAX));
    let mut saver = Saver::new(Arc::clone(&handover), Run::new().unwrap());
    let (results_in, results) = bounded(10);
    let (say_no_more, no_more) = bounded(1);
    let deadline = Instant::now() + Duration::from_secs(600);
    saver.next_at = Some(deadline);
    results_in.send(probed(&target())).unwrap();
    let thread = std::thread::spawn(move || saver.run(&results, &no_more));
    say_no_more.send(deadline).unwrap();
    thread.join().unwrap();
    assert!(Instant::now() < deadline);
    let state = handover.state();
    assert_eq!((state.spool.len(), state.no_more), (1, Some(deadline)));
}

/// Goes red without `End`.
#[test]
fn the_end_is_said_however_the_saver_ends() {
    let handover = Arc::new(Handover::new(usize::MAX));
    let saver = Saver::new(Arc::clone(&handover), Run::new().unwrap());
    let (results_in, results) = bounded(1);
    let (say_no_more, no_more) = bounded(1);
    drop((results_in, say_no_more));
    saver.run(&results, &no_more);
    assert!(handover.state().no_more.is_some());
    handover.state().no_more = None;
    drop(End(Arc::clone(&handover)));
    assert!(handover.state().no_more.is_some());
}

/// Goes red when `wait_for_results` does not wake at `retry_at`.
#[test]
fn a_disk_that_has_failed_is_tried_again_though_nothing_comes() {
    let path = std::env::temp_dir().join(format!("saver-{}", std::process::id()));
    let handover = Arc::new(Handover::new(usize::MAX));
    let mut saver = Saver::new(Arc::clone(&handover), Run::new().unwrap());
    saver.wait_on_disk(Folder::open(path.to_str().unwrap()).unwrap(), 64 << 20);
    let (results_in, results) = bounded(10);
    let (say_no_more, no_more) = bounded(1);
    let thread = std::thread::spawn(move || saver.run(&results, &no_more));
    let wait_until = |done: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < end);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    };
    wait_until(&|| handover.state().spool.has_disk());
    // Where a folder stands no file can be made.
    let segment = path.join("00000000000000000001.segment");
    std::fs::create_dir(&segment).unwrap();
    results_in.send(probed(&target())).unwrap();
    wait_until(&|| handover.state().spool.retry_at().is_some());
    std::fs::remove_dir(&segment).unwrap();
    wait_until(&|| segment.is_file() && handover.state().spool.retry_at().is_none());
    say_no_more.send(Instant::now()).unwrap();
    thread.join().unwrap();
    assert_eq!(handover.state().spool.close(), (1, vec![]));
    std::fs::remove_dir_all(&path).unwrap();
}
