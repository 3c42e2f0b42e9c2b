use super::*;
use common::phrase;

fn labels() -> Labels {
    let statuses = vec!["responsive".to_owned(), "unresponsive".to_owned()];
    Labels::new(statuses, phrase::all().map(str::to_owned).collect())
}

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

fn row(record: &Record) -> Result<Row, Rejected> {
    Row::new(15, Some(&record.encode()), &labels())
}

#[test]
fn a_record_becomes_a_row() {
    assert_eq!(
        row(&record()).unwrap(),
        Row {
            topic_offset: 15,
            test_from: "sydney".into(),
            url: "https://aiven.io".into(),
            event_time: 1_608_855_561,
            status: "responsive".into(),
            phrase: "forbidden".into(),
            dns: 10,
            response: -1,
            detail: None,
            healthy: false,
        }
    );
    let healthy = Record { phrase: "ok".into(), ..record() };
    assert!(row(&healthy).unwrap().healthy);
    // Rounded down, on both sides of 1970.
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

#[test]
fn labels_match_whatever_their_case_and_are_written_as_the_database_has_them() {
    let responsive = || vec!["responsive".to_owned()];
    let written = |phrases: &[&str], phrase: &str| {
        let labels = Labels::new(responsive(), phrases.iter().map(ToString::to_string).collect());
        let record = Record { phrase: phrase.into(), ..record() };
        Row::new(0, Some(&record.encode()), &labels).map(|row| row.phrase)
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
fn what_does_not_fit_is_rejected_with_its_reason() {
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
        (Row::new(0, None, &labels()).unwrap_err().reason(), "record: no value"),
        (
            Row::new(0, Some(b"{}"), &labels()).unwrap_err().reason(),
            "record: expected map, found FixPos(123)",
        ),
    ] {
        assert_eq!(reason, expected);
    }
    assert_eq!(change(|r| r.phrase = "x\n".repeat(1000)).chars().count(), 400);
}

/// Goes red when `fitting` lets a NUL through, or `reason` takes all characters.
#[test]
fn fuzzed_values_are_a_row_that_fits_or_a_reason_that_does() {
    let mut samples = vec![record().encode()];
    for timestamp in [f64::NAN, f64::INFINITY, -1.5, 1e19] {
        samples.push(Record { timestamp, detail: Some("x\0y".into()), ..record() }.encode());
    }
    samples.push(Record { dns_ms: Some(i64::MAX), url: "u".repeat(300), ..record() }.encode());
    samples.push(Record { phrase: "p".repeat(1000), ..record() }.encode());
    let labels = labels();
    let tried = testkit::fuzz::run(&samples, |bytes| match Row::new(7, Some(bytes), &labels) {
        Ok(row) => {
            for (text, max) in [
                (Some(&row.test_from), FROM_CHARS_MAX),
                (Some(&row.url), URL_CHARS_MAX),
                (row.detail.as_ref(), DETAIL_CHARS_MAX),
            ] {
                let text = text.map_or("", String::as_str);
                assert!(text.chars().count() <= max && !text.contains('\0'), "{row:?}");
            }
            assert!(labels.phrase(&row.phrase).is_some());
        }
        Err(rejected) => {
            let reason = rejected.reason();
            assert!(reason.chars().count() <= REASON_CHARS_MAX, "{reason}");
            assert!(!reason.chars().any(char::is_control), "{reason:?}");
        }
    });
    println!("rows: {tried} inputs");
}
