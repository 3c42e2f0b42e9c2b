//! From bytes in Kafka to rows in PostgreSQL.

use crate::support::{World, failed, ok, result};
use common::domain::TOPIC_PREFIX_OF_1_1_0;
use testkit::services::{connect, fresh_name, shared};

/// What 1.1.0 creates, by its own words.
fn schema_of_1_1_0(world: &mut World, unexpected: &str) {
    let mut phrases: Vec<&str> =
        common::phrase::all().take_while(|phrase| *phrase != "early hints").collect();
    phrases.extend(["domain not exist", "ssl error", "connection timeout", unexpected]);
    let table = world.domain.table();
    let sql = format!(
        "CREATE TYPE response_status AS ENUM ('responsive', 'unresponsive');
         CREATE TYPE phrase_status AS ENUM ('{}');
         CREATE TABLE IF NOT EXISTS \"{table}\" ( id SERIAL PRIMARY KEY, created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP, topic_offset bigint DEFAULT -1, test_from varchar(32) NOT NULL, url varchar(256) NOT NULL, event_time BIGINT, status response_status, phrase phrase_status, dns integer DEFAULT -1, response integer DEFAULT -1, detail varchar(128) );
         CREATE INDEX IF NOT EXISTS \"{}\" ON \"{table}\" (url);",
        phrases.join("', '"),
        world.domain.url_index()
    );
    world.database.batch_execute(&sql).unwrap();
}

