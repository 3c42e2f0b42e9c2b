//! Tests of the documented SQL that accounts for every slot of a target.

use common::identity::Run;
use common::record::Record;
use kafka_client::ProduceRecord;
use testkit::services::shared;

use crate::extra_columns::changed;
use crate::support::{World, now_ms};

/// The SQL statements in recorder/README.md, for a domain's table and topic.
fn statements(world: &World) -> Vec<String> {
    let page = include_str!("../../README.md");
    let statements = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let of_this = |sql: &str| {
        sql.replace("web_activity_aiven_io", &world.table())
            .replace("webactivity-aiven.io", &world.topic)
            .replace("'2026-11-01'", "'1970-01-01'")
    };
    statements.map(of_this).collect()
}

/// The only statement that contains `text`.
fn statement(world: &World, text: &str) -> String {
    let mut found: Vec<String> = statements(world);
    found.retain(|sql| sql.contains(text));
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    found.remove(0)
}

const ACCOUNT: &str = "with account as";
const GAPS: &str = "from availability_gap";
const CAUSES: &str = "jsonb_each_text(missed) as entry";

/// In both modes, each due slot counts as observed, explained or unexplained.
#[test]
fn due_slots_are_observed_explained_or_unexplained_in_both_modes() {
    let services = shared().unwrap();
    let run = Run::new().unwrap();
    let result = |number: i64, slot: i64, change: fn(&mut Record)| {
        let value = changed(slot, |record| {
            record.extra.period_ms = Some(1_000);
            record.extra.slot = Some(slot);
            change(record);
        });
        ProduceRecord { timestamp_ms: now_ms(), value: value.into(), headers: run.headers(number) }
    };
    let missed: fn(&mut Record) =
        |record| record.extra.missed = [("workers".into(), 1), ("stalled".into(), 2)].into();
    let records = vec![
        result(0, 0, |_| {}),
        result(1, 1, |_| {}),
        result(2, 5, missed),
        // The results 3 and 4 are missing.
        result(5, 8, |_| {}),
        result(6, 9, |_| {}),
        result(7, 10, |record| record.phrase = "not found".into()),
        result(8, 11, |_| {}),
        // The next result goes to quarantine.
        result(9, 12, |record| record.url.push('\0')),
        result(10, 13, |_| {}),
    ];
    for smart in ["", "true"] {
        let mut world = World::new(&services);
        world.produce_records(records.clone());
        let recorder = world.recorder_with(&[("SMART", smart)]);
        world.expect_position(9);
        recorder.stop();
        let account = statement(&world, ACCOUNT);
        let rows = world.database.query(&account, &[]).unwrap();
        assert_eq!(rows.len(), 1);
        let sums: Vec<String> = ["due", "observed", "down", "explained", "unexplained"]
            .map(|column| {
                let text = format!("select ({column})::text from ({account}) as account");
                world.text(&text)
            })
            .to_vec();
        assert_eq!(sums, ["14", "8", "1", "3", "3"], "SMART={smart}");
        let gaps = statement(&world, GAPS);
        let rows = world.database.query(&gaps, &[]).unwrap();
        let missing: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(1), row.get(2))).collect();
        assert_eq!(missing, [(3, 2)]);
    }
}

/// A result of a run with this sequence number and slot. Its second is equal to its slot.
fn of_run(run: &Run, number: i64, slot: i64, change: impl FnOnce(&mut Record)) -> ProduceRecord {
    let value = changed(slot, |record| {
        record.extra.healthy = Some(true);
        record.extra.period_ms = Some(1_000);
        record.extra.slot = Some(slot);
        change(record);
    });
    ProduceRecord { timestamp_ms: now_ms(), value: value.into(), headers: run.headers(number) }
}

