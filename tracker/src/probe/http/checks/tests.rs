use serde_json::json;

use super::*;

fn reason_and_detail(result: Result<(), Failure>) -> Option<(Reason, String)> {
    result.err().map(|failure| (failure.reason, failure.detail.unwrap()))
}

fn regexp(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

#[test]
fn statuses_are_numbers_and_ranges() {
    let checks = Checks { status: vec![200..=299, 404..=404], ..Checks::default() };
    for status in [200, 299, 404] {
        assert_eq!(reason_and_detail(checks.check_status(status)), None);
    }
    for status in [199, 300, 403, 405] {
        let detail = format!("{status}: expected 200-299, 404");
        assert_eq!(
            reason_and_detail(checks.check_status(status)),
            Some((Reason::StatusNotExpected, detail))
        );
    }
    assert_eq!(reason_and_detail(Checks::default().check_status(500)), None);
}

#[test]
fn a_missing_header_does_not_match() {
    let header = |name: &str| match name {
        "server" => Some("nginx/1.2".to_owned()),
        "long" => Some("x".repeat(50)),
        _ => None,
    };
    for (matches, unwanted, expected) in [
        (Some(("server", "^nginx")), None, None),
        (Some(("server", "caddy")), None, Some("server: nginx/1.2: expected caddy")),
        (Some(("via", ".")), None, Some("no via: expected .")),
        (None, Some(("server", "caddy")), None),
        (None, Some(("via", ".")), None),
        (None, Some(("server", r"\d")), Some(r"server: nginx/1.2: expected not \d")),
        (
            Some(("long", "y")),
            None,
            Some("long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...: expected y"),
        ),
    ] {
        let list = |pair: Option<(&str, &str)>| {
            pair.map(|(name, text)| (name.to_owned(), regexp(text))).into_iter().collect()
        };
        let checks = Checks {
            header_match: list(matches),
            header_not_match: list(unwanted),
            ..Checks::default()
        };
        let expected = expected.map(|text| (Reason::HeaderNotExpected, text.to_owned()));
        assert_eq!(reason_and_detail(checks.check_headers(header)), expected);
    }
}

#[test]
fn each_expected_regexp_must_match_and_no_unwanted_one() {
    let checks = Checks {
        body_match: vec![regexp("one"), regexp("two")],
        body_not_match: vec![regexp("(?i)error")],
        ..Checks::default()
    };
    for (page, expected) in
        [("two one", None), ("one", Some("two")), ("one two ERROR", Some("found: (?i)error"))]
    {
        let expected = expected.map(|text| (Reason::BodyNotExpected, text.to_owned()));
        assert_eq!(reason_and_detail(checks.check_body(page)), expected, "{page}");
    }
    assert!(checks.needs_body() && !Checks::default().needs_body());
}

#[test]
fn json_is_compared_by_value() {
    let page = r#"{"state": "up", "a/b": [1, {"n": 2.0}], "none": null}"#;
    for (pointer, expected, detail) in [
        ("/state", json!("up"), None),
        ("/state", json!("down"), Some(r#"/state: "up": expected "down""#)),
        ("/a~1b/0", json!(1.0), None),
        ("/a~1b", json!([1, {"n": 2}]), None),
        ("/a~1b/2", json!(1), Some("/a~1b/2: nothing: expected 1")),
        ("/none", json!(null), None),
        ("", json!({}), Some(r#": {"state": "up", "a/b": [1, {"n": 2.0}], ...: expected {}"#)),
    ] {
        let checks = Checks { json: vec![(pointer.to_owned(), expected)], ..Checks::default() };
        let detail = detail.map(|text| (Reason::JsonNotExpected, text.to_owned()));
        assert_eq!(reason_and_detail(checks.check_body(page)), detail, "{pointer}");
        assert_eq!(
            reason_and_detail(checks.check_body(&format!("\u{feff}{page}"))),
            detail,
            "{pointer}"
        );
    }
    let checks = Checks { json: vec![("/a".to_owned(), json!(1))], ..Checks::default() };
    let expected = "no json: expected value at line 1 column 1".to_owned();
    assert_eq!(
        reason_and_detail(checks.check_body("<html>")),
        Some((Reason::JsonNotExpected, expected))
    );
}
