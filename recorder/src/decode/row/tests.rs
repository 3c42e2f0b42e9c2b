use std::collections::BTreeMap;

use common::phrase;

use super::*;

fn labels() -> Labels {
    let statuses = vec!["responsive".to_owned(), "unresponsive".to_owned()];
    Labels::new(statuses, phrase::all().map(str::to_owned).collect())
}

const IDENTITY: Identity = Identity { run: Uuid::from_u128(7), sequence: 4 };

fn record() -> Record {
    Record {
        from: "sydney".into(),
        url: "https://aiven.io".into(),
        timestamp: 1_608_855_561.565_346,
        status: Status::Responsive,
        phrase: "forbidden".into(),
        dns_ms: Some(10),
        response_ms: None,
        detail: None,
        offset: -1,
        extra: common::record::Extra::default(),
    }
}

fn row(record: &Record) -> Result<DomainRow, Rejected> {
    DomainRow::new(15, Some(&record.encode()), Some(IDENTITY), &labels())
}

#[test]
fn a_record_becomes_a_row() {
    assert_eq!(
        row(&record()).unwrap(),
        DomainRow {
            topic_offset: 15,
            test_from: "sydney".into(),
            url: "https://aiven.io".into(),
            event_time: 1_608_855_561,
            status: "responsive".into(),
            phrase: "forbidden".into(),
            dns: 10,
            response: -1,
            detail: None,
            extra: Extra::default(),
            identity: Some(IDENTITY),
            results: 1,
            merged: None,
            healthy: false,
        }
    );
    let healthy = Record { phrase: "ok".into(), ..record() };
    assert!(row(&healthy).unwrap().healthy);
    assert_eq!(row(&record()).unwrap().kind(), None);
    let run = Some(IDENTITY.run);
    let kind = RowKind { phrase: "ok".into(), run, period_ms: None, has_total_us: false };
    assert_eq!(row(&healthy).unwrap().kind(), Some(kind.clone()));
    let kind_with_total_us = |total_us| {
        let extra = Extra { total_us: Some(total_us), ..Extra::default() };
        row(&Record { extra, ..healthy.clone() }).unwrap().kind()
    };
    assert_eq!(kind_with_total_us(0), Some(RowKind { has_total_us: true, ..kind }));
    // The sum of such values could overflow.
    assert_eq!(kind_with_total_us(MERGED_TOTAL_US_MAX + 1), None);
    assert_eq!(kind_with_total_us(-1), None);
    // Times are rounded down, before 1970 and after.
    let old = Record { timestamp: -0.5, ..record() };
    assert_eq!(row(&old).unwrap().event_time, -1);
}

#[test]
fn a_detail_is_cut_by_characters() {
    let long = Record { detail: Some("ü".repeat(200)), ..record() };
    assert_eq!(row(&long).unwrap().detail, Some("ü".repeat(128)));
    let cut_away = Record { detail: Some(format!("{}\0", "a".repeat(128))), ..record() };
    assert_eq!(row(&cut_away).unwrap().detail, Some("a".repeat(128)));
    let empty = Record { detail: Some(String::new()), ..record() };
    assert_eq!(row(&empty).unwrap().detail, Some(String::new()));
}

/// A record with one extra key changed.
fn changed(change: impl FnOnce(&mut Extra)) -> Record {
    let mut record = Record { phrase: "ok".into(), ..record() };
    change(&mut record.extra);
    record
}

#[test]
fn only_healthy_rows_without_a_mark_have_a_kind() {
    let kind = |change: fn(&mut Extra)| row(&changed(change)).unwrap().kind();
    let run = Some(IDENTITY.run);
    let ok = RowKind { phrase: "ok".into(), run, period_ms: None, has_total_us: false };
    assert_eq!(kind(|extra| extra.attempts = Some(1)), Some(ok.clone()));
    assert_eq!(
        kind(|extra| extra.period_ms = Some(30_000)),
        Some(RowKind { period_ms: Some(30_000), ..ok })
    );
    assert_eq!(kind(|extra| extra.healthy = Some(false)), None);
    assert_eq!(kind(|extra| extra.reason = Some("too_slow".into())), None);
    assert_eq!(kind(|extra| extra.attempts = Some(2)), None);
    assert_eq!(kind(|extra| extra.missed = [("clock".into(), 1)].into()), None);
    // A phrase other than ok is healthy if the record states that the target is healthy.
    let moved = Record { phrase: "found".into(), ..changed(|extra| extra.healthy = Some(true)) };
    let found = RowKind { phrase: "found".into(), run, period_ms: None, has_total_us: false };
    assert_eq!(row(&moved).unwrap().kind(), Some(found));
}

