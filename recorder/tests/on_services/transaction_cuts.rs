//! Tests of the transaction of a batch. Its connection to PostgreSQL is cut at every byte. The
//! writer of the recorder runs in this process, without the delays of a whole recorder.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use common::identity::Run;
use common::stop::{self, Stop, Stopper};
use kafka_client::FetchedRecord;
use postgres_client::{PostgresSettings, PostgresUri};
use recorder::decode::batch::WriteBatch;
use recorder::decode::labels::Labels;
use recorder::postgres::domain_table::DomainTable;
use recorder::postgres::error::TransactionError;
use recorder::postgres::pool::Database;
use recorder::report::outage_log::SharedOutage;
use recorder::schema;
use recorder::timings::Timings;
use recorder::transaction::position::{Position, TopicPartition, read_position, skip_to};
use recorder::transaction::{BatchWriter, Steps, WriteState, Written};
use testkit::fuzz;
use testkit::proxy::{Direction, PostgresProxy, ProxyFault};
use testkit::services::{fresh_name, shared};

use crate::support::{World, ok};

/// The time-out of a transaction.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The first request of a transaction.
const BEGIN: &str = "START TRANSACTION";
/// The number of concurrent writers. Each mostly waits for PostgreSQL to start a process.
const WALKERS: usize = 12;
/// One in this many batches is written once more, if it was committed before the cut.
const AGAIN_EACH: usize = 8;
/// The default duration of the sampled cuts.
const SAMPLE: Duration = Duration::from_secs(4);
/// The bytes of the last request of a transaction, a simple query of `COMMIT`, and of its response.
const COMMIT_BYTES: usize = b"Q....COMMIT\0".len();
const COMMITTED_BYTES: usize = b"C....COMMIT\0Z....I".len();
/// The first offset. All offsets, and so all requests, have the same length.
const BASE: i64 = 1_000_000;
/// The records of a batch: a duplicate, a value that is not a record, and a result after a
/// missing sequence number.
const RECORDS_PER_BATCH: i64 = 3;

/// The bytes to cut. The transaction runs on a connection with or without prepared statements. The
/// bytes belong to its requests or to its responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    prepares: bool,
    side: Direction,
}

