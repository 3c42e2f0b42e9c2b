//! One deadline for the whole of a probe, whatever it is doing then.

use std::any::Any;
use std::time::{Duration, Instant};

use common::phrase;
use testkit::certificates::{Authority, Validity};
use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::sites::{BlackHole, Site, Step, gzip, redirect, response_head, status_response};
use tracker::probe::{Limits, Roots};

use crate::{
    Seen, Tester, broken, large_request, limits, prober_with, sources, unanswered, unresolved,
    waited_for_a_processor,
};

const TIMEOUT: Duration = Duration::from_millis(300);

/// How far from the deadline a probe may end, beside the time that its thread
/// waited for a processor.
const SLACK: Duration = Duration::from_millis(50);

/// How often a case is tried that goes wrong.
const CHANCES: usize = 5;

/// Between the bytes of a site that drips.
const EVERY: Duration = Duration::from_millis(25);

fn short() -> Limits {
    Limits { timeout: TIMEOUT, ..limits() }
}

/// A site that takes for ever in one phase, and what is to be said of it.
struct Case {
    tester: Tester,
    url: String,
    expected: Seen,
    /// What has to live as long.
    _site: Box<dyn Any + Send + Sync>,
}

impl Case {
    fn new(url: String, expected: Seen, site: impl Any + Send + Sync) -> Self {
        Self { tester: prober_with(short(), vec![]), url, expected, _site: Box::new(site) }
    }

    fn plain(steps: Vec<Step>, expected: Seen) -> Self {
        let site = Site::raw(steps).unwrap();
        Self::new(format!("http://127.0.0.1:{}/", site.port()), expected, site)
    }

    fn by(self, tester: Tester) -> Self {
        Self { tester, ..self }
    }

    /// Fails unless the probe ends at its deadline, in its phase. On a machine that
    /// was busy elsewhere at that moment, the site's thread with it, it gets more
    /// chances.
    fn ends_at_the_deadline(&self) {
        let url = self.url.parse().unwrap();
        let mut last = None;
        for _ in 0..CHANCES {
            let (begun, waited) = (Instant::now(), waited_for_a_processor());
            let outcome = self.tester.probe(&url, None);
            let took = begun.elapsed();
            assert!(outcome.timings.total >= TIMEOUT && outcome.timings.total <= took);
            let seen = Seen::from(outcome);
            let waited = waited_for_a_processor() - waited;
            if seen == self.expected && took <= TIMEOUT + SLACK + waited {
                return;
            }
            last = Some((seen, took));
        }
        panic!("{last:?} in place of {:?}", self.expected);
    }
}

