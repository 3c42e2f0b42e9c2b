//! The file `given`, written by one run and read by the next.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

struct IssuedFolder(PathBuf);

impl IssuedFolder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("issued-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn file(&self) -> PathBuf {
        self.0.join("given")
    }

    /// Opens the file as a starting run does.
    fn start(&self, run: &Run) -> (IssuedNumbers, EndedRuns) {
        open(&SpoolFolder::open(self.0.to_str().unwrap()).unwrap(), run)
    }
}

impl Drop for IssuedFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record_counts(issued: &mut IssuedNumbers, topic: &str, counts: std::ops::RangeInclusive<i64>) {
    let topic = Arc::from(topic);
    counts.for_each(|count| issued.record(&topic, count));
}

fn pending(ended_runs: &EndedRuns, topic: &str) -> Vec<(kafka_client::Uuid, i64)> {
    ended_runs.pending(topic).map(|ended| (ended.run, ended.count)).collect()
}

/// Each end is pending until it is delivered, and no entry in use is overwritten.
#[test]
fn an_end_is_pending_until_it_is_delivered() {
    let scratch = IssuedFolder::new();
    let runs: Vec<Run> = (0..20).map(|_| Run::new().unwrap()).collect();
    let (mut issued, ended_runs) = scratch.start(&runs[0]);
    assert_eq!(pending(&ended_runs, "a"), []);
    record_counts(&mut issued, "a", 1..=7);
    record_counts(&mut issued, "b", 1..=1);
    record_counts(&mut issued, "a", 8..=8);
    // A kill. The next run is killed too, after it delivered only the end in `b`.
    let (mut issued, mut ended_runs) = scratch.start(&runs[1]);
    assert_eq!(pending(&ended_runs, "a"), [(runs[0].id(), 8)]);
    assert_eq!(pending(&ended_runs, "b"), [(runs[0].id(), 1)]);
    record_counts(&mut issued, "a", 1..=2);
    ended_runs.remove_delivered("b");
    assert_eq!(pending(&ended_runs, "b"), []);
    let (_, mut ended_runs) = scratch.start(&runs[2]);
    let mut both = pending(&ended_runs, "a");
    both.sort_by_key(|(_, count)| *count);
    assert_eq!(both, [(runs[1].id(), 2), (runs[0].id(), 8)]);
    assert_eq!(pending(&ended_runs, "b"), []);
    ended_runs.remove_delivered("a");
    // At most as many ends as one record can carry.
    let entries = fs::metadata(scratch.file()).unwrap().len();
    for run in &runs {
        let (mut issued, ended_runs) = scratch.start(run);
        assert!(ended_runs.pending("a").len() <= ENDED_MAX);
        record_counts(&mut issued, "a", 1..=3);
    }
    assert_eq!(pending(&scratch.start(&runs[0]).1, "a").len(), ENDED_MAX);
    assert_eq!(fs::metadata(scratch.file()).unwrap().len(), entries, "entries are used again");
}

#[test]
fn the_file_grows_with_the_number_of_topics() {
    let scratch = IssuedFolder::new();
    let run = Run::new().unwrap();
    let (mut issued, _) = scratch.start(&run);
    let length = || fs::metadata(scratch.file()).unwrap().len();
    let at_first = length();
    assert!(at_first > 0);
    let topics: Vec<Arc<str>> = (0..700).map(|n| Arc::from(format!("topic-{n}"))).collect();
    topics.iter().zip(1..).for_each(|(topic, count)| issued.record(topic, count));
    assert!(length() > at_first);
    let (_, ended_runs) = scratch.start(&Run::new().unwrap());
    for (topic, count) in topics.iter().zip(1..) {
        assert_eq!(pending(&ended_runs, topic), [(run.id(), count)]);
    }
}

