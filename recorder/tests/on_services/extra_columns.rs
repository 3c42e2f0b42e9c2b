//! Tests of the columns for the extra keys of a record, also in tables of earlier versions.

use std::process::Command;

use common::identity::Run;
use common::record::{Extra, Record};
use testkit::services::{fresh_name, shared};

use crate::support::{World, ok};

/// A healthy result at this second, with a change.
pub(crate) fn changed(second: i64, change: impl FnOnce(&mut Record)) -> Vec<u8> {
    let mut record = Record::decode(&ok(second)).unwrap();
    change(&mut record);
    record.encode()
}

/// A record with all extra keys.
fn full() -> Extra {
    Extra {
        name: Some("front \"page\"".into()),
        healthy: Some(false),
        reason: Some("too_slow".into()),
        phase: Some("transfer".into()),
        resolve_us: Some(1),
        connect_us: Some(2),
        tls_us: Some(3),
        first_byte_us: Some(4),
        transfer_us: Some(5),
        total_us: Some(6_000_000_000),
        address: Some("2001:db8::7".into()),
        http_version: Some("1.1".into()),
        http_status: Some(200),
        body_bytes: Some(7),
        redirects: Some(8),
        final_url: Some("https://a.example/home".into()),
        certificate_end: Some(1_800_000_000),
        attempts: Some(2),
        first_reason: Some("dns_timeout".into()),
        no_network: Some(false),
        others_failing: Some(true),
        period_ms: Some(30_000),
        slot: Some(9),
        missed: [("a \"b\"\n".to_owned(), 3), ("clock".to_owned(), 1)].into(),
    }
}

impl World {
    pub(crate) fn text(&mut self, sql: &str) -> String {
        self.database.query_one(sql, &[]).unwrap().get(0)
    }

    /// The extra columns that are not null, of the row at an offset, as JSON.
    fn extra(&mut self, offset: i64) -> String {
        let table = self.table();
        self.text(&format!(
            "select jsonb_strip_nulls(to_jsonb(t) - array['id', 'created_at', 'topic_offset', \
             'test_from', 'url', 'event_time', 'status', 'phrase', 'dns', 'response', 'detail'])::text \
             from {table} t where topic_offset = {offset}"
        ))
    }
}

/// The columns of a row of [`full`] as JSON.
fn full_as_json(identity: &str) -> String {
    format!(
        "{{\"name\": \"front \\\"page\\\"\", \"healthy\": false, \"reason\": \"too_slow\", \"phase\": \"transfer\", \
         \"resolve_us\": 1, \"connect_us\": 2, \"tls_us\": 3, \"first_byte_us\": 4, \"transfer_us\": 5, \
         \"total_us\": 6000000000, \"address\": \"2001:db8::7\", \"http_version\": \"1.1\", \
         \"http_status\": 200, \"body_bytes\": 7, \"redirects\": 8, \
         \"final_url\": \"https://a.example/home\", \"certificate_end\": 1800000000, \"attempts\": 2, \
         \"first_reason\": \"dns_timeout\", \"no_network\": false, \"others_failing\": true, \
         \"period_ms\": 30000, \"slot\": 9, \"missed\": {{\"a \\\"b\\\"\\n\": 3, \"clock\": 1}}, \
         \"results\": 1{identity}}}"
    )
}

/// The recorder and a replay store each extra key in the column of its name. A replay also stores
/// the identity of the result.
#[test]
fn each_extra_key_is_stored_in_its_column() {
    let mut world = World::new(&shared().unwrap());
    let run = Run::new().unwrap();
    let new_phrase = changed(2, |record| {
        record.extra = full();
        record.phrase = "early data refused".into();
    });
    let values = [(0, ok(1)), (1, changed(2, |record| record.extra = full())), (2, new_phrase)];
    world.produce_of(&run, values);
    world.produce([ok(3)]);
    let recorder = world.recorder();
    world.expect_position(4);
    recorder.stop();
    let same = |world: &mut World, json: String, expected: String| {
        let sql = "select ($1::text)::jsonb = ($2::text)::jsonb";
        let same: bool = world.database.query_one(sql, &[&json, &expected]).unwrap().get(0);
        assert!(same, "{json} {expected}");
    };
    let identity = |sequence| format!(", \"run\": \"{}\", \"sequence\": {sequence}", run.id());
    let found = world.extra(0);
    same(&mut world, found, format!("{{\"results\": 1{}}}", identity(0)));
    let found = world.extra(1);
    same(&mut world, found, full_as_json(&identity(1)));
    let found = world.extra(3);
    same(&mut world, found, "{\"results\": 1}".to_owned());
    let upgrade = "alter type phrase_status add value 'early data refused'";
    world.database.batch_execute(upgrade).unwrap();
    let ca = world.services.postgres_ca.display().to_string();
    let replay = Command::new(env!("CARGO_BIN_EXE_recorder"))
        .args(["replay", "-d", world.domain.as_str(), "-p", &world.uri, "-g", &ca])
        .env_clear()
        .output()
        .unwrap();
    assert!(replay.status.success(), "{replay:?}");
    let found = world.extra(2);
    same(&mut world, found, full_as_json(&identity(2)));
}

