//! Tests of `recorder replay`: records leave the quarantine and are stored as rows exactly once.

use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::domain::TOPIC_PREFIX_OF_1_1_0;
use testkit::fuzz;
use testkit::proxy::{Direction, PostgresProxy, ProxyFault, RuleHandle};
use testkit::services::{connect, shared};

use crate::support::{self, World, eventually, failed, ok};

/// The default duration of the test that cuts connections.
const WALK: Duration = Duration::from_secs(15);
/// The key of the advisory lock that a transaction waits for.
const GATE: &str = "4711";
const WAITING: &str = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
    and database = (select oid from pg_database where datname = current_database())";

/// The exit code and the output of a replay.
struct ReplayResult {
    code: Option<i32>,
    lines: Vec<String>,
    log: String,
}

impl World {
    fn start_replay(&self, variables: &[(&str, &str)]) -> Child {
        let ca = self.services.postgres_ca.display().to_string();
        let all = [
            ("DOMAIN", self.domain.as_str()),
            ("POSTGRES", self.uri.as_str()),
            ("PGCA", ca.as_str()),
            ("TOPIC_PREFIX", self.prefix.as_str()),
        ];
        Command::new(env!("CARGO_BIN_EXE_recorder"))
            .arg("replay")
            .env_clear()
            .envs(all)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn replay(&self) -> ReplayResult {
        result_of(self.start_replay(&[]))
    }

    /// Inserts values into the quarantine, at offsets from `offset` on. No topic has their topic
    /// id.
    fn quarantine(&mut self, offset: i64, values: &[Option<Vec<u8>>]) {
        let offsets: Vec<i64> = (offset..).take(values.len()).collect();
        let topic = self.topic.clone();
        let sql = "insert into availability_quarantine \
            (topic, topic_id, partition, \"offset\", bytes, reason) \
            select $1, '00000000-0000-0000-0000-000000000007', 0, o, b, 'by hand' \
            from unnest($2::bigint[], $3::bytea[]) as new(o, b)";
        self.database.execute(sql, &[&topic, &offsets, &values]).unwrap();
    }

    /// Creates the schema.
    fn create_schema(&mut self) {
        let script = Command::new(env!("CARGO_BIN_EXE_recorder"))
            .env_clear()
            .args(["schema", "--domain", self.domain.as_str()])
            .output()
            .unwrap();
        self.database.batch_execute(&String::from_utf8(script.stdout).unwrap()).unwrap();
    }

    /// Makes transactions that delete a row of the quarantine wait for the advisory lock, either in
    /// the statement or in the commit.
    fn create_gate(&mut self, in_commit: bool) {
        let trigger = if in_commit {
            "create constraint trigger wait after delete on availability_quarantine \
             deferrable initially deferred"
        } else {
            "create trigger wait after delete on availability_quarantine"
        };
        let sql = format!(
            "create or replace function wait() returns trigger language plpgsql as \
             'begin perform pg_advisory_xact_lock_shared({GATE}); return null; end';
             drop trigger if exists wait on availability_quarantine;
             {trigger} for each row execute function wait();"
        );
        self.database.batch_execute(&sql).unwrap();
    }

    fn rows(&mut self) -> i64 {
        let sql = format!("select count(*) from {}", self.table());
        self.number(&sql).unwrap()
    }

    fn in_quarantine(&mut self) -> i64 {
        self.number("select count(*) from availability_quarantine").unwrap()
    }
}

fn result_of(replay: Child) -> ReplayResult {
    let Output { status, stdout, stderr } = replay.wait_with_output().unwrap();
    let lines = String::from_utf8(stdout).unwrap().lines().map(str::to_owned).collect();
    let log = String::from_utf8(stderr).unwrap();
    eprintln!("replay: {status}\n{log}");
    ReplayResult { code: status.code(), lines, log }
}

/// After an upgrade of the database, a replay records all records that can be stored as rows now,
/// and updates the reasons of the other records.
#[test]
fn records_in_quarantine_are_recorded_after_an_upgrade() {
    let mut world = World::new(&shared().unwrap());
    let nothing = world.replay();
    assert_eq!((nothing.code, nothing.lines.len()), (Some(1), 1));
    assert!(nothing.log.contains("no table availability_quarantine"), "{}", nothing.log);
    let url = "https://a.example/";
    let new_phrase = |second| support::result(second, "sydney", url, "early data refused");
    world.produce([ok(1), b"nonsense".to_vec(), new_phrase(3), new_phrase(7), ok(5)]);
    let recorder = world.recorder();
    world.expect_position(5);
    assert_eq!(world.offsets(), [0, 4]);
    world.quarantine(40, &[None]);
    world.database.execute("update availability_quarantine set reason = 'old words'", &[]).unwrap();
    let topic = world.topic.clone();
    let unknown = "record: key phrase: \"early data refused\" is not a label of phrase_status";
    let nonsense = format!("{topic}/0@1: still bad: record: expected map, found FixPos(110)");
    let valueless = format!("{topic}/0@40: still bad: record: no value");
    let result = world.replay();
    let expected = [
        nonsense.clone(),
        format!("{topic}/0@2: still bad: {unknown}"),
        format!("{topic}/0@3: still bad: {unknown}"),
        valueless.clone(),
        "0 recorded, 4 still bad; 4 left in quarantine".to_owned(),
    ];
    assert_eq!((result.code, result.lines), (Some(1), expected.to_vec()));
    let old = "select count(*) from availability_quarantine where reason = 'old words'";
    assert_eq!(world.number(old), Some(0));
    // Upgrades the database, and adds a value that only the database refuses.
    let table = world.domain.table();
    let upgrade = format!(
        "alter type phrase_status add value 'early data refused'; \
         alter table \"{table}\" add constraint seven check (event_time <> 7)"
    );
    world.database.batch_execute(&upgrade).unwrap();
    let result = result_of(world.start_replay(&[("DOMAIN", "*.d,*")]));
    assert_eq!(result.code, Some(1));
    let row = world.number(&format!("select id from \"{table}\" where topic_offset = 2")).unwrap();
    assert_eq!(result.lines[1], format!("{topic}/0@2: recorded as row {row} of {table}"));
    assert!(result.lines[2].contains("@3: still bad: postgresql: new row for relation"));
    assert_eq!(result.lines[4], "1 recorded, 3 still bad; 3 left in quarantine");
    world
        .database
        .batch_execute(&format!("alter table \"{table}\" drop constraint seven"))
        .unwrap();
    world
        .database
        .execute(
            "delete from availability_quarantine where \"offset\" = any($1)",
            &[&vec![1i64, 40]],
        )
        .unwrap();
    let result = world.replay();
    assert_eq!((result.code, result.lines.len()), (Some(0), 2), "{:?}", result.lines);
    assert_eq!(result.lines[1], "1 recorded, 0 still bad; 0 left in quarantine");
    assert_eq!(world.offsets(), [0, 4, 2, 3]);
    let result = world.replay();
    assert_eq!(result.lines, ["0 recorded, 0 still bad; 0 left in quarantine"]);
    recorder.stop();
}

#[test]
fn the_exit_code_is_1_without_a_server_and_2_without_a_setting() {
    let world = World::new(&shared().unwrap());
    let unreachable = result_of(world.start_replay(&[("POSTGRES", "postgres://u@127.0.0.1:1/x")]));
    assert_eq!(unreachable.code, Some(1));
    let ReplayResult { lines, log, .. } = unreachable;
    assert!(log.contains("replay: ") && lines.is_empty(), "{log}");
    assert_eq!(result_of(world.start_replay(&[("DOMAIN", "")])).code, Some(2));
}

/// A domain whose quarantine is replayed through a proxy.
struct Walker {
    world: World,
    proxy: PostgresProxy,
    uri: String,
    replayed: i64,
}

impl Walker {
    fn start() -> Self {
        let services = shared().unwrap();
        let mut world = World::new(&services);
        world.create_schema();
        let (proxy, uri) = world.proxied();
        Self { world, proxy, uri, replayed: 0 }
    }

