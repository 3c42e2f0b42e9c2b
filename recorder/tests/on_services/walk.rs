//! The connection to PostgreSQL cut at every byte of a batch's transaction: the
//! recorder's own writer in this process, without a recorder's waits.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::identity::Run;
use common::stop::{self, Stop, Stopper};
use kafka_client::FetchedRecord;
use postgres_client::{PostgresSettings, PostgresUri};
use recorder::decode::batch::Part;
use recorder::decode::row::Labels;
use recorder::domain::resume::{Position, Start};
use recorder::postgres::domain_table::TableSql;
use recorder::postgres::pool::{Database, WorkError};
use recorder::report::outage_log::SharedOutage;
use recorder::schema;
use recorder::transaction::dedup::Marks;
use recorder::transaction::position::{Partition, read_position, store_start};
use recorder::transaction::{Writer, Written};
use testkit::fuzz;
use testkit::proxy::{Fault, PostgresProxy, Side};
use testkit::services::{fresh_name, shared};

use crate::support::{World, ok};

/// What begins a transaction.
const BEGIN: &str = "START TRANSACTION";
/// Writers at once: each waits for PostgreSQL to start a process.
const WALKERS: usize = 12;
/// After one in so many cuts that came too late the batch is tried once more.
const AGAIN_EACH: usize = 8;
/// How long all is walked, if not longer.
const SAMPLE: Duration = Duration::from_secs(4);
/// What ends a transaction's requests, and its answers: a simple query of `COMMIT`.
const COMMIT_BYTES: usize = b"Q....COMMIT\0".len();
const COMMITTED_BYTES: usize = b"C....COMMIT\0Z....I".len();
/// The first offset, so that texts and numbers keep their lengths as it grows.
const BASE: i64 = 1_000_000;
/// The records of a batch: one that is recorded already, one that is no record, and
/// a result after a number that never comes.
const OF_BATCH: i64 = 3;

/// Which bytes: those of a transaction on a connection that has prepared its
/// statements before, or of one that prepares them on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    prepares: bool,
    side: Side,
}

/// A writer of a domain of its own that reaches PostgreSQL through a proxy.
struct Walker {
    /// Through the proxy.
    database: Database,
    /// Past it.
    direct: Database,
    proxy: PostgresProxy,
    stop: Stop,
    _stopper: Stopper,
    table: TableSql,
    labels: Labels,
    partition: Partition,
    marks: Marks,
    run: Run,
    position: Position,
    /// After how many cuts the transaction had taken place.
    committed: usize,
}

impl Walker {
    fn start(world: &mut World) -> Self {
        let (proxy, uri) = world.proxied();
        let server = format!("127.0.0.1:{}", world.services.postgres_port);
        let direct = uri.replace(&proxy.address().to_string(), &server);
        let outage = Arc::new(SharedOutage::new("postgresql"));
        let [database, direct] = [uri, direct].map(|uri| {
            let uri = PostgresUri::parse(&uri).unwrap();
            let settings = PostgresSettings { uri, ca: None, application_name: "walker".into() };
            Database::new(settings, 1, Arc::clone(&outage))
        });
        let (stopper, stop) = stop::pair();
        let domain = Domain::parse(&format!("{}.example", fresh_name("w"))).unwrap();
        let labels = schema::ensure(&direct, &stop, &domain).unwrap();
        let partition = Partition { topic: domain.to_string(), number: 0 };
        let run = Run::new().unwrap();
        let topic_id = run.id();
        let position = Position { topic_id, next_offset: BASE, counted_after_id: 0 };
        let start = Start { position, gaps: Vec::new(), note: None };
        store_start(&direct, &stop, &partition, None, &start).unwrap();
        let mut walker = Self {
            database,
            direct,
            proxy,
            stop,
            _stopper: stopper,
            table: TableSql::new(&domain),
            labels,
            partition,
            marks: Marks::default(),
            run,
            position,
            committed: 0,
        };
        walker.write_whole();
        walker.leave_connection();
        walker
    }

