//! Tests that records in Kafka are stored as rows in PostgreSQL.

use testkit::services::{connect, shared};

use crate::support::{World, ok, result};

#[test]
fn a_topic_that_is_created_again_is_read_from_its_start() {
    let mut world = World::new(&shared().unwrap());
    world.produce((0..5).map(ok));
    let recorder = world.recorder();
    world.expect_position(5);
    world.delete_topic();
    let before = "select count(distinct topic_id) from availability_offset";
    assert_eq!(world.number(before), Some(1));
    // A new producer is needed, because the old producer uses the id of the old topic.
    let mut again = World::new(&world.services);
    again.topic = world.topic.clone();
    again.produce([ok(100), ok(101)]);
    world.expect("select next_offset from availability_offset", 2);
    assert_eq!(world.offsets(), [0, 1, 2, 3, 4, 0, 1]);
    let sql = "select from_offset, to_offset, reason, \
               topic_id <> (select topic_id from availability_offset) from availability_gap";
    let gap = world.database.query_one(sql, &[]).unwrap();
    assert_eq!((gap.get::<_, i64>(0), gap.get::<_, Option<i64>>(1)), (5, None));
    assert_eq!(gap.get::<_, &str>(2), "topic made again");
    assert!(gap.get::<_, bool>(3));
    recorder.stop();
}

#[test]
fn a_bad_uri_is_one_line_and_exit_code_2() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recorder"))
        .env_clear()
        .envs([("DOMAIN", "a.b"), ("KAFKA", "localhost:1"), ("POSTGRES", "postgres://u:hunter2@")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        text,
        "recorder: POSTGRES: postgresql uri: no host: expected a name, or host=/folder for a socket\n"
    );
}

#[test]
fn a_backlog_of_many_fetches_is_recorded_in_order_in_both_modes() {
    let mut world = World::new(&shared().unwrap());
    // At least ten fetches are needed. Sequences of healthy results continue from batch to batch
    // and from fetch to fetch.
    let count = 40_000;
    let url = format!("https://a.example/{}", "u".repeat(200));
    let phrase = |second| if second % 5_000 == 4_999 { "forbidden" } else { "ok" };
    let values: Vec<_> =
        (0..count).map(|second| result(second, "sydney", &url, phrase(second))).collect();
    for values in values.chunks(2_000) {
        world.produce(values.to_vec());
    }
    let recorder = world.recorder();
    world.expect_position(count);
    assert!(world.offsets().into_iter().eq(0..count));
    assert_eq!(world.number("select count(*) from availability_gap"), Some(0));
    recorder.stop();

    world.uri = testkit::services::fresh_database(&world.services).unwrap();
    world.database = connect(&world.services, &world.uri).unwrap();
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(count);
    let run = |failed: i64| {
        let before = failed - 1;
        [format!("{before} {before} ok"), format!("{failed} {failed} forbidden")]
    };
    let history: Vec<_> = (1..=count / 5_000).flat_map(|nth| run(nth * 5_000 - 1)).collect();
    assert_eq!(world.history(), history);
    let (_, _, log) = recorder.stop();
    assert!(log.contains("inserted rows: 16, merged records: 39984,"), "{log}");
}
