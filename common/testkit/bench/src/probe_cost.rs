//! Processor time of an HTTPS probe.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use testkit::certificates::{Authority, CertificateValidity};
use testkit::program::Program;
use testkit::sites::{Site, Step, page};

use crate::competitors::{Competitor, ProbeWork};
use crate::machine::processor_s;
use crate::prometheus_scraper::{Scraper, scrape};
use crate::report::{Report, median};
use crate::testbed::{BenchTestbed, TIMEOUT};
use crate::topic_records::read_records;
use crate::{BARE_PROBES_ARGUMENT, Bench, BenchError};

/// The number of targets. Each is probed once a second, so this is also the number of probes per
/// second.
const TARGETS: usize = 100;
const PAGE_BYTES: usize = 20 * 1024;
/// Matches at the end of the page, so that the whole page is searched.
const CHECK: &str = r"page \d+ ends";
/// Number of rounds, of which the median counts; warm-up time and duration of each measurement.
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED_S: usize = 20;

const BLACKBOX_RATIO_MAX: f64 = 0.25;
const BARE_RATIO_MAX: f64 = 1.5;

/// Compares the whole tracker, up to the record in Kafka, with a bare TLS client and with other
/// probers that do the same work: a new connection per probe, TLS 1.3 with X25519, a page of 20
/// KiB, a regexp.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(1)?;
    let authority = Authority::new("bench")?;
    let ca = testbed.services.dir.join("sites-ca.pem");
    fs::write(&ca, authority.pem())?;
    let page = page(&page_text());
    let config = authority.server(&["127.0.0.1"], CertificateValidity::Now)?;
    let site = Site::https(config, move |_| vec![Step::Send(page.clone())])?;
    let urls: Vec<String> =
        (0..TARGETS).map(|target| format!("https://{}/{target}", site.address())).collect();
    let rounds = ProbeRounds {
        testbed: &testbed,
        site: &site,
        ca: &ca,
        urls: &urls,
        seconds: bench.size(MEASURED_S).max(5) as u64,
    };
    let blackbox = Competitor::BlackboxExporter.find(report);
    let cloudprober = Competitor::Cloudprober.find(report);
    let (mut tracker_ms, mut bare_ms) = (vec![], vec![]);
    let (mut blackbox_ms, mut cloudprober_ms) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        tracker_ms.push(rounds.tracker()?);
        bare_ms.push(rounds.bare()?);
        if let Some(program) = &blackbox {
            blackbox_ms.push(rounds.blackbox(program)?);
        }
        if let Some(program) = &cloudprober {
            cloudprober_ms.push(rounds.cloudprober(program)?);
        }
    }
    let tracker_ms = median(tracker_ms);
    let label = format!("processor time of an HTTPS probe, {TARGETS} starts/s");
    report.add_figure(label.clone(), format!("{tracker_ms:.2} ms"));
    for (competitor, measured, ratio_max) in [
        ("bare rustls", bare_ms, Some(BARE_RATIO_MAX)),
        (Competitor::BlackboxExporter.name(), blackbox_ms, Some(BLACKBOX_RATIO_MAX)),
        (Competitor::Cloudprober.name(), cloudprober_ms, None),
    ] {
        if measured.is_empty() {
            continue;
        }
        let competitor_ms = median(measured);
        let ratio = tracker_ms / competitor_ms;
        let (label, figure) = (
            format!("{label}, relative to {competitor}"),
            format!("{ratio:.2} times its {competitor_ms:.2} ms"),
        );
        match ratio_max {
            Some(ratio_max) => {
                report.add_target(label, figure, format!("≤ {ratio_max} times"), ratio <= ratio_max)
            }
            None => report.add_figure(label, figure),
        }
    }
    Ok(())
}

/// Checks that all probes of the cloudprober at this port succeeded. It exposes its metrics after
/// ten seconds.
fn all_succeeded(port: u16) -> Result<(), BenchError> {
    let deadline = Instant::now() + TIMEOUT;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    loop {
        let metrics = scrape(&mut stream, "/metrics")?;
        let [total, success] = ["total", "success"].map(|name| metric_sum(&metrics, name));
        if total > 0 && success == total {
            return Ok(());
        }
        if total > 0 || Instant::now() >= deadline {
            return Err(format!("cloudprober: {success} of {total} probes succeeded").into());
        }
        thread::park_timeout(Duration::from_millis(500));
    }
}

/// The sum of a metric over all labels.
fn metric_sum(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    lines.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum()
}