    /// Writes the batch that comes next.
    fn write(&mut self) -> Result<Written, WorkError> {
        let offset = self.position.next_offset;
        let record = |offset, value: Vec<u8>, headers| FetchedRecord {
            offset,
            timestamp_ms: 0,
            key: None,
            value: Some(value.into()),
            headers,
        };
        let numbered = |offset, number| {
            let headers = self.run.headers(number).into_iter();
            record(offset, ok(number), headers.map(|(key, value)| (key, Some(value))).collect())
        };
        let before = (offset > BASE).then(|| numbered(offset, offset - 1));
        let records = before.into_iter().chain([
            record(offset + 1, b"none".to_vec(), Vec::new()),
            numbered(offset + 2, offset + 2),
        ]);
        let part = Part::new(records.collect(), &self.labels, offset + OF_BATCH);
        let mut writer = Writer {
            database: &self.database,
            stop: &self.stop,
            table: &self.table,
            labels: &self.labels,
            memory: None,
            marks: &mut self.marks,
        };
        writer.write(&self.partition, self.position, part)
    }

    fn after(&self) -> Position {
        Position { next_offset: self.position.next_offset + OF_BATCH, ..self.position }
    }

    /// What the database has, as after any failure: nobody else knows it.
    fn read_back(&mut self) -> Position {
        self.marks.forget();
        read_position(&self.direct, &self.stop, &self.partition).unwrap().unwrap()
    }

    /// Goes on from what the database has.
    fn settle(&mut self) {
        let after = self.after();
        let found = self.read_back();
        if found != after {
            assert_eq!(found, self.position);
            return;
        }
        // Whoever did not read it back would write the batch once more. As that takes
        // another connection, only some of them do.
        if self.committed.is_multiple_of(AGAIN_EACH) {
            let again = self.write();
            assert!(matches!(again, Err(WorkError::Fenced)), "written twice: {again:?}");
            assert_eq!(self.read_back(), after);
        }
        self.position = after;
        self.committed += 1;
    }

    /// The position was read back while the server was still about its commit.
    fn fenced(&mut self) {
        let before = self.position;
        self.settle();
        assert_ne!(self.position, before, "fenced by nobody");
    }

