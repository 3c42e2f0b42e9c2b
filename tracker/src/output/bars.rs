//! A bar for each phase of a probe. The width of a bar is the phase's share of the
//! total time.

use std::fmt::Write as _;
use std::io::{self, Write};

use common::counted::counted;
use common::record::Record;

/// Width of the total time, in characters. A line stays below 80 characters.
const COLUMNS: i64 = 48;

const COLOUR_RESET: &str = "\x1b[0m";

/// Writes a bar for each phase that the probe reached, then the total time and facts
/// about the response.
pub(super) fn write_bars(record: &Record, in_colour: bool, out: &mut impl Write) -> io::Result<()> {
    let extra = &record.extra;
    let total_us = extra.total_us.unwrap_or_default().max(1);
    let phases = [
        ("resolve", "\x1b[36m", extra.resolve_us),
        ("connect", "\x1b[33m", extra.connect_us),
        ("tls", "\x1b[35m", extra.tls_us),
        ("first byte", "\x1b[32m", extra.first_byte_us),
        ("transfer", "\x1b[34m", extra.transfer_us),
    ];
    let mut begun_us = 0;
    for (name, colour, time_us) in phases {
        let Some(time_us) = time_us else { continue };
        let (start, end) =
            (column(begun_us, total_us), column(begun_us.saturating_add(time_us), total_us));
        // A short phase still gets a visible bar.
        let width = (end - start).max(1);
        let start = start.min(COLUMNS - width);
        let (indent, bar) = (" ".repeat(to_usize(start)), "█".repeat(to_usize(width)));
        let (colour, plain) = if in_colour { (colour, COLOUR_RESET) } else { ("", "") };
        writeln!(out, "  {name:<10} {:>9} {indent}{colour}{bar}{plain}", format_ms(time_us))?;
        begun_us = begun_us.saturating_add(time_us);
    }
    writeln!(out, "  {:<10} {:>9} {}", "total", format_ms(total_us), response_facts(record))
}

fn column(time_us: i64, total_us: i64) -> i64 {
    (time_us.saturating_mul(COLUMNS) / total_us).clamp(0, COLUMNS)
}

fn to_usize(columns: i64) -> usize {
    usize::try_from(columns).unwrap_or_default()
}

/// Formats microseconds as milliseconds with one decimal place.
fn format_ms(time_us: i64) -> String {
    format!("{}.{} ms", time_us / 1000, time_us / 100 % 10)
}

fn response_facts(record: &Record) -> String {
    let extra = &record.extra;
    let mut text = String::new();
    let mut add = |part: std::fmt::Arguments<'_>| {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // Writing to a String can't fail.
        let _ = text.write_fmt(part);
    };
    if let Some(address) = &extra.address {
        add(format_args!("{address}"));
    }
    if let Some(version) = &extra.http_version {
        add(format_args!("HTTP/{version}"));
    }
    if let Some(status) = extra.http_status {
        add(format_args!("status {status}"));
    }
    if let Some(bytes) = extra.body_bytes {
        add(format_args!("{}", counted(bytes, "byte")));
    }
    if let (Some(redirects), Some(url)) = (extra.redirects, &extra.final_url) {
        add(format_args!("{} to {url}", counted(redirects, "redirect")));
    }
    if let Some(end) = extra.certificate_end {
        // A float holds every second of the next millions of years.
        match (end as f64 - record.timestamp) / 86_400.0 {
            days if days < 0.0 => {
                add(format_args!("certificate ended {} ago", counted((-days).round(), "day")))
            }
            days => add(format_args!("certificate ends in {}", counted(days.floor(), "day"))),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use common::record::{Extra, Status};

    use super::*;

    fn bars_of(extra: &Extra, in_colour: bool) -> String {
        let record = Record {
            from: "oslo".to_owned(),
            url: "http://a.io".to_owned(),
            timestamp: 1_000_000_000.5,
            status: Status::Responsive,
            phrase: "ok".to_owned(),
            dns_ms: None,
            response_ms: None,
            detail: None,
            offset: -1,
            extra: extra.clone(),
        };
        let mut out = Vec::new();
        write_bars(&record, in_colour, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_bar_starts_where_the_previous_one_ends() {
        let mut extra = Extra {
            resolve_us: Some(12_000),
            connect_us: Some(12_040),
            first_byte_us: Some(71_900),
            transfer_us: Some(3),
            total_us: Some(96_000),
            address: Some("192.0.2.1".to_owned()),
            http_version: Some("1.1".to_owned()),
            http_status: Some(200),
            body_bytes: Some(20_480),
            redirects: Some(1),
            final_url: Some("https://b.io/".to_owned()),
            certificate_end: Some(1_000_000_000 + 61 * 86_400 + 100),
            ..Extra::default()
        };
        let bar = |start: usize, width: usize| " ".repeat(start) + &"█".repeat(width);
        let expected = [
            format!("  resolve      12.0 ms {}\n", bar(0, 6)),
            format!("  connect      12.0 ms {}\n", bar(6, 6)),
            format!("  first byte   71.9 ms {}\n", bar(12, 35)),
            format!("  transfer      0.0 ms {}\n", bar(47, 1)),
            "  total        96.0 ms 192.0.2.1, HTTP/1.1, status 200, 20480 bytes, 1 redirect to https://b.io/, certificate ends in 61 days\n"
                .to_owned(),
        ];
        assert_eq!(bars_of(&extra, false), expected.concat());
        let coloured = bars_of(&extra, true);
        assert!(
            coloured.starts_with("  resolve      12.0 ms \x1b[36m██████\x1b[0m\n"),
            "{coloured}"
        );
        extra.certificate_end = Some(1_000_000_000 - 3 * 86_400);
        assert!(bars_of(&extra, false).ends_with(", certificate ended 3 days ago\n"));
        // No value that a record can hold breaks the layout.
        extra.resolve_us = Some(i64::MAX / 2);
        extra.total_us = None;
        assert_eq!(bars_of(&extra, false).lines().count(), 5);
    }
}