/// As 1.1.0 does: from the offset after that of the row with the highest id.
fn recorded_by_1_1_0(world: &mut World, offsets: std::ops::Range<i64>) {
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
fn bytes_of_1_1_0_end_as_the_right_row() {
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
    // It is committed after the rows.
    crate::support::eventually("group offset", || {
        let group = world.client().committed_offset("websites-availability", &world.topic, 0);
        (group.unwrap() == Some(1)).then_some(())
    });
    let (status, took, log) = recorder.stop();
    assert!(status.success() && took.as_secs() < 8, "{status} {took:?}");
    assert!(log.contains("recorded 1 rows, 0 merged records, 0 in quarantine"), "{log}");
    assert!(!log.contains("aiven"), "a log holds no record: {log}");
}

/// Goes red when `start_position` does not count the table.
#[test]
fn a_table_is_taken_over_from_1_1_0_handed_back_and_taken_over_again() {
    let mut world = World::with_prefix(&shared().unwrap(), TOPIC_PREFIX_OF_1_1_0);
    schema_of_1_1_0(&mut world, "Page content not expected");
    world.produce((0..30).map(ok));
    recorded_by_1_1_0(&mut world, 0..7);
    let recorder = world.recorder();
    world.expect_position(30);
    recorder.expect_log("taking over a table that goes up to offset 6");
    recorder.stop();
    world.produce((30..50).map(ok));
    recorded_by_1_1_0(&mut world, 30..41);
    let recorder = world.recorder();
    world.expect_position(50);
    recorder.expect_log("the table goes up to offset 40, beyond the stored 30");
    recorder.stop();
    assert_eq!(world.offsets(), (0..50).collect::<Vec<_>>());
    // What we left is what it would start from.
    recorded_by_1_1_0(&mut world, 50..51);
    let recorder = world.recorder();
    world.produce([ok(50), ok(51)]);
    world.expect_position(52);
    recorder.stop();
    assert_eq!(world.offsets(), (0..52).collect::<Vec<_>>());
    // Trackers of today write to another topic, the table to the same: what
    // it holds of that one says nothing of this one.
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
fn an_existing_schema_is_completed_and_its_spelling_used() {
    let mut world = World::new(&shared().unwrap());
    schema_of_1_1_0(&mut world, "Page content not expected");
    world.produce([
        result(1, "sydney", "https://a.example/", "page content not expected"),
        result(2, "sydney", "https://a.example/", "connection refused"),
        result(3, "sydney", "https://a.example/", "OK"),
    ]);
    let recorder = world.recorder();
    world.expect_position(3);
    assert_eq!(
        world.history(),
        ["1 0 Page content not expected", "2 1 connection refused", "3 2 ok"]
    );
    recorder.stop();
    let lower = "select count(*) from pg_enum where enumlabel = 'page content not expected'";
    assert_eq!(world.number(lower), Some(0));
}

#[test]
fn rights_to_read_and_write_are_enough_when_the_schema_is_there() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    let script = std::process::Command::new(env!("CARGO_BIN_EXE_recorder"))
        .env_clear()
        .args(["schema", "--domain", world.domain.as_str()])
        .output()
        .unwrap();
    assert!(script.status.success());
    let script = String::from_utf8(script.stdout).unwrap();
    // It changes nothing the second time.
    world.database.batch_execute(&script).unwrap();
    world.database.batch_execute(&script).unwrap();
    let role = testkit::services::fresh_name("role").replace('-', "_");
    let rights = format!(
        "create role {role} login password 'hunter2';
         grant select, insert, update on all tables in schema public to {role};
         grant usage on all sequences in schema public to {role};
         revoke create on schema public from public;"
    );
    world.database.batch_execute(&rights).unwrap();
    let (host, port) = (&services.postgres_host, services.postgres_port);
    let name = world.uri.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let uri = format!("postgres://{role}:hunter2@{host}:{port}/{name}?sslmode=verify-full");
    world.produce([ok(1), b"nonsense".to_vec(), failed(2), ok(3), ok(4)]);
    let recorder = world.recorder_with(&[("POSTGRES", &uri), ("SMART", "yes")]);
    world.expect_position(5);
    assert_eq!(world.history(), ["1 0 ok", "2 2 forbidden", "4 4 ok"]);
    let (_, _, log) = recorder.stop();
    assert!(!log.contains("hunter2") && !log.contains("denied"), "{log}");
    // Without the tables it says what it lacks, and goes on when it gets it.
    let mut bare = World::new(&services);
    let name = bare.uri.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let bare_uri = format!("postgres://{role}:hunter2@{host}:{port}/{name}?sslmode=verify-full");
    bare.produce([ok(1)]);
    let recorder = bare.recorder_with(&[("POSTGRES", &bare_uri)]);
    recorder.expect_log(
        "permission denied for schema public (42501) (`recorder schema` prints what must be there)",
    );
    bare.database.batch_execute(&format!("grant create on schema public to {role}")).unwrap();
    bare.expect_position(1);
    recorder.stop();
    drop(connect(&services, &bare_uri).unwrap());
}

#[test]
fn what_does_not_fit_goes_to_quarantine_and_nothing_stops() {
    let mut world = World::new(&shared().unwrap());
    world.produce([
        ok(1),
        b"nonsense".to_vec(),
        result(2, "sydney", &"u".repeat(257), "ok"),
        result(3, "sydney", "https://a.example/\0", "ok"),
        result(4, "sydney", "https://a.example/", "never heard of"),
        ok(5),
    ]);
    let recorder = world.recorder();
    world.expect_position(6);
    assert_eq!(world.offsets(), [0, 5]);
    let sql = "select \"offset\", bytes, reason, topic, partition from availability_quarantine order by 1";
    let rows = world.database.query(sql, &[]).unwrap();
    let reasons: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(2))).collect();
    let expected = [
        (1, "record: expected map, found FixPos(110)"),
        (2, "record: key url: 257 characters, the column holds 256"),
        (3, "record: key url: holds a NUL character"),
        (4, "record: key phrase: \"never heard of\" is not a label of phrase_status"),
    ];
    assert_eq!(reasons, expected.map(|(offset, reason)| (offset, reason.to_owned())));
    assert_eq!(rows[0].get::<_, &[u8]>(1), b"nonsense");
    assert_eq!(rows[0].get::<_, &str>(3), world.topic);
    // What only the database knows: a constraint that somebody added.
    let table = world.table();
    let constraint = format!("alter table {table} add check (event_time <> 7)");
    world.database.batch_execute(&constraint).unwrap();
    world.produce([ok(6), ok(7), ok(8)]);
    world.expect_position(9);
    assert_eq!(world.offsets(), [0, 5, 6, 8]);
    let reason = world.database.query(sql, &[]).unwrap()[4].get::<_, String>(2);
    assert!(
        reason.contains("violates check constraint") && reason.ends_with("(23514)"),
        "{reason}"
    );
    let (_, _, log) = recorder.stop();
    assert!(log.contains("recorded 4 rows, 0 merged records, 5 in quarantine"), "{log}");
    assert!(!log.contains("WARN"), "{log}");
}

