//! Results that wait on disk: through a kill, and while the disk is full.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::forward::Forwarder;
use testkit::program::Program;
use testkit::sites::Refusing;

use crate::delivery::Kafka;
use crate::{PATIENCE, hello_site, run, tracker};

/// A Kafka that is away until it is said to come, and a folder for the spool.
pub(crate) struct Away {
    pub(crate) kafka: Kafka,
    address: SocketAddr,
    /// Keeps the port for us.
    _port: Refusing,
    pub(crate) folder: PathBuf,
}

impl Away {
    pub(crate) fn new() -> Self {
        let kafka = Kafka::new();
        let port = Refusing::new().unwrap();
        let address = (Ipv4Addr::LOCALHOST, port.port().unwrap()).into();
        let folder = std::env::temp_dir().join(format!("spool-{}", kafka.prefix));
        Self { kafka, address, _port: port, folder }
    }

    pub(crate) fn with_variables<T>(
        &self,
        location: &str,
        site: &str,
        then: impl Fn(&[(&str, &str)]) -> T,
    ) -> T {
        then(&[
            ("KAFKA", &self.address.to_string()),
            ("TOPIC_PREFIX", &self.kafka.prefix),
            ("SPOOL", self.folder.to_str().unwrap()),
            ("LOCATION", location),
            ("WEBSITES", site),
            ("PERIOD", "1"),
        ])
    }

    fn tracker(&self, location: &str, site: &str) -> Program {
        self.with_variables(location, site, |variables| tracker(&[], variables))
    }

    pub(crate) fn come(&self) -> Forwarder {
        let real = self.kafka.services.plain_listener(1).unwrap().parse().unwrap();
        Forwarder::start(TcpListener::bind(self.address).unwrap(), real).unwrap()
    }

    fn bytes_on_disk(&self) -> u64 {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let segments = entries.filter(|it| it.path().extension().is_some_and(|it| it == "segment"));
        segments.map(|segment| segment.metadata().map_or(0, |it| it.len())).sum()
    }

