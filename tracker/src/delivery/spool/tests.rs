//! Memory alone, memory and disk together, and restarts.

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
    spool.save(|topic| dropped.push(topic.to_string()));
    dropped
}

fn values(records: &[ProduceRecord]) -> Vec<u64> {
    let value = |record: &ProduceRecord| u64::from_le_bytes(record.value[..].try_into().unwrap());
    records.iter().map(value).collect()
}

fn take(spool: &mut Spool, topic: &str) -> Vec<u64> {
    values(&spool.take(topic, usize::MAX, usize::MAX))
}

/// All of a topic, as the producer takes it.
fn drain(spool: &mut Spool, topic: &str) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        spool.load();
        let bytes_max = spool.memory.bytes_max;
        assert!(spool.memory.bytes <= bytes_max.saturating_mul(3) / 2 + 2 * entry_bytes());
        let records = spool.take(topic, 100, usize::MAX);
        if records.is_empty() {
            spool.note();
            return all;
        }
        spool.settled(topic, records.len());
        all.extend(values(&records));
    }
}

/// A folder that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("spool-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self, bytes_max: usize, disk_bytes_max: u64) -> Spool {
        let mut spool = Spool::new(bytes_max);
        spool.disk_retry = Duration::ZERO;
        spool.open(Folder::open(self.0.to_str().unwrap()).unwrap(), disk_bytes_max);
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

