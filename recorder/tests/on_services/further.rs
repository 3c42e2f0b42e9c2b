//! What a record says beyond the nine keys: its columns, and smart mode by them.

use std::process::Command;

use common::identity::Run;
use common::record::{Extra, Record};
use kafka_client::ProduceRecord;
use testkit::services::{fresh_name, shared};

use crate::support::{World, now_ms, ok};

/// A healthy result at a second, changed.
pub(crate) fn changed(second: i64, change: impl FnOnce(&mut Record)) -> Vec<u8> {
    let mut record = Record::decode(&ok(second)).unwrap();
    change(&mut record);
    record.encode()
}

/// One that says all there is to say.
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

    /// All further columns that are not null of the row at an offset, as JSON.
    fn further(&mut self, offset: i64) -> String {
        let table = self.table();
        self.text(&format!(
            "select jsonb_strip_nulls(to_jsonb(t) - array['id', 'created_at', 'topic_offset', \
             'test_from', 'url', 'event_time', 'status', 'phrase', 'dns', 'response', 'detail'])::text \
             from {table} t where topic_offset = {offset}"
        ))
    }
}

/// What a row of [`full`] has, as JSON has it.
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

/// Goes red when `Columns` or the statement takes one column for another, or a
/// replay loses whose result it was.
#[test]
fn each_key_is_in_the_column_of_its_name_after_quarantine_too() {
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
    let found = world.further(0);
    same(&mut world, found, format!("{{\"results\": 1{}}}", identity(0)));
    let found = world.further(1);
    same(&mut world, found, full_as_json(&identity(1)));
    let found = world.further(3);
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
    let found = world.further(2);
    same(&mut world, found, full_as_json(&identity(2)));
}

/// The tables as they were before there were further columns.
fn make_old(world: &mut World) {
    let script = schema(world);
    world.database.batch_execute(&script).unwrap();
    let table = world.table();
    let drop: Vec<String> = recorder::postgres::domain_table::FURTHER_COLUMNS
        .iter()
        .map(|(name, _)| format!("drop column \"{name}\""))
        .collect();
    let sql = format!(
        "alter table {table} {}; \
         alter table availability_quarantine drop column run, drop column sequence; \
         {OLD_ROW}",
        drop.join(", ")
    );
    world.database.batch_execute(&sql.replace("TABLE", &table)).unwrap();
}

/// How 1.1.0 writes.
const OLD_ROW: &str = "insert into TABLE (topic_offset, test_from, url, event_time, status, \
    phrase, dns, response, detail) values (-1, 'sydney', 'https://a.example/', 0, 'responsive', \
    'ok', 3, 40, 'None')";

fn schema(world: &World) -> String {
    let script = Command::new(env!("CARGO_BIN_EXE_recorder"))
        .env_clear()
        .args(["schema", "--domain", world.domain.as_str()])
        .output()
        .unwrap();
    String::from_utf8(script.stdout).unwrap()
}

/// The names of the table's last columns, those that a record fills.
fn columns(world: &mut World) -> Vec<String> {
    let sql = "select attname::text from pg_attribute where attrelid = $1::text::regclass \
        and attnum > 0 and not attisdropped order by attnum";
    let table = world.table();
    let rows = world.database.query(sql, &[&table]).unwrap();
    rows.iter().skip(11).map(|row| row.get(0)).collect()
}

/// Goes red when `look`, or `script`, leaves the columns out.
#[test]
fn tables_from_before_get_the_columns_at_their_end_and_can_still_be_written_as_before() {
    let services = shared().unwrap();
    let names: Vec<_> =
        recorder::postgres::domain_table::FURTHER_COLUMNS.iter().map(|(name, _)| *name).collect();
    let mut world = World::new(&services);
    make_old(&mut world);
    assert_eq!(columns(&mut world), [""; 0]);
    // One that may only read and write says what it lacks.
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
    // The script gives it that.
    let script = schema(&world);
    world.database.batch_execute(&script).unwrap();
    let limited = world.recorder_with(&[("POSTGRES", &uri), ("SMART", "yes")]);
    world.expect_position(3);
    limited.stop();
    assert_eq!(columns(&mut world), names);
    let table = world.table();
    world.database.batch_execute(&OLD_ROW.replace("TABLE", &table)).unwrap();
    // A row of before is merged into, as the first of two results.
    let counted =
        format!("select string_agg(coalesce(results::text, '-'), ' ' order by id) from {table}");
    assert_eq!(world.text(&counted), "2 1 -");

    let mut world = World::new(&services);
    make_old(&mut world);
    world.produce([ok(1)]);
    let recorder = world.recorder();
    world.expect_position(1);
    recorder.stop();
    assert_eq!(columns(&mut world), names);
}