/// A writer with its own domain, which reaches PostgreSQL through a proxy.
struct Walker {
    /// The connections through the proxy.
    database: Database,
    /// The connections without the proxy.
    direct: Database,
    proxy: PostgresProxy,
    stop: Stop,
    _stopper: Stopper,
    table: DomainTable,
    labels: Labels,
    partition: TopicPartition,
    /// The steps. They are dropped after every error.
    steps: Option<Steps>,
    /// The state. It is kept after errors.
    state: WriteState,
    run: Run,
    position: Position,
    /// The number of cuts after which the transaction was found committed.
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
        let labels = schema::ensure(&direct, &stop, &Timings::default(), &domain).unwrap().labels;
        let partition = TopicPartition { topic: domain.to_string(), number: 0 };
        let run = Run::new().unwrap();
        let topic_id = run.id();
        let position = Position::unread(topic_id, BASE, 0);
        skip_to(&direct, &stop, TIMEOUT, &partition, None, position, &[]).unwrap();
        let position = Position { stores_epoch: true, ..position };
        let mut walker = Self {
            database,
            direct,
            proxy,
            stop,
            _stopper: stopper,
            table: DomainTable::new(&domain),
            labels,
            partition,
            steps: None,
            state: WriteState::new(domain.clone(), &Timings::default()),
            run,
            position,
            committed: 0,
        };
        walker.write_whole();
        walker.leave_connection();
        walker
    }

    /// Writes the next batch.
    fn write(&mut self) -> Result<Written, TransactionError> {
        let offset = self.position.next_offset;
        let record = |offset, value: Vec<u8>, headers| FetchedRecord {
            offset,
            leader_epoch: Some(1),
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
        let batch = WriteBatch::new(records.collect(), &self.labels, offset + RECORDS_PER_BATCH);
        let new_steps = || Steps::new(&self.table, false);
        let mut steps = self.steps.take().unwrap_or_else(new_steps);
        let mut writer = BatchWriter {
            database: &self.database,
            stop: &self.stop,
            timeout: TIMEOUT,
            table: &self.table,
            labels: &self.labels,
            steps: &mut steps,
            state: &mut self.state,
        };
        let written = writer.write(&self.partition, self.position, batch)?;
        self.steps = Some(steps);
        Ok(written)
    }

    fn after(&self) -> Position {
        let next_offset = self.position.next_offset + RECORDS_PER_BATCH;
        Position { next_offset, leader_epoch: Some(1), ..self.position }
    }

    /// Reads the position from the database, like the recorder after every error.
    fn read_back(&mut self) -> Position {
        self.steps = None;
        read_position(&self.direct, &self.stop, TIMEOUT, &self.partition).unwrap().unwrap()
    }

    /// Continues from the position in the database.
    fn settle(&mut self) {
        let after = self.after();
        let found = self.read_back();
        if found != after {
            assert_eq!(found, self.position);
            return;
        }
        // A second write of the batch must fail. Only some batches are tried, because each try
        // takes another connection.
        if self.committed.is_multiple_of(AGAIN_EACH) {
            let again = self.write();
            assert!(matches!(again, Err(TransactionError::Fenced)), "written twice: {again:?}");
            assert_eq!(self.read_back(), after);
        }
        self.position = after;
        self.committed += 1;
    }

    /// The position was read before the server finished the commit.
    fn fenced(&mut self) {
        let before = self.position;
        self.settle();
        assert_ne!(self.position, before, "fenced, but the position did not move");
    }

    /// Writes a batch without a cut.
    fn write_whole(&mut self) {
        loop {
            match self.write() {
                Ok(_) => break self.position = self.after(),
                Err(TransactionError::Fenced) => self.fenced(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Makes the pool drop the connection, so that the next connection has no prepared
    /// statements and no cut is pending.
    fn leave_connection(&mut self) {
        let position = self.position;
        self.position.next_offset -= RECORDS_PER_BATCH;
        let again = self.write();
        assert!(again.is_err(), "written twice: {again:?}");
        assert_eq!(self.read_back(), position);
        self.position = position;
    }

    /// Cuts the transaction of a batch. Returns its length if it ended before the cut.
    fn cut(&mut self, Stretch { prepares, side }: Stretch, bytes: usize) -> Option<usize> {
        loop {
            if !prepares {
                self.write_whole();
            }
            let told = self.proxy.add_rule(b'Q', BEGIN, 0, side, ProxyFault::Cut(bytes));
            match self.write() {
                Ok(_) => {
                    self.position = self.after();
                    // A cut at the end of the transaction happens after the last response.
                    let whole = (!told.wait_until_fired(Duration::from_millis(100)))
                        .then(|| told.bytes_passed());
                    self.leave_connection();
                    return whole;
                }
                Err(TransactionError::Postgres(error)) if error.is_connection_lost() => {
                    assert!(told.fired(), "{error}");
                    self.settle();
                    return None;
                }
                // The cut has not happened yet.
                Err(TransactionError::Fenced) => self.fenced(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Checks the mark, and that each row, gap and record in quarantine was written once.
    fn check(self, world: &mut World) {
        let batches = (BASE..self.position.next_offset).step_by(RECORDS_PER_BATCH as usize);
        let mut of = |sql: String| -> Vec<Vec<i64>> {
            let rows = world.database.query(&sql, &[]).unwrap();
            rows.iter().map(|row| (0..row.len()).map(|n| row.get(n)).collect()).collect()
        };
        let table = &self.table.name();
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

/// A connection may be cut at any byte. Each row, gap, mark and record in quarantine of a batch is
/// written once. The position moves in the same transaction, by compare-and-set. After an error the
/// position and the marks are read from the database again.
///
/// The test cuts at every byte of the commit and of its response, with and without prepared
/// statements. The bytes before the commit are sampled by a seed, which is printed, for as long as
/// there is time. With a large enough `AVAILABILITY_FUZZ_SECONDS` all bytes are cut. After each cut
/// the position is read, and some committed batches are written once more.
///
/// Two processors make about two hundred cuts a second, because each cut starts a process of
/// PostgreSQL.
#[test]
fn a_transaction_cut_at_any_byte_leaves_each_row_gap_and_refusal_once() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    let mut walkers: Vec<_> = (0..WALKERS).map(|_| Walker::start(&mut world)).collect();
    let (mut each, mut sampled) = (Vec::new(), Vec::new());
    for (prepares, side) in [
        (false, Direction::Request),
        (false, Direction::Response),
        (true, Direction::Request),
        (true, Direction::Response),
    ] {
        let stretch = Stretch { prepares, side };
        let bytes = walkers[0].cut(stretch, usize::MAX).unwrap();
        let end = if side == Direction::Request { COMMIT_BYTES } else { COMMITTED_BYTES };
        for position in 0..=bytes {
            let places = if position + end >= bytes { &mut each } else { &mut sampled };
            places.push((stretch, position));
        }
    }
    let seed = fuzz::seed();
    fastrand::Rng::with_seed(seed).shuffle(&mut sampled);
    let (must, all) = (each.len(), each.len() + sampled.len());
    // The samples are removed from the end.
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

/// Runs all walkers concurrently.
fn with_all(walkers: &mut [Walker], walk: impl Fn(&mut Walker) + Sync) {
    thread::scope(|scope| {
        for walker in walkers {
            scope.spawn(|| walk(walker));
        }
    });
}