    /// Writes a batch to whose transaction nothing is done.
    fn write_whole(&mut self) {
        loop {
            match self.write() {
                Ok(_) => break self.position = self.after(),
                Err(WorkError::Fenced) => self.fenced(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Leaves the connection, so that the next one has prepared nothing, and
    /// whatever is left of a cut on it goes with it.
    fn leave_connection(&mut self) {
        let position = self.position;
        self.position.next_offset -= OF_BATCH;
        let again = self.write();
        assert!(again.is_err(), "written twice: {again:?}");
        assert_eq!(self.read_back(), position);
        self.position = position;
    }

    /// Cuts a batch's transaction; `None` when it was, else the bytes that it had.
    fn cut(&mut self, Stretch { prepares, side }: Stretch, bytes: usize) -> Option<usize> {
        loop {
            if !prepares {
                self.write_whole();
            }
            let told = self.proxy.tell(b'Q', BEGIN, 0, side, Fault::Cut(bytes));
            match self.write() {
                Ok(_) => {
                    self.position = self.after();
                    // At the very end the last answer passes, and the cut is next.
                    let whole = (!told.wait(Duration::from_millis(100))).then(|| told.bytes());
                    self.leave_connection();
                    return whole;
                }
                Err(WorkError::Postgres(error)) if error.is_connection_lost() => {
                    assert!(told.fired(), "{error}");
                    self.settle();
                    return None;
                }
                // This position is still to come.
                Err(WorkError::Fenced) => self.fenced(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Each row once, in order; each gap once, the mark, and what is no record.
    fn check(self, world: &mut World) {
        let batches = (BASE..self.position.next_offset).step_by(OF_BATCH as usize);
        let mut of = |sql: String| -> Vec<Vec<i64>> {
            let rows = world.database.query(&sql, &[]).unwrap();
            rows.iter().map(|row| (0..row.len()).map(|n| row.get(n)).collect()).collect()
        };
        let table = &self.table.name;
        let topic = &self.partition.topic;
        let results: Vec<_> = batches.clone().map(|offset| vec![offset + 2]).collect();
        assert_eq!(of(format!("select topic_offset from \"{table}\" order by id")), results);
        let gaps = batches.clone().map(|offset| {
            let from = if offset == BASE { 0 } else { offset };
            vec![from, offset + 2, offset + 2]
        });
        let stored = of(format!(
            "select from_sequence, to_sequence, from_offset from availability_gap \
             where topic = '{topic}' order by id"
        ));
        assert_eq!(stored, gaps.collect::<Vec<_>>());
        let refused: Vec<_> = batches.map(|offset| vec![offset + 1]).collect();
        let stored = of(format!(
            "select \"offset\" from availability_quarantine where topic = '{topic}' order by id"
        ));
        assert_eq!(stored, refused);
        let mark = format!("select next_sequence from availability_mark where topic = '{topic}'");
        assert_eq!(of(mark), [[self.position.next_offset]]);
    }
}

/// Every position of a commit and of its answer, of a transaction that prepares its
/// statements and of one as nearly all are, on a connection that has prepared them; and
/// of what comes before, as many as there is time for, by a seed, which is printed: all
/// if `AVAILABILITY_FUZZ_SECONDS` gives it. After each cut the position is read back,
/// and of those that took place some are tried once more from before it.
///
/// Some two hundred a second on two processors: each is a process of PostgreSQL.
///
/// Goes red when the comparison of the compare-and-set goes (`next_offset` in
/// `POSITION_MOVE`, or the last line of `move_position`), when the position moves in
/// another transaction than the rows, or with the marks and gaps in one before theirs
/// (a commit after `move_position`, or after `judge`, in `Writer::try_write`), and when
/// after a cut the position is not read back, or the marks are not forgotten, as
/// `Writer::write` demands (`read_back` here).
#[test]
fn a_transaction_cut_at_any_byte_leaves_each_row_gap_and_refusal_once() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    let mut walkers: Vec<_> = (0..WALKERS).map(|_| Walker::start(&mut world)).collect();
    let (mut each, mut sampled) = (Vec::new(), Vec::new());
    for (prepares, side) in
        [(false, Side::Request), (false, Side::Answer), (true, Side::Request), (true, Side::Answer)]
    {
        let stretch = Stretch { prepares, side };
        let bytes = walkers[0].cut(stretch, usize::MAX).unwrap();
        let end = if side == Side::Request { COMMIT_BYTES } else { COMMITTED_BYTES };
        for position in 0..=bytes {
            let places = if position + end >= bytes { &mut each } else { &mut sampled };
            places.push((stretch, position));
        }
    }
    let seed = fuzz::seed();
    fastrand::Rng::with_seed(seed).shuffle(&mut sampled);
    let (must, all) = (each.len(), each.len() + sampled.len());
    // Taken from its end.
    sampled.append(&mut each);
    let left = Mutex::new(sampled);
    let started = Instant::now();
    let end = started + fuzz::budget(SAMPLE);
    let next = || {
        let mut left = left.lock().unwrap();
        let is_due = all - left.len() < must || Instant::now() < end;
        is_due.then(|| left.pop()).flatten()
    };
    with_all(&mut walkers, |walker| {
        while let Some((stretch, position)) = next() {
            walker.cut(stretch, position);
        }
    });
    let cuts = all - left.into_inner().unwrap().len();
    let rate = cuts as f64 / started.elapsed().as_secs_f64();
    println!("{cuts} of {all} positions, {must} in each run, seed {seed}; {rate:.0} a second");
    assert!(must > 60 && cuts >= must, "{cuts} of {must}");
    let committed: usize = walkers.iter().map(|walker| walker.committed).sum();
    assert!(committed > 10, "the commit took place before only {committed} of {cuts} cuts");
    for walker in walkers {
        walker.check(&mut world);
    }
}

/// All at the same time.
fn with_all(walkers: &mut [Walker], walk: impl Fn(&mut Walker) + Sync) {
    thread::scope(|scope| {
        for walker in walkers {
            scope.spawn(|| walk(walker));
        }
    });
}
