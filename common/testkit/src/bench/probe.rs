//! The processor time of a probe over HTTPS.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;

use super::machine::processor_s;
use super::peers::{Peer, Work};
use super::prometheus::{Scraping, scrape};
use super::report::{Report, median};
use super::world::{PATIENCE, World};
use super::written::records;
use super::{BARE_PROBES, Bench, Failed};
use crate::certificates::{Authority, Validity};
use crate::program::Program;
use crate::sites::{Site, Step, page};

/// Probed once a second each, so that this many are as many a second.
const TARGETS: usize = 100;
const PAGE_BYTES: usize = 20 * 1024;
/// It matches at the page's end, so that all of it is searched.
const CHECK: &str = r"page \d+ ends";
/// Each of those that are compared has so many turns, of which the median
/// counts; how long it runs before what is measured, and how long that is.
const TURNS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED_S: usize = 20;

const OF_BLACKBOX_MOST: f64 = 0.25;
const OF_BARE_MOST: f64 = 1.5;

/// The whole tracker, from tick to the record in Kafka, beside a bare TLS
/// client, and beside others that do the same: a new connection each, TLS 1.3
/// with X25519, a page of 20 KiB, a regexp.
pub(super) fn probe(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failed> {
    let world = bench.world(1)?;
    let authority = Authority::new("bench")?;
    let ca = world.services.dir.join("sites-ca.pem");
    fs::write(&ca, authority.pem())?;
    let page = page(&text());
    let config = authority.server(&["127.0.0.1"], Validity::Now)?;
    let site = Site::https(config, move |_| vec![Step::Send(page.clone())])?;
    let urls: Vec<String> =
        (0..TARGETS).map(|target| format!("https://{}/{target}", site.address())).collect();
    let turns = Turns {
        world: &world,
        site: &site,
        ca: &ca,
        urls: &urls,
        seconds: bench.size(MEASURED_S).max(5) as u64,
    };
    let blackbox = Peer::BlackboxExporter.find(report);
    let cloudprober = Peer::Cloudprober.find(report);
    let (mut ours, mut bare, mut asked, mut theirs) = (vec![], vec![], vec![], vec![]);
    for _ in 0..TURNS {
        ours.push(turns.tracker()?);
        bare.push(turns.bare()?);
        if let Some(program) = &blackbox {
            asked.push(turns.blackbox(program)?);
        }
        if let Some(program) = &cloudprober {
            theirs.push(turns.cloudprober(program)?);
        }
    }
    let ours = median(ours);
    let what = format!("processor time of an HTTPS probe, {TARGETS} starts/s");
    report.figure(what.clone(), format!("{ours:.2} ms"));
    for (beside, measured, most) in [
        ("bare rustls", bare, Some(OF_BARE_MOST)),
        (Peer::BlackboxExporter.name(), asked, Some(OF_BLACKBOX_MOST)),
        (Peer::Cloudprober.name(), theirs, None),
    ] {
        if measured.is_empty() {
            continue;
        }
        let of = median(measured);
        let ratio = ours / of;
        let (what, figure) =
            (format!("{what}, beside {beside}"), format!("{ratio:.2} times its {of:.2} ms"));
        match most {
            Some(most) => report.target(what, figure, format!("≤ {most} times"), ratio <= most),
            None => report.figure(what, figure),
        }
    }
    Ok(())
}

/// Whether all probes of a cloudprober that listens at this port succeeded; it
/// tells after ten seconds.
fn all_succeeded(port: u16) -> Result<(), Failed> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    loop {
        let metrics = scrape(&mut stream, "/metrics")?;
        let [total, success] = ["total", "success"].map(|name| sum(&metrics, name));
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
fn sum(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    lines.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum()
}

/// A page whose last words match.
fn text() -> String {
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

/// What all of them are given.
struct Turns<'a> {
    world: &'a World<'a>,
    site: &'a Site,
    ca: &'a Path,
    urls: &'a [String],
    seconds: u64,
}

impl Turns<'_> {
    fn tracker(&self) -> Result<f64, Failed> {
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
        let tracker = self.world.program("tracker", &own)?;
        let used = self.measure(&tracker)?;
        tracker.stop(PATIENCE)?;
        let records = records(self.world, &Domain::parse("127.0.0.1")?)?;
        match records.iter().find(|record| !record.is_healthy()) {
            None if !records.is_empty() => Ok(used),
            failed => Err(format!("of {} probes one failed: {failed:?}", records.len()).into()),
        }
    }

    fn bare(&self) -> Result<f64, Failed> {
        let program = std::env::current_exe()?;
        let (address, ca) = (self.site.address().to_string(), self.ca.display().to_string());
        let program = Program::start(program, &[BARE_PROBES, &address, &ca], &[])?;
        self.measure(&program)
    }

    fn blackbox(&self, program: &Path) -> Result<f64, Failed> {
        let (program, port) = self.peer(Peer::BlackboxExporter, program)?;
        let scraping = Scraping::start(port, self.urls)?;
        let used = self.measure(&program)?;
        scraping.stop()?;
        Ok(used)
    }

    fn cloudprober(&self, program: &Path) -> Result<f64, Failed> {
        let (program, port) = self.peer(Peer::Cloudprober, program)?;
        let used = self.measure(&program)?;
        all_succeeded(port)?;
        Ok(used)
    }

    /// Starts a peer and waits until it listens.
    fn peer(&self, peer: Peer, program: &Path) -> Result<(Program, u16), Failed> {
        let work = Work {
            urls: self.urls,
            period_s: 1,
            timeout_s: 1,
            check: Some(CHECK),
            ca: Some(self.ca),
        };
        let (program, port) = peer.start(program, &self.world.services.dir, work)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() >= deadline {
                return Err(format!(
                    "{} does not listen:\n{}",
                    peer.name(),
                    program.log().join("\n")
                )
                .into());
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        Ok((program, port))
    }

    /// The processor time of a probe, in milliseconds, by the connections that
    /// the site has accepted meanwhile.
    fn measure(&self, program: &Program) -> Result<f64, Failed> {
        thread::park_timeout(WARM_UP);
        let before = (processor_s(program.id())?, self.site.connections());
        thread::park_timeout(Duration::from_secs(self.seconds));
        let used_s = processor_s(program.id())? - before.0;
        let probes = self.site.connections() - before.1;
        // Half of what is due: less is something else than what was asked for.
        if probes < self.seconds * TARGETS as u64 / 2 {
            return Err(
                format!("{probes} probes only; its log:\n{}", program.log().join("\n")).into()
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
        assert_eq!((sum(metrics, "total"), sum(metrics, "success")), (7, 0));
    }

    #[test]
    fn the_page_has_its_length_and_ends_as_expected() {
        let text = text();
        assert!((PAGE_BYTES - 100..=PAGE_BYTES).contains(&text.len()), "{}", text.len());
        assert!(text.contains("page 4711 ends"));
    }
}
