//! Results on disk survive a kill, a stop, a silent broker and a full disk.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::forwarder::Forwarder;
use testkit::program::Program;
use testkit::sites::RefusingPort;

use crate::delivery::TestKafka;
use crate::{TIMEOUT, hello_site, run, tracker};

/// A Kafka address that refuses connections until `start`, and a folder for the spool.
pub(crate) struct AbsentKafka {
    pub(crate) kafka: TestKafka,
    address: SocketAddr,
    /// Reserves the port.
    _port: RefusingPort,
    pub(crate) folder: PathBuf,
}

impl AbsentKafka {
    pub(crate) fn new() -> Self {
        let kafka = TestKafka::new();
        let port = RefusingPort::new().unwrap();
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

    pub(crate) fn start(&self) -> Forwarder {
        let real = self.kafka.services.plain_listener(1).unwrap().parse().unwrap();
        Forwarder::start(TcpListener::bind(self.address).unwrap(), real).unwrap()
    }

    fn bytes_on_disk(&self) -> u64 {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let segments = entries.filter(|it| it.path().extension().is_some_and(|it| it == "segment"));
        segments.map(|segment| segment.metadata().map_or(0, |it| it.len())).sum()
    }

    fn wait_for_bytes_above(&self, known: u64) -> u64 {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let bytes = self.bytes_on_disk();
            // The head of a segment takes 12 bytes.
            if bytes > known.max(12) {
                return bytes;
            }
            assert!(Instant::now() < deadline, "still {bytes} bytes");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Starts Kafka and a second tracker on the spool. Checks that the results of the
    /// first tracker arrive once each, in order, before the results of the second. Returns
    /// their number and the sequence of the first result.
    fn assert_all_arrive(&self, site: &str) -> (usize, i64) {
        let _forwarder = self.start();
        let second = self.tracker("rome", site);
        let line = second.wait_for_line("of the last run first", TIMEOUT).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| word.starts_with("result")).unwrap();
        let count: usize = words[at - 1].parse().unwrap();
        let topic = format!("{}127.0.0.1", self.kafka.prefix);
        let records = self.kafka.wait_for_records(&topic, count + 1);
        assert!(records.is_sorted_by(|one, next| one.timestamp < next.timestamp));
        let of_first = records.iter().take_while(|record| record.from == "oslo").count();
        assert_eq!(of_first, count);
        // The results keep their identities. The second tracker's own start at 0.
        let identities = self.kafka.identities(&topic);
        let sequences: Vec<i64> = identities.iter().map(|identity| identity.sequence).collect();
        let first = sequences[0];
        let expected: Vec<i64> = (first..first + count as i64).chain([0]).collect();
        assert_eq!(sequences[..=count], expected);
        assert!(records[count..].iter().all(|record| record.from == "rome"));
        assert_eq!(second.stop(TIMEOUT).unwrap().status.code(), Some(0));
        (count, first)
    }
}

impl Drop for AbsentKafka {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Results that were synced arrive after a kill. A second tracker can't open the folder.
#[test]
fn synced_results_arrive_after_a_kill_and_the_folder_is_locked() {
    let absent = AbsentKafka::new();
    let site = hello_site();
    let first = absent.tracker("oslo", &site);
    first.wait_for_line("kafka: no delivery for", TIMEOUT).unwrap();

    let second = absent.with_variables("rome", &site, |variables| run(&[], variables));
    let folder = absent.folder.display();
    let expected = format!(
        "tracker: SPOOL: {folder}: another tracker uses it: expected a folder for this tracker alone"
    );
    assert_eq!((second.status.code(), second.log), (Some(2), vec![expected]));

    first.signal("KILL");
    first.wait(TIMEOUT).unwrap();
    let (count, first) = absent.assert_all_arrive(&site);
    assert!(count >= 2 && first == 0);
    assert_eq!(
        absent.bytes_on_disk(),
        0,
        "a segment is removed when all its results are delivered"
    );
}

/// A broker that accepts connections and never answers holds a request for half a minute.
/// Meanwhile results are saved.
#[test]
fn results_are_saved_at_once_while_a_broker_is_silent() {
    let absent = AbsentKafka::new();
    let site = hello_site();
    let silent = TcpListener::bind(absent.address).unwrap();
    let first = absent.tracker("oslo", &site);
    // The tracker has sent a request, which is never answered.
    let _asking = silent.accept().unwrap();
    let silent_since = Instant::now();
    let one = absent.wait_for_bytes_above(0);
    let two = absent.wait_for_bytes_above(one);
    let three = absent.wait_for_bytes_above(two);
    // One result a second is saved.
    assert!(silent_since.elapsed() < Duration::from_secs(10), "{:?}", silent_since.elapsed());
    first.signal("KILL");
    first.wait(TIMEOUT).unwrap();
    drop(silent);
    let (count, first) = absent.assert_all_arrive(&site);
    assert!(count as u64 >= three / one && first == 0);
}

/// Delivered results whose mark is on disk are not sent again.
#[test]
fn delivered_results_are_not_sent_again_after_a_kill() {
    let absent = AbsentKafka::new();
    let site = hello_site();
    let _forwarder = absent.start();
    let topic = format!("{}127.0.0.1", absent.kafka.prefix);
    let first = absent.tracker("oslo", &site);
    absent.kafka.wait_for_records(&topic, 3);
    assert!(absent.bytes_on_disk() > 0, "the active segment stays");
    first.signal("KILL");
    first.wait(TIMEOUT).unwrap();
    let second = absent.tracker("rome", &site);
    second.wait_for_line(", period ", TIMEOUT).unwrap();
    let records = absent.kafka.wait_for_records(&topic, 6);
    // The kill may precede the mark of the third result, not of the second.
    for known in &records[..2] {
        let same = records.iter().filter(|record| record.timestamp == known.timestamp);
        assert_eq!(same.count(), 1);
    }
    assert_eq!(second.stop(TIMEOUT).unwrap().status.code(), Some(0));
}

#[test]
fn a_stop_leaves_waiting_results_on_disk() {
    let absent = AbsentKafka::new();
    let site = hello_site();
    let first = absent.tracker("oslo", &site);
    first.wait_for_line("kafka: no delivery for", TIMEOUT).unwrap();
    let ended = first.stop(TIMEOUT).unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let says = |text: &str| ended.log.iter().any(|line| line.contains(text));
    assert!(says("left on disk for the next start") && !says("lost"), "{:?}", ended.log);
    let (count, first) = absent.assert_all_arrive(&site);
    assert!(count >= 2 && first == 0);
}

/// The tracker works without the file `given` and logs the consequence once.
#[test]
fn a_missing_file_of_issued_numbers_is_logged_once() {
    let absent = AbsentKafka::new();
    std::fs::create_dir_all(absent.folder.join("given")).unwrap();
    let tracker = absent.tracker("oslo", &hello_site());
    tracker.wait_for_line("no gap row will show", TIMEOUT).unwrap();
    let one = absent.wait_for_bytes_above(0);
    absent.wait_for_bytes_above(one);
    let ended = tracker.stop(TIMEOUT).unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let said = ended.log.iter().filter(|line| line.contains("no gap row will show"));
    assert_eq!(said.count(), 1, "{:?}", ended.log);
}

/// A limit on the size of files simulates a full disk. The tracker retries the disk.
#[test]
fn a_full_disk_is_logged_once_and_tried_again() {
    let absent = AbsentKafka::new();
    let site = hello_site();
    let script = format!("trap '' XFSZ; ulimit -S -f 0; exec {}", env!("CARGO_BIN_EXE_tracker"));
    let first = absent.with_variables("oslo", &site, |variables| {
        Program::start("/bin/bash", &["-c", &script], variables).unwrap()
    });
    first.wait_for_line("results wait in memory until", TIMEOUT).unwrap();
    first.wait_for_line("kafka: no delivery for", TIMEOUT).unwrap();
    assert_eq!(absent.bytes_on_disk(), 0);
    let pid = first.id().to_string();
    let limits = ["--pid", &pid, "--fsize=unlimited"];
    assert!(Command::new("prlimit").args(limits).status().unwrap().success());
    first.wait_for_line("results wait on disk again", TIMEOUT).unwrap();
    first.signal("KILL");
    let ended = first.wait(TIMEOUT).unwrap();
    let said = ended.log.iter().filter(|line| line.contains("wait in memory"));
    assert_eq!(said.count(), 1, "{:?}", ended.log);
    // A result that was in flight was only in memory, so the kill lost it.
    let (count, first) = absent.assert_all_arrive(&site);
    assert!(count >= 3 && first <= 1);
}
