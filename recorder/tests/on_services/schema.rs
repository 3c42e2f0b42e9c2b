//! Tests of the schema that the recorder creates, and of the rights that it needs.

use common::identity::Run;
use testkit::services::{Services, connect, shared};

use crate::support::{World, failed, ok, result};

/// Creates the schema with the statements of 1.1.0.
pub(crate) fn create_schema_of_1_1_0(world: &mut World, unexpected: &str) {
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

#[test]
fn an_existing_schema_is_completed_and_its_labels_are_used() {
    let mut world = World::new(&shared().unwrap());
    create_schema_of_1_1_0(&mut world, "Page content not expected");
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
fn rights_to_read_and_write_are_enough_if_the_schema_exists() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    let script = std::process::Command::new(env!("CARGO_BIN_EXE_recorder"))
        .env_clear()
        .args(["schema", "--domain", world.domain.as_str()])
        .output()
        .unwrap();
    assert!(script.status.success());
    let script = String::from_utf8(script.stdout).unwrap();
    // A second run changes nothing.
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
    // Without the tables the recorder logs the missing parts. It continues once it may create them.
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

/// Creates a role that may read and write the tables of the world's database, but create none.
/// Returns the role and its URI.
fn limited_role(world: &mut World, services: &Services) -> (String, String) {
    let role = testkit::services::fresh_name("role").replace('-', "_");
    let rights = format!(
        "create role {role} login password 'hunter2';
         grant select, insert, update on all tables in schema public to {role};
         grant usage on all sequences in schema public to {role};
         grant delete on availability_mark to {role};
         revoke create on schema public from public;"
    );
    world.database.batch_execute(&rights).unwrap();
    let (host, port) = (&services.postgres_host, services.postgres_port);
    let name = world.uri.split('?').next().unwrap().rsplit('/').next().unwrap();
    let uri = format!("postgres://{role}:hunter2@{host}:{port}/{name}?sslmode=verify-full");
    (role, uri)
}

fn script_for(world: &World) -> String {
    let script = std::process::Command::new(env!("CARGO_BIN_EXE_recorder"))
        .env_clear()
        .args(["schema", "--smart", "--domain", world.domain.as_str()])
        .output()
        .unwrap();
    String::from_utf8(script.stdout).unwrap()
}

/// The parts of an upgrade are optional: recording does not wait for the right to add them.
#[test]
fn recording_goes_on_without_what_an_upgrade_adds() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    create_schema_of_1_1_0(&mut world, "page content not expected");
    let script = script_for(&world);
    world.database.batch_execute(&script).unwrap();
    let table = world.table();
    // The schema of an earlier version.
    let earlier = format!(
        "alter table {table} drop column period_ms, drop column name, drop column results;
         alter table availability_gap drop column run, drop column to_sequence;
         alter table availability_quarantine drop column run, drop column sequence;
         alter type phrase_status rename value 'i''m a teapot' to 'of somebody else';"
    );
    world.database.batch_execute(&earlier).unwrap();
    let (role, uri) = limited_role(&mut world, &services);
    let url = "https://a.example/";
    let run = Run::new().unwrap();
    world.produce_of(
        &run,
        [
            (0, ok(0)),
            (1, result(1, "sydney", url, "i'm a teapot")),
            (4, result(2, "sydney", url, "content too large")),
            (5, ok(3)),
        ],
    );
    let recorder = world.recorder_with(&[("POSTGRES", &uri), ("SMART", "yes")]);
    world.expect_position(4);
    assert_eq!(world.history(), ["0 0 ok", "2 2 request entity too large", "3 3 ok"]);
    let quarantined = "select \"offset\" from availability_quarantine";
    assert_eq!(world.number(quarantined), Some(1));
    assert_eq!(world.number("select count(*) from availability_gap"), Some(1));
    recorder.expect_log("recording without label \"i'm a teapot\" of type phrase_status, column ");
    let log = recorder.log();
    for text in [
        "column run, to_sequence of table availability_gap",
        "must be owner of ",
        "(`recorder schema` prints what must be there)",
    ] {
        assert!(log.contains(text), "{text}: {log}");
    }
    assert_eq!(log.matches("recording without").count(), 1, "{log}");
    recorder.stop();
    // After the script has run, everything is recorded as usual.
    world.database.batch_execute(&script).unwrap();
    let grant = format!("grant select, insert, update on all tables in schema public to {role}");
    world.database.batch_execute(&grant).unwrap();
    world.produce_of(&run, [(6, result(4, "sydney", url, "i'm a teapot")), (7, ok(5)), (8, ok(6))]);
    let recorder = world.recorder_with(&[("POSTGRES", &uri), ("SMART", "yes")]);
    world.expect_position(7);
    assert_eq!(world.history()[3..], ["4 4 i'm a teapot", "6 6 ok"]);
    let (_, _, log) = recorder.stop();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn the_created_parts_are_named_and_the_script_is_silent() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    create_schema_of_1_1_0(&mut world, "page content not expected");
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    let (_, _, log) = recorder.stop();
    let name = world.domain.table();
    for part in [
        "created missing parts of the schema: table availability_offset, ",
        "label \"early hints\" of type phrase_status",
        ", sequence, results, ",
        &format!(" of table {name}"),
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    // The script runs on an empty database. The notices that it causes are captured.
    let empty = testkit::services::fresh_database(&services).unwrap();
    let script = script_for(&world);
    for part in ["type phrase_status", "table availability_gap", &format!("table {name}")] {
        assert!(script.contains(&format!("-- {part}\n")), "{part}: {script}");
    }
    let notices = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (base, _) = empty.split_once('?').unwrap();
    let mut config: postgres::Config = format!("{base}?sslmode=disable").parse().unwrap();
    let seen = std::sync::Arc::clone(&notices);
    config.notice_callback(move |notice| seen.lock().unwrap().push(notice.message().to_owned()));
    let mut database = config.connect(postgres::NoTls).unwrap();
    for _ in 0..2 {
        database.batch_execute(&script).unwrap();
        assert_eq!(*notices.lock().unwrap(), Vec::<String>::new());
    }
}

/// A renamed table keeps its indexes with their names. The new table gets its own indexes.
#[test]
fn the_table_after_an_archived_one_has_its_indexes() {
    for with_script in [false, true] {
        let mut world = World::new(&shared().unwrap());
        world.produce([ok(0)]);
        let recorder = world.recorder_with(&[("SMART", "yes")]);
        world.expect_position(1);
        recorder.stop();
        let table = world.table();
        let archive = format!("alter table {table} rename to archived");
        world.database.batch_execute(&archive).unwrap();
        if with_script {
            let script = script_for(&world);
            world.database.batch_execute(&script).unwrap();
        }
        world.produce([ok(1)]);
        let recorder = world.recorder_with(&[("SMART", "yes")]);
        world.expect_position(2);
        let indexes = format!("select count(*) from pg_index where indrelid = '{table}'::regclass");
        world.expect(&indexes, 3);
        recorder.stop();
        // No part is created again.
        let recorder = world.recorder_with(&[("SMART", "yes")]);
        world.produce([ok(2)]);
        world.expect_position(3);
        let (_, _, log) = recorder.stop();
        assert!(!log.contains("created"), "{log}");
        assert_eq!(world.number(&indexes), Some(3));
    }
}
