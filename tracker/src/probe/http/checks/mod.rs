//! The checks of a target on the final response.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use common::counted::counted;
use regex::Regex;
use serde_json::Value;

use super::{charset, json};
use crate::probe::reason::{Failure, Phase, Reason, Severity};

/// The statuses that are expected by default.
const DEFAULT_STATUSES: RangeInclusive<u16> = 200..=399;

const DAY_S: i64 = 86_400;

/// How many characters of a received value a detail shows.
const SHOWN_CHARS: usize = 40;

/// The checks on the final response. By default only the status is checked.
#[derive(Debug, Clone)]
pub struct Checks {
    /// The expected statuses. Empty: 200 to 399.
    pub status: Vec<RangeInclusive<u16>>,
    /// Regexps that must all match the body.
    pub body_match: Vec<Regex>,
    /// Regexps of which none may match the body.
    pub body_not_match: Vec<Regex>,
    /// Header names and regexps. Each regexp must match the value of its header.
    pub header_match: Vec<(String, Regex)>,
    /// Header names and regexps. No regexp may match the value of its header.
    pub header_not_match: Vec<(String, Regex)>,
    /// JSON pointers (RFC 6901) into the body, and the expected values.
    pub json: Vec<(String, Value)>,
    /// The longest time for the attempt. A longer time is reported as too slow.
    pub latency_max: Option<Duration>,
    /// The severity of an attempt that is too slow.
    pub too_slow: Severity,
    /// The number of days for which the certificate must still be valid.
    pub certificate_days_min: Option<u32>,
    /// The severity of a certificate that expires earlier.
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
        let named_texts = |list: &[(String, Regex)]| {
            list.iter().map(|(name, regexp)| (name.clone(), regexp.to_string())).collect::<Vec<_>>()
        };
        let limits = |checks: &Self| {
            let Self { latency_max, too_slow, certificate_days_min, .. } = *checks;
            (latency_max, too_slow, certificate_days_min, checks.certificate_expires_soon)
        };
        self.status == other.status
            && texts(&self.body_match) == texts(&other.body_match)
            && texts(&self.body_not_match) == texts(&other.body_not_match)
            && named_texts(&self.header_match) == named_texts(&other.header_match)
            && named_texts(&self.header_not_match) == named_texts(&other.header_not_match)
            && self.json == other.json
            && limits(self) == limits(other)
    }
}

/// The final response of an attempt.
pub(crate) struct FinalResponse<'a> {
    pub(crate) status: u16,
    /// Returns the value of a header; several values are joined by commas.
    pub(crate) header: &'a dyn Fn(&str) -> Option<String>,
    /// The decoded body. Empty unless [`Checks::needs_body`].
    pub(crate) body: &'a [u8],
    /// The time that the attempt took.
    pub(crate) latency: Duration,
    /// When the site's certificate expires, in seconds since 1970.
    pub(crate) certificate_end: Option<i64>,
}

impl Checks {
    /// Only the check on the status.
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

    /// The check that WEBSITES supports: a regexp for the body.
    pub fn for_body(regexp: Regex) -> Self {
        Self { body_match: vec![regexp], ..Self::default() }
    }

    /// Whether a check reads the body.
    pub fn needs_body(&self) -> bool {
        !(self.body_match.is_empty() && self.body_not_match.is_empty() && self.json.is_empty())
    }

