//! Tests with tables and topics of version 1.1.0.

use common::domain::TOPIC_PREFIX_OF_1_1_0;
use testkit::services::shared;

use crate::schema::create_schema_of_1_1_0;
use crate::support::{World, ok};

/// Inserts rows like 1.1.0, which starts after the offset of the row with the highest `id`.
fn record_as_1_1_0(world: &mut World, offsets: std::ops::Range<i64>) {
    let table = world.table();
    let last =
        format!("select coalesce((select topic_offset from {table} order by id desc limit 1), -1)");
    assert_eq!(world.number(&last), Some(offsets.start - 1), "1.1.0 would start elsewhere");
    for offset in offsets {
        let sql = format!(
            "insert into {table} (topic_offset, test_from, url, event_time, status, phrase, dns, response, detail) \
             values ({offset}, 'sydney', 'https://a.example/', {offset}, 'responsive', 'ok', 3, 40, 'None')"
        );
        world.database.batch_execute(&sql).unwrap();
    }
}

#[test]
fn a_record_of_1_1_0_becomes_the_right_row() {
    let mut world = World::with_prefix(&shared().unwrap(), TOPIC_PREFIX_OF_1_1_0);
    let mut bytes = vec![0x89];
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.push(0xa0 | text.len() as u8);
        bytes.extend(text.as_bytes());
    };
    for (key, value) in [("from", "sydney"), ("url", "https://aiven.io")] {
        text(&mut bytes, key);
        text(&mut bytes, value);
    }
    text(&mut bytes, "timestamp");
    bytes.extend([0xcb, 0x41, 0xd7, 0xf9, 0x4c, 0x02, 0x64, 0x2e, 0xa1]);
    for (key, value) in [("status", "responsive"), ("phrase", "forbidden")] {
        text(&mut bytes, key);
        text(&mut bytes, value);
    }
    text(&mut bytes, "dns");
    bytes.push(0x0a);
    text(&mut bytes, "response");
    bytes.extend([0xcd, 0x01, 0x2c]);
    text(&mut bytes, "detail");
    bytes.push(0xa0);
    text(&mut bytes, "offset");
    bytes.push(0x0f);
    world.produce([bytes]);
    let recorder = world.recorder();
    world.expect_position(1);
    let sql = format!(
        "select topic_offset, test_from, url, event_time, status::text, phrase::text, dns, response, detail, \
         created_at > now() - interval '5 minutes', id from {}",
        world.table()
    );
    let row = world.database.query_one(&sql, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    assert_eq!(row.get::<_, &str>(1), "sydney");
    assert_eq!(row.get::<_, &str>(2), "https://aiven.io");
    assert_eq!(row.get::<_, i64>(3), 1_608_855_561);
    assert_eq!(row.get::<_, &str>(4), "responsive");
    assert_eq!(row.get::<_, &str>(5), "forbidden");
    assert_eq!((row.get::<_, i32>(6), row.get::<_, i32>(7)), (10, 300));
    assert_eq!(row.get::<_, Option<&str>>(8), Some(""));
    assert!(row.get::<_, bool>(9));
    assert_eq!(row.get::<_, i64>(10), 1, "the id has 64 bits");
    // The offset of the group is committed after the rows.
    crate::support::eventually("group offset", || {
        let group = world.client().committed_offset("websites-availability", &world.topic, 0);
        (group.unwrap() == Some(1)).then_some(())
    });
    let (status, took, log) = recorder.stop();
    assert!(status.success() && took.as_secs() < 8, "{status} {took:?}");
    assert!(
        log.contains("inserted rows: 1, merged records: 0, records in quarantine: 0,"),
        "{log}"
    );
    assert!(!log.contains("aiven"), "records are not logged: {log}");
}

#[test]
fn a_table_may_change_between_1_1_0_and_this_version() {
    let mut world = World::with_prefix(&shared().unwrap(), TOPIC_PREFIX_OF_1_1_0);
    create_schema_of_1_1_0(&mut world, "Page content not expected");
    world.produce((0..30).map(ok));
    record_as_1_1_0(&mut world, 0..7);
    let recorder = world.recorder();
    world.expect_position(30);
    recorder.expect_log("taking over a table that goes up to offset 6");
    recorder.stop();
    world.produce((30..50).map(ok));
    record_as_1_1_0(&mut world, 30..41);
    let recorder = world.recorder();
    world.expect_position(50);
    recorder.expect_log("the table goes up to offset 40, beyond the stored 30");
    recorder.stop();
    assert_eq!(world.offsets(), (0..50).collect::<Vec<_>>());
    // 1.1.0 would start at the position of this version.
    record_as_1_1_0(&mut world, 50..51);
    let recorder = world.recorder();
    world.produce([ok(50), ok(51)]);
    world.expect_position(52);
    recorder.stop();
    assert_eq!(world.offsets(), (0..52).collect::<Vec<_>>());
    // Current trackers write to another topic. Its rows are stored in the same table, but do not
    // affect the position in the old topic.
    world.produce((52..90).map(ok));
    let old_topic = world.topic.clone();
    world.topic = world.domain.topic("webactivity-").unwrap();
    world.produce((0..70).map(ok));
    let today = world.recorder_with(&[("TOPIC_PREFIX", "webactivity-")]);
    world.expect_position(70);
    today.stop();
    world.topic = old_topic;
    let recorder = world.recorder();
    world.expect_position(90);
    recorder.stop();
    assert_eq!(world.offsets().len(), 90 + 70);
}

#[test]
fn a_missing_topic_is_waited_for_and_a_topic_with_the_old_prefix_is_logged() {
    let mut old = World::with_prefix(&shared().unwrap(), TOPIC_PREFIX_OF_1_1_0);
    old.produce([ok(1)]);
    let recorder = old.recorder_with(&[("TOPIC_PREFIX", "webactivity-")]);
    let line = format!("but {} does: set --topic-prefix webactiviity- (TOPIC_PREFIX)", old.topic);
    recorder.expect_log(&line);
    recorder.expect_log("does not exist yet");
    assert_eq!(recorder.log().matches("does not exist yet").count(), 1);
    old.topic = old.domain.topic("webactivity-").unwrap();
    let topics = old.client().topics(std::slice::from_ref(&old.topic)).unwrap();
    assert!(topics[0].is_missing(), "a recorder creates no topic");
    old.produce([ok(2)]);
    old.expect_position(1);
    recorder.stop();
}