    /// Replays two records while the connection is cut, and checks the rows.
    fn cut(
        &mut self,
        kind: u8,
        holding: &str,
        nth: usize,
        side: Direction,
        bytes: usize,
    ) -> RuleHandle {
        let Self { world, proxy, uri, replayed } = self;
        world.quarantine(*replayed, &[Some(ok(*replayed)), Some(failed(*replayed))]);
        let told = proxy.add_rule(kind, holding, nth, side, ProxyFault::Cut(bytes));
        let result = result_of(world.start_replay(&[("POSTGRES", uri)]));
        let what = format!("{holding} {nth} {side:?} {bytes}: {:?}", result.lines);
        assert_eq!((result.code, result.lines.len()), (Some(0), 3), "{what}");
        for (line, offset) in result.lines.iter().zip(*replayed..*replayed + 2) {
            let row = line.strip_prefix(&format!("{}/0@{offset}: recorded as row ", world.topic));
            let row = row.and_then(|row| row.split(' ').next()).expect(&what);
            let sql = format!("select topic_offset from {} where id = {row}", world.table());
            assert_eq!(world.number(&sql), Some(offset), "{what}");
        }
        *replayed += 2;
        assert_eq!((world.rows(), world.in_quarantine()), (*replayed, 0), "{what}");
        told
    }

