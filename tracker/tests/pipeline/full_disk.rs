//! A spool on a disk that is really full: a small tmpfs that the test fills.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use common::counted::counted;

use testkit::program::Program;
use testkit::services::{connect, fresh_database};
use testkit::small_disk::SmallDisk;
use testkit::spool_counts::{self, RunCount};

use crate::spool::AbsentKafka;
use crate::{TIMEOUT, hello_site};

/// Larger than the smallest bound of a spool, so that the disk is full first.
const DISK_MIB: u32 = 24;

struct FullDisk {
    absent: AbsentKafka,
    disk: SmallDisk,
    site: String,
}

impl FullDisk {
    fn new() -> Self {
        let absent = AbsentKafka::new();
        let disk = SmallDisk::mount(&absent.folder, DISK_MIB).unwrap();
        Self { absent, disk, site: hello_site() }
    }

    fn tracker(&self, location: &str) -> Program {
        let mut words = self.disk.command_prefix();
        words.push(env!("CARGO_BIN_EXE_tracker").to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.absent.with_variables(location, &self.site, |variables| {
            Program::start(words[0], &words[1..], variables).unwrap()
        })
    }

    fn topic(&self) -> String {
        format!("{}127.0.0.1", self.absent.kafka.prefix)
    }

    fn issued_counts(&self) -> Vec<RunCount> {
        spool_counts::read_counts(&self.disk.path_from_host()).unwrap_or_default()
    }

    /// Waits until all runs together have issued `sum` numbers.
    fn wait_for_issued(&self, sum: i64) -> i64 {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let issued: i64 = self.issued_counts().iter().map(|run| run.count).sum();
            if issued >= sum {
                return issued;
            }
            assert!(Instant::now() < deadline, "{issued} of {sum} numbers");
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }

    /// The sequence numbers of the records in Kafka, in order.
    fn sequences(&self) -> Vec<i64> {
        self.absent.kafka.identities(&self.topic()).iter().map(|it| it.sequence).collect()
    }
}

/// No result is lost or doubled.
#[test]
fn a_disk_that_is_full_for_a_while_neither_loses_nor_doubles_results() {
    let full = FullDisk::new();
    let tracker = full.tracker("oslo");
    full.wait_for_issued(2);
    full.disk.fill().unwrap();
    tracker.wait_for_line("results wait in memory until", TIMEOUT).unwrap();
    let in_memory = full.wait_for_issued(1) + 3;
    full.wait_for_issued(in_memory);
    full.disk.free().unwrap();
    tracker.wait_for_line("results wait on disk again", TIMEOUT).unwrap();
    let all = full.wait_for_issued(in_memory + 2);
    let _forwarder = full.absent.start();
    full.absent.kafka.wait_for_records(&full.topic(), all as usize);
    let ended = tracker.stop(TIMEOUT).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
    let sequences = full.sequences();
    assert_eq!(sequences, (0..sequences.len() as i64).collect::<Vec<_>>());
    let count_lines = ended.log.iter().filter(|line| line.contains("wait in memory"));
    assert_eq!(count_lines.count(), 1, "{:?}", ended.log);
}

/// Results that a kill loses while the disk is full become a gap row, exactly. The test
/// runs the `recorder` in the folder of the tracker's binary.
#[test]
fn results_lost_by_a_kill_on_a_full_disk_become_gap_rows() {
    let full = FullDisk::new();
    let first = full.tracker("oslo");
    full.wait_for_issued(2);
    full.disk.fill().unwrap();
    first.wait_for_line("results wait in memory until", TIMEOUT).unwrap();
    let before = full.wait_for_issued(1);
    full.wait_for_issued(before + 2);
    first.signal("KILL");
    first.wait(TIMEOUT).unwrap();
    let of_first = full.issued_counts();
    // A second kill, when all results of the run are only in memory.
    let second = full.tracker("rome");
    second.wait_for_line("results wait in memory until", TIMEOUT).unwrap();
    full.wait_for_issued(of_first[0].count + 2);
    second.signal("KILL");
    second.wait(TIMEOUT).unwrap();
    let of_both = full.issued_counts();
    assert_eq!((of_first.len(), of_both.len()), (1, 2));

    full.disk.free().unwrap();
    let _forwarder = full.absent.start();
    let third = full.tracker("bonn");
    let line = third.wait_for_line("of the last run first", TIMEOUT).unwrap();
    let records = full.absent.kafka.wait_for_records(&full.topic(), 2);
    let saved = records.iter().filter(|record| record.from == "oslo").count() as i64;
    assert!(saved > 0 && line.contains(&format!(" {} of", counted(saved, "result"))), "{line}");
    assert!(saved < of_first[0].count);

    let services = &full.absent.kafka.services;
    let uri = fresh_database(services).unwrap();
    let ca = services.postgres_ca.display().to_string();
    let recorder = Path::new(env!("CARGO_BIN_EXE_tracker")).with_file_name("recorder");
    assert!(recorder.exists(), "build it first: cargo build -p recorder");
    let variables = [
        ("DOMAIN", "127.0.0.1"),
        ("KAFKA", services.kafka_plain.as_str()),
        ("POSTGRES", uri.as_str()),
        ("PGCA", ca.as_str()),
        ("TOPIC_PREFIX", full.absent.kafka.prefix.as_str()),
    ];
    let recorder = Program::start(recorder, &[], &variables).unwrap();
    recorder.wait_for_line("results never arrived", TIMEOUT).unwrap();
    let mut database = connect(services, &uri).unwrap();
    let sql = "select run::text, from_sequence, to_sequence from availability_gap";
    let gaps: BTreeSet<(String, i64, i64)> = database
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let lost = |of_run: &RunCount| {
        let from = if of_run.run == of_first[0].run { saved } else { 0 };
        (of_run.run.to_string(), from, of_run.count)
    };
    assert_eq!(gaps, of_both.iter().map(lost).collect());
    // Ends that are delivered are removed from the file.
    let remaining = full.issued_counts();
    assert!(
        remaining.len() == 1 && of_both.iter().all(|it| it.run != remaining[0].run),
        "{remaining:?}"
    );
    assert_eq!(third.stop(TIMEOUT).unwrap().status.code(), Some(0));
    assert_eq!(recorder.stop(TIMEOUT).unwrap().status.code(), Some(0));
}

/// The spool works as soon as the disk has room, and once more when the program ends.
#[test]
fn a_disk_that_is_full_from_the_start_is_used_once_it_has_room() {
    let full = FullDisk::new();
    full.disk.fill().unwrap();
    let tracker = full.tracker("oslo");
    tracker.wait_for_line("no gap row will show", TIMEOUT).unwrap();
    tracker.wait_for_line("results wait in memory until", TIMEOUT).unwrap();
    tracker.wait_for_line("kafka: no delivery for", TIMEOUT).unwrap();
    assert_eq!(full.issued_counts(), []);
    full.disk.free().unwrap();
    tracker.wait_for_line("results wait on disk again", TIMEOUT).unwrap();
    let issued = full.wait_for_issued(3);
    // The disk is full again, and has room only shortly before the program ends.
    full.disk.fill().unwrap();
    tracker.wait_for_line("results wait in memory until", TIMEOUT).unwrap();
    full.wait_for_issued(issued + 2);
    full.disk.free().unwrap();
    let ended = tracker.stop(TIMEOUT).unwrap();
    let count_lines = |text: &str| ended.log.iter().filter(|line| line.contains(text)).count();
    let counts = (count_lines("no gap row will show"), count_lines("wait in memory until"));
    assert_eq!(counts, (1, 2), "{:?}", ended.log);
    let kept = (count_lines("left on disk for the next start"), count_lines("lost "));
    assert_eq!(kept, (1, 0), "{:?}", ended.log);
}
