//! What a target expects of an answer that came whole.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use regex::Regex;
use serde_json::Value;

use super::{body, json};
use crate::probe::reason::{Failure, Phase, Reason, Severity};

/// The statuses of an answer with which all is well, when nothing else is asked for.
const STATUSES: RangeInclusive<u16> = 200..=399;

const DAY_S: i64 = 86_400;

/// The characters of what came that a failure shows.
const SHOWN_CHARS: usize = 40;

/// The checks on a final answer. By default there is none but that on the status.
#[derive(Debug, Clone)]
pub struct Checks {
    /// Statuses of which it must have one; empty: any from 200 to 399 is well.
    pub status: Vec<RangeInclusive<u16>>,
    /// Each must be found in the body.
    pub body_match: Vec<Regex>,
    /// None may be found in the body.
    pub body_not_match: Vec<Regex>,
    /// Each must be found in the header of this name.
    pub header_match: Vec<(String, Regex)>,
    /// None may be found in the header of this name.
    pub header_not_match: Vec<(String, Regex)>,
    /// JSON pointers (RFC 6901) into the body, and the value that each must have.
    pub json: Vec<(String, Value)>,
    /// The longest that the attempt may take.
    pub latency_max: Option<Duration>,
    /// How bad it is when it takes longer.
    pub too_slow: Severity,
    /// The days for which the certificate must still be valid.
    pub certificate_days_min: Option<u32>,
    /// How bad it is when it ends before.
    pub certificate_expires_soon: Severity,
}

impl Default for Checks {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Checks {
    fn eq(&self, other: &Self) -> bool {
        let texts = |list: &[Regex]| list.iter().map(Regex::to_string).collect::<Vec<_>>();
        let named = |list: &[(String, Regex)]| {
            list.iter().map(|(name, check)| (name.clone(), check.to_string())).collect::<Vec<_>>()
        };
        let plain = |one: &Self| {
            (one.latency_max, one.too_slow, one.certificate_days_min, one.certificate_expires_soon)
        };
        self.status == other.status
            && texts(&self.body_match) == texts(&other.body_match)
            && texts(&self.body_not_match) == texts(&other.body_not_match)
            && named(&self.header_match) == named(&other.header_match)
            && named(&self.header_not_match) == named(&other.header_not_match)
            && self.json == other.json
            && plain(self) == plain(other)
    }
}

/// An answer to be looked at.
pub(crate) struct Page<'a> {
    pub(crate) status: u16,
    /// A header by its name, several joined by commas.
    pub(crate) header: &'a dyn Fn(&str) -> Option<String>,
    /// Decoded; empty when nobody wants it.
    pub(crate) body: &'a [u8],
    /// What the attempt took.
    pub(crate) took: Duration,
    /// When the site's certificate ends, in seconds since 1970.
    pub(crate) certificate_end: Option<i64>,
}

impl Checks {
    /// None but that on the status.
    pub const fn new() -> Self {
        Self {
            status: Vec::new(),
            body_match: Vec::new(),
            body_not_match: Vec::new(),
            header_match: Vec::new(),
            header_not_match: Vec::new(),
            json: Vec::new(),
            latency_max: None,
            too_slow: Severity::Warning,
            certificate_days_min: None,
            certificate_expires_soon: Severity::Warning,
        }
    }

    /// The one check that WEBSITES knows.
    pub fn page(check: Regex) -> Self {
        Self { body_match: vec![check], ..Self::default() }
    }

    /// Whether the body's bytes are looked at.
    pub fn wants_body(&self) -> bool {
        !(self.body_match.is_empty() && self.body_not_match.is_empty() && self.json.is_empty())
    }