/// Goes red when `one_line` leaves a reason as it is: then the row in quarantine
/// can't be written either, and the domain stands still.
#[test]
fn what_the_databases_encoding_lacks_goes_to_quarantine() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    let name = fresh_name("latin").replace('-', "_");
    let create = format!(
        "create database {name} encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0"
    );
    world.database.batch_execute(&create).unwrap();
    let (base, query) = world.uri.split_once('?').unwrap();
    let (server, _) = base.rsplit_once('/').unwrap();
    world.uri = format!("{server}/{name}?{query}");
    world.database = connect(&services, &world.uri).unwrap();
    let url = "https://a.example/";
    world.produce([ok(0), result(1, "sydney", url, "日本"), result(2, "日本", url, "ok"), ok(3)]);
    let recorder = world.recorder();
    world.expect_position(4);
    assert_eq!(world.offsets(), [0, 3]);
    let sql = "select reason from availability_quarantine order by \"offset\"";
    let rows = world.database.query(sql, &[]).unwrap();
    let reasons: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let label = r#"record: key phrase: "\u{65e5}\u{672c}" is not a label of phrase_status"#;
    assert_eq!(reasons[0], label);
    assert!(reasons[1].ends_with("(22P05)"), "{reasons:?}");
    recorder.stop();
}

#[test]
fn smart_mode_survives_a_restart_and_keeps_the_order_of_events() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(10), ok(20), failed(30), ok(40)]);
    let smart = [("SMART", "true")];
    let recorder = world.recorder_with(&smart);
    world.expect_position(4);
    assert_eq!(world.history(), ["20 1 ok", "30 2 forbidden", "40 3 ok"]);
    // Another location is another target.
    world.produce([ok(50), result(50, "oslo", "https://a.example/", "ok"), ok(60)]);
    world.expect_position(7);
    assert_eq!(world.history(), ["20 1 ok", "30 2 forbidden", "50 5 ok", "60 6 ok"]);
    recorder.stop();
    let recorder = world.recorder_with(&smart);
    world.produce([ok(70), result(70, "oslo", "https://a.example/", "ok")]);
    world.expect_position(9);
    assert_eq!(world.history(), ["20 1 ok", "30 2 forbidden", "70 7 ok", "70 8 ok"]);
    // Late: in front of the failure, and after it; then a late failure.
    world.produce([ok(25), ok(35), failed(26)]);
    world.expect_position(12);
    assert_eq!(
        world.history(),
        ["25 9 ok", "26 11 forbidden", "30 2 forbidden", "70 8 ok", "70 10 ok"]
    );
    world.produce([ok(80)]);
    world.expect_position(13);
    assert_eq!(world.history().last().unwrap(), "80 12 ok");
    // Somebody else writes: nothing remembered counts any more.
    let table = world.table();
    let failure = format!(
        "insert into {table} (topic_offset, test_from, url, event_time, status, phrase) \
         values (12, 'sydney', 'https://a.example/', 85, 'responsive', 'forbidden')"
    );
    world.database.batch_execute(&failure).unwrap();
    world.produce([ok(90)]);
    world.expect_position(14);
    assert_eq!(world.history()[4..], ["80 12 ok", "85 12 forbidden", "90 13 ok"]);
    recorder.stop();
}

#[test]
fn a_topic_of_the_other_spelling_is_named_and_one_to_come_is_waited_for() {
    let mut old = World::with_prefix(&shared().unwrap(), TOPIC_PREFIX_OF_1_1_0);
    old.produce([ok(1)]);
    let recorder = old.recorder_with(&[("TOPIC_PREFIX", "webactivity-")]);
    let line =
        format!("but {} is: expected --topic-prefix webactiviity- (TOPIC_PREFIX)?", old.topic);
    recorder.expect_log(&line);
    recorder.expect_log("does not exist yet");
    assert_eq!(recorder.log().matches("does not exist yet").count(), 1);
    old.topic = old.domain.topic("webactivity-").unwrap();
    let topics = old.client().topics(std::slice::from_ref(&old.topic)).unwrap();
    assert!(topics[0].is_missing(), "a recorder makes no topic");
    old.produce([ok(2)]);
    old.expect_position(1);
    recorder.stop();
}

#[test]
fn a_topic_made_again_starts_at_its_own_beginning_and_the_rest_is_a_gap() {
    let mut world = World::new(&shared().unwrap());
    world.produce((0..5).map(ok));
    let recorder = world.recorder();
    world.expect_position(5);
    world.delete_topic();
    let before = "select count(distinct topic_id) from availability_offset";
    assert_eq!(world.number(before), Some(1));
    // A new client: the old one's producer knows the old topic.
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
fn a_bad_uri_ends_with_2_and_one_line() {
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
fn a_backlog_of_many_fetches_is_recorded_once_in_its_order_and_merges_to_the_same_history() {
    let mut world = World::new(&shared().unwrap());
    // Ten fetches or more, in which runs of healthy results go on from one batch,
    // and from one fetch, to the next.
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
    assert!(log.contains("recorded 16 rows, 39984 merged records"), "{log}");
}
