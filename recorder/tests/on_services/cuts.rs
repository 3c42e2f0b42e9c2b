//! The connection to PostgreSQL cut at every byte of a batch's transaction.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::identity::Run;
use testkit::fuzz;
use testkit::proxy::{Fault, PostgresProxy, Side, Told};
use testkit::services::shared;

use crate::support::{Recorder, World, ok};

/// What begins a transaction, and what its first statement is prepared by.
const BEGIN: &str = "START TRANSACTION";
const PREPARED: &str = "update \"availability_offset\"";
/// How long positions are walked when no one says otherwise.
const WALK: Duration = Duration::from_secs(20);
/// Recorders at once; each waits a while after a cut before it tries again.
const WALKERS: usize = 8;

/// Which bytes: those of a transaction on a connection that has prepared its
/// statements before, or of one that begins by preparing them.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    prepares: bool,
    side: Side,
}

/// A recorder of a domain of its own that reaches PostgreSQL through a proxy.
struct Walker {
    world: World,
    proxy: PostgresProxy,
    recorder: Recorder,
    run: Run,
    /// How many results; the n-th has the number 2 n + 1, and at the offset before
    /// it comes the one before once more.
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
        let before = (n > 0).then(|| (2 * n - 1, ok(n - 1)));
        self.world.produce_of(&self.run, before.into_iter().chain([(2 * n + 1, ok(n))]));
        self.written += 1;
        self.world.expect_position(2 * n + 1);
    }

    fn tell(&self, stretch: Stretch, bytes: usize) -> Told {
        let (kind, holding) = if stretch.prepares {
            // To be on a new connection the one that is open has to go.
            self.proxy.tell(b'Q', BEGIN, 0, Side::Request, Fault::Cut(0));
            (b'P', PREPARED)
        } else {
            (b'Q', BEGIN)
        };
        self.proxy.tell(kind, holding, 0, stretch.side, Fault::Cut(bytes))
    }

    /// Cuts a record's transaction; whether there was something to cut.
    fn cut(&mut self, stretch: Stretch, bytes: usize) -> bool {
        let told = self.tell(stretch, bytes);
        self.write();
        told.fired()
    }

    /// The bytes of a stretch, up to the next transaction.
    fn measure(&mut self, stretch: Stretch) -> usize {
        let told = self.tell(stretch, usize::MAX);
        self.write();
        // The same rule again takes the place of the first, which then counts no more.
        let next = self.tell(Stretch { prepares: false, ..stretch }, usize::MAX);
        self.write();
        assert!(told.matched() && next.matched(), "{stretch:?} has another beginning now");
        told.bytes()
    }

    /// Rows once, each, and in order; each gap once, and the mark at the end.
    fn check(mut self) {
        let (_, _, log) = self.recorder.stop();
        let results = 0..self.written;
        assert_eq!(
            self.world.offsets(),
            results.clone().map(|n| 2 * n).collect::<Vec<_>>(),
            "{log}"
        );
        let none = "select count(*) from availability_quarantine";
        assert_eq!(self.world.number(none), Some(0));
        let gaps =
            "select from_sequence, to_sequence, from_offset from availability_gap order by id";
        let gaps = self.world.database.query(gaps, &[]).unwrap();
        let gaps: Vec<(i64, i64, i64)> =
            gaps.iter().map(|gap| (gap.get(0), gap.get(1), gap.get(2))).collect();
        assert_eq!(gaps, results.map(|n| (2 * n, 2 * n + 1, 2 * n)).collect::<Vec<_>>(), "{log}");
        let marks = "select next_sequence from availability_mark";
        assert_eq!(self.world.number(marks), Some(2 * self.written));
    }
}

/// All positions of the commit, and of the rest all when there is time, else a
/// sample by a seed, which is printed; `AVAILABILITY_FUZZ_SECONDS` gives more time.
///
/// Goes red when a batch's position moves in another transaction than its rows
/// (a commit after `move_position` in `Writer::try_write`), and when the marks and
/// gaps do (a commit after `judge`, or marks that `record` does not forget).
#[test]
fn a_transaction_cut_at_any_byte_leaves_each_row_and_gap_once() {
    let seed = fuzz::seed();
    let mut walkers: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..WALKERS).map(|_| scope.spawn(Walker::start)).collect();
        starting.into_iter().map(|starting| starting.join().unwrap()).collect()
    });
    let mut places = Vec::new();
    let mut lengths = [0; 2];
    for prepares in [false, true] {
        for side in [Side::Request, Side::Answer] {
            let stretch = Stretch { prepares, side };
            let bytes = walkers[0].measure(stretch);
            println!("{stretch:?}: {bytes} bytes");
            assert!(bytes > 50, "{stretch:?} has {bytes} bytes");
            // The end itself is one: all has passed, and the connection is cut.
            if !prepares {
                lengths[usize::from(side == Side::Answer)] = bytes;
            }
            places.extend((0..=bytes).map(|position| (stretch, position)));
        }
    }
    let all = places.len();
    fastrand::Rng::with_seed(seed).shuffle(&mut places);
    // Those of the commit come first, and all of them whatever time there is.
    places.sort_by_key(|(stretch, position)| is_of_commit(*stretch, *position, lengths));
    let spare = places.iter().filter(|(s, p)| !is_of_commit(*s, *p, lengths)).count();
    let places = Mutex::new(places);
    let end = Instant::now() + fuzz::budget(WALK);
    let cuts: usize = thread::scope(|scope| {
        let walking: Vec<_> = walkers
            .iter_mut()
            .map(|walker| scope.spawn(|| walk(walker, &places, spare, end)))
            .collect();
        walking.into_iter().map(|walking| walking.join().unwrap()).sum()
    });
    let walked = all - places.lock().unwrap().len();
    println!("{walked} of {all} positions walked, {cuts} cut, seed {seed}");
    assert!(cuts > 20 && cuts * 10 > walked * 9, "{cuts} cuts at {walked} positions");
    walkers.into_iter().for_each(Walker::check);
}

/// Whether a position is within the last message of a transaction, or of its
/// answers: `COMMIT`, or its completion and that the server is ready.
fn is_of_commit(stretch: Stretch, position: usize, lengths: [usize; 2]) -> bool {
    let is_answer = stretch.side == Side::Answer;
    let message = if is_answer { b"C....COMMIT\0Z....I".len() } else { b"Q....COMMIT\0".len() };
    !stretch.prepares && position + message >= lengths[usize::from(is_answer)]
}

/// Goes on to the `end`, and until no more than `spare` positions are left.
fn walk(
    walker: &mut Walker,
    places: &Mutex<Vec<(Stretch, usize)>>,
    spare: usize,
    end: Instant,
) -> usize {
    let mut cuts = 0;
    loop {
        let next = {
            let mut places = places.lock().unwrap();
            if places.len() <= spare && Instant::now() >= end { None } else { places.pop() }
        };
        let Some((stretch, position)) = next else { return cuts };
        cuts += usize::from(walker.cut(stretch, position));
    }
}