    /// Looks at an answer: what it warns of, if anything. Without statuses of
    /// the target's own the page comes before the status: 1.1.0 searches it
    /// whatever the status is, and says of one without the text that it is not
    /// as expected.
    ///
    /// # Errors
    /// The first failure; a warning is no error.
    pub(crate) fn look(&self, page: &Page<'_>) -> Result<Option<Failure>, Failure> {
        self.status(page.status)?;
        self.headers(page.header)?;
        if self.wants_body() {
            let content_type = (page.header)("content-type");
            self.body(&body::text(page.body, content_type.as_deref()))?;
        }
        if self.status.is_empty() && !STATUSES.contains(&page.status) {
            let is_known = common::phrase::from_status(page.status).is_some();
            let failure = Failure::new(Reason::StatusNotExpected, Phase::Check);
            let detail = (!is_known).then(|| page.status.to_string());
            return Err(Failure { detail, ..failure });
        }
        let found = [self.certificate(page.certificate_end), self.latency(page.took)];
        let (failures, warnings): (Vec<_>, Vec<_>) =
            found.into_iter().flatten().partition(|one| one.severity == Severity::Failure);
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(warnings.into_iter().next()),
        }
    }

    fn certificate(&self, end: Option<i64>) -> Option<Failure> {
        let days_min = self.certificate_days_min?;
        // A clock before 1970 is one that was never set.
        let now = SystemTime::UNIX_EPOCH.elapsed().ok()?.as_secs();
        let left = end?.saturating_sub_unsigned(now);
        if left >= i64::from(days_min) * DAY_S {
            return None;
        }
        let detail = format!("ends in {} days: expected {days_min} at least", left / DAY_S);
        let failure = Failure::with(Reason::CertificateExpiresSoon, Phase::Check, detail);
        Some(Failure { severity: self.certificate_expires_soon, ..failure })
    }

    fn latency(&self, took: Duration) -> Option<Failure> {
        let max = self.latency_max.filter(|max| took > *max)?;
        let detail = format!("{} ms: expected {} at most", took.as_millis(), max.as_millis());
        let failure = Failure::with(Reason::TooSlow, Phase::Check, detail);
        Some(Failure { severity: self.too_slow, ..failure })
    }

    /// Whether the status is one of those expected; true when none is given.
    fn status(&self, status: u16) -> Result<(), Failure> {
        if self.status.is_empty() || self.status.iter().any(|range| range.contains(&status)) {
            return Ok(());
        }
        let expected: Vec<_> = self.status.iter().map(shown_range).collect();
        let detail = format!("{status}: expected {}", expected.join(", "));
        Err(Failure::with(Reason::StatusNotExpected, Phase::Check, detail))
    }

    fn headers(&self, header: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
        let failed =
            |detail: String| Failure::with(Reason::HeaderNotExpected, Phase::Check, detail);
        for (name, expected) in &self.header_match {
            match header(name) {
                None => return Err(failed(format!("no {name}: expected {expected}"))),
                Some(value) if !is_found(expected, &value) => {
                    return Err(failed(format!("{name}: {}: expected {expected}", short(&value))));
                }
                Some(_) => {}
            }
        }
        for (name, refused) in &self.header_not_match {
            if let Some(value) = header(name).filter(|value| is_found(refused, value)) {
                let value = short(&value);
                return Err(failed(format!("{name}: {value}: expected not {refused}")));
            }
        }
        Ok(())
    }

    fn body(&self, text: &str) -> Result<(), Failure> {
        let failed = |reason, detail: String| Failure::with(reason, Phase::Check, detail);
        if let Some(expected) = self.body_match.iter().find(|check| !is_found(check, text)) {
            return Err(failed(Reason::BodyNotExpected, expected.to_string()));
        }
        if let Some(refused) = self.body_not_match.iter().find(|check| is_found(check, text)) {
            return Err(failed(Reason::BodyNotExpected, format!("found: {refused}")));
        }
        if self.json.is_empty() {
            return Ok(());
        }
        // A byte order mark is no part of JSON (RFC 8259, section 8.1).
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (pointer, expected) in &self.json {
            let found = json::at(text, pointer)
                .map_err(|cause| failed(Reason::JsonNotExpected, format!("no json: {cause}")))?;
            if !found.is_some_and(|found| json::is(found, expected)) {
                let found = found.map_or("nothing".to_owned(), short);
                let detail = format!("{pointer}: {found}: expected {expected}");
                return Err(failed(Reason::JsonNotExpected, detail));
            }
        }
        Ok(())
    }
}

/// Whether a regexp is found in a text.
///
/// By a copy of it, which shares what was compiled and has the memory of a search
/// for itself. The regexp would keep that, once for many of the threads that ever
/// used it: of `\w+` 220 KiB a target and more, for a search each minute.
fn is_found(regexp: &Regex, text: &str) -> bool {
    regexp.clone().is_match(text)
}

fn shown_range(range: &RangeInclusive<u16>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    }
}

/// So much of it that what was expected still has room behind it.
fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(result: Result<(), Failure>) -> Option<(Reason, String)> {
        result.err().map(|failure| (failure.reason, failure.detail.unwrap()))
    }

    fn regexp(text: &str) -> Regex {
        Regex::new(text).unwrap()
    }

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let checks = Checks { status: vec![200..=299, 404..=404], ..Checks::default() };
        for status in [200, 299, 404] {
            assert_eq!(told(checks.status(status)), None);
        }
        for status in [199, 300, 403, 405] {
            let detail = format!("{status}: expected 200-299, 404");
            assert_eq!(told(checks.status(status)), Some((Reason::StatusNotExpected, detail)));
        }
        assert_eq!(told(Checks::default().status(500)), None);
    }

    #[test]
    fn headers_must_be_there_to_match() {
        let header = |name: &str| match name {
            "server" => Some("nginx/1.2".to_owned()),
            "long" => Some("x".repeat(50)),
            _ => None,
        };
        for (matches, refuses, expected) in [
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
            let list = |check: Option<(&str, &str)>| {
                check.map(|(name, check)| (name.to_owned(), regexp(check))).into_iter().collect()
            };
            let checks = Checks {
                header_match: list(matches),
                header_not_match: list(refuses),
                ..Checks::default()
            };
            let expected = expected.map(|text| (Reason::HeaderNotExpected, text.to_owned()));
            assert_eq!(told(checks.headers(header)), expected);
        }
    }

    #[test]
    fn each_regexp_must_be_found_and_none_that_is_refused() {
        let checks = Checks {
            body_match: vec![regexp("one"), regexp("two")],
            body_not_match: vec![regexp("(?i)error")],
            ..Checks::default()
        };
        for (page, expected) in
            [("two one", None), ("one", Some("two")), ("one two ERROR", Some("found: (?i)error"))]
        {
            let expected = expected.map(|text| (Reason::BodyNotExpected, text.to_owned()));
            assert_eq!(told(checks.body(page)), expected, "{page}");
        }
        assert!(checks.wants_body() && !Checks::default().wants_body());
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
            assert_eq!(told(checks.body(page)), detail, "{pointer}");
            assert_eq!(told(checks.body(&format!("\u{feff}{page}"))), detail, "{pointer}");
        }
        let checks = Checks { json: vec![("/a".to_owned(), json!(1))], ..Checks::default() };
        let expected = "no json: expected value at line 1 column 1".to_owned();
        assert_eq!(told(checks.body("<html>")), Some((Reason::JsonNotExpected, expected)));
    }
}
