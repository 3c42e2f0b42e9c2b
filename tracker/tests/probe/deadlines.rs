//! A probe ends at its deadline in every phase.

use std::any::Any;
use std::time::{Duration, Instant};

use common::phrase;
use testkit::certificates::{Authority, CertificateValidity};
use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::sites::{BlackHole, Site, Step, gzip, redirect, response_head, status_response};
use tracker::probe::{Limits, Roots};

use crate::{
    Observed, TestProber, incomplete, large_request_url, limits, no_response, resolver_config,
    test_prober, time_waiting_for_cpu, unresolved,
};

const TIMEOUT: Duration = Duration::from_millis(300);

/// How long after the deadline a probe may end, plus the time that its thread waited for a
/// CPU.
const SLACK: Duration = Duration::from_millis(50);

/// How often a case is tried.
const TRIES: usize = 5;

/// The pause between two bytes of a slow site.
const BYTE_INTERVAL: Duration = Duration::from_millis(25);

fn short() -> Limits {
    Limits { timeout: TIMEOUT, ..limits() }
}

/// A site that never completes one phase, and the expected outcome.
struct DeadlineCase {
    prober: TestProber,
    url: String,
    expected: Observed,
    /// Keeps the site running.
    _site: Box<dyn Any + Send + Sync>,
}

impl DeadlineCase {
    fn new(url: String, expected: Observed, site: impl Any + Send + Sync) -> Self {
        Self { prober: test_prober(short(), vec![]), url, expected, _site: Box::new(site) }
    }

    fn plain(steps: Vec<Step>, expected: Observed) -> Self {
        let site = Site::raw(steps).unwrap();
        Self::new(format!("http://127.0.0.1:{}/", site.port()), expected, site)
    }

    fn with_prober(self, prober: TestProber) -> Self {
        Self { prober, ..self }
    }

    /// Fails unless the probe ends at its deadline, in the expected phase. Tries several
    /// times, because the machine may be too busy to run the site's thread in time.
    fn assert_ends_at_the_deadline(&self) {
        let url = self.url.parse().unwrap();
        let mut last = None;
        for _ in 0..TRIES {
            let (started_at, waited) = (Instant::now(), time_waiting_for_cpu());
            let outcome = self.prober.probe(&url, None);
            let elapsed = started_at.elapsed();
            assert!(outcome.timings.total >= TIMEOUT && outcome.timings.total <= elapsed);
            let observed = Observed::from(outcome);
            let waited = time_waiting_for_cpu() - waited;
            if observed == self.expected && elapsed <= TIMEOUT + SLACK + waited {
                return;
            }
            last = Some((observed, elapsed));
        }
        panic!("{last:?} instead of {:?}", self.expected);
    }
}

