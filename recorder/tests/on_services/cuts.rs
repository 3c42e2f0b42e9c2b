//! The connection of a recorder to PostgreSQL cut at every byte of a commit.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use common::identity::Run;
use testkit::proxy::{Direction, PostgresProxy, ProxyFault, RuleHandle};
use testkit::services::shared;

use crate::support::{Recorder, World, ok};

/// How a transaction ends, and the answer to it.
const COMMIT: &[u8] = b"Q....COMMIT\0";
const COMMITTED: &[u8] = b"C....COMMIT\0Z....I";
/// How the next one begins, and the answer to it.
const BEGIN: &[u8] = b"Q....START TRANSACTION\0";
const BEGUN: &[u8] = b"C....START TRANSACTION\0Z....T";
/// The first number, so that texts with one keep their lengths.
const FIRST: i64 = 1001;
/// Recorders at once; each waits a while after a cut before it tries again.
const WALKERS: usize = 4;

/// A recorder of a domain of its own that reaches PostgreSQL through a proxy.
struct Walker {
    world: World,
    proxy: PostgresProxy,
    recorder: Recorder,
    run: Run,
    /// How many results; the n-th has the number `FIRST` + 2 n, and at the offset
    /// before it comes the one before once more.
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

    /// One more result, after one that is recorded already and a number that never
    /// comes, and waits until the position is behind it: a transaction that drops a
    /// record, writes a row and a gap, and moves the position and the mark.
    fn write(&mut self) {
        let n = self.written;
        let number = FIRST + 2 * n;
        let before = (n > 0).then(|| (number - 2, ok(n - 1)));
        self.world.produce_of(&self.run, before.into_iter().chain([(number, ok(n))]));
        self.written += 1;
        self.world.expect_position(2 * n + 1);
    }

    /// From the first statement of a batch's transaction on, which is the one of
    /// those that are repeated that names the topic.
    fn tell(&self, side: Direction, bytes: usize) -> RuleHandle {
        self.proxy.add_rule(b'B', &self.world.topic, 0, side, ProxyFault::Cut(bytes))
    }

    /// Cuts a transaction so many bytes before its end. A connection that was idle for
    /// long is tried first, which makes the one before it seem longer.
    fn cut(&mut self, side: Direction, before_end: usize) {
        let cut = (0..3).any(|_| self.try_cut(side, before_end));
        assert!(cut, "{side:?}, {before_end} before the end");
    }

    fn try_cut(&mut self, side: Direction, before_end: usize) -> bool {
        // To prepare the statements on a connection that is new after a cut.
        self.write();
        let told = self.tell(side, usize::MAX);
        self.write();
        // It counts up to the same statement of the next one, where this takes its place.
        let next = self.tell(side, usize::MAX);
        self.write();
        assert!(told.matched() && next.matched(), "a transaction has another beginning now");
        let next_begins = if side == Direction::Request { BEGIN } else { BEGUN };
        let cut = self.tell(side, told.bytes_passed() - next_begins.len() - before_end);
        self.write();
        // The row is there before the answer to its commit.
        cut.wait_until_fired(Duration::from_secs(5))
    }

    /// Rows once, each, and in order; each gap once, and the mark at the end.
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

/// What the walk of the writer alone does not show: that a whole recorder reads the
/// position back after an outcome that is not known, and goes on.
///
/// Goes red when `record` does not forget the marks.
#[test]
fn a_recorder_whose_commit_is_cut_at_any_byte_writes_each_row_and_gap_once() {
    let mut walkers: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..WALKERS).map(|_| scope.spawn(Walker::start)).collect();
        starting.into_iter().map(|starting| starting.join().unwrap()).collect()
    });
    let of_side = |(side, end): (Direction, &'static [u8])| {
        // The end itself is one: all has passed, and the connection is cut.
        (0..=end.len()).map(move |before_end| (side, before_end))
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