#[test]
fn an_old_end_and_a_copied_file_are_ignored() {
    let scratch = IssuedFolder::new();
    let run = Run::new().unwrap();
    record_counts(&mut scratch.start(&run).0, "a", 1..=7);
    let bytes = fs::read(scratch.file()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = |now| {
        let EntryScan { topics, free, expired } = scan(&bytes, now);
        assert_eq!(free.len() + topics.len() + expired.len(), bytes.len() / ISSUED_ENTRY_BYTES - 1);
        (topics.len(), expired.len())
    };
    let minute = Duration::from_secs(60);
    assert_eq!(at(now), (1, 0));
    assert_eq!(at(now + REPORT_AGE_MAX - minute), (1, 0));
    assert_eq!(at(now + REPORT_AGE_MAX + minute), (0, 1));
    assert_eq!(at(now - minute), (1, 0), "a clock that was set back");

    let copy = IssuedFolder::new();
    fs::create_dir_all(&copy.0).unwrap();
    fs::write(copy.file(), &bytes).unwrap();
    let (mut issued, ended_runs) = copy.start(&Run::new().unwrap());
    assert_eq!(pending(&ended_runs, "a"), []);
    // From now on the file belongs to this tracker.
    record_counts(&mut issued, "b", 1..=2);
    assert_eq!(pending(&copy.start(&run).1, "b").len(), 1);
    assert_eq!(pending(&copy.start(&run).1, "a"), []);
}

/// The count for topic `a` and this run in a file; `None` if the file is refused.
fn count(bytes: &[u8], inode: u64, now: Duration, run: &Run) -> Option<i64> {
    check(bytes, inode).ok()?;
    let sorted = scan(bytes, now);
    let (topic, ended) = sorted.topics.iter().next()?;
    assert_eq!((sorted.topics.len(), &**topic, ended[0].0.run), (1, "a", run.id()));
    Some(ended[0].0.count)
}

/// A torn or damaged entry yields the previous count or none, never a wrong one.
#[test]
fn a_torn_or_damaged_entry_yields_the_previous_count_or_none() {
    let scratch = IssuedFolder::new();
    let run = Run::new().unwrap();
    record_counts(&mut scratch.start(&run).0, "a", 1..=7);
    let inode = fs::metadata(scratch.file()).unwrap().ino();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let whole = fs::read(scratch.file()).unwrap();
    let whole = &whole[..3 * ISSUED_ENTRY_BYTES];
    assert_eq!(count(whole, inode, now, &run), Some(7));
    let mut before = 0;
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = count(&flipped, inode, now, &run);
        assert!(matches!(found, None | Some(6 | 7)), "{found:?} at bit {bit}");
        before += usize::from(found == Some(6));
    }
    assert_eq!(before, 20 * 8, "the newer of the two counts");
    for length in 0..whole.len() {
        let found = count(&whole[..length], inode, now, &run);
        assert!(matches!(found, None | Some(7)), "{found:?} at {length}");
    }
}

#[test]
fn fuzzed_files_yield_ends_that_fit_a_header() {
    let scratch = IssuedFolder::new();
    let mut issued = scratch.start(&Run::new().unwrap()).0;
    record_counts(&mut issued, "a", 1..=7);
    record_counts(&mut issued, "b", 1..=1);
    let inode = fs::metadata(scratch.file()).unwrap().ino();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let whole = fs::read(scratch.file()).unwrap();
    let samples = [
        whole[..3 * ISSUED_ENTRY_BYTES].to_vec(),
        whole[ISSUED_ENTRY_BYTES..2 * ISSUED_ENTRY_BYTES].to_vec(),
    ];
    testkit::fuzz::run(&samples, |bytes| {
        let _ = check(bytes, inode);
        for ended in scan(bytes, now).topics.values() {
            assert!(!ended.is_empty() && ended.len() <= ENDED_MAX);
            // Only ends that were written, at any position.
            assert!(ended.iter().all(|(ended, _)| (1..=7).contains(&ended.count)));
        }
    });
}
