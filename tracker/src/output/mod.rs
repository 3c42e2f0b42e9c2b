//! Results on standard output, for a person or for another program: `lines` and `bars`
//! are read by people, `json` by programs.

use std::io::{self, Write};
use std::time::Instant;

use crossbeam_channel::{Receiver, select_biased};

use crate::workers::TargetRecord;

mod bars;
mod json;
mod lines;

/// The format of results on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// One aligned line for each result.
    Lines {
        /// Width of the longest URL with its name, in characters.
        url_chars: usize,
    },
    /// The same line, and below it a bar for each phase of the probe.
    Bars {
        /// Width of the longest URL with its name, in characters.
        url_chars: usize,
        /// Whether the bars are coloured.
        in_colour: bool,
    },
    /// One JSON object a line, with the keys of the record.
    Json,
}

/// Writes results until `results` closes, or until `end` receives a message and all
/// results that have arrived are written. Returns the number of unhealthy results.
///
/// # Errors
/// Standard output can't be written. A reader that closed its end of a pipe ends the
/// program.
pub(crate) fn run(
    results: &Receiver<TargetRecord>,
    end: &Receiver<Instant>,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<usize> {
    let mut unhealthy = 0;
    loop {
        let probed = select_biased! {
            recv(results) -> probed => probed.ok(),
            recv(end) -> _ => break,
        };
        let Some(probed) = probed else { return Ok(unhealthy) };
        unhealthy += write_result(&probed, format, out)?;
    }
    // A worker that hangs still holds a sender, so `results` may never close.
    for probed in results.try_iter() {
        unhealthy += write_result(&probed, format, out)?;
    }
    Ok(unhealthy)
}

/// Writes a result. Returns 1 if it is unhealthy, else 0.
fn write_result(
    TargetRecord { record, .. }: &TargetRecord,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<usize> {
    match format {
        OutputFormat::Lines { url_chars } => lines::write_line(record, url_chars, out)?,
        OutputFormat::Bars { url_chars, in_colour } => {
            lines::write_line(record, url_chars, out)?;
            bars::write_bars(record, in_colour, out)?;
        }
        OutputFormat::Json => json::write_object(record, out)?,
    }
    out.flush()?;
    Ok(usize::from(!record.is_healthy()))
}

#[cfg(test)]
fn test_record() -> common::record::Record {
    use common::phrase;
    use common::record::{Extra, Record, Status};

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::targets::{TargetDefaults, parse_websites};

    /// `run` returns after the end of results, although a hanging worker keeps its sender
    /// and a late result arrives.
    #[test]
    fn output_ends_although_a_late_result_arrives() {
        let target = Arc::new(
            parse_websites("http://a.io", "x-", &TargetDefaults::default()).unwrap().remove(0),
        );
        for late in [false, true] {
            let (sender, results) = bounded(16);
            let (end_sender, end) = bounded(1);
            let probed =
                || TargetRecord { target: Arc::clone(&target), record: Box::new(test_record()) };
            sender.send(probed()).unwrap();
            end_sender.send(Instant::now()).unwrap();
            let mut out =
                LateResult { sender: late.then_some((sender.clone(), probed())), lines: 0 };
            let unhealthy = run(&results, &end, OutputFormat::Json, &mut out).unwrap();
            assert_eq!((unhealthy, out.lines), (1 + usize::from(late), 1 + usize::from(late)));
        }
    }

    /// An output that sends one more result while the first one is written.
    struct LateResult {
        sender: Option<(crossbeam_channel::Sender<TargetRecord>, TargetRecord)>,
        lines: usize,
    }

    impl Write for LateResult {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.lines += bytes.iter().filter(|byte| **byte == b'\n').count();
            if let Some((sender, probed)) = self.sender.take() {
                sender.send(probed).unwrap();
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