    /// Checks a response. Returns the first warning, if any.
    ///
    /// If the target sets no statuses, the body is checked before the status: 1.1.0
    /// searches the body at any status, and reports a body without the text as not
    /// expected.
    ///
    /// # Errors
    /// The first failure. A warning is not an error.
    pub(crate) fn evaluate(
        &self,
        response: &FinalResponse<'_>,
    ) -> Result<Option<Failure>, Failure> {
        self.check_status(response.status)?;
        self.check_headers(response.header)?;
        if self.needs_body() {
            let content_type = (response.header)("content-type");
            self.check_body(&charset::decode_text(response.body, content_type.as_deref()))?;
        }
        self.check_default_status(response.status)?;
        let certificate = self.check_certificate(response.certificate_end);
        let latency = self.check_latency(response.latency);
        let (failures, warnings): (Vec<_>, Vec<_>) = [certificate, latency]
            .into_iter()
            .flatten()
            .partition(|failure| failure.severity == Severity::Failure);
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(warnings.into_iter().next()),
        }
    }

    /// Checks the status if the target sets statuses.
    fn check_status(&self, status: u16) -> Result<(), Failure> {
        if self.status.is_empty() || self.status.iter().any(|range| range.contains(&status)) {
            return Ok(());
        }
        let expected: Vec<_> = self.status.iter().map(format_range).collect();
        let detail = format!("{status}: expected {}", expected.join(", "));
        Err(Failure::with_detail(Reason::StatusNotExpected, Phase::Check, detail))
    }

    /// Checks the status if the target sets no statuses.
    fn check_default_status(&self, status: u16) -> Result<(), Failure> {
        if !self.status.is_empty() || DEFAULT_STATUSES.contains(&status) {
            return Ok(());
        }
        let is_known = common::phrase::from_status(status).is_some();
        let detail = (!is_known).then(|| status.to_string());
        Err(Failure { detail, ..Failure::new(Reason::StatusNotExpected, Phase::Check) })
    }

    fn check_headers(&self, header: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
        let failure =
            |detail| Err(Failure::with_detail(Reason::HeaderNotExpected, Phase::Check, detail));
        for (name, expected) in &self.header_match {
            match header(name) {
                None => return failure(format!("no {name}: expected {expected}")),
                Some(value) if !is_match(expected, &value) => {
                    return failure(format!("{name}: {}: expected {expected}", shorten(&value)));
                }
                Some(_) => {}
            }
        }
        for (name, unwanted) in &self.header_not_match {
            if let Some(value) = header(name).filter(|value| is_match(unwanted, value)) {
                let value = shorten(&value);
                return failure(format!("{name}: {value}: expected not {unwanted}"));
            }
        }
        Ok(())
    }

    fn check_body(&self, text: &str) -> Result<(), Failure> {
        let failure = |reason, detail: String| Failure::with_detail(reason, Phase::Check, detail);
        if let Some(expected) = self.body_match.iter().find(|regexp| !is_match(regexp, text)) {
            return Err(failure(Reason::BodyNotExpected, expected.to_string()));
        }
        if let Some(unwanted) = self.body_not_match.iter().find(|regexp| is_match(regexp, text)) {
            return Err(failure(Reason::BodyNotExpected, format!("found: {unwanted}")));
        }
        if self.json.is_empty() {
            return Ok(());
        }
        // A byte order mark is not part of JSON (RFC 8259, section 8.1).
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (pointer, expected) in &self.json {
            let value = json::find_value(text, pointer)
                .map_err(|cause| failure(Reason::JsonNotExpected, format!("no json: {cause}")))?;
            if !value.is_some_and(|value| json::is_equal(value, expected)) {
                let value = value.map_or("nothing".to_owned(), shorten);
                let detail = format!("{pointer}: {value}: expected {expected}");
                return Err(failure(Reason::JsonNotExpected, detail));
            }
        }
        Ok(())
    }

    fn check_certificate(&self, certificate_end: Option<i64>) -> Option<Failure> {
        let days_min = self.certificate_days_min?;
        // The clock is before 1970 only if it was never set.
        let now_s = SystemTime::UNIX_EPOCH.elapsed().ok()?.as_secs();
        let remaining_s = certificate_end?.saturating_sub_unsigned(now_s);
        if remaining_s >= i64::from(days_min) * DAY_S {
            return None;
        }
        let days = counted(remaining_s / DAY_S, "day");
        let detail = format!("ends in {days}: expected {days_min} at least");
        let failure = Failure::with_detail(Reason::CertificateExpiresSoon, Phase::Check, detail);
        Some(Failure { severity: self.certificate_expires_soon, ..failure })
    }

    fn check_latency(&self, latency: Duration) -> Option<Failure> {
        let max = self.latency_max.filter(|max| latency > *max)?;
        let detail = format!("{} ms: expected {} at most", latency.as_millis(), max.as_millis());
        let failure = Failure::with_detail(Reason::TooSlow, Phase::Check, detail);
        Some(Failure { severity: self.too_slow, ..failure })
    }
}

/// Searches a text for a regexp, with a copy of the regexp.
///
/// The copy shares the compiled program and owns the memory of the search. The original
/// would keep that memory for many of the threads that ever used it: for `\w+` more than
/// 220 KiB a target, for one search a minute.
fn is_match(regexp: &Regex, text: &str) -> bool {
    regexp.clone().is_match(text)
}

fn format_range(range: &RangeInclusive<u16>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    }
}

/// Cuts a received value, so that the detail has room for the expected value after it.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