#[test]
fn extra_texts_are_cut_except_the_name_of_the_target() {
    let long = || Some("ü".repeat(3_000));
    let cut = row(&changed(|extra| {
        extra.reason = long();
        extra.phase = long();
        extra.address = long();
        extra.http_version = long();
        extra.final_url = long();
        extra.first_reason = long();
    }));
    let Extra { reason, phase, address, http_version, final_url, first_reason, .. } =
        cut.unwrap().extra;
    for text in [reason, phase, address, http_version, first_reason] {
        assert_eq!(text, Some("ü".repeat(64)));
    }
    assert_eq!(final_url, Some("ü".repeat(2_048)));
    let named = |chars| row(&changed(|extra| extra.name = Some("ü".repeat(chars))));
    assert_eq!(named(256).unwrap().extra.name, Some("ü".repeat(256)));
    let reason = "record: key name: 257 characters, the column holds 256";
    assert_eq!(named(257).unwrap_err().reason(), reason);
}

#[test]
fn extra_keys_that_do_not_fit_are_rejected_with_their_reason() {
    let rejected = |change: fn(&mut Extra)| row(&changed(change)).unwrap_err().reason();
    let text = Some("a\0".to_owned());
    for key in ["reason", "phase", "address", "http_version", "final_url", "first_reason", "name"] {
        let expected = format!("record: key {key}: holds a NUL character");
        let record = changed(|extra| match key {
            "reason" => extra.reason = text.clone(),
            "phase" => extra.phase = text.clone(),
            "address" => extra.address = text.clone(),
            "http_version" => extra.http_version = text.clone(),
            "final_url" => extra.final_url = text.clone(),
            "first_reason" => extra.first_reason = text.clone(),
            _ => extra.name = text.clone(),
        });
        assert_eq!(row(&record).unwrap_err().reason(), expected);
    }
    let bits = "the column holds 32 bits";
    for (found, key) in [
        (rejected(|extra| extra.http_status = Some(1 << 31)), "http_status"),
        (rejected(|extra| extra.redirects = Some(1 << 31)), "redirects"),
        (rejected(|extra| extra.attempts = Some(i64::MIN)), "attempts"),
        (rejected(|extra| extra.period_ms = Some(i64::MAX)), "period_ms"),
    ] {
        assert_eq!(found, format!("record: key {key}: {bits}"));
    }
    assert_eq!(
        rejected(|extra| extra.missed = [("a\0".to_owned(), 1)].into()),
        "record: key missed: holds a NUL character"
    );
    assert_eq!(
        rejected(|extra| extra.missed = [("a".repeat(65), 1)].into()),
        "record: key missed: 65 characters, the column holds 64"
    );
    let wide = Some(i64::MAX);
    assert!(row(&changed(|extra| (extra.slot, extra.total_us) = (wide, wide))).is_ok());
}

#[test]
fn labels_match_in_any_case_and_are_written_as_the_database_spells_them() {
    let responsive = || vec!["responsive".to_owned()];
    let written = |phrases: &[&str], phrase: &str| {
        let labels = Labels::new(responsive(), phrases.iter().map(ToString::to_string).collect());
        let record = Record { phrase: phrase.into(), ..record() };
        DomainRow::new(0, Some(&record.encode()), None, &labels).map(|row| row.phrase.to_string())
    };
    let capital = "Page content not expected";
    let lower = "page content not expected";
    assert_eq!(written(&[capital], lower).unwrap(), capital);
    assert_eq!(written(&[lower], capital).unwrap(), lower);
    assert_eq!(written(&[capital, lower], lower).unwrap(), lower);
    assert_eq!(written(&[lower, capital], lower).unwrap(), lower);
    assert!(written(&["ok"], lower).is_err());
}

