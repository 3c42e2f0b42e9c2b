//! The spool in memory, in memory and on disk, and after restarts.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::memory::ENTRY_BYTES;
use super::*;
use kafka_client::BATCH_HEADER_LEN;

const MIB: u64 = 1024 * 1024;

fn record(value: u64) -> ProduceRecord {
    ProduceRecord {
        timestamp_ms: 7,
        value: value.to_le_bytes().to_vec().into(),
        headers: vec![("seq".to_owned(), value.to_be_bytes().to_vec().into())],
    }
}

fn entry_bytes() -> usize {
    record(0).bytes_max() + ENTRY_BYTES
}

fn push(spool: &mut Spool, topic: &str, value: u64) -> Vec<String> {
    let mut dropped = Vec::new();
    spool.push(&Arc::from(topic), record(value), |topic| dropped.push(topic.to_string()));
    dropped
}

fn save(spool: &mut Spool) -> Vec<String> {
    let mut dropped = Vec::new();
    spool.write_to_disk(|topic| dropped.push(topic.to_string()));
    dropped
}

fn values(records: &[ProduceRecord]) -> Vec<u64> {
    let value = |record: &ProduceRecord| u64::from_le_bytes(record.value[..].try_into().unwrap());
    records.iter().map(value).collect()
}

fn take(spool: &mut Spool, topic: &str) -> Vec<u64> {
    values(&spool.take_batch(topic, usize::MAX, usize::MAX))
}

/// Takes and settles all results of a topic, as the producer does.
fn drain(spool: &mut Spool, topic: &str) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        spool.load_from_disk();
        let bytes_max = spool.memory.bytes_max;
        assert!(spool.memory.bytes <= bytes_max.saturating_mul(3) / 2 + 2 * entry_bytes());
        let records = spool.take_batch(topic, 100, usize::MAX);
        if records.is_empty() {
            spool.write_delivered_marks();
            return all;
        }
        spool.settle_all(topic);
        all.extend(values(&records));
    }
}

fn settle_oldest(spool: &mut Spool, topic: &str, count: usize) {
    spool.settle_positions(topic, &(0..count).collect());
}

/// A temporary folder.
struct SpoolTestFolder(PathBuf);

impl SpoolTestFolder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("spool-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self, bytes_max: usize, disk_bytes_max: u64) -> Spool {
        let mut spool = Spool::new(bytes_max);
        spool.disk_retry = Duration::ZERO;
        spool.attach_folder(SpoolFolder::open(self.0.to_str().unwrap()).unwrap(), disk_bytes_max);
        spool
    }

    fn segments(&self) -> Vec<PathBuf> {
        let paths = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|it| it == "segment")).collect();
        paths.sort();
        paths
    }
}

impl Drop for SpoolTestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_batch_holds_the_oldest_results_of_a_topic_within_its_bounds() {
    let mut spool = Spool::new(usize::MAX);
    for value in 0..6 {
        push(&mut spool, if value % 2 == 0 { "a" } else { "b" }, value);
    }
    assert_eq!(spool.topics(), [Arc::from("a"), Arc::from("b")]);
    assert_eq!(values(&spool.take_batch("a", 2, usize::MAX)), [0, 2]);
    assert_eq!(spool.topics(), [Arc::from("b"), Arc::from("a")]);
    assert_eq!(values(&spool.take_batch("b", 9, 1)), [1], "at least one, however large");
    assert_eq!(
        values(&spool.take_batch("b", 9, BATCH_HEADER_LEN + 2 * record(0).bytes_max())),
        [3, 5]
    );
    assert!(spool.take_batch("c", 9, 9).is_empty());
    assert_eq!(spool.topics(), [Arc::from("a")]);
    assert_eq!((spool.len(), spool.discard_topic("a"), spool.is_empty()), (1, 1, true));
    assert_eq!(spool.memory.bytes, 0);
}

#[test]
fn a_full_memory_drops_the_oldest_result_of_all_topics() {
    let mut spool = Spool::new(3 * entry_bytes());
    assert!(push(&mut spool, "a", 0).is_empty());
    assert!(push(&mut spool, "b", 1).is_empty());
    assert!(push(&mut spool, "a", 2).is_empty());
    assert_eq!(push(&mut spool, "b", 3), ["a"]);
    assert_eq!(push(&mut spool, "b", 4), ["b"]);
    assert_eq!(take(&mut spool, "a"), [2]);
    assert_eq!(take(&mut spool, "b"), [3, 4]);
    assert_eq!(spool.memory.bytes, 0);
}

