//! The saver without a producer.

use common::identity::Identity;
use common::record::{Record, Status};
use crossbeam_channel::bounded;

use super::*;
use crate::targets::{Target, TargetDefaults, parse_websites};

fn target() -> Arc<Target> {
    Arc::new(
        parse_websites("http://a.example/", "webactivity-", &TargetDefaults::default())
            .unwrap()
            .remove(0),
    )
}

fn probed(target: &Arc<Target>) -> TargetRecord {
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
    TargetRecord { target: Arc::clone(target), record: Box::new(record) }
}

fn sequences(records: Vec<ProduceRecord>) -> Vec<usize> {
    let sequence = |record: ProduceRecord| {
        let headers: Vec<_> =
            record.headers.into_iter().map(|(key, value)| (key, Some(value))).collect();
        Identity::from_headers(&headers).unwrap().unwrap().sequence as usize
    };
    records.into_iter().map(sequence).collect()
}

/// A dropped result keeps its sequence number, so its loss shows as a gap.
#[test]
fn a_result_dropped_by_a_full_spool_leaves_a_gap_in_the_sequence() {
    let shared_spool = Arc::new(SharedSpool::new(2_000));
    let mut saver = Saver::new(Arc::clone(&shared_spool), Run::new().unwrap());
    let target = target();
    for _ in 0..50 {
        saver.assign_number(probed(&target));
        saver.flush(None);
    }
    let mut state = shared_spool.lock();
    let waiting = state.spool.take_batch(&target.topic, 50, usize::MAX);
    let lost = state.totals.lost;
    assert!(lost > 0);
    assert_eq!(sequences(waiting), (lost..50).collect::<Vec<_>>());
}

/// The saver never waits for the producer.
#[test]
fn results_are_flushed_while_no_producer_takes_them() {
    let shared_spool = Arc::new(SharedSpool::new(usize::MAX));
    let saver = Saver::new(Arc::clone(&shared_spool), Run::new().unwrap());
    let (results_in, results) = bounded(10);
    let (end_sender, end) = bounded(1);
    let thread = std::thread::spawn(move || saver.run(&results, &end));
    let target = target();
    for count in 1..=25 {
        results_in.send(probed(&target)).unwrap();
        // The producer waits for work like this.
        assert_eq!(shared_spool.wait_for_work(false, None), None);
        if count % 5 == 0 {
            let mut taken = Vec::new();
            while taken.len() < 5 {
                assert_eq!(shared_spool.wait_for_work(false, None), None);
                taken.extend(shared_spool.lock().spool.take_batch(&target.topic, 5, usize::MAX));
            }
            assert_eq!(sequences(taken), (count - 5..count).collect::<Vec<_>>());
        }
    }
    results_in.send(probed(&target)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    end_sender.send(deadline).unwrap();
    thread.join().unwrap();
    // All results are in the spool, and the drain deadline is set.
    assert_eq!(shared_spool.wait_for_work(false, None), Some(deadline));
    let state = shared_spool.lock();
    assert_eq!((state.spool.len(), state.totals.unhealthy), (1, 26));
}

/// Results that follow each other quickly are flushed together.
#[test]
fn results_wait_for_the_next_flush() {
    let mut saver = Saver::new(Arc::new(SharedSpool::new(usize::MAX)), Run::new().unwrap());
    let (results_in, results) = bounded(10);
    let (_end_sender, end) = bounded(1);
    let target = target();
    // The very first result is flushed at once.
    results_in.send(probed(&target)).unwrap();
    assert_eq!(saver.collect_results(&results, &end), None);
    assert_eq!((saver.numbered.len(), saver.next_flush_at), (1, None));
    saver.flush(None);
    let next_flush_at = saver.next_flush_at.unwrap();
    for _ in 0..3 {
        results_in.send(probed(&target)).unwrap();
    }
    assert_eq!(saver.collect_results(&results, &end), None);
    assert!(Instant::now() >= next_flush_at);
    assert_eq!(saver.numbered.len(), 3);
}

/// The end of the program does not wait for the next flush.
#[test]
fn the_end_does_not_wait_for_the_next_flush() {
    let shared_spool = Arc::new(SharedSpool::new(usize::MAX));
    let mut saver = Saver::new(Arc::clone(&shared_spool), Run::new().unwrap());
    let (results_in, results) = bounded(10);
    let (end_sender, end) = bounded(1);
    let deadline = Instant::now() + Duration::from_secs(600);
    saver.next_flush_at = Some(deadline);
    results_in.send(probed(&target())).unwrap();
    let thread = std::thread::spawn(move || saver.run(&results, &end));
    end_sender.send(deadline).unwrap();
    thread.join().unwrap();
    assert!(Instant::now() < deadline);
    let state = shared_spool.lock();
    assert_eq!((state.spool.len(), state.drain_deadline), (1, Some(deadline)));
}

/// The deadline of the drain is set even if the saver panics.
#[test]
fn the_drain_deadline_is_set_however_the_saver_ends() {
    let shared_spool = Arc::new(SharedSpool::new(usize::MAX));
    let saver = Saver::new(Arc::clone(&shared_spool), Run::new().unwrap());
    let (results_in, results) = bounded(1);
    let (end_sender, end) = bounded(1);
    drop((results_in, end_sender));
    saver.run(&results, &end);
    assert!(shared_spool.lock().drain_deadline.is_some());
    shared_spool.lock().drain_deadline = None;
    drop(EndGuard(Arc::clone(&shared_spool)));
    assert!(shared_spool.lock().drain_deadline.is_some());
}

/// The saver retries the disk without a new result.
#[test]
fn a_failed_disk_is_retried_although_no_result_arrives() {
    let path = std::env::temp_dir().join(format!("saver-{}", std::process::id()));
    let shared_spool = Arc::new(SharedSpool::new(usize::MAX));
    let mut saver = Saver::new(Arc::clone(&shared_spool), Run::new().unwrap());
    saver.use_folder(SpoolFolder::open(path.to_str().unwrap()).unwrap(), 64 << 20);
    let (results_in, results) = bounded(10);
    let (end_sender, end) = bounded(1);
    let thread = std::thread::spawn(move || saver.run(&results, &end));
    let wait_until = |done: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < end);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    };
    wait_until(&|| shared_spool.lock().spool.has_disk());
    // A directory in place of the segment makes creating the file fail.
    let segment = path.join("00000000000000000001.segment");
    std::fs::create_dir(&segment).unwrap();
    results_in.send(probed(&target())).unwrap();
    wait_until(&|| shared_spool.lock().spool.disk_retry_at().is_some());
    std::fs::remove_dir(&segment).unwrap();
    wait_until(&|| segment.is_file() && shared_spool.lock().spool.disk_retry_at().is_none());
    end_sender.send(Instant::now()).unwrap();
    thread.join().unwrap();
    assert_eq!(shared_spool.lock().spool.close(), (1, vec![]));
    std::fs::remove_dir_all(&path).unwrap();
}