/// Each row of a target: its phrase, how many results, the slot and the number.
fn rows(world: &mut World) -> Vec<String> {
    let sql = format!(
        "select concat_ws(' ', event_time, topic_offset, phrase, results, slot, sequence) from {} \
         order by event_time, topic_offset",
        world.table()
    );
    world.database.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// What smart mode makes of results, and how the rows say it.
fn story(run: &Run, other: &Run) -> Vec<ProduceRecord> {
    type Change = fn(&mut Extra);
    let mut results = Vec::new();
    let mut tell = |run: &Run, sequence: i64, phrase: &str, change: Change| {
        let second = results.len() as i64;
        let value = changed(second, |record| {
            record.phrase = phrase.to_owned();
            record.extra = Extra {
                healthy: Some(true),
                attempts: Some(1),
                period_ms: Some(1_000),
                slot: Some(second),
                ..Extra::default()
            };
            change(&mut record.extra);
        });
        results.push(ProduceRecord {
            timestamp_ms: now_ms(),
            value: value.into(),
            headers: run.headers(sequence),
        });
    };
    let plain: Change = |_| {};
    let marks: [Change; 5] = [
        |extra| extra.reason = Some("too_slow".into()),
        |extra| extra.attempts = Some(2),
        |extra| extra.missed = [("clock".to_owned(), 2)].into(),
        |extra| extra.others_failing = Some(true),
        |extra| extra.no_network = Some(true),
    ];
    tell(run, 0, "ok", plain);
    tell(run, 1, "ok", plain);
    // What is plain again is no part of what is marked.
    for (number, mark) in (1..).zip(marks) {
        tell(run, 2 * number, "ok", mark);
        tell(run, 2 * number + 1, "ok", plain);
    }
    tell(run, 12, "found", plain);
    tell(run, 13, "found", plain);
    tell(run, 14, "found", |extra| extra.healthy = Some(false));
    tell(run, 15, "found", plain);
    tell(run, 16, "found", |extra| extra.period_ms = Some(2_000));
    tell(run, 17, "found", |extra| extra.name = Some("another".into()));
    tell(run, 18, "found", |extra| extra.period_ms = Some(2_000));
    tell(run, 19, "found", |extra| extra.name = Some("another".into()));
    tell(other, 0, "found", |extra| extra.period_ms = Some(2_000));
    tell(other, 1, "found", |extra| extra.period_ms = Some(2_000));
    results
}

const TOLD: [&str; 17] = [
    "1 1 ok 2 1 1",
    "2 2 ok 1 2 2",
    "3 3 ok 1 3 3",
    "4 4 ok 1 4 4",
    "5 5 ok 1 5 5",
    "6 6 ok 1 6 6",
    "7 7 ok 1 7 7",
    "8 8 ok 1 8 8",
    "9 9 ok 1 9 9",
    "10 10 ok 1 10 10",
    "11 11 ok 1 11 11",
    "13 13 found 2 13 13",
    "14 14 found 1 14 14",
    "15 15 found 1 15 15",
    "18 18 found 2 18 18",
    "19 19 found 2 19 19",
    "21 21 found 2 21 1",
];

/// Goes red when `Row::kind`, or the columns by which `newest` tells what may
/// be merged into, leaves out one of the marks.
#[test]
fn smart_mode_hides_nothing_whether_it_remembers_or_looks_it_up() {
    let services = shared().unwrap();
    let (run, other) = (Run::new().unwrap(), Run::new().unwrap());
    // In one batch, which is merged in memory.
    let mut at_once = World::new(&services);
    at_once.produce_records(story(&run, &other));
    let recorder = at_once.recorder_with(&[("SMART", "true")]);
    at_once.expect_position(22);
    recorder.stop();
    assert_eq!(rows(&mut at_once), TOLD);
    // One by one, each with what the table says alone: a row that somebody else
    // adds makes a recorder forget what it remembers.
    let mut one_by_one = World::new(&services);
    let recorder = one_by_one.recorder_with(&[("SMART", "true")]);
    for (position, result) in story(&run, &other).into_iter().enumerate() {
        if position > 0 {
            let row = OLD_ROW.replace("TABLE", &one_by_one.table());
            let row = row.replace("https://a.example/", "https://of.somebody.else/");
            one_by_one.database.batch_execute(&row).unwrap();
        }
        one_by_one.produce_records(vec![result]);
        one_by_one.expect_position(position as i64 + 1);
    }
    recorder.stop();
    let table = one_by_one.table();
    let others = format!("delete from {table} where url = 'https://of.somebody.else/'");
    one_by_one.database.batch_execute(&others).unwrap();
    assert_eq!(rows(&mut one_by_one), TOLD);
}

/// Goes red when all rows of a URL are read for a name that has none of them.
#[test]
fn rows_far_before_a_name_are_not_read_for_it() {
    let mut world = World::new(&shared().unwrap());
    let script = schema(&world);
    world.database.batch_execute(&script).unwrap();
    let table = world.table();
    let before = format!(
        "insert into {table} (topic_offset, test_from, url, event_time, status, phrase, name) \
         select -1, 'sydney', 'https://a.example/', n, 'responsive', 'ok', \
         case when n > 1 then 'other' else 'front' end from generate_series(1, 10001) as n"
    );
    world.database.batch_execute(&before).unwrap();
    let named = |second| changed(second, |record| record.extra.name = Some("front".into()));
    world.produce([named(20_000), named(20_001)]);
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(2);
    recorder.stop();
    let told = format!(
        "select string_agg(concat_ws(' ', event_time, results), ', ' order by id) \
         from {table} where name = 'front'"
    );
    assert_eq!(world.text(&told), "1, 20001 2");
}
