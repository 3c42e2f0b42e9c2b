//! The measurements in an outcome: times of phases, addresses, counts.

use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use testkit::certificates::{Authority, CertificateValidity, self_signed};
use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::sites::{
    Site, Step, chunked, gzip, page, redirect, response_head, response_with_body, status_response,
};
use tracker::probe::{Limits, PhaseTime, ProbeOutcome, ProbeRequest, Roots};

use crate::{TestProber, limits, probe, resolver_config, test_prober, time_waiting_for_cpu};

/// When the certificates of the testkit expire: on the first day of 2999 and of 2001.
const VALID_END: Option<i64> = Some(32_472_144_000);
const EXPIRED_END: Option<i64> = Some(978_307_200);

const WAIT: Duration = Duration::from_millis(100);

fn probe_with_roots(roots: Vec<CertificateDer<'static>>, url: &str) -> ProbeOutcome {
    test_prober(limits(), roots).probe(&url.parse().unwrap(), None)
}

/// The time of a phase is the sum over all redirects, and no time is counted twice.
#[test]
fn each_phase_is_summed_over_redirects_and_counted_once() {
    let authority = Authority::new("trusted").unwrap();
    let config = authority.server(&["127.0.0.1"], CertificateValidity::Now).unwrap();
    let secure = Site::https(config, |_| {
        let bytes = chunked(&[b"1", b"2"]);
        let middle = bytes.len() - 10;
        vec![
            Step::Wait(WAIT),
            Step::Send(bytes[..middle].to_vec()),
            Step::Wait(WAIT * 2),
            Step::Send(bytes[middle..].to_vec()),
        ]
    })
    .unwrap();
    let port = secure.port();
    let plain = Site::http(move |_| {
        let location = format!("https://u:s3cret@127.0.0.1:{port}/end?q#part");
        vec![Step::Wait(WAIT), Step::Send(redirect(302, &location))]
    })
    .unwrap();
    let url = format!("http://127.0.0.1:{}/", plain.port());
    let waited = time_waiting_for_cpu();
    let outcome = probe_with_roots(vec![authority.certificate()], &url);

    let facts = &outcome.facts;
    assert_eq!((outcome.failure.as_ref(), facts.redirects), (None, 1), "{outcome:?}");
    assert_eq!(facts.final_url.clone(), Some(format!("https://127.0.0.1:{port}/end?q")));
    assert_eq!(facts.address, Some(IpAddr::from([127, 0, 0, 1])));
    assert_eq!((facts.http_version, facts.http_status), (Some("1.1"), Some(200)));
    assert_eq!((facts.body_bytes, facts.certificate_end), (Some(2), VALID_END));

    let timings = outcome.timings;
    let [first_byte, transfer] = [timings.first_byte, timings.transfer].map(|sum| sum.0.unwrap());
    // A reader that is late waits less for the transfer, so only the sum is certain.
    assert!(first_byte >= WAIT * 2 && transfer >= WAIT, "{timings:?}");
    assert!(first_byte + transfer >= WAIT * 4, "{timings:?}");
    let phases = [timings.resolve, timings.connect, timings.tls];
    let phases = [phases.as_slice(), &[timings.first_byte, timings.transfer]].concat();
    let sum: Duration = phases.iter().map(|phase| phase.0.unwrap()).sum();
    assert!(timings.tls.0 > Some(Duration::ZERO));
    assert!(sum <= timings.total, "{timings:?}");
    // Between the phases the probe waits only for a CPU.
    let waited = time_waiting_for_cpu() - waited;
    assert!(timings.total - sum < WAIT + waited, "{timings:?}");
}

#[test]
fn a_phase_that_is_not_reached_has_no_time() {
    let site = Site::http(|_| vec![Step::Hang]).unwrap();
    let short = Limits { timeout: WAIT, ..limits() };
    let url = format!("http://127.0.0.1:{}/", site.port()).parse().unwrap();
    let outcome = test_prober(short, vec![]).probe(&url, None);
    let timings = outcome.timings;
    assert!(timings.connect.0.is_some());
    assert!(timings.first_byte.0.unwrap() > WAIT / 2, "{timings:?}");
    assert_eq!((timings.tls, timings.transfer), (PhaseTime(None), PhaseTime(None)));
    let facts = outcome.facts;
    assert_eq!((facts.http_version, facts.http_status, facts.body_bytes), (None, None, None));
    let timings = probe("http://nothing.invalid/", None).timings;
    assert!(timings.resolve.0.is_some());
    assert_eq!(timings.connect, PhaseTime(None));
}

