use std::time::{Duration, Instant};

use common::phrase;
use testkit::certificates::{Authority, Validity};
use testkit::dns::{DnsServer, Does, Kind};
use testkit::sites::{BlackHole, Site, Step, answer, gzip, head_of, redirect};
use tracker::probe::{Limits, Prober, Roots};

use crate::{Seen, broken, limits, prober_with, sources, unanswered, unresolved};

const TIMEOUT: Duration = Duration::from_millis(400);

/// How far from the deadline a probe may end: on a busy machine a thread that
/// is due waits for its turn.
const SLACK: Duration = Duration::from_millis(50);

fn short() -> Limits {
    Limits { timeout: TIMEOUT, ..limits() }
}

/// Probes, and fails unless the probe ends at its deadline. A machine that was
/// busy elsewhere at that moment gets two more chances.
fn ends_at_the_deadline(prober: &Prober, url: &str, expected: &Seen) {
    let url = url.parse().unwrap();
    let mut took = Duration::ZERO;
    for _ in 0..3 {
        let begun = Instant::now();
        let seen = Seen::from(prober.probe(&url, None));
        took = begun.elapsed();
        assert_eq!(&seen, expected, "{url}");
        assert!(took >= TIMEOUT, "{url} gave up after {took:?}");
        if took <= TIMEOUT + SLACK {
            return;
        }
    }
    panic!("{url} took {took:?}");
}

#[test]
fn a_plain_probe_ends_at_its_deadline_in_every_phase() {
    let timeout = phrase::RESPONSE_TIMEOUT;
    let every = Duration::from_millis(30);
    let page = answer(200);
    let packed = [head_of(200, &["Content-Encoding: gzip"]), gzip(&[b'x'; 100])].concat();
    let half = page[..page.len() - 5].to_vec();
    let long = [head_of(200, &[]), vec![b'x'; 1000]].concat();
    let head = head_of(200, &[]).len();
    let read = Step::ReadRequest;
    for (steps, expected) in [
        (vec![Step::Hang], unanswered(timeout, "before the first byte")),
        (vec![read.clone(), Step::Drip(page.clone(), every)], unanswered(timeout, "in the head")),
        (vec![read.clone(), Step::Send(half), Step::Hang], broken(timeout, "in the body")),
        (
            vec![
                read.clone(),
                Step::Send(long[..head].to_vec()),
                Step::Drip(long[head..].to_vec(), every),
            ],
            broken(timeout, "in the body"),
        ),
        (
            vec![read.clone(), Step::Send(packed[..packed.len() - 9].to_vec()), Step::Hang],
            broken(timeout, "in the body"),
        ),
    ] {
        let site = Site::raw(steps).unwrap();
        let url = format!("http://127.0.0.1:{}/", site.port());
        ends_at_the_deadline(&prober_with(short(), vec![]), &url, &expected);
    }
}

#[test]
fn connecting_ends_at_the_deadline() {
    let hole = BlackHole::new().unwrap();
    let port = hole.port().unwrap();
    let expected = unanswered(phrase::CONNECTION_TIMEOUT, &format!("127.0.0.1:{port}"));
    let url = format!("http://127.0.0.1:{port}/");
    ends_at_the_deadline(&prober_with(short(), vec![]), &url, &expected);
}

#[test]
fn tls_ends_at_the_deadline() {
    let timeout = phrase::RESPONSE_TIMEOUT;
    let hanging = Site::raw(vec![Step::Hang]).unwrap();
    let record = [b"\x16\x03\x03\x40\x00".as_slice(), &[0; 0x4000]].concat();
    let dripping = Site::raw(vec![Step::Drip(record, Duration::from_millis(30))]).unwrap();
    let prober = prober_with(short(), vec![]);
    for site in [hanging, dripping] {
        let url = format!("https://127.0.0.1:{}/", site.port());
        ends_at_the_deadline(&prober, &url, &unanswered(timeout, "in the tls handshake"));
    }
    let authority = Authority::new("trusted").unwrap();
    let prober = prober_with(short(), vec![authority.certificate()]);
    let config = authority.server(&["127.0.0.1"], Validity::Now).unwrap();
    let stalling =
        Site::https(config, |_| vec![Step::Send(head_of(200, &["Content-Length: 5"])), Step::Hang])
            .unwrap();
    let url = format!("https://127.0.0.1:{}/", stalling.port());
    ends_at_the_deadline(&prober, &url, &broken(timeout, "in the body"));
}

#[test]
fn redirects_share_one_deadline() {
    let site =
        Site::http(|_| vec![Step::Wait(Duration::from_millis(70)), Step::Send(redirect(302, "/"))])
            .unwrap();
    let url = format!("http://127.0.0.1:{}/", site.port());
    let expected = unanswered(phrase::RESPONSE_TIMEOUT, "127.0.0.1: before the first byte");
    ends_at_the_deadline(&prober_with(short(), vec![]), &url, &expected);
}

#[test]
fn resolving_ends_at_the_deadline() {
    let silent = || {
        DnsServer::start(&[
            ("site.example", Kind::A, Does::Silent),
            ("site.example", Kind::Aaaa, Does::Silent),
            ("tcp.example", Kind::A, Does::Truncated(Box::new(Does::Silent))),
            ("tcp.example", Kind::Aaaa, Does::Silent),
        ])
        .unwrap()
    };
    let (one, other) = (silent(), silent());
    for servers in [vec![one.address()], vec![one.address(), other.address()]] {
        let named: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let detail = format!("no answer from {}", named.join(", "));
        let expected = unresolved(phrase::DNS_FAILURE, Some(&detail));
        let prober = Prober::with(short(), sources(servers), &Roots::These(vec![])).unwrap();
        ends_at_the_deadline(&prober, "http://site.example/", &expected);
    }
    let prober =
        Prober::with(short(), sources(vec![one.address()]), &Roots::These(vec![])).unwrap();
    let begun = Instant::now();
    let seen = Seen::from(prober.probe(&"http://tcp.example/".parse().unwrap(), None));
    assert_eq!((seen.phrase, seen.dns), (phrase::DNS_FAILURE, false));
    assert!(begun.elapsed() < TIMEOUT * 2);
}