#[test]
fn a_returned_result_takes_its_old_position() {
    let mut spool = Spool::new(3 * entry_bytes());
    push(&mut spool, "b", 0);
    push(&mut spool, "b", 1);
    push(&mut spool, "a", 2);
    let taken = spool.take_batch("b", 9, usize::MAX);
    spool.return_unsent(&Arc::from("b"), taken);
    assert_eq!(push(&mut spool, "b", 3), ["b"]);
    assert_eq!(take(&mut spool, "b"), [1, 3]);
    assert_eq!(take(&mut spool, "a"), [2]);
    assert_eq!(spool.memory.bytes, 0);
}

/// After a kill the next run sends exactly the results that were synced and not settled.
#[test]
fn a_restart_goes_on_after_what_was_delivered() {
    let scratch = SpoolTestFolder::new();
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    for value in 0..10 {
        push(&mut spool, if value < 6 { "a" } else { "b" }, value);
    }
    save(&mut spool);
    assert_eq!(values(&spool.take_batch("a", 4, usize::MAX)), [0, 1, 2, 3]);
    settle_oldest(&mut spool, "a", 2);
    spool.write_delivered_marks();
    push(&mut spool, "a", 99);
    // The kill: of four results in flight two are settled, and one was not written.
    drop(spool);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!(spool.len(), 8);
    push(&mut spool, "a", 10);
    save(&mut spool);
    assert_eq!(drain(&mut spool, "a"), [2, 3, 4, 5, 10]);
    drop(spool);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    spool.load_from_disk();
    let records = spool.take_batch("b", 9, usize::MAX);
    assert_eq!(records, (6..10).map(record).collect::<Vec<_>>(), "headers and all");
    settle_oldest(&mut spool, "b", 4);
    assert!(spool.is_empty());
    assert_eq!(spool.close(), (0, vec![]));
    assert_eq!(scratch.segments(), [] as [PathBuf; 0]);
    // No number is used twice, even when no segment is left.
    let next = spool.memory.next_number;
    drop(spool);
    assert_eq!(scratch.open(1, MIB).memory.next_number, next);
}

/// A topic with a backlog leaves room for the other topics.
#[test]
fn no_topic_waits_for_the_backlog_of_another() {
    let scratch = SpoolTestFolder::new();
    let bytes_max = 400 * entry_bytes();
    let mut spool = scratch.open(bytes_max, 4 * MIB);
    for value in 0..20_000 {
        assert!(push(&mut spool, "stuck", value).is_empty());
        if value % 50 == 0 {
            assert!(push(&mut spool, "late", value).is_empty());
        }
        if value % 100 == 0 {
            assert!(save(&mut spool).is_empty());
        }
    }
    save(&mut spool);
    assert!(scratch.segments().len() > 1);
    assert!(spool.memory.bytes <= bytes_max);
    assert_eq!(spool.len(), 20_400);
    // A result of a new topic can be dequeued at once.
    push(&mut spool, "new", 1);
    save(&mut spool);
    assert_eq!(drain(&mut spool, "new"), [1]);
    // A topic with a backlog continues while the other topic is not accepted.
    assert_eq!(values(&spool.take_batch("stuck", 3, usize::MAX)), [0, 1, 2]);
    let late: Vec<u64> = (0..400).map(|value| value * 50).collect();
    assert_eq!(drain(&mut spool, "late"), late);
    spool.return_unsent(&Arc::from("stuck"), (0..3).map(record).collect());
    assert_eq!(drain(&mut spool, "stuck"), (0..20_000).collect::<Vec<_>>());
    assert!(spool.is_empty());
    assert_eq!((spool.memory.bytes, spool.memory.bytes_on_disk()), (0, 0));
    assert_eq!(spool.close(), (0, vec![]));
    assert_eq!(scratch.segments(), [] as [PathBuf; 0]);
}

