//! One aligned line for each result, for a person.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use common::record::Record;

/// Writes the line of a result: time, state, URL, phrase, timings, reason and detail.
pub(super) fn write_line(
    record: &Record,
    url_chars: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let Record { phrase, .. } = record;
    let url = label(record);
    let mark = match (record.is_healthy(), &record.extra.reason) {
        (true, None) => "up  ",
        (true, Some(_)) => "warn",
        (false, _) => "DOWN",
    };
    write!(out, "{} {mark} {url:url_chars$} {phrase:<24}", time_of_day(record.timestamp))?;
    for (name, value) in [("dns", record.dns_ms), ("response", record.response_ms)] {
        match value {
            Some(ms) => write!(out, " {name} {ms:>5} ms")?,
            None => write!(out, " {name}     -   ")?,
        }
    }
    let detail = record.detail.as_deref().filter(|detail| !detail.is_empty());
    match (&record.extra.reason, detail) {
        (Some(reason), Some(detail)) => write!(out, " {reason}: {detail}")?,
        (Some(text), None) => write!(out, " {text}")?,
        (None, Some(text)) => write!(out, " {text}")?,
        (None, None) => {}
    }
    writeln!(out, "{}", marks(record))
}

/// The URL and the name of the target, as in the log.
fn label(record: &Record) -> Cow<'_, str> {
    match &record.extra.name {
        Some(name) => format!("{} ({name})", record.url).into(),
        None => Cow::Borrowed(&record.url),
    }
}

/// Notes about the result: a second attempt was needed, or other targets fail too.
fn marks(record: &Record) -> String {
    let extra = &record.extra;
    let mut text = String::new();
    if let (Some(attempts), Some(reason)) = (extra.attempts, &extra.first_reason) {
        text += &format!(" [attempt {attempts}, first {reason}]");
    }
    if extra.no_network == Some(true) {
        text += " [no network here]";
    }
    if extra.others_failing == Some(true) {
        text += " [others fail too]";
    }
    text
}

/// Formats a time of day in UTC as `hh:mm:ssZ`.
fn time_of_day(timestamp: f64) -> String {
    let seconds = Duration::try_from_secs_f64(timestamp).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use common::phrase;

    use super::*;
    use crate::output::test_record as record;

    #[test]
    fn the_columns_of_a_line_are_aligned() {
        let mut out = Vec::new();
        write_line(&record(), 14, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "00:19:21Z DOWN https://a.io   page content not expected dns     3 ms response     -    body_not_expected: \"<svg\\s+\"\n"
        );
        let mut warning = record();
        warning.phrase = phrase::OK.into();
        warning.extra.healthy = Some(true);
        warning.extra.reason = Some("too_slow".into());
        (warning.response_ms, warning.detail) = (Some(12), None);
        warning.extra.name = Some("n".into());
        (warning.extra.attempts, warning.extra.others_failing) = (Some(2), Some(true));
        (warning.extra.first_reason, warning.extra.no_network) =
            (Some("dns_timeout".into()), Some(true));
        let mut out = Vec::new();
        write_line(&warning, 18, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "00:19:21Z warn https://a.io (n)   ok                       dns     3 ms response    12 ms too_slow [attempt 2, first dns_timeout] [no network here] [others fail too]\n"
        );
    }
}