/// All at the same time, each in a thread.
fn end_at_the_deadline(cases: &[Case]) {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            cases.iter().map(|case| scope.spawn(|| case.ends_at_the_deadline())).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn late(reason: &'static str, phase: &'static str, detail: &str) -> Seen {
    let seen = match phase {
        "body" => broken(phrase::RESPONSE_TIMEOUT, detail),
        _ => unanswered(phrase::RESPONSE_TIMEOUT, detail),
    };
    seen.because(reason, phase)
}

fn late_in_body() -> Seen {
    late("body_timeout", "body", "in the body")
}

#[test]
fn a_probe_ends_at_its_deadline_in_every_phase() {
    let phases = [resolving(), connecting(), securing(), asking_and_reading()];
    let cases: Vec<_> = phases.into_iter().flatten().collect();
    end_at_the_deadline(&cases);
}

fn resolving() -> Vec<Case> {
    let silent = || {
        DnsServer::start(&[
            ("site.example", QueryType::A, Behaviour::NoAnswer),
            ("site.example", QueryType::Aaaa, Behaviour::NoAnswer),
        ])
        .unwrap()
    };
    let by = |servers: &[&DnsServer]| {
        let servers: Vec<_> = servers.iter().map(|server| server.address()).collect();
        let named: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let detail = format!("no answer from {}", named.join(", "));
        let tester = Tester::with(short(), sources(servers), &Roots::These(vec![]));
        let expected = unresolved(phrase::DNS_FAILURE, Some(&detail));
        (tester, expected.because("dns_timeout", "resolve"))
    };
    let (one, two, other) = (silent(), silent(), silent());
    let (by_one, said_of_one) = by(&[&one]);
    let (by_two, said_of_two) = by(&[&two, &other]);
    let url = |name: &str| format!("http://{name}.example/");
    vec![
        Case::new(url("site"), said_of_one, one).by(by_one),
        Case::new(url("site"), said_of_two, (two, other)).by(by_two),
    ]
}

fn connecting() -> Vec<Case> {
    let hole = BlackHole::new().unwrap();
    let at = format!("127.0.0.1:{}", hole.port().unwrap());
    let expected = unanswered(phrase::CONNECTION_TIMEOUT, &at);
    vec![Case::new(format!("http://{at}/"), expected.because("connect_timeout", "connect"), hole)]
}

fn securing() -> Vec<Case> {
    let record = [b"\x16\x03\x03\x40\x00".as_slice(), &[0; 0x4000]].concat();
    let raw = |steps| {
        let site = Site::raw(steps).unwrap();
        let expected = late("tls_timeout", "tls", "in the tls handshake");
        Case::new(format!("https://127.0.0.1:{}/", site.port()), expected, site)
    };
    let authority = Authority::new("trusted").unwrap();
    let config = authority.server(&["127.0.0.1"], Validity::Now).unwrap();
    let stalling = Site::https(config, |_| {
        vec![Step::Send(response_head(200, &["Content-Length: 5"])), Step::Hang]
    })
    .unwrap();
    let url = format!("https://127.0.0.1:{}/", stalling.port());
    vec![
        raw(vec![Step::Hang]),
        raw(vec![Step::Drip(record, EVERY)]),
        Case::new(url, late_in_body(), stalling)
            .by(prober_with(short(), vec![authority.certificate()])),
    ]
}

fn asking_and_reading() -> Vec<Case> {
    let first_byte = late("first_byte_timeout", "first_byte", "before the first byte");
    let head = || late("head_timeout", "head", "in the head");
    let page = status_response(200);
    let packed = [response_head(200, &["Content-Encoding: gzip"]), gzip(&[b'x'; 100])].concat();
    let (half, most) = (page[..20].to_vec(), page[..page.len() - 5].to_vec());
    let packed = packed[..packed.len() - 9].to_vec();
    let read = || Step::ReadRequest;
    let drips = |head: Vec<u8>, body: Vec<u8>| {
        Case::plain(vec![read(), Step::Send(head), Step::Drip(body, EVERY)], late_in_body())
    };
    let unread = Site::raw_with_small_buffers(vec![Step::Wait(TIMEOUT * 20)]).unwrap();
    let circling = vec![read(), Step::Wait(EVERY * 2), Step::Send(redirect(302, "/"))];
    let chunks = b"1\r\nx\r\n".repeat(100);
    vec![
        Case::new(
            large_request(&unread),
            late("send_timeout", "request", "in the request"),
            unread,
        ),
        Case::plain(vec![Step::Hang], first_byte),
        Case::plain(vec![read(), Step::Send(half), Step::Hang], head()),
        Case::plain(vec![read(), Step::Drip(page, EVERY)], head()),
        Case::plain(vec![read(), Step::Send(most), Step::Hang], late_in_body()),
        Case::plain(vec![read(), Step::Send(packed), Step::Hang], late_in_body()),
        drips(response_head(200, &[]), vec![b'x'; 1000]),
        drips(response_head(200, &["Transfer-Encoding: chunked"]), chunks),
        drips(response_head(200, &["Content-Encoding: gzip"]), gzip(b"some text")),
        Case::plain(
            circling,
            late("first_byte_timeout", "first_byte", "127.0.0.1: before the first byte"),
        ),
    ]
}

/// What a site sent at once can take long to decode: much out of little, and
/// nothing out of much. Goes red without the look at the deadline behind each
/// decoder.
#[test]
fn decoding_ends_at_the_deadline() {
    let much = gzip(&vec![0; 1024 * 1024]);
    let nothing = gzip(&gzip(b"").repeat(20_000));
    let large = Limits { body_bytes_max: u64::MAX, ..short() };
    let cases: Vec<_> = [("gzip", much), ("gzip, gzip", nothing)]
        .into_iter()
        .map(|(codings, member)| {
            let head = response_head(200, &[&format!("Content-Encoding: {codings}")]);
            let mut steps = vec![Step::ReadRequest, Step::Send(head)];
            steps.extend(std::iter::repeat_n(Step::Send(member), 2_000));
            let site = Site::raw(steps).unwrap();
            Case::new(format!("http://127.0.0.1:{}/", site.port()), late_in_body(), site)
                .by(prober_with(large, vec![]))
        })
        .collect();
    end_at_the_deadline(&cases);
}

#[test]
fn a_name_server_that_hangs_by_tcp_holds_nobody_beyond_the_deadline() {
    let server = DnsServer::start(&[
        ("tcp.example", QueryType::A, Behaviour::Truncated(Box::new(Behaviour::NoAnswer))),
        ("tcp.example", QueryType::Aaaa, Behaviour::NoAnswer),
    ])
    .unwrap();
    let tester = Tester::with(short(), sources(vec![server.address()]), &Roots::These(vec![]));
    let begun = Instant::now();
    let seen = Seen::from(tester.probe(&"http://tcp.example/".parse().unwrap(), None));
    assert_eq!((seen.phrase, seen.dns), (phrase::DNS_FAILURE, false));
    assert!(begun.elapsed() < TIMEOUT * 2);
}