#[test]
fn the_end_of_a_rejected_certificate_is_reported() {
    let [trusted, other] = ["trusted", "other"].map(|name| Authority::new(name).unwrap());
    let name = ["127.0.0.1"];
    let end = |config| {
        let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
        let url = format!("https://127.0.0.1:{}/", site.port());
        probe_with_roots(vec![trusted.certificate()], &url).facts.certificate_end
    };
    assert_eq!(end(trusted.server(&name, CertificateValidity::Now).unwrap()), VALID_END);
    assert_eq!(end(trusted.server(&name, CertificateValidity::Expired).unwrap()), EXPIRED_END);
    assert_eq!(end(trusted.server(&name, CertificateValidity::NotYetValid).unwrap()), VALID_END);
    assert_eq!(end(trusted.server(&["a.example"], CertificateValidity::Now).unwrap()), VALID_END);
    assert_eq!(end(other.server(&name, CertificateValidity::Expired).unwrap()), EXPIRED_END);
    assert_eq!(end(self_signed(&name).unwrap()), VALID_END);

    // The value is for the last host, which has no certificate here.
    let plain = Site::http(|_| vec![Step::Send(status_response(200))]).unwrap();
    let to = format!("http://127.0.0.1:{}/", plain.port());
    let config = trusted.server(&name, CertificateValidity::Now).unwrap();
    let secure = Site::https(config, move |_| vec![Step::Send(redirect(302, &to))]).unwrap();
    let url = format!("https://127.0.0.1:{}/", secure.port());
    let facts = probe_with_roots(vec![trusted.certificate()], &url).facts;
    assert_eq!((facts.redirects, facts.certificate_end), (1, None));
}

#[test]
fn the_decoded_bytes_of_a_body_are_counted() {
    let text = b"some text".repeat(1000);
    let compressed = response_with_body(200, &["Content-Encoding: gzip"], &gzip(&text));
    let endless = [response_head(200, &[]), vec![b'x'; 5000]].concat();
    let cut = response_with_body(200, &[], &text)[..1000].to_vec();
    let head = response_with_body(200, &[], &text).len() - text.len();
    let old = b"HTTP/1.0 200 OK\r\n\r\nfour".to_vec();
    for (bytes, bytes_max, version, expected) in [
        (compressed, 1_000_000, "1.1", 9000),
        (endless, 3000, "1.1", 3000),
        // The bytes before the failure are counted.
        (cut, 1_000_000, "1.1", 1000 - head as u64),
        (old, 1_000_000, "1.0", 4),
    ] {
        let site = Site::sends(bytes).unwrap();
        let limits = Limits { body_bytes_max: bytes_max, ..limits() };
        let url = format!("http://127.0.0.1:{}/", site.port()).parse().unwrap();
        let facts = test_prober(limits, vec![]).probe(&url, None).facts;
        assert_eq!((facts.http_version, facts.body_bytes), (Some(version), Some(expected)));
    }
}

#[test]
fn a_long_final_url_is_cut() {
    let location = format!("/end?{}", "x".repeat(60_000));
    let site = Site::http(move |path| {
        vec![Step::Send(if path == "/" { redirect(302, &location) } else { status_response(200) })]
    })
    .unwrap();
    let outcome = probe(&format!("http://127.0.0.1:{}/", site.port()), None);
    assert_eq!(outcome.failure, None);
    let start = format!("http://127.0.0.1:{}/end?x", site.port());
    let url = outcome.facts.final_url.unwrap();
    assert!(url.starts_with(&start) && url.len() == 1024, "{url}");
}

/// One address of the name accepts connections and never answers.
#[test]
fn a_retry_can_start_with_another_address() {
    let addresses = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
    let server = DnsServer::start(&[
        ("two.example", QueryType::A, Behaviour::Addresses(addresses.to_vec())),
        ("two.example", QueryType::Aaaa, Behaviour::NoData),
    ])
    .unwrap();
    let silent = TcpListener::bind((addresses[0], 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let answering = TcpListener::bind((addresses[1], port)).unwrap();
    let answering_thread = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = answering.accept().unwrap().0;
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(&status_response(200)).unwrap();
    });
    let prober =
        TestProber::with(limits(), resolver_config(vec![server.address()]), &Roots::Custom(vec![]));
    let url = format!("http://two.example:{port}/").parse().unwrap();
    let short = Limits { timeout: WAIT * 3, ..limits() };
    let first = prober.prober.probe(&ProbeRequest { limits: short, ..ProbeRequest::new(&url) });
    assert_eq!(first.failure.unwrap().reason.as_str(), "first_byte_timeout");
    assert_eq!(first.facts.address, Some(addresses[0]));
    assert!(first.facts.has_other_address);
    let retry = ProbeRequest {
        limits: limits(),
        last_resort: first.facts.address,
        ..ProbeRequest::new(&url)
    };
    let second = prober.prober.probe(&retry);
    assert_eq!((second.failure, second.facts.address), (None, Some(addresses[1])));
    answering_thread.join().unwrap();
}
