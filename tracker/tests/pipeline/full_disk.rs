//! A spool on a disk that is really full: a small tmpfs, filled.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use testkit::given::{self, Given};
use testkit::program::Program;
use testkit::services::{connect, fresh_database};
use testkit::small_disk::SmallDisk;

use crate::spool::Away;
use crate::{PATIENCE, hello_site};

/// More than the least bound of a spool, so that it is the disk that is full.
const DISK_MIB: u32 = 24;

struct Full {
    away: Away,
    disk: SmallDisk,
    site: String,
}

impl Full {
    fn new() -> Self {
        let away = Away::new();
        let disk = SmallDisk::mount(&away.folder, DISK_MIB).unwrap();
        Self { away, disk, site: hello_site() }
    }

    fn tracker(&self, location: &str) -> Program {
        let mut words = self.disk.entrance();
        words.push(env!("CARGO_BIN_EXE_tracker").to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.away.with_variables(location, &self.site, |variables| {
            Program::start(words[0], &words[1..], variables).unwrap()
        })
    }

    fn topic(&self) -> String {
        format!("{}127.0.0.1", self.away.kafka.prefix)
    }

    fn given(&self) -> Vec<Given> {
        given::read(&self.disk.from_here()).unwrap_or_default()
    }

    /// Waits until all runs together have given so many numbers.
    fn wait_for_given(&self, sum: i64) -> i64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let given: i64 = self.given().iter().map(|given| given.count).sum();
            if given >= sum {
                return given;
            }
            assert!(Instant::now() < deadline, "{given} of {sum} numbers");
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }

    /// The numbers of the records in Kafka, by their order.
    fn sequences(&self) -> Vec<i64> {
        self.away.kafka.identities(&self.topic()).iter().map(|it| it.sequence).collect()
    }
}

/// Red without the retry in `Spool::save`.
#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing_and_doubles_nothing() {
    let full = Full::new();
    let tracker = full.tracker("oslo");
    full.wait_for_given(2);
    full.disk.fill().unwrap();
    tracker.wait_for_line("results wait in memory meanwhile", PATIENCE).unwrap();
    let in_memory = full.wait_for_given(1) + 3;
    full.wait_for_given(in_memory);
    full.disk.empty().unwrap();
    tracker.wait_for_line("results wait on disk again", PATIENCE).unwrap();
    let all = full.wait_for_given(in_memory + 2);
    let _forwarder = full.away.come();
    full.away.kafka.wait_for_records(&full.topic(), all as usize);
    let ended = tracker.stop(PATIENCE).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
    let sequences = full.sequences();
    assert_eq!(sequences, (0..sequences.len() as i64).collect::<Vec<_>>());
    let said = ended.log.iter().filter(|line| line.contains("wait in memory"));
    assert_eq!(said.count(), 1, "{:?}", ended.log);
}

/// What is on a full disk's spool, what a kill took of it, and what the recorder
/// makes of that: `recorder` is the one beside the tracker, as the whole
/// workspace's tests build it. Red without `note` in `Saver::take`, or without
/// `headers.extend` in `Producer::batches`.
#[test]
fn what_a_kill_takes_while_the_disk_is_full_is_a_gap() {
    let full = Full::new();
    let first = full.tracker("oslo");
    full.wait_for_given(2);
    full.disk.fill().unwrap();
    first.wait_for_line("results wait in memory meanwhile", PATIENCE).unwrap();
    let before = full.wait_for_given(1);
    full.wait_for_given(before + 2);
    first.signal("KILL");
    first.wait(PATIENCE).unwrap();
    let of_first = full.given();
    // And once more, when all that was given is in memory.
    let second = full.tracker("rome");
    second.wait_for_line("results wait in memory meanwhile", PATIENCE).unwrap();
    full.wait_for_given(of_first[0].count + 2);
    second.signal("KILL");
    second.wait(PATIENCE).unwrap();
    let given = full.given();
    assert_eq!((of_first.len(), given.len()), (1, 2));

    full.disk.empty().unwrap();
    let _forwarder = full.away.come();
    let third = full.tracker("bonn");
    let line = third.wait_for_line("results of the last run go first", PATIENCE).unwrap();
    let records = full.away.kafka.wait_for_records(&full.topic(), 2);
    let saved = records.iter().filter(|record| record.from == "oslo").count() as i64;
    assert!(saved > 0 && line.contains(&format!(" {saved} results")), "{line}");
    assert!(saved < of_first[0].count);

    let services = &full.away.kafka.services;
    let uri = fresh_database(services).unwrap();
    let ca = services.postgres_ca.display().to_string();
    let recorder = Path::new(env!("CARGO_BIN_EXE_tracker")).with_file_name("recorder");
    assert!(recorder.exists(), "to be built first: cargo build -p recorder");
    let variables = [
        ("DOMAIN", "127.0.0.1"),
        ("KAFKA", services.kafka_plain.as_str()),
        ("POSTGRES", uri.as_str()),
        ("PGCA", ca.as_str()),
        ("TOPIC_PREFIX", full.away.kafka.prefix.as_str()),
    ];
    let recorder = Program::start(recorder, &[], &variables).unwrap();
    recorder.wait_for_line("results of a tracker never came", PATIENCE).unwrap();
    let mut database = connect(services, &uri).unwrap();
    let sql = "select run::text, from_sequence, to_sequence from availability_gap";
    let gaps: BTreeSet<(String, i64, i64)> = database
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let lost = |given: &Given| {
        let from = if given.run == of_first[0].run { saved } else { 0 };
        (given.run.to_string(), from, given.count)
    };
    assert_eq!(gaps, given.iter().map(lost).collect());
    // Once Kafka has been told, nobody is told again.
    let told = full.given();
    assert!(told.len() == 1 && given.iter().all(|it| it.run != told[0].run), "{told:?}");
    assert_eq!(third.stop(PATIENCE).unwrap().status.code(), Some(0));
    assert_eq!(recorder.stop(PATIENCE).unwrap().status.code(), Some(0));
}

/// Red when `say` does not keep that it was said, or when `begin` does not try to
/// make the file longer again; at the end without the `save_until` in `Spool::close`.
#[test]
fn a_disk_that_is_full_from_the_start_is_said_once_and_used_when_there_is_room() {
    let full = Full::new();
    full.disk.fill().unwrap();
    let tracker = full.tracker("oslo");
    tracker.wait_for_line("is not seen as a gap", PATIENCE).unwrap();
    tracker.wait_for_line("results wait in memory meanwhile", PATIENCE).unwrap();
    tracker.wait_for_line("kafka does not take results", PATIENCE).unwrap();
    assert_eq!(full.given(), []);
    full.disk.empty().unwrap();
    tracker.wait_for_line("results wait on disk again", PATIENCE).unwrap();
    let given = full.wait_for_given(3);
    // Full once more, and empty when it is too late to try it in the usual time.
    full.disk.fill().unwrap();
    tracker.wait_for_line("results wait in memory meanwhile", PATIENCE).unwrap();
    full.wait_for_given(given + 2);
    full.disk.empty().unwrap();
    let ended = tracker.stop(PATIENCE).unwrap();
    let said = |text: &str| ended.log.iter().filter(|line| line.contains(text)).count();
    let counts = (said("is not seen as a gap"), said("wait in memory meanwhile"));
    assert_eq!(counts, (1, 2), "{:?}", ended.log);
    let kept = (said("results wait on disk for the next start"), said("lost "));
    assert_eq!(kept, (1, 0), "{:?}", ended.log);
}
