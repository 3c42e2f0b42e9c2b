//! The schema: what the recorder creates, and which rights it needs.

use testkit::services::{connect, shared};

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
    // Running it again changes nothing.
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
    // Without the tables it logs what is missing, and continues once it may create them.
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