/// The account of each target between two seconds: name, due, observed, down, down without
/// a network, explained and unexplained.
fn accounts(world: &mut World, from: i64, to: i64) -> Vec<String> {
    let second = |second: i64| format!("'1970-01-01 00:00:{second:02}+00'");
    let account = statement(world, ACCOUNT)
        .replace("'1970-01-01'", &second(from))
        .replace("'2026-12-01'", &second(to));
    let sql = format!(
        "select concat_ws(' ', name, due, observed, down, down_no_network, explained, \
         unexplained) \
         from ({account}) as account order by name"
    );
    world.database.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The accounts of consecutive spans add up, also over restarts and changes of the period. A record
/// with an impossible slot or time affects only its own account.
#[test]
fn accounts_of_consecutive_spans_add_up() {
    let services = shared().unwrap();
    let (run, other, hostile) = (Run::new().unwrap(), Run::new().unwrap(), Run::new().unwrap());
    let failed: fn(&mut Record) = |record| {
        record.phrase = "not found".into();
        record.extra.healthy = Some(false);
    };
    let longer: fn(&mut Record) = |record| record.extra.period_ms = Some(2_000);
    // The tracker restarts at second 20.
    let again: fn(&mut Record) = |record| record.timestamp += 20.0;
    let blind: fn(&mut Record) = |record| {
        record.timestamp += 20.0;
        record.extra.healthy = Some(false);
        record.extra.no_network = Some(true);
    };
    let impossible = |number, change: fn(&mut Record)| {
        of_run(&hostile, number, 1, |record| {
            record.extra.name = Some("impossible".into());
            change(record);
        })
    };
    let records = vec![
        of_run(&run, 0, 0, |_| {}),
        of_run(&run, 1, 1, |_| {}),
        of_run(&run, 2, 2, failed),
        of_run(&run, 3, 3, longer),
        of_run(&run, 4, 4, longer),
        impossible(0, |record| record.extra.slot = Some(i64::MIN)),
        impossible(1, |record| record.extra.slot = Some(i64::MAX)),
        impossible(2, |record| record.timestamp = 9e18),
        impossible(3, |record| record.timestamp = -9e18),
        of_run(&other, 0, 0, again),
        of_run(&other, 1, 1, again),
        of_run(&other, 2, 2, blind),
    ];
    let mut world = World::new(&services);
    world.produce_records(records);
    let recorder = world.recorder_with(&[("SMART", "true")]);
    world.expect_position(12);
    recorder.stop();
    // A target without a name comes last.
    let mut of = |from, to| accounts(&mut world, from, to).pop();
    assert_eq!(of(0, 2).as_deref(), Some("2 2 0 0 0 0"));
    assert_eq!(of(2, 59).as_deref(), Some("6 6 2 1 0 0"));
    assert_eq!(of(0, 59).as_deref(), Some("8 8 2 1 0 0"));
}

/// Each statement of the page is valid SQL for the tables that the recorder creates.
#[test]
fn every_statement_of_the_page_runs() {
    let services = shared().unwrap();
    let mut world = World::new(&services);
    let run = Run::new().unwrap();
    let missed: fn(&mut Record) =
        |record| record.extra.missed = [("workers".into(), 1), ("stalled".into(), 2)].into();
    world.produce_records(vec![of_run(&run, 0, 3, missed)]);
    let recorder = world.recorder();
    world.expect_position(1);
    recorder.stop();
    let role = testkit::services::fresh_name("role").replace('-', "_");
    world.database.batch_execute(&format!("create role {role}")).unwrap();
    let statements = statements(&world);
    assert!(statements.len() >= 7, "{statements:?}");
    for sql in statements {
        let sql = sql.replace(" to recorder", &format!(" to {role}"));
        world.database.batch_execute(&sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
    let causes = statement(&world, CAUSES);
    let text = format!(
        "select string_agg(cause || ' ' || slots, ', ' order by cause) from ({causes}) as causes"
    );
    assert_eq!(world.text(&text), "stalled 2, workers 1");
}
