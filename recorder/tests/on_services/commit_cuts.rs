//! A whole recorder whose connection to PostgreSQL is cut at every byte of a commit.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use common::identity::Run;
use recorder::postgres::pool::start_sql;
use recorder::transaction::position::POSITION_MOVE_WITH_EPOCH;
use testkit::proxy::{Direction, PostgresProxy, ProxyFault, RuleHandle};
use testkit::services::shared;

use crate::support::{Recorder, World, ok};

/// The last request of a transaction, and the response.
const COMMIT: &[u8] = b"Q....COMMIT\0";
const COMMITTED: &[u8] = b"C....COMMIT\0Z....I";
/// The responses to the first request of the next transaction: one for its start, and one for each
/// setting.
const BEGUN: &[u8] = b"C....START TRANSACTION\0Z....T";
const SET: &[u8] = b"C....SET\0";
/// The most bytes by which the measured transaction can be longer than the cut one, such as those
/// of the empty query that tests an idle connection.
const LENGTH_ERROR_MAX: usize = b"Q....\0".len();
/// The first sequence number. All sequence numbers, and so all requests, have the same length.
const FIRST: i64 = 1001;
/// The number of concurrent recorders. Each waits after a cut before it retries.
const WALKERS: usize = 4;

/// A recorder with its own domain, which reaches PostgreSQL through a proxy.
struct Walker {
    world: World,
    proxy: PostgresProxy,
    recorder: Recorder,
    run: Run,
    /// The number of results. Result n has the sequence number `FIRST` + 2 n. The record directly
    /// before it is a duplicate of the previous result.
    written: i64,
}

impl Walker {
    fn start() -> Self {
        let services = shared().unwrap();
        let mut world = World::new(&services);
        let (proxy, uri) = world.proxied();
        let recorder = world.recorder_with(&[("POSTGRES", &uri), ("RUST_LOG", "error")]);
        let run = Run::new().unwrap();
        let mut walker = Self { world, proxy, recorder, run, written: 0 };
        walker.write();
        walker
    }

    /// Writes one more result, after a duplicate and a missing sequence number, and waits until it
    /// is recorded. The transaction drops a record, writes a row and a gap, and moves the position
    /// and the mark.
    fn write(&mut self) {
        let n = self.written;
        let number = FIRST + 2 * n;
        let before = (n > 0).then(|| (number - 2, ok(n - 1)));
        self.world.produce_of(&self.run, before.into_iter().chain([(number, ok(n))]));
        self.written += 1;
        self.world.expect_position(2 * n + 1);
    }

    /// Cuts after this many bytes, counted from the first statement of a batch. Other transactions
    /// have the same statement, so the statement is recognised by the name of the topic.
    fn tell(&self, side: Direction, bytes: usize) -> RuleHandle {
        self.proxy.add_rule(b'B', &self.world.topic, 0, side, ProxyFault::Cut(bytes))
    }

    /// Cuts a transaction this many bytes before its end. Retries, because the recorder tests a
    /// connection after a long idle time. The previous transaction then seems longer.
    fn cut(&mut self, side: Direction, before_end: usize) {
        let cut = (0..8).any(|_| self.try_cut(side, before_end));
        assert!(cut, "{side:?}, {before_end} before the end");
    }

    fn try_cut(&mut self, side: Direction, before_end: usize) -> bool {
        // Prepares the statements on the new connection.
        self.write();
        let told = self.tell(side, usize::MAX);
        self.write();
        // Counts the bytes up to the same statement of the next transaction.
        let next = self.tell(side, usize::MAX);
        self.write();
        assert!(
            told.matched() && next.matched(),
            "a transaction begins with another statement now"
        );
        let next_begins = next_begins_bytes(side);
        let cut = self.tell(side, told.bytes_passed() - next_begins - before_end);
        self.write();
        // The row exists before the response to the commit arrives.
        if cut.wait_until_fired(Duration::from_secs(2)) {
            return true;
        }
        // The measured transaction was a few bytes longer, so the place is in the next one.
        self.write();
        cut.wait_until_fired(Duration::from_secs(5))
    }

    /// Checks the mark, and that each row and each gap was written once and in order.
    fn check(mut self) {
        let log = self.recorder.log();
        self.recorder.kill();
        let results = 0..self.written;
        assert_eq!(
            self.world.offsets(),
            results.clone().map(|n| 2 * n).collect::<Vec<_>>(),
            "{log}"
        );
        let none = "select count(*) from availability_quarantine";
        assert_eq!(self.world.number(none), Some(0));
        let gap = |n| {
            let from = if n == 0 { 0 } else { FIRST + 2 * n - 1 };
            (from, FIRST + 2 * n, 2 * n)
        };
        let gaps =
            "select from_sequence, to_sequence, from_offset from availability_gap order by id";
        let gaps = self.world.database.query(gaps, &[]).unwrap();
        let gaps: Vec<(i64, i64, i64)> =
            gaps.iter().map(|gap| (gap.get(0), gap.get(1), gap.get(2))).collect();
        assert_eq!(gaps, results.map(gap).collect::<Vec<_>>(), "{log}");
        let marks = "select next_sequence from availability_mark";
        assert_eq!(self.world.number(marks), Some(FIRST + 2 * self.written - 1));
    }
}

/// The bytes of the next transaction before the values of its first statement.
fn next_begins_bytes(side: Direction) -> usize {
    let start = start_sql("recorder");
    match side {
        Direction::Request => {
            // The statement without a name, and the types of its parameters.
            let parse = "P....".len() + 1 + POSITION_MOVE_WITH_EPOCH.len() + 1 + 2 + 8 * 4;
            "Q....".len() + start.len() + 1 + parse
        }
        Direction::Response => BEGUN.len() + start.matches("set local").count() * SET.len(),
    }
}

/// After a commit with an unknown outcome, a recorder reads the position and the marks from the
/// database and continues. (The test of the writer alone cuts at all bytes of the transaction.)
#[test]
fn a_recorder_whose_commit_is_cut_at_any_byte_writes_each_row_and_gap_once() {
    let mut walkers: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..WALKERS).map(|_| scope.spawn(Walker::start)).collect();
        starting.into_iter().map(|starting| starting.join().unwrap()).collect()
    });
    let of_side = |(side, end): (Direction, &'static [u8])| {
        // With 0, all bytes pass before the connection is cut.
        // Some places more, because the measured length can be `LENGTH_ERROR_MAX` too large.
        (0..=end.len() + LENGTH_ERROR_MAX).map(move |before_end| (side, before_end))
    };
    let ends = [(Direction::Request, COMMIT), (Direction::Response, COMMITTED)];
    let places = Mutex::new(ends.into_iter().flat_map(of_side).collect::<Vec<_>>());
    let next = || places.lock().unwrap().pop();
    thread::scope(|scope| {
        for walker in &mut walkers {
            scope.spawn(|| {
                while let Some((side, before_end)) = next() {
                    walker.cut(side, before_end);
                }
            });
        }
    });
    walkers.into_iter().for_each(Walker::check);
}