    /// Cuts between the statement that deletes records from the quarantine and the commit.
    fn cut_at(&mut self, side: Direction, bytes: usize) -> RuleHandle {
        self.cut(b'P', "delete from \"availability_quarantine\"", 0, side, bytes)
    }
}

/// The connection of a replay may be cut at any byte. The replay records each record once, and
/// prints the final outcome.
#[test]
fn a_replay_cut_at_any_byte_records_each_record_once() {
    let mut walkers: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..6).map(|_| scope.spawn(Walker::start)).collect();
        starting.into_iter().map(|starting| starting.join().unwrap()).collect()
    });
    let mut places = Vec::new();
    let mut commits = 0;
    for side in [Direction::Request, Direction::Response] {
        // Cuts in all transactions of the replay. One of these transactions records.
        while walkers[0].cut(b'Q', "COMMIT", commits, side, 0).fired() {
            commits += 1;
        }
        assert!(std::mem::take(&mut commits) >= 5);
        let told = walkers[0].cut_at(side, usize::MAX);
        println!("{side:?}: {} bytes", told.bytes_passed());
        assert!(told.matched() && told.bytes_passed() > 50);
        places.extend((0..=told.bytes_passed()).map(|position| (side, position)));
    }
    let (all, seed) = (places.len(), fuzz::seed());
    fastrand::Rng::with_seed(seed).shuffle(&mut places);
    let places = Mutex::new(places);
    let end = Instant::now() + fuzz::budget(WALK);
    let walk = |walker: &mut Walker| {
        let mut cuts = 0;
        while Instant::now() < end {
            let Some((side, bytes)) = places.lock().unwrap().pop() else { break };
            cuts += usize::from(walker.cut_at(side, bytes).fired());
        }
        cuts
    };
    let cuts: usize = thread::scope(|scope| {
        let walk = &walk;
        let walking: Vec<_> =
            walkers.iter_mut().map(|walker| scope.spawn(move || walk(walker))).collect();
        walking.into_iter().map(|walking| walking.join().unwrap()).sum()
    });
    let walked = all - places.lock().unwrap().len();
    println!("{walked} of {all} positions walked, {cuts} cut, seed {seed}");
    assert!(cuts > 10 && cuts * 10 > walked * 8, "{cuts} cuts at {walked} positions");
}

#[test]
fn a_replay_that_is_killed_and_run_again_records_each_record_once() {
    let services = shared().unwrap();
    for (in_commit, after_kill) in [(false, 0), (true, 3)] {
        let mut world = World::new(&services);
        world.create_schema();
        world.create_gate(in_commit);
        let mut gate = connect(&services, &world.uri).unwrap();
        gate.execute(&format!("select pg_advisory_lock({GATE})"), &[]).unwrap();
        world.quarantine(0, &[Some(ok(0)), Some(ok(1)), Some(ok(2))]);
        let mut replay = world.start_replay(&[]);
        world.expect(WAITING, 1);
        replay.kill().unwrap();
        replay.wait().unwrap();
        gate.execute(&format!("select pg_advisory_unlock({GATE})"), &[]).unwrap();
        let others = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
            and datname = current_database() and application_name like 'recorder%'";
        world.expect(others, 0);
        // After its client has gone, a transaction ends with the current statement.
        assert_eq!(world.rows(), after_kill);
        let result = world.replay();
        assert_eq!(result.code, Some(0));
        assert_eq!(world.offsets(), [0, 1, 2]);
        assert_eq!(result.lines.len() as i64, 4 - after_kill);
    }
}