/// Runs all cases at the same time, each in a thread.
fn assert_all_end_at_the_deadline(cases: &[DeadlineCase]) {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            cases.iter().map(|case| scope.spawn(|| case.assert_ends_at_the_deadline())).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn timeout(reason: &'static str, phase: &'static str, detail: &str) -> Observed {
    let observed = match phase {
        "body" => incomplete(phrase::RESPONSE_TIMEOUT, detail),
        _ => no_response(phrase::RESPONSE_TIMEOUT, detail),
    };
    observed.with_failure(reason, phase)
}

fn body_timeout() -> Observed {
    timeout("body_timeout", "body", "in the body")
}

#[test]
fn a_probe_ends_at_its_deadline_in_every_phase() {
    let phases = [resolve_cases(), connect_cases(), tls_cases(), http_cases()];
    let cases: Vec<_> = phases.into_iter().flatten().collect();
    assert_all_end_at_the_deadline(&cases);
}

fn resolve_cases() -> Vec<DeadlineCase> {
    let silent = || {
        DnsServer::start(&[
            ("site.example", QueryType::A, Behaviour::NoAnswer),
            ("site.example", QueryType::Aaaa, Behaviour::NoAnswer),
        ])
        .unwrap()
    };
    let prober_and_outcome = |servers: &[&DnsServer]| {
        let servers: Vec<_> = servers.iter().map(|server| server.address()).collect();
        let names: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let detail = format!("no answer from {}", names.join(", "));
        let prober = TestProber::with(short(), resolver_config(servers), &Roots::Custom(vec![]));
        let expected = unresolved(phrase::DNS_FAILURE, Some(&detail));
        (prober, expected.with_failure("dns_timeout", "resolve"))
    };
    let (one, two, other) = (silent(), silent(), silent());
    let (one_server, one_expected) = prober_and_outcome(&[&one]);
    let (two_servers, two_expected) = prober_and_outcome(&[&two, &other]);
    let url = |name: &str| format!("http://{name}.example/");
    vec![
        DeadlineCase::new(url("site"), one_expected, one).with_prober(one_server),
        DeadlineCase::new(url("site"), two_expected, (two, other)).with_prober(two_servers),
    ]
}

fn connect_cases() -> Vec<DeadlineCase> {
    let hole = BlackHole::new().unwrap();
    let at = format!("127.0.0.1:{}", hole.port().unwrap());
    let expected = no_response(phrase::CONNECTION_TIMEOUT, &at);
    vec![DeadlineCase::new(
        format!("http://{at}/"),
        expected.with_failure("connect_timeout", "connect"),
        hole,
    )]
}

fn tls_cases() -> Vec<DeadlineCase> {
    let record = [b"\x16\x03\x03\x40\x00".as_slice(), &[0; 0x4000]].concat();
    let raw = |steps| {
        let site = Site::raw(steps).unwrap();
        let expected = timeout("tls_timeout", "tls", "in the tls handshake");
        DeadlineCase::new(format!("https://127.0.0.1:{}/", site.port()), expected, site)
    };
    let authority = Authority::new("trusted").unwrap();
    let config = authority.server(&["127.0.0.1"], CertificateValidity::Now).unwrap();
    let stalling = Site::https(config, |_| {
        vec![Step::Send(response_head(200, &["Content-Length: 5"])), Step::Hang]
    })
    .unwrap();
    let url = format!("https://127.0.0.1:{}/", stalling.port());
    vec![
        raw(vec![Step::Hang]),
        raw(vec![Step::Drip(record, BYTE_INTERVAL)]),
        DeadlineCase::new(url, body_timeout(), stalling)
            .with_prober(test_prober(short(), vec![authority.certificate()])),
    ]
}

fn http_cases() -> Vec<DeadlineCase> {
    let first_byte = timeout("first_byte_timeout", "first_byte", "before the first byte");
    let head = || timeout("head_timeout", "head", "in the head");
    let page = status_response(200);
    let compressed = [response_head(200, &["Content-Encoding: gzip"]), gzip(&[b'x'; 100])].concat();
    let (half, most) = (page[..20].to_vec(), page[..page.len() - 5].to_vec());
    let compressed = compressed[..compressed.len() - 9].to_vec();
    let read = || Step::ReadRequest;
    let slow_body = |head: Vec<u8>, body: Vec<u8>| {
        DeadlineCase::plain(
            vec![read(), Step::Send(head), Step::Drip(body, BYTE_INTERVAL)],
            body_timeout(),
        )
    };
    let not_reading = Site::raw_with_small_buffers(vec![Step::Wait(TIMEOUT * 20)]).unwrap();
    let redirecting = vec![read(), Step::Wait(BYTE_INTERVAL * 2), Step::Send(redirect(302, "/"))];
    let chunks = b"1\r\nx\r\n".repeat(100);
    vec![
        DeadlineCase::new(
            large_request_url(&not_reading),
            timeout("send_timeout", "request", "in the request"),
            not_reading,
        ),
        DeadlineCase::plain(vec![Step::Hang], first_byte),
        DeadlineCase::plain(vec![read(), Step::Send(half), Step::Hang], head()),
        DeadlineCase::plain(vec![read(), Step::Drip(page, BYTE_INTERVAL)], head()),
        DeadlineCase::plain(vec![read(), Step::Send(most), Step::Hang], body_timeout()),
        DeadlineCase::plain(vec![read(), Step::Send(compressed), Step::Hang], body_timeout()),
        slow_body(response_head(200, &[]), vec![b'x'; 1000]),
        slow_body(response_head(200, &["Transfer-Encoding: chunked"]), chunks),
        slow_body(response_head(200, &["Content-Encoding: gzip"]), gzip(b"some text")),
        DeadlineCase::plain(
            redirecting,
            timeout("first_byte_timeout", "first_byte", "127.0.0.1: before the first byte"),
        ),
    ]
}

/// A body that arrived at once can take long to decode: a small body that decodes to a
/// large body, and a large body that decodes to nothing. Each decoder ends at the deadline.
#[test]
fn decoding_ends_at_the_deadline() {
    let small_to_large = gzip(&vec![0; 1024 * 1024]);
    let large_to_nothing = gzip(&gzip(b"").repeat(20_000));
    let no_size_limit = Limits { body_bytes_max: u64::MAX, ..short() };
    let cases: Vec<_> = [("gzip", small_to_large), ("gzip, gzip", large_to_nothing)]
        .into_iter()
        .map(|(encodings, member)| {
            let head = response_head(200, &[&format!("Content-Encoding: {encodings}")]);
            let mut steps = vec![Step::ReadRequest, Step::Send(head)];
            steps.extend(std::iter::repeat_n(Step::Send(member), 2_000));
            let site = Site::raw(steps).unwrap();
            DeadlineCase::new(format!("http://127.0.0.1:{}/", site.port()), body_timeout(), site)
                .with_prober(test_prober(no_size_limit, vec![]))
        })
        .collect();
    assert_all_end_at_the_deadline(&cases);
}

#[test]
fn a_name_server_that_hangs_on_tcp_ends_at_the_deadline() {
    let server = DnsServer::start(&[
        ("tcp.example", QueryType::A, Behaviour::Truncated(Box::new(Behaviour::NoAnswer))),
        ("tcp.example", QueryType::Aaaa, Behaviour::NoAnswer),
    ])
    .unwrap();
    let prober =
        TestProber::with(short(), resolver_config(vec![server.address()]), &Roots::Custom(vec![]));
    let started_at = Instant::now();
    let observed = Observed::from(prober.probe(&"http://tcp.example/".parse().unwrap(), None));
    assert_eq!((observed.phrase, observed.dns), (phrase::DNS_FAILURE, false));
    assert!(started_at.elapsed() < TIMEOUT * 2);
}
