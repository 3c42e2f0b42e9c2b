//! The file as one run writes it and the next reads it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("given-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn file(&self) -> PathBuf {
        self.0.join("given")
    }

    /// One run's start.
    fn start(&self, run: &Run) -> (Given, Untold) {
        open(&Folder::open(self.0.to_str().unwrap()).unwrap(), run)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn note(given: &mut Given, topic: &str, counts: std::ops::RangeInclusive<i64>) {
    let topic = Arc::from(topic);
    counts.for_each(|count| given.note(&topic, count));
}

fn told(untold: &Untold, topic: &str) -> Vec<(kafka_client::Uuid, i64)> {
    untold.of(topic).map(|ended| (ended.run, ended.count)).collect()
}

/// Goes red when `told` does not write, or `begin` takes a place that is not free.
#[test]
fn each_run_is_told_of_until_it_was_told() {
    let scratch = Scratch::new();
    let runs: Vec<Run> = (0..20).map(|_| Run::new().unwrap()).collect();
    let (mut given, untold) = scratch.start(&runs[0]);
    assert_eq!(told(&untold, "a"), []);
    note(&mut given, "a", 1..=7);
    note(&mut given, "b", 1..=1);
    note(&mut given, "a", 8..=8);
    // Killed; and the next too, before it had told anything but of `b`.
    let (mut given, mut untold) = scratch.start(&runs[1]);
    assert_eq!(told(&untold, "a"), [(runs[0].id(), 8)]);
    assert_eq!(told(&untold, "b"), [(runs[0].id(), 1)]);
    note(&mut given, "a", 1..=2);
    untold.told("b");
    assert_eq!(told(&untold, "b"), []);
    let (_, mut untold) = scratch.start(&runs[2]);
    let mut both = told(&untold, "a");
    both.sort_by_key(|(_, count)| *count);
    assert_eq!(both, [(runs[1].id(), 2), (runs[0].id(), 8)]);
    assert_eq!(told(&untold, "b"), []);
    untold.told("a");
    // No more than a record can tell.
    let places = fs::metadata(scratch.file()).unwrap().len();
    for run in &runs {
        let (mut given, untold) = scratch.start(run);
        assert!(untold.of("a").len() <= ENDED_MAX);
        note(&mut given, "a", 1..=3);
    }
    assert_eq!(told(&scratch.start(&runs[0]).1, "a").len(), ENDED_MAX);
    assert_eq!(fs::metadata(scratch.file()).unwrap().len(), places, "places are used again");
}

/// Goes red when `use_file` makes no places.
#[test]
fn more_topics_than_places_make_more() {
    let scratch = Scratch::new();
    let run = Run::new().unwrap();
    let (mut given, _) = scratch.start(&run);
    let length = || fs::metadata(scratch.file()).unwrap().len();
    let at_first = length();
    assert!(at_first > 0);
    let topics: Vec<Arc<str>> = (0..700).map(|n| Arc::from(format!("topic-{n}"))).collect();
    topics.iter().zip(1..).for_each(|(topic, count)| given.note(topic, count));
    assert!(length() > at_first);
    let (_, untold) = scratch.start(&Run::new().unwrap());
    for (topic, count) in topics.iter().zip(1..) {
        assert_eq!(told(&untold, topic), [(run.id(), count)]);
    }
}

/// Goes red when `sort` looks at no age, or `check` at no inode.
#[test]
fn what_is_old_or_a_copy_is_not_told() {
    let scratch = Scratch::new();
    let run = Run::new().unwrap();
    note(&mut scratch.start(&run).0, "a", 1..=7);
    let bytes = fs::read(scratch.file()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = |now| {
        let Sorted { topics, free, passed_over } = sort(&bytes, now);
        assert_eq!(free.len() + topics.len() + passed_over.len(), bytes.len() / PLACE_BYTES - 1);
        (topics.len(), passed_over.len())
    };
    let minute = Duration::from_secs(60);
    assert_eq!(at(now), (1, 0));
    assert_eq!(at(now + TOLD_FOR - minute), (1, 0));
    assert_eq!(at(now + TOLD_FOR + minute), (0, 1));
    assert_eq!(at(now - minute), (1, 0), "a clock that was set back");

    let copy = Scratch::new();
    fs::create_dir_all(&copy.0).unwrap();
    fs::write(copy.file(), &bytes).unwrap();
    let (mut given, untold) = copy.start(&Run::new().unwrap());
    assert_eq!(told(&untold, "a"), []);
    // It is this tracker's from now on.
    note(&mut given, "b", 1..=2);
    assert_eq!(told(&copy.start(&run).1, "b").len(), 1);
    assert_eq!(told(&copy.start(&run).1, "a"), []);
}

/// What a file says of topic `a` and this run: none where it is refused.
fn count(bytes: &[u8], inode: u64, now: Duration, run: &Run) -> Option<i64> {
    check(bytes, inode).ok()?;
    let sorted = sort(bytes, now);
    let (topic, ended) = sorted.topics.iter().next()?;
    assert_eq!((sorted.topics.len(), &**topic, ended[0].0.run), (1, "a", run.id()));
    Some(ended[0].0.count)
}

/// Goes red without the checksum of a count, when it leaves out the name, or with
/// one count in place of two.
#[test]
fn what_is_torn_or_flipped_leaves_the_count_of_before_or_none() {
    let scratch = Scratch::new();
    let run = Run::new().unwrap();
    note(&mut scratch.start(&run).0, "a", 1..=7);
    let inode = fs::metadata(scratch.file()).unwrap().ino();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let whole = fs::read(scratch.file()).unwrap();
    let whole = &whole[..3 * PLACE_BYTES];
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
fn fuzzed_files_tell_what_fits_a_header() {
    let scratch = Scratch::new();
    let mut given = scratch.start(&Run::new().unwrap()).0;
    note(&mut given, "a", 1..=7);
    note(&mut given, "b", 1..=1);
    let inode = fs::metadata(scratch.file()).unwrap().ino();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let whole = fs::read(scratch.file()).unwrap();
    let samples = [whole[..3 * PLACE_BYTES].to_vec(), whole[PLACE_BYTES..2 * PLACE_BYTES].to_vec()];
    testkit::fuzz::run(&samples, |bytes| {
        let _ = check(bytes, inode);
        for ended in sort(bytes, now).topics.values() {
            assert!(!ended.is_empty() && ended.len() <= ENDED_MAX);
            // Only what was written, wherever it stands.
            assert!(ended.iter().all(|(ended, _)| (1..=7).contains(&ended.count)));
        }
    });
}