#[test]
fn values_that_do_not_fit_are_rejected_with_their_reason() {
    let change = |change: fn(&mut Record)| {
        let mut record = record();
        change(&mut record);
        row(&record).unwrap_err().reason()
    };
    for (reason, expected) in [
        (
            change(|r| r.from = "a".repeat(33)),
            "record: key from: 33 characters, the column holds 32",
        ),
        (
            change(|r| r.url = "ü".repeat(257)),
            "record: key url: 257 characters, the column holds 256",
        ),
        (change(|r| r.url = "a\0b".into()), "record: key url: holds a NUL character"),
        (change(|r| r.detail = Some("\0".into())), "record: key detail: holds a NUL character"),
        (
            change(|r| r.timestamp = f64::NAN),
            "record: key timestamp: not a time that can be stored",
        ),
        (
            change(|r| r.timestamp = f64::INFINITY),
            "record: key timestamp: not a time that can be stored",
        ),
        (change(|r| r.timestamp = 9.3e18), "record: key timestamp: not a time that can be stored"),
        (change(|r| r.dns_ms = Some(1 << 31)), "record: key dns: the column holds 32 bits"),
        (
            change(|r| r.response_ms = Some(i64::MIN)),
            "record: key response: the column holds 32 bits",
        ),
        (
            change(|r| r.phrase = "wat".into()),
            "record: key phrase: \"wat\" is not a label of phrase_status",
        ),
        (DomainRow::new(0, None, None, &labels()).unwrap_err().reason(), "record: no value"),
        (
            DomainRow::new(0, Some(b"{}"), None, &labels()).unwrap_err().reason(),
            "record: expected map, found FixPos(123)",
        ),
    ] {
        assert_eq!(reason, expected);
    }
    assert_eq!(change(|r| r.phrase = "x\n".repeat(1000)).chars().count(), 400);
}

/// Every row fits its columns, and every reason fits the quarantine.
#[test]
fn fuzzed_values_become_a_row_or_a_reason_that_fits() {
    let mut samples = vec![record().encode()];
    for timestamp in [f64::NAN, f64::INFINITY, -1.5, 1e19] {
        samples.push(Record { timestamp, detail: Some("x\0y".into()), ..record() }.encode());
    }
    samples.push(Record { dns_ms: Some(i64::MAX), url: "u".repeat(300), ..record() }.encode());
    samples.push(Record { phrase: "p".repeat(1000), ..record() }.encode());
    let word = || Some("w".repeat(100));
    let full = Extra {
        name: word(),
        healthy: Some(true),
        reason: word(),
        address: word(),
        final_url: Some("u".repeat(2_100)),
        attempts: Some(1),
        slot: Some(i64::MAX),
        missed: BTreeMap::from([("w".repeat(64), i64::MAX)]),
        ..Extra::default()
    };
    samples.push(Record { extra: full, ..record() }.encode());
    let labels = labels();
    let tried =
        testkit::fuzz::run(&samples, |bytes| match DomainRow::new(7, Some(bytes), None, &labels) {
            Ok(row) => {
                for (text, max) in [
                    (Some(&row.test_from), FROM_CHARS_MAX),
                    (Some(&row.url), URL_CHARS_MAX),
                    (row.detail.as_ref(), DETAIL_CHARS_MAX),
                    (row.extra.name.as_ref(), 256),
                    (row.extra.reason.as_ref(), 64),
                    (row.extra.address.as_ref(), 64),
                    (row.extra.final_url.as_ref(), 2_048),
                    (row.extra.missed.keys().next(), 64),
                ] {
                    let text = text.map_or("", String::as_str);
                    assert!(text.chars().count() <= max && !text.contains('\0'), "{row:?}");
                }
                assert!(labels.phrase(&row.phrase).is_some());
            }
            Err(rejected) => {
                let reason = rejected.reason();
                assert!(reason.chars().count() <= 400, "{reason}");
                assert!(!reason.chars().any(char::is_control), "{reason:?}");
            }
        });
    println!("rows: {tried} inputs");
}
