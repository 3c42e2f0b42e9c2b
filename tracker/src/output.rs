//! Results on standard output, for a person or for another program.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use common::record::Record;
use crossbeam_channel::{Receiver, select_biased};

use crate::workers::Probed;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One aligned line each; `url_chars` is the width of the longest URL.
    Lines {
        /// In characters.
        url_chars: usize,
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
            Format::Json => json(&record, out)?,
        }
        out.flush()?;
    }
}

fn line(record: &Record, url_chars: usize, out: &mut impl Write) -> io::Result<()> {
    let Record { url, phrase, .. } = record;
    let mark = if record.healthy() { "up  " } else { "DOWN" };
    write!(out, "{} {mark} {url:url_chars$} {phrase:<24}", time_of_day(record.timestamp))?;
    for (name, value) in [("dns", record.dns_ms), ("response", record.response_ms)] {
        match value {
            Some(ms) => write!(out, " {name} {ms:>5} ms")?,
            None => write!(out, " {name}     -   ")?,
        }
    }
    match record.detail.as_deref() {
        Some(detail) if !detail.is_empty() => writeln!(out, " {detail}"),
        _ => writeln!(out),
    }
}

/// `hh:mm:ss` in UTC.
fn time_of_day(timestamp: f64) -> String {
    let seconds = Duration::try_from_secs_f64(timestamp).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn json(record: &Record, out: &mut impl Write) -> io::Result<()> {
    let object = serde_json::json!({
        "from": record.from,
        "url": record.url,
        "timestamp": record.timestamp,
        "status": record.status.as_str(),
        "phrase": record.phrase,
        "dns": record.dns_ms,
        "response": record.response_ms,
        "detail": record.detail,
    });
    writeln!(out, "{object}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::phrase;
    use common::record::Status;

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
            extra: common::record::Extra::default(),
        }
    }

    #[test]
    fn a_line_is_aligned() {
        let mut out = Vec::new();
        line(&record(), 14, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "00:19:21Z DOWN https://a.io   page content not expected dns     3 ms response     -    \"<svg\\s+\"\n"
        );
    }

    #[test]
    fn json_has_the_keys_of_the_record() {
        let mut out = Vec::new();
        json(&record(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"detail\":\"\\\"<svg\\\\s+\\\"\",\"dns\":3,\"from\":\"sydney\",\"phrase\":\"page content not expected\",\"response\":null,\"status\":\"responsive\",\"timestamp\":1608855561.565346,\"url\":\"https://a.io\"}\n"
        );
    }
}
