//! Tests of a log that lost its tail and then got other records at the same offsets.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::domain::{TOPIC_PREFIX, TOPIC_PREFIX_OF_1_1_0};
use common::identity::Run;
use common::stop;
use postgres_client::{PostgresSettings, PostgresUri};
use recorder::postgres::pool::Database;
use recorder::report::outage_log::SharedOutage;
use recorder::schema;
use recorder::timings::Timings;
use recorder::transaction::position::{Position, TopicPartition, read_position, skip_to};
use testkit::services::{Services, shared};

use crate::own_services::with_own_services;
use crate::support::{Recorder, World, ok};

/// The number of records that the log keeps, and the number of records before the loss.
const KEPT: i64 = 8;
const BEFORE: i64 = 12;

/// A topic that loses its tail.
struct LostTail {
    world: World,
    run: Run,
    recorder: Option<Recorder>,
}

impl LostTail {
    fn new(services: &Services, prefix: &str) -> Self {
        let mut world = World::with_prefix(services, prefix);
        let run = Run::new().unwrap();
        let recorder = Some(world.recorder_with(&[("TOPIC_PREFIX", prefix)]));
        world.produce_of(&run, (0..KEPT).map(|number| (number, ok(number))));
        world.expect_position(KEPT);
        Self { world, run, recorder }
    }

    fn folder(&self) -> PathBuf {
        let name = format!("kafka/1/data/{}-0", self.world.topic);
        self.world.services.dir.join(name)
    }

    fn copy(&self) -> PathBuf {
        self.world.services.dir.join(format!("copy-of-{}", self.world.topic))
    }

    fn copy_folder(&self) {
        copy_files(&self.folder(), &self.copy());
    }

    fn put_back_folder(&self) {
        fs::remove_dir_all(self.folder()).unwrap();
        copy_files(&self.copy(), &self.folder());
        fs::remove_dir_all(self.copy()).unwrap();
    }

    /// Writes the records that the log will lose, and waits until they are stored as rows.
    fn write_tail(&mut self) {
        let Self { world, run, .. } = self;
        world.produce_of(run, (KEPT..BEFORE).map(|number| (number, ok(number))));
        world.expect_position(BEFORE);
        let epoch = "select count(*) from availability_offset \
            where leader_epoch >= 0 and leader_epoch_offset = next_offset";
        world.expect(epoch, 1);
    }

    /// Writes two results that are already recorded, two new results, and two results without an
    /// identity. After that the log ends behind the position.
    fn write_other_records(&mut self) {
        let Self { world, run, .. } = self;
        let numbers = [BEFORE - 2, BEFORE - 1, BEFORE, BEFORE + 1];
        world.produce_of(run, numbers.map(|number| (number, ok(number))));
        world.produce([ok(100), ok(101)]);
    }

    fn check(mut self) {
        let world = &mut self.world;
        world.expect_position(KEPT + 6);
        let expected: Vec<i64> = (0..BEFORE).chain(KEPT + 2..KEPT + 6).collect();
        assert_eq!(world.offsets(), expected);
        let gaps = world
            .database
            .query("select from_offset, to_offset, reason from availability_gap", &[])
            .unwrap();
        let [gap] = &gaps[..] else { panic!("{gaps:?}") };
        assert_eq!((gap.get(0), gap.get(1)), (BEFORE, Some(KEPT)));
        let reason: &str = gap.get(2);
        let epochs = "log lost its tail: leader epoch ";
        assert!(reason.starts_with(epochs), "{reason}");
        let between = format!(" ends at offset {KEPT} there, the leader epoch is ");
        assert!(reason.contains(&between), "{reason}");
        let (_, _, log) = self.recorder.take().unwrap().stop();
        assert_eq!(log.matches(epochs).count(), 1, "{log}");
        // The next start continues from this position, whatever the table shows.
        let recorder = world.recorder_with(&[("TOPIC_PREFIX", &world.prefix)]);
        world.produce([ok(102)]);
        world.expect_position(KEPT + 7);
        let gaps = world.number("select count(*) from availability_gap");
        assert_eq!((world.offsets().len(), gaps), (expected.len() + 1, Some(1)));
        recorder.stop();
        world.delete_topic();
    }
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A broker loses records that it has acknowledged, as in a power cut. All later records are read,
/// although the position had already passed their offsets. This holds for a running recorder, for a
/// recorder that starts later, and for a table that 1.1.0 could have written.
#[test]
fn a_log_that_lost_its_tail_is_read_from_where_it_was_cut_broken_on_purpose() {
    with_own_services(1, |services| {
        let mut topics = [TOPIC_PREFIX, TOPIC_PREFIX, TOPIC_PREFIX_OF_1_1_0]
            .map(|prefix| LostTail::new(services, prefix));
        services.stop_broker(1).unwrap();
        topics.iter().for_each(LostTail::copy_folder);
        services.start_broker(1).unwrap();
        topics.iter_mut().for_each(LostTail::write_tail);
        topics[1].recorder.take().unwrap().stop();
        services.kill_broker(1).unwrap();
        topics.iter().for_each(LostTail::put_back_folder);
        services.start_broker(1).unwrap();
        topics.iter_mut().for_each(LostTail::write_other_records);
        topics[1].recorder = Some(topics[1].world.recorder());
        topics.into_iter().for_each(LostTail::check);
    });
}

/// A recorder of an earlier version moves the offset without the leader epoch. A table of an
/// earlier version has no columns for the leader epoch.
#[test]
fn an_epoch_counts_only_with_its_offset_and_in_a_table_that_has_its_columns() {
    let mut world = World::new(&shared().unwrap());
    let (_proxy, uri) = world.proxied();
    let uri = PostgresUri::parse(&uri).unwrap();
    let settings = PostgresSettings { uri, ca: None, application_name: "epoch".into() };
    let database = Database::new(settings, 1, Arc::new(SharedOutage::new("postgresql")));
    let (_stopper, stop) = stop::pair();
    schema::ensure(&database, &stop, &Timings::default(), &world.domain).unwrap();
    let timeout = Duration::from_secs(20);
    let partition = TopicPartition { topic: world.topic.clone(), number: 0 };
    let read = || read_position(&database, &stop, timeout, &partition).unwrap();
    let move_to = |from, to| {
        skip_to(&database, &stop, timeout, &partition, from, to, &[]).unwrap();
        read().unwrap()
    };
    let start = Position::unread(Run::new().unwrap().id(), 5, 0);
    let first = move_to(None, start);
    assert_eq!(first, Position { stores_epoch: true, ..start });
    let next = Position { next_offset: 9, leader_epoch: Some(3), ..first };
    assert_eq!(move_to(Some(first), next), next);
    world.database.execute("update availability_offset set next_offset = 11", &[]).unwrap();
    let moved = Position { next_offset: 11, leader_epoch: None, ..next };
    assert_eq!(read(), Some(moved));
    let drop = "alter table availability_offset \
        drop column leader_epoch, drop column leader_epoch_offset";
    world.database.execute(drop, &[]).unwrap();
    let old = Position { stores_epoch: false, ..moved };
    assert_eq!(read(), Some(old));
    let to = Position { next_offset: 13, leader_epoch: Some(4), ..old };
    assert_eq!(move_to(Some(old), to), Position { leader_epoch: None, ..to });
}