/// The results of a topic come back in order when another topic loads a newer segment.
#[test]
fn a_topic_reads_its_segments_in_order_whichever_topic_loads_them() {
    let scratch = SpoolTestFolder::new();
    let mut spool = scratch.open(400 * entry_bytes(), 4 * MIB);
    for value in 0..10_000 {
        push(&mut spool, "long", value);
        if value >= 8_000 {
            push(&mut spool, "late", value);
        }
        if value % 100 == 0 {
            save(&mut spool);
        }
    }
    save(&mut spool);
    let mut start = Vec::new();
    for topic in ["long", "late"] {
        let window = spool.memory.topics[topic].queue.len();
        assert!(window > 0 && spool.memory.topics[topic].unloaded > 0);
        // One result of the long topic stays in memory, so that it loads no segment.
        let count = window - usize::from(topic == "long");
        start.push(values(&spool.take_batch(topic, count, usize::MAX)));
        settle_oldest(&mut spool, topic, count);
    }
    for (topic, mut all) in ["late", "long"].into_iter().zip(start.into_iter().rev()) {
        all.extend(drain(&mut spool, topic));
        assert_eq!(all, (if topic == "late" { 8_000 } else { 0 }..10_000).collect::<Vec<_>>());
    }
    assert_eq!(spool.take_unreadable_count(), 0);
}

#[test]
fn a_full_folder_drops_the_oldest_results_that_are_not_in_flight() {
    let scratch = SpoolTestFolder::new();
    let mut spool = scratch.open(200 * entry_bytes(), MIB);
    for value in 0..3 {
        push(&mut spool, "a", value);
    }
    save(&mut spool);
    assert_eq!(values(&spool.take_batch("a", 2, usize::MAX)), [0, 1]);
    let mut dropped = 0;
    for value in 3..20_000 {
        assert!(push(&mut spool, "a", value).is_empty());
        if value % 100 == 99 {
            dropped += save(&mut spool).len();
        }
    }
    let bytes: u64 = scratch.segments().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= MIB && dropped > 0, "{bytes} {dropped}");
    assert_eq!(spool.len() + dropped + 2, 20_000);
    settle_oldest(&mut spool, "a", 2);
    let left = drain(&mut spool, "a");
    assert_eq!(left.len() + dropped + 2, 20_000);
    assert_eq!((left[0], *left.last().unwrap()), (2, 19_999));
    assert!(left.is_sorted());
}

/// After the disk recovers, all results are written, including results in flight.
#[test]
fn results_stay_in_memory_while_the_disk_fails() {
    let scratch = SpoolTestFolder::new();
    let moved = scratch.0.with_extension("moved");
    let mut spool = scratch.open(100 * entry_bytes(), 64 * MIB);
    fs::rename(&scratch.0, &moved).unwrap();
    for value in 0..200 {
        let dropped = push(&mut spool, "a", value);
        assert_eq!(dropped.len(), usize::from(value >= 100), "memory has its bound");
        save(&mut spool);
    }
    assert!(spool.disk_retry_at.is_some());
    assert_eq!(values(&spool.take_batch("a", 10, usize::MAX)), (100..110).collect::<Vec<_>>());
    fs::rename(&moved, &scratch.0).unwrap();
    push(&mut spool, "a", 200);
    save(&mut spool);
    assert!(spool.disk_retry_at.is_none());
    // Results in flight were written too, in order; one is returned, the others settled.
    assert_eq!(spool.len(), 91);
    spool.return_unsent(&Arc::from("a"), (105..110).map(record).collect());
    settle_oldest(&mut spool, "a", 2);
    assert_eq!(spool.close(), (99, vec![]));
    drop(spool);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!(drain(&mut spool, "a"), (102..=200).collect::<Vec<_>>());
}

/// A last write at the end saves waiting results and results in flight.
#[test]
fn closing_writes_all_results_to_a_disk_that_has_recovered() {
    let scratch = SpoolTestFolder::new();
    let moved = scratch.0.with_extension("moved");
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    spool.disk_retry = Duration::from_secs(60);
    fs::rename(&scratch.0, &moved).unwrap();
    for value in 0..10 {
        push(&mut spool, if value % 2 == 0 { "a" } else { "b" }, value);
    }
    save(&mut spool);
    assert_eq!(values(&spool.take_batch("a", 3, usize::MAX)), [0, 2, 4]);
    settle_oldest(&mut spool, "a", 1);
    assert_eq!(spool.memory.unsaved.len(), 9);
    fs::rename(&moved, &scratch.0).unwrap();
    save(&mut spool);
    assert_eq!(scratch.segments(), [] as [PathBuf; 0], "it is left alone for a while");
    assert_eq!(spool.close(), (9, vec![]));
    drop(spool);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!(drain(&mut spool, "a"), [2, 4, 6, 8]);
    assert_eq!(drain(&mut spool, "b"), [1, 3, 5, 7, 9]);
}