/// A page whose last words match the regexp.
fn page_text() -> String {
    let end = "<footer>page 4711 ends</footer></body></html>\n";
    let mut text = String::from("<!doctype html><html><title>well</title><body>\n");
    for paragraph in 0.. {
        let next = format!("<p>Paragraph {paragraph} of a page that is as long as many.</p>\n");
        if text.len() + next.len() + end.len() > PAGE_BYTES {
            break;
        }
        text += &next;
    }
    text + end
}

/// The parameters that all programs of a round share.
struct ProbeRounds<'a> {
    testbed: &'a BenchTestbed<'a>,
    site: &'a Site,
    ca: &'a Path,
    urls: &'a [String],
    seconds: u64,
}

impl ProbeRounds<'_> {
    fn tracker(&self) -> Result<f64, BenchError> {
        let websites = self.urls.iter().map(|url| format!("{url} {CHECK}"));
        let websites = websites.collect::<Vec<_>>().join(",");
        let ca = self.ca.display().to_string();
        let own = [
            ("LOCATION", "bench"),
            ("WEBSITES", &*websites),
            ("PERIOD", "1"),
            ("TIMEOUT", "1"),
            ("SSL_CERT_FILE", &*ca),
        ];
        let tracker = self.testbed.program("tracker", &own)?;
        let used = self.processor_ms(&tracker)?;
        tracker.stop(TIMEOUT)?;
        let records = read_records(self.testbed, &Domain::parse("127.0.0.1")?)?;
        match records.iter().find(|record| !record.is_healthy()) {
            None if !records.is_empty() => Ok(used),
            failed => Err(format!("one of {} probes failed: {failed:?}", records.len()).into()),
        }
    }

    fn bare(&self) -> Result<f64, BenchError> {
        let program = std::env::current_exe()?;
        let (address, ca) = (self.site.address().to_string(), self.ca.display().to_string());
        let program = Program::start(program, &[BARE_PROBES_ARGUMENT, &address, &ca], &[])?;
        self.processor_ms(&program)
    }

    fn blackbox(&self, program: &Path) -> Result<f64, BenchError> {
        let (program, port) = self.start_competitor(Competitor::BlackboxExporter, program)?;
        let scraper = Scraper::start(port, self.urls)?;
        let used = self.processor_ms(&program)?;
        scraper.stop()?;
        Ok(used)
    }

    fn cloudprober(&self, program: &Path) -> Result<f64, BenchError> {
        let (program, port) = self.start_competitor(Competitor::Cloudprober, program)?;
        let used = self.processor_ms(&program)?;
        all_succeeded(port)?;
        Ok(used)
    }

    /// Starts a competitor and waits until it listens.
    fn start_competitor(
        &self,
        competitor: Competitor,
        program: &Path,
    ) -> Result<(Program, u16), BenchError> {
        let work = ProbeWork {
            urls: self.urls,
            period_s: 1,
            timeout_s: 1,
            check: Some(CHECK),
            ca: Some(self.ca),
        };
        let (program, port) = competitor.start(program, &self.testbed.services.dir, work)?;
        let deadline = Instant::now() + TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() >= deadline {
                return Err(format!(
                    "{} does not listen:\n{}",
                    competitor.name(),
                    program.log().join("\n")
                )
                .into());
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        Ok((program, port))
    }

    /// Returns the processor time per probe in milliseconds. The number of probes is the number
    /// of connections that the site accepted.
    fn processor_ms(&self, program: &Program) -> Result<f64, BenchError> {
        thread::park_timeout(WARM_UP);
        let before = (processor_s(program.id())?, self.site.connections());
        thread::park_timeout(Duration::from_secs(self.seconds));
        let used_s = processor_s(program.id())? - before.0;
        let probes = self.site.connections() - before.1;
        // Fewer than half of the expected probes are not a valid measurement.
        if probes < self.seconds * TARGETS as u64 / 2 {
            return Err(
                format!("only {probes} probes; the log:\n{}", program.log().join("\n")).into()
            );
        }
        Ok(used_s * 1_000.0 / probes as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let metrics =
            "# TYPE total counter\ntotal{dst=\"a\"} 3 17\ntotal{dst=\"b\"} 4 17\ntotal_x{} 9\n";
        assert_eq!((metric_sum(metrics, "total"), metric_sum(metrics, "success")), (7, 0));
    }

    #[test]
    fn the_page_has_the_right_length_and_matches_at_its_end() {
        let text = page_text();
        assert!((PAGE_BYTES - 100..=PAGE_BYTES).contains(&text.len()), "{}", text.len());
        assert!(text.contains("page 4711 ends"));
    }
}