    fn wait_for_bytes_above(&self, known: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let bytes = self.bytes_on_disk();
            // The head of a segment is no result.
            if bytes > known.max(12) {
                return bytes;
            }
            assert!(Instant::now() < deadline, "still {bytes} bytes");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Starts another tracker on the spool, with Kafka there: how many results of
    /// the first it said to have found, once all have arrived, each once, in order
    /// and before its own; and the sequence of the first of them.
    fn all_arrive(&self, site: &str) -> (usize, i64) {
        let _forwarder = self.come();
        let second = self.tracker("rome", site);
        let line = second.wait_for_line("results of the last run go first", PATIENCE).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "results").unwrap();
        let count: usize = words[at - 1].parse().unwrap();
        let topic = format!("{}127.0.0.1", self.kafka.prefix);
        let records = self.kafka.wait_for_records(&topic, count + 1);
        assert!(records.is_sorted_by(|one, next| one.timestamp < next.timestamp));
        let of_first = records.iter().take_while(|record| record.from == "oslo").count();
        assert_eq!(of_first, count);
        // With the identities that they had: the second's own begin at 0 again.
        let identities = self.kafka.identities(&topic);
        let sequences: Vec<i64> = identities.iter().map(|identity| identity.sequence).collect();
        let first = sequences[0];
        let expected: Vec<i64> = (first..first + count as i64).chain([0]).collect();
        assert_eq!(sequences[..=count], expected);
        assert!(records[count..].iter().all(|record| record.from == "rome"));
        assert_eq!(second.stop(PATIENCE).unwrap().status.code(), Some(0));
        (count, first)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Red without the call of `save` in `Producer::run`.
#[test]
fn what_was_accepted_arrives_after_a_kill_and_a_second_tracker_is_kept_out() {
    let away = Away::new();
    let site = hello_site();
    let first = away.tracker("oslo", &site);
    first.wait_for_line("kafka does not take results", PATIENCE).unwrap();

    let second = away.with_variables("rome", &site, |variables| run(&[], variables));
    let folder = away.folder.display();
    let expected = format!(
        "tracker: SPOOL: {folder}: another tracker uses it: expected a folder for this tracker alone"
    );
    assert_eq!((second.status.code(), second.log), (Some(2), vec![expected]));

    first.signal("KILL");
    first.wait(PATIENCE).unwrap();
    let (count, first) = away.all_arrive(&site);
    assert!(count >= 2 && first == 0);
    assert_eq!(away.bytes_on_disk(), 0, "a segment goes when all of it was delivered");
}

/// A broker that takes connections and says nothing holds an exchange for half a
/// minute. Red when one thread does both, exchanges and saving.
#[test]
fn a_result_is_safe_at_once_while_a_broker_is_silent() {
    let away = Away::new();
    let site = hello_site();
    let silent = TcpListener::bind(away.address).unwrap();
    let first = away.tracker("oslo", &site);
    // It asks, and is never answered; what it asked with comes first.
    let _asking = silent.accept().unwrap();
    let silent_since = Instant::now();
    let one = away.wait_for_bytes_above(0);
    let two = away.wait_for_bytes_above(one);
    let three = away.wait_for_bytes_above(two);
    // Each second one more comes, the first before.
    assert!(silent_since.elapsed() < Duration::from_secs(10), "{:?}", silent_since.elapsed());
    first.signal("KILL");
    first.wait(PATIENCE).unwrap();
    drop(silent);
    let (count, first) = away.all_arrive(&site);
    assert!(count as u64 >= three / one && first == 0);
}

/// Red without the calls of `settled` and `note` in `Producer::round`.
#[test]
fn what_was_delivered_is_not_sent_again_after_a_kill() {
    let away = Away::new();
    let site = hello_site();
    let _forwarder = away.come();
    let topic = format!("{}127.0.0.1", away.kafka.prefix);
    let first = away.tracker("oslo", &site);
    away.kafka.wait_for_records(&topic, 3);
    assert!(away.bytes_on_disk() > 0, "the segment in use stays");
    first.signal("KILL");
    first.wait(PATIENCE).unwrap();
    let second = away.tracker("rome", &site);
    second.wait_for_line(", period ", PATIENCE).unwrap();
    let records = away.kafka.wait_for_records(&topic, 6);
    // The kill may have come before the third was noted, not before the second.
    for known in &records[..2] {
        let same = records.iter().filter(|record| record.timestamp == known.timestamp);
        assert_eq!(same.count(), 1);
    }
    assert_eq!(second.stop(PATIENCE).unwrap().status.code(), Some(0));
}

#[test]
fn a_stop_leaves_what_waits_on_disk_for_the_next_start() {
    let away = Away::new();
    let site = hello_site();
    let first = away.tracker("oslo", &site);
    first.wait_for_line("kafka does not take results", PATIENCE).unwrap();
    let ended = first.stop(PATIENCE).unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let says = |text: &str| ended.log.iter().any(|line| line.contains(text));
    assert!(says("results wait on disk for the next start") && !says("lost"), "{:?}", ended.log);
    let (count, first) = away.all_arrive(&site);
    assert!(count >= 2 && first == 0);
}

/// Red when `open` does not say it.
#[test]
fn a_spool_without_its_file_of_numbers_goes_on_and_says_so_once() {
    let away = Away::new();
    std::fs::create_dir_all(away.folder.join("given")).unwrap();
    let tracker = away.tracker("oslo", &hello_site());
    tracker.wait_for_line("is not seen as a gap", PATIENCE).unwrap();
    let one = away.wait_for_bytes_above(0);
    away.wait_for_bytes_above(one);
    let ended = tracker.stop(PATIENCE).unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let said = ended.log.iter().filter(|line| line.contains("is not seen as a gap"));
    assert_eq!(said.count(), 1, "{:?}", ended.log);
}

/// A disk with no room is made by a limit on the size of files. Red without the
/// retry in `Spool::save`.
#[test]
fn a_full_disk_is_said_once_and_tried_again() {
    let away = Away::new();
    let site = hello_site();
    let script = format!("trap '' XFSZ; ulimit -S -f 0; exec {}", env!("CARGO_BIN_EXE_tracker"));
    let first = away.with_variables("oslo", &site, |variables| {
        Program::start("/bin/bash", &["-c", &script], variables).unwrap()
    });
    first.wait_for_line("results wait in memory meanwhile", PATIENCE).unwrap();
    first.wait_for_line("kafka does not take results", PATIENCE).unwrap();
    assert_eq!(away.bytes_on_disk(), 0);
    let pid = first.id().to_string();
    let limits = ["--pid", &pid, "--fsize=unlimited"];
    assert!(Command::new("prlimit").args(limits).status().unwrap().success());
    first.wait_for_line("results wait on disk again", PATIENCE).unwrap();
    first.signal("KILL");
    let ended = first.wait(PATIENCE).unwrap();
    let said = ended.log.iter().filter(|line| line.contains("wait in memory"));
    assert_eq!(said.count(), 1, "{:?}", ended.log);
    // What was in flight before is in memory alone, and went with the kill.
    let (count, first) = away.all_arrive(&site);
    assert!(count >= 3 && first <= 1);
}
