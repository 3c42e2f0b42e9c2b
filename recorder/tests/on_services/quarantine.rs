//! Tests of records that can't be stored as rows.

use testkit::services::{connect, fresh_name, shared};

use crate::support::{World, ok, result};

#[test]
fn records_that_cannot_be_rows_go_to_quarantine() {
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
    // The new constraint makes the database refuse a row that is valid for the recorder.
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
    assert!(
        log.contains("inserted rows: 4, merged records: 0, records in quarantine: 5,"),
        "{log}"
    );
    let first = "4 records of table ";
    let last = "1 record of table ";
    assert!(log.contains(first) && log.contains(last), "{log}");
    assert_eq!(log.matches("WARN").count(), 2, "{log}");
}

/// Records with characters that are missing in the encoding of the database go to quarantine. Their
/// reasons are escaped, because the quarantine would refuse the characters, too.
#[test]
fn characters_that_the_database_cannot_encode_go_to_quarantine() {
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
