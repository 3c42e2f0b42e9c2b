//! Results on standard output, for a person or for another program.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use common::record::{Record, Value};
use crossbeam_channel::{Receiver, select_biased};

use crate::workers::Probed;

mod picture;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One aligned line each; `url_chars` is the width of the longest URL with its name.
    Lines {
        /// In characters.
        url_chars: usize,
    },
    /// The same, and below it where the time went, as a picture.
    Picture {
        /// In characters.
        url_chars: usize,
        /// Whether a phase has a colour.
        in_colour: bool,
    },
    /// One JSON object a line, with the keys of the record.
    Json,
}

/// Writes results until they end, or `no_more` says that no more will come, and
/// then what is left: how many were not healthy.
///
/// # Errors
/// When standard output can't be written: a reader that has gone away ends the
/// program, as it ends any other.
pub fn run(
    results: &Receiver<Probed>,
    no_more: &Receiver<Instant>,
    format: Format,
    out: &mut impl Write,
) -> io::Result<usize> {
    let mut unhealthy = 0;
    loop {
        let probed = select_biased! {
            recv(results) -> probed => probed.ok(),
            recv(no_more) -> _ => results.try_recv().ok(),
        };
        let Some(Probed { record, .. }) = probed else { return Ok(unhealthy) };
        unhealthy += usize::from(!record.healthy());
        match format {
            Format::Lines { url_chars } => line(&record, url_chars, out)?,
            Format::Picture { url_chars, in_colour } => {
                line(&record, url_chars, out)?;
                picture::draw(&record, in_colour, out)?;
            }
            Format::Json => json(&record, out)?,
        }
        out.flush()?;
    }
}

fn line(record: &Record, url_chars: usize, out: &mut impl Write) -> io::Result<()> {
    let Record { phrase, .. } = record;
    let url = called(record);
    let mark = match (record.healthy(), &record.extra.reason) {
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

/// The target by URL and name, as [`crate::targets::Target::called`].
fn called(record: &Record) -> Cow<'_, str> {
    match &record.extra.name {
        Some(name) => format!("{} ({name})", record.url).into(),
        None => Cow::Borrowed(&record.url),
    }
}

/// What else must not be hidden: that it took a second attempt, and whose fault
/// it may be.
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

/// `hh:mm:ss` in UTC.
fn time_of_day(timestamp: f64) -> String {
    let seconds = Duration::try_from_secs_f64(timestamp).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The keys of the record, but for the offset, which it does not have yet; what
/// is not known is null.
fn json(record: &Record, out: &mut impl Write) -> io::Result<()> {
    let mut object = serde_json::json!({
        "from": record.from,
        "url": record.url,
        "timestamp": record.timestamp,
        "status": record.status.as_str(),
        "phrase": record.phrase,
        "dns": record.dns_ms,
        "response": record.response_ms,
        "detail": record.detail,
    });
    for (key, value) in record.extra.values() {
        object[key] = match value {
            Value::Text(text) => serde_json::json!(text),
            Value::Number(number) => serde_json::json!(number),
            Value::Flag(flag) => serde_json::json!(flag),
            Value::Counts(counts) => serde_json::json!(counts),
        };
    }
    writeln!(out, "{object}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::phrase;
    use common::record::{Extra, Status};

    fn record() -> Record {
        Record {
            from: "sydney".into(),
            url: "https://a.io".into(),
            timestamp: 1_608_855_561.565_346,
            status: Status::Responsive,
            phrase: phrase::PAGE_CONTENT_NOT_EXPECTED.into(),
            dns_ms: Some(3),
            response_ms: None,
            detail: Some("\"<svg\\s+\"".into()),
            offset: -1,
            extra: Extra {
                healthy: Some(false),
                reason: Some("body_not_expected".into()),
                total_us: Some(3_100),
                ..Extra::default()
            },
        }
    }

    #[test]
    fn a_line_is_aligned() {
        let mut out = Vec::new();
        line(&record(), 14, &mut out).unwrap();
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
        line(&warning, 18, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "00:19:21Z warn https://a.io (n)   ok                       dns     3 ms response    12 ms too_slow [attempt 2, first dns_timeout] [no network here] [others fail too]\n"
        );
    }

    #[test]
    fn json_has_the_keys_of_the_record() {
        let mut out = Vec::new();
        json(&record(), &mut out).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let found: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
        let mut keys = vec!["from", "url", "timestamp", "status", "phrase", "dns", "response"];
        keys.push("detail");
        keys.extend(record().extra.values().map(|(key, _)| key));
        keys.sort_unstable();
        assert_eq!(found, keys);
        let of = |key: &str| object[key].clone();
        let values = ["from", "dns", "response", "detail", "healthy", "total_us", "tls_us"].map(of);
        let expected = serde_json::json!(["sydney", 3, null, "\"<svg\\s+\"", false, 3_100, null]);
        assert_eq!(serde_json::json!(values), expected);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