impl Drop for Scratch {
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
fn each_topic_gives_its_oldest_first_within_bounds() {
    let mut spool = Spool::new(usize::MAX);
    for value in 0..6 {
        push(&mut spool, if value % 2 == 0 { "a" } else { "b" }, value);
    }
    assert_eq!(spool.topics(), [Arc::from("a"), Arc::from("b")]);
    assert_eq!(values(&spool.take("a", 2, usize::MAX)), [0, 2]);
    assert_eq!(spool.topics(), [Arc::from("b"), Arc::from("a")]);
    assert_eq!(values(&spool.take("b", 9, 1)), [1], "at least one, however large");
    assert_eq!(values(&spool.take("b", 9, BATCH_HEADER_LEN + 2 * record(0).bytes_max())), [3, 5]);
    assert!(spool.take("c", 9, 9).is_empty());
    assert_eq!(spool.topics(), [Arc::from("a")]);
    assert_eq!((spool.len(), spool.discard("a"), spool.is_empty()), (1, 1, true));
    assert_eq!(spool.memory.bytes, 0);
}

#[test]
fn a_full_memory_drops_the_oldest_of_all_topics() {
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
fn what_comes_back_is_in_its_place_again() {
    let mut spool = Spool::new(3 * entry_bytes());
    push(&mut spool, "b", 0);
    push(&mut spool, "b", 1);
    push(&mut spool, "a", 2);
    let taken = spool.take("b", 9, usize::MAX);
    spool.put_back(&Arc::from("b"), taken);
    assert_eq!(push(&mut spool, "b", 3), ["b"]);
    assert_eq!(take(&mut spool, "b"), [1, 3]);
    assert_eq!(take(&mut spool, "a"), [2]);
    assert_eq!(spool.memory.bytes, 0);
}

/// Red without the sync in `Disk::append` put in front of `Memory::saved` (then
/// nothing is in the file), or without `note`.
#[test]
fn a_restart_goes_on_after_what_was_delivered() {
    let scratch = Scratch::new();
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    for value in 0..10 {
        push(&mut spool, if value < 6 { "a" } else { "b" }, value);
    }
    save(&mut spool);
    assert_eq!(values(&spool.take("a", 4, usize::MAX)), [0, 1, 2, 3]);
    spool.settled("a", 2);
    spool.note();
    push(&mut spool, "a", 99);
    // Killed here: two of the four in flight are settled, and one was not saved.
    drop(spool);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!(spool.len(), 8);
    push(&mut spool, "a", 10);
    save(&mut spool);
    assert_eq!(drain(&mut spool, "a"), [2, 3, 4, 5, 10]);
    drop(spool);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    spool.load();
    let records = spool.take("b", 9, usize::MAX);
    assert_eq!(records, (6..10).map(record).collect::<Vec<_>>(), "headers and all");
    spool.settled("b", 4);
    assert!(spool.is_empty());
    assert_eq!(spool.close(), (0, vec![]));
    assert_eq!(scratch.segments(), [] as [PathBuf; 0]);
    // No number is given twice, though no segment is left to tell.
    let next = spool.memory.next_number;
    drop(spool);
    assert_eq!(scratch.open(1, MIB).memory.next_number, next);
}

/// Red when `Memory::load` is never full.
#[test]
fn memory_is_a_window_and_no_topic_waits_for_anothers_backlog() {
    let scratch = Scratch::new();
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
    // A topic that comes now is there at once.
    push(&mut spool, "new", 1);
    save(&mut spool);
    assert_eq!(drain(&mut spool, "new"), [1]);
    // And one with a backlog goes on though the other is stuck.
    assert_eq!(values(&spool.take("stuck", 3, usize::MAX)), [0, 1, 2]);
    let late: Vec<u64> = (0..400).map(|value| value * 50).collect();
    assert_eq!(drain(&mut spool, "late"), late);
    spool.put_back(&Arc::from("stuck"), (0..3).map(record).collect());
    assert_eq!(drain(&mut spool, "stuck"), (0..20_000).collect::<Vec<_>>());
    assert!(spool.is_empty());
    assert_eq!((spool.memory.bytes, spool.memory.bytes_on_disk()), (0, 0));
    assert_eq!(spool.close(), (0, vec![]));
    assert_eq!(scratch.segments(), [] as [PathBuf; 0]);
}

/// Red when `load_segment` does not look for older ones.
#[test]
fn a_topic_reads_its_segments_in_their_order_whoever_asks_for_one() {
    let scratch = Scratch::new();
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
        // One of the long topic stays, so that it asks for nothing.
        let count = window - usize::from(topic == "long");
        start.push(values(&spool.take(topic, count, usize::MAX)));
        spool.settled(topic, count);
    }
    for (topic, mut all) in ["late", "long"].into_iter().zip(start.into_iter().rev()) {
        all.extend(drain(&mut spool, topic));
        assert_eq!(all, (if topic == "late" { 8_000 } else { 0 }..10_000).collect::<Vec<_>>());
    }
    assert_eq!(spool.take_unreadable(), 0);
}

/// Red when `Disk::oldest_to_drop` looks at no bound, or not at what is in flight.
#[test]
fn a_full_folder_drops_the_oldest_that_are_not_in_flight() {
    let scratch = Scratch::new();
    let mut spool = scratch.open(200 * entry_bytes(), MIB);
    for value in 0..3 {
        push(&mut spool, "a", value);
    }
    save(&mut spool);
    assert_eq!(values(&spool.take("a", 2, usize::MAX)), [0, 1]);
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
    spool.settled("a", 2);
    let left = drain(&mut spool, "a");
    assert_eq!(left.len() + dropped + 2, 20_000);
    assert_eq!((left[0], *left.last().unwrap()), (2, 19_999));
    assert!(left.is_sorted());
}

/// Red without the retry in `Spool::save`, when memory drops in its place, and when
/// `Memory::take` leaves what is in flight out of `unsaved`.
#[test]
fn a_disk_that_fails_leaves_all_to_memory_until_it_is_back() {
    let scratch = Scratch::new();
    let away = scratch.0.with_extension("away");
    let mut spool = scratch.open(100 * entry_bytes(), 64 * MIB);
    fs::rename(&scratch.0, &away).unwrap();
    for value in 0..200 {
        let dropped = push(&mut spool, "a", value);
        assert_eq!(dropped.len(), usize::from(value >= 100), "memory has its bound");
        save(&mut spool);
    }
    assert!(spool.failed.is_some());
    assert_eq!(values(&spool.take("a", 10, usize::MAX)), (100..110).collect::<Vec<_>>());
    fs::rename(&away, &scratch.0).unwrap();
    push(&mut spool, "a", 200);
    save(&mut spool);
    assert!(spool.failed.is_none());
    // What is in flight went too, in its place; some of it comes back, some is over.
    assert_eq!(spool.len(), 91);
    spool.put_back(&Arc::from("a"), (105..110).map(record).collect());
    spool.settled("a", 2);
    assert_eq!(spool.close(), (99, vec![]));
    drop(spool);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!(drain(&mut spool, "a"), (102..=200).collect::<Vec<_>>());
}

/// Red without the `save_until` in `Spool::close`, and when `Memory::settled` leaves
/// what is over in `unsaved`.
#[test]
fn a_disk_that_is_back_at_the_end_takes_what_waits_and_what_is_in_flight() {
    let scratch = Scratch::new();
    let away = scratch.0.with_extension("away");
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    spool.disk_retry = Duration::from_secs(60);
    fs::rename(&scratch.0, &away).unwrap();
    for value in 0..10 {
        push(&mut spool, if value % 2 == 0 { "a" } else { "b" }, value);
    }
    save(&mut spool);
    assert_eq!(values(&spool.take("a", 3, usize::MAX)), [0, 2, 4]);
    spool.settled("a", 1);
    assert_eq!(spool.memory.unsaved.len(), 9);
    fs::rename(&away, &scratch.0).unwrap();
    save(&mut spool);
    assert_eq!(scratch.segments(), [] as [PathBuf; 0], "it is left alone for a while");
    assert_eq!(spool.close(), (9, vec![]));
    drop(spool);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!(drain(&mut spool, "a"), [2, 4, 6, 8]);
    assert_eq!(drain(&mut spool, "b"), [1, 3, 5, 7, 9]);
}

/// Red when `Disk::scan` or `load_segment` leaves the loss out of the account.
#[test]
fn what_is_torn_is_cut_and_what_is_broken_is_counted() {
    let scratch = Scratch::new();
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
    assert_eq!((spool.len(), spool.take_unreadable()), (99, 0));
    assert_eq!(path.metadata().unwrap().len(), length - frame);

    // Broken after the start was read.
    flip(path, segment::FILE_HEAD.len() as u64 + 10 * frame + 20);
    spool.load();
    assert_eq!((spool.len(), spool.take_unreadable()), (98, 1));
    drop(spool);
    // And in the head of a frame: nothing after it can be told apart.
    flip(path, segment::FILE_HEAD.len() as u64 + 50 * frame);
    let mut spool = scratch.open(usize::MAX, 64 * MIB);
    assert_eq!(spool.take_unreadable(), 2);
    let expected: Vec<u64> = (0..50).filter(|value| *value != 10).collect();
    assert_eq!(drain(&mut spool, "a"), expected);
}

#[test]
fn results_that_are_given_up_do_not_come_again() {
    let scratch = Scratch::new();
    let mut spool = scratch.open(5 * entry_bytes(), 64 * MIB);
    for value in 0..50 {
        push(&mut spool, "refused", value);
        push(&mut spool, "taken", value);
        save(&mut spool);
    }
    assert_eq!(spool.take("refused", 1, usize::MAX).len(), 1);
    spool.settled("refused", 1);
    assert_eq!(spool.discard("refused"), 49);
    spool.note();
    drop(spool);
    let mut spool = scratch.open(5 * entry_bytes(), 64 * MIB);
    assert_eq!(spool.len(), 50);
    assert_eq!(drain(&mut spool, "taken"), (0..50).collect::<Vec<_>>());
}