/// A torn frame is no loss; each damaged frame is counted as one.
#[test]
fn a_torn_frame_is_truncated_and_a_damaged_one_is_counted() {
    let scratch = SpoolTestFolder::new();
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    for value in 0..100 {
        push(&mut spool, "a", value);
    }
    save(&mut spool);
    drop(spool);
    let path = &scratch.segments()[0];
    let length = path.metadata().unwrap().len();
    let frame = (length - segment::FILE_HEAD.len() as u64) / 100;
    File::options().write(true).open(path).unwrap().set_len(length - 3).unwrap();
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!((spool.len(), spool.take_unreadable_count()), (99, 0));
    assert_eq!(path.metadata().unwrap().len(), length - frame);

    // Damage after the folder was opened.
    flip(path, segment::FILE_HEAD.len() as u64 + 10 * frame + 20);
    spool.load_from_disk();
    assert_eq!((spool.len(), spool.take_unreadable_count()), (98, 1));
    drop(spool);
    // Damage in the head of a frame: the rest of the segment can't be read.
    flip(path, segment::FILE_HEAD.len() as u64 + 50 * frame);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!(spool.take_unreadable_count(), 2);
    let expected: Vec<u64> = (0..50).filter(|value| *value != 10).collect();
    assert_eq!(drain(&mut spool, "a"), expected);
}

#[test]
fn discarded_results_do_not_come_back_after_a_restart() {
    let scratch = SpoolTestFolder::new();
    let mut spool = scratch.open(5 * entry_bytes(), 64 * MIB);
    for value in 0..50 {
        push(&mut spool, "refused", value);
        push(&mut spool, "taken", value);
        save(&mut spool);
    }
    assert_eq!(spool.take_batch("refused", 1, usize::MAX).len(), 1);
    settle_oldest(&mut spool, "refused", 1);
    assert_eq!(spool.discard_topic("refused"), 49);
    spool.write_delivered_marks();
    drop(spool);
    let mut spool = scratch.open(5 * entry_bytes(), 64 * MIB);
    assert_eq!(spool.len(), 50);
    assert_eq!(drain(&mut spool, "taken"), (0..50).collect::<Vec<_>>());
}

/// A refused result in the middle of a batch leaves the spool, and only that one: after a
/// kill, a stop or a return to the queue the others are still sent.
#[test]
fn exactly_the_refused_results_leave_the_spool() {
    for refused in 0..3_u64 {
        for end in ["kill", "stop", "return"] {
            let scratch = SpoolTestFolder::new();
            let mut spool = scratch.open(4 * entry_bytes(), 64 * MIB);
            (0..3).for_each(|value| drop(push(&mut spool, "t", value)));
            save(&mut spool);
            let mut taken = spool.take_batch("t", 9, usize::MAX);
            assert_eq!(values(&taken), [0, 1, 2]);
            spool.settle_positions("t", &[refused as usize].into());
            spool.write_delivered_marks();
            let others: Vec<_> = (0..3).filter(|value| *value != refused).collect();
            match end {
                "kill" => drop(spool),
                "stop" => {
                    assert_eq!(spool.close(), (2, Vec::new()));
                    drop(spool);
                }
                _ => {
                    taken.remove(refused as usize);
                    spool.return_unsent(&Arc::from("t"), taken);
                    // The memory is needed for another topic.
                    (100..104).for_each(|value| drop(push(&mut spool, "other", value)));
                    save(&mut spool);
                    assert_eq!(drain(&mut spool, "t"), others, "{refused}");
                    continue;
                }
            }
            let mut next = scratch.open(usize::MAX, 64 * MIB);
            let found = drain(&mut next, "t");
            assert!(others.iter().all(|value| found.contains(value)), "{refused} {end}: {found:?}");
            // Only a refused result behind an unsettled one is sent again.
            assert_eq!(found.contains(&refused), refused > 0, "{refused} {end}: {found:?}");
        }
    }
}

/// The mark passes a refused result as soon as the results before it are delivered.
#[test]
fn the_mark_passes_a_refused_result_when_the_results_before_it_are_settled() {
    let scratch = SpoolTestFolder::new();
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    (0..3).for_each(|value| drop(push(&mut spool, "t", value)));
    save(&mut spool);
    spool.take_batch("t", 9, usize::MAX);
    spool.settle_positions("t", &[2].into());
    spool.settle_all("t");
    spool.write_delivered_marks();
    drop(spool);
    assert_eq!(drain(&mut scratch.open(usize::MAX, 64 * MIB), "t"), [] as [u64; 0]);
}