/// Creates the tables without the extra columns, as earlier versions did.
fn create_old_tables(world: &mut World) {
    let script = schema(world);
    world.database.batch_execute(&script).unwrap();
    let table = world.table();
    let drop: Vec<String> = recorder::postgres::domain_table::EXTRA_COLUMNS
        .iter()
        .map(|column| format!("drop column \"{}\"", column.name))
        .collect();
    let sql = format!(
        "alter table {table} {}; \
         alter table availability_quarantine drop column run, drop column sequence; \
         {OLD_ROW}",
        drop.join(", ")
    );
    world.database.batch_execute(&sql.replace("TABLE", &table)).unwrap();
}

/// A statement that inserts a row as 1.1.0 does.
pub(crate) const OLD_ROW: &str = "insert into TABLE (topic_offset, test_from, url, event_time, status, \
    phrase, dns, response, detail) values (-1, 'sydney', 'https://a.example/', 0, 'responsive', \
    'ok', 3, 40, 'None')";

pub(crate) fn schema(world: &World) -> String {
    let script = Command::new(env!("CARGO_BIN_EXE_recorder"))
        .env_clear()
        .args(["schema", "--domain", world.domain.as_str()])
        .output()
        .unwrap();
    String::from_utf8(script.stdout).unwrap()
}

/// The names of the extra columns of the table.
fn columns(world: &mut World) -> Vec<String> {
    let sql = "select attname::text from pg_attribute where attrelid = $1::text::regclass \
        and attnum > 0 and not attisdropped order by attnum";
    let table = world.table();
    let rows = world.database.query(sql, &[&table]).unwrap();
    rows.iter().skip(11).map(|row| row.get(0)).collect()
}

/// The recorder and the script of `recorder schema` add the extra columns to old tables.
/// Statements of 1.1.0 still work afterwards.
#[test]
fn the_extra_columns_are_added_to_old_tables() {
    let services = shared().unwrap();
    let names: Vec<_> =
        recorder::postgres::domain_table::EXTRA_COLUMNS.iter().map(|column| column.name).collect();
    let mut world = World::new(&services);
    create_old_tables(&mut world);
    assert_eq!(columns(&mut world), [""; 0]);
    // A recorder that may only read and write rows logs the missing parts.
    let role = fresh_name("role").replace('-', "_");
    let rights = format!(
        "create role {role} login password 'hunter2';
         grant all on all tables in schema public to {role};
         grant all on all sequences in schema public to {role};"
    );
    world.database.batch_execute(&rights).unwrap();
    let (host, port) = (&services.postgres_host, services.postgres_port);
    let name = world.uri.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let uri = format!("postgres://{role}:hunter2@{host}:{port}/{name}?sslmode=verify-full");
    world.produce([ok(1), b"nonsense".to_vec(), changed(2, |record| record.extra = full())]);
    let limited = world.recorder_with(&[("POSTGRES", &uri), ("SMART", "yes")]);
    limited.expect_log("(`recorder schema` prints what must be there)");
    limited.stop();
    // The script creates the missing parts.
    let script = schema(&world);
    world.database.batch_execute(&script).unwrap();
    let limited = world.recorder_with(&[("POSTGRES", &uri), ("SMART", "yes")]);
    world.expect_position(3);
    limited.stop();
    assert_eq!(columns(&mut world), names);
    let table = world.table();
    world.database.batch_execute(&OLD_ROW.replace("TABLE", &table)).unwrap();
    // No result is merged into an old row. Version 1.1.0 may have merged results into the row, and
    // did not store the time of the first result.
    let counted =
        format!("select string_agg(coalesce(results::text, '-'), ' ' order by id) from {table}");
    assert_eq!(world.text(&counted), "- 1 1 -");

    let mut world = World::new(&services);
    create_old_tables(&mut world);
    world.produce([ok(1)]);
    let recorder = world.recorder();
    world.expect_position(1);
    recorder.stop();
    assert_eq!(columns(&mut world), names);
}