#[test]
fn two_concurrent_replays_record_each_record_once() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    world.create_schema();
    world.create_gate(false);
    let count = 1_700;
    let values: Vec<_> = (0..count).map(|second| Some(ok(second))).collect();
    world.quarantine(0, &values);
    let mut gate = connect(&services, &world.uri).unwrap();
    gate.execute(&format!("select pg_advisory_lock({GATE})"), &[]).unwrap();
    let replays = [world.start_replay(&[]), world.start_replay(&[])];
    // One replay has written a part of its batch. The other replay has selected the same records.
    world.expect(WAITING, 2);
    gate.execute(&format!("select pg_advisory_unlock({GATE})"), &[]).unwrap();
    let results = replays.map(result_of);
    let recorded = |result: &ReplayResult| {
        result.lines.iter().filter(|line| line.contains("recorded as row")).count()
    };
    assert_eq!(results.iter().map(recorded).sum::<usize>() as i64, count);
    assert!(
        results
            .iter()
            .any(|result| result.lines.iter().any(|line| line.ends_with("@0: taken by others")))
    );
    let mut offsets = world.offsets();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..count).collect::<Vec<_>>());
    assert_eq!(world.in_quarantine(), 0);
}

/// A replay acquires the lock of the table. Its rows get a higher `id` than the rows that a
/// recorder in smart mode has already read.
#[test]
fn a_recorder_in_smart_mode_sees_replayed_rows() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    world.produce([ok(10)]);
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(1);
    world.quarantine(0, &[Some(failed(85))]);
    world.create_gate(false);
    let mut gate = connect(&services, &world.uri).unwrap();
    gate.execute(&format!("select pg_advisory_lock({GATE})"), &[]).unwrap();
    let replay = world.start_replay(&[]);
    world.expect(WAITING, 1);
    world.produce([failed(70), ok(80)]);
    eventually("the recorder waits or writes", || {
        let waits = world.number(WAITING) == Some(2);
        (waits || world.rows() > 1).then_some(())
    });
    gate.execute(&format!("select pg_advisory_unlock({GATE})"), &[]).unwrap();
    assert_eq!(result_of(replay).code, Some(0));
    world.expect_position(3);
    world.produce([ok(90)]);
    world.expect_position(4);
    assert_eq!(
        world.history(),
        ["10 0 ok", "70 1 forbidden", "80 2 ok", "85 0 forbidden", "90 3 ok"]
    );
    recorder.stop();
}

/// Rows from topics of 1.1.0 do not store their offsets, because 1.1.0 starts reading after the
/// highest offset.
#[test]
fn a_replay_does_not_change_where_1_1_0_starts_reading() {
    let mut world = World::with_prefix(&shared().unwrap(), TOPIC_PREFIX_OF_1_1_0);
    world.produce([ok(0), ok(1)]);
    let recorder = world.recorder();
    world.expect_position(2);
    recorder.stop();
    world.produce((2..10).map(ok));
    world.quarantine(5, &[Some(failed(100))]);
    let result = world.replay();
    assert_eq!((result.code, result.lines.len()), (Some(0), 2));
    let recorder = world.recorder();
    world.expect_position(10);
    recorder.stop();
    assert_eq!(world.offsets(), [0, 1, -1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

/// If the server takes too long for a record, the record stays in quarantine and the replay ends.
#[test]
fn a_record_that_times_out_stays_in_quarantine() {
    let mut world = World::new(&shared().unwrap());
    world.create_schema();
    let sql = format!(
        "create function slow() returns trigger language plpgsql as \
         $$ begin if new.event_time = 2 then raise query_canceled; end if; return new; end $$;
         create trigger slow before insert on {} for each row execute function slow()",
        world.table()
    );
    world.database.batch_execute(&sql).unwrap();
    let values: Vec<_> = (0..6).map(|second| Some(ok(second))).collect();
    world.quarantine(0, &values);
    let replayed = world.replay();
    assert!(
        replayed.lines.iter().any(|line| line.contains("@2: still bad: ")),
        "{:?}",
        replayed.lines
    );
    assert_eq!(replayed.lines.last().unwrap(), "5 recorded, 1 still bad; 1 left in quarantine");
}
