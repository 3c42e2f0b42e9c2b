//! Responses, redirects, failed connections, and the outcome of each.

use std::time::Duration;

use common::phrase;
use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::sites::{
    BlackHole, RefusingPort, Site, Step, page, redirect, response_head, response_with_body,
    start_demo_sites, status_response,
};
use tracker::probe::{Limits, ProbeOutcome, Roots};

use crate::{
    Observed, TestProber, incomplete, large_request_url, limits, no_response, probe, probe_within,
    resolver_config, success, unexpected_body, unexpected_status, unresolved,
};

fn url(site: &Site, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", site.port())
}

/// Probes a site that answers any request with these bytes.
fn probe_bytes(bytes: Vec<u8>) -> Observed {
    let site = Site::sends(bytes).unwrap();
    probe(&url(&site, "/"), None).into()
}

fn probe_steps(steps: Vec<Step>) -> Observed {
    let site = Site::raw(steps).unwrap();
    probe(&url(&site, "/"), None).into()
}

fn no_such_domain(detail: Option<&str>) -> Observed {
    unresolved(phrase::DOMAIN_NOT_EXIST, detail).with_failure("dns_no_such_domain", "resolve")
}

fn refused(detail: &str) -> Observed {
    no_response(phrase::CONNECTION_REFUSED, detail).with_failure("connect_refused", "connect")
}

#[test]
fn the_phrase_comes_from_the_status_number() {
    for (status, phrase) in [
        (200, "ok"),
        (201, "created"),
        (204, "no content"),
        (304, "not modified"),
        (403, "forbidden"),
        (404, "not found"),
        (413, "request entity too large"),
        (418, "i'm a teapot"),
        (500, "internal server error"),
        (503, "service unavailable"),
    ] {
        let expected = if status < 400 { success(phrase) } else { unexpected_status(phrase, None) };
        assert_eq!(probe_bytes(status_response(status)), expected, "{status}");
    }
    let unknown = phrase::UNKNOWN_STATUS;
    let without_name = Observed { detail: Some("299".to_owned()), ..success(unknown) };
    assert_eq!(probe_bytes(status_response(299)), without_name);
    for (status, number) in [(599, "599"), (999, "999")] {
        assert_eq!(
            probe_bytes(status_response(status)),
            unexpected_status(unknown, Some(number)),
            "{status}"
        );
    }
}

#[test]
fn an_interim_response_is_skipped() {
    let early = response_head(103, &["Link: </style.css>; rel=preload"]);
    assert_eq!(probe_bytes([early, status_response(200)].concat()), success("ok"));
}

#[test]
fn the_body_is_checked_at_any_status() {
    let site = Site::http(|path| {
        let status = if path == "/gone" { 404 } else { 200 };
        vec![Step::Send(response_with_body(status, &[], b"one <b>two</b> three"))]
    })
    .unwrap();
    for (path, check, expected) in [
        ("/", r"<b>t\w+", success("ok")),
        ("/gone", "three$", unexpected_status("not found", None)),
        ("/", "four", unexpected_body("four")),
        ("/gone", "four", unexpected_body("four")),
    ] {
        assert_eq!(
            Observed::from(probe(&url(&site, path), Some(check))),
            expected,
            "{path} {check}"
        );
    }
    let long = "é".repeat(200);
    let outcome = probe(&url(&site, "/"), Some(&long));
    assert_eq!(outcome.detail, Some("é".repeat(128)));
}

#[test]
fn a_request_has_these_headers() {
    let site = Site::http(|_| vec![Step::Send(status_response(200))]).unwrap();
    let port = site.port();
    probe(&format!("http://us%20er:p%40ss@127.0.0.1:{port}/a%20b/ü?q=1|2#part"), None);
    let request = site.requests().pop_front().unwrap();
    let lines: Vec<_> = request.lines().map(str::to_lowercase).collect();
    assert_eq!(lines[0], "get /a%20b/%c3%bc?q=1|2 http/1.1");
    for line in [
        format!("host: 127.0.0.1:{port}"),
        "connection: close".to_owned(),
        "accept: */*".to_owned(),
        "accept-encoding: gzip, deflate".to_owned(),
        format!("user-agent: websites-availability-tracker/{}", env!("CARGO_PKG_VERSION")),
        // "us er:p@ss"
        "authorization: basic dxmgzxi6cebzcw==".to_owned(),
    ] {
        assert!(lines.contains(&line), "{line} is not in {lines:?}");
    }
    assert_eq!(lines.iter().filter(|line| line.starts_with("host:")).count(), 1);
    // A long password, for example a token.
    let observed =
        Observed::from(probe(&format!("http://u:{}@127.0.0.1:{port}/", "x".repeat(6000)), None));
    assert_eq!(observed, success("ok"));
}

#[test]
fn each_probe_and_each_redirect_uses_a_new_connection() {
    let site = Site::http(|path| {
        vec![Step::Send(match path {
            "/" => redirect(301, "/second?a=b"),
            "/second?a=b" => redirect(308, "third"),
            _ => page("arrived"),
        })]
    })
    .unwrap();
    let expected = success("ok");
    assert_eq!(Observed::from(probe(&url(&site, "/"), Some("arrived"))), expected);
    assert_eq!(site.connections(), 3);
}

#[test]
fn redirects_are_followed_as_in_browsers() {
    let site = Site::http(|path| {
        let step = match path {
            "/300" => redirect(300, "/end"),
            "/302" => redirect(302, "/end"),
            "/303" => redirect(303, "./end#part"),
            "/307" => redirect(307, "?end"),
            "/twice" => response_with_body(302, &["Location: /end", "Location: /end"], b""),
            "/nowhere" => status_response(302),
            "/ftp" => redirect(302, "ftp://127.0.0.1/file"),
            "/ftp-user" => redirect(302, "ftp://user:s3cret@127.0.0.1/file"),
            "/bad" => redirect(302, "http://[::1/"),
            "/loop" => redirect(302, "/loop"),
            "/end" | "/307?end" => page("end"),
            _ => status_response(404),
        };
        vec![Step::Send(step)]
    })
    .unwrap();
    let observe = |path: &str| Observed::from(probe(&url(&site, path), None));
    assert_eq!(observe("/300"), success("multiple choices"));
    assert_eq!(observe("/302"), success("ok"));
    assert_eq!(observe("/303"), success("ok"));
    assert_eq!(observe("/307"), success("ok"));
    assert_eq!(observe("/twice"), success("ok"));
    assert_eq!(observe("/nowhere"), success("found"));
    let refused = |detail| {
        incomplete(phrase::INVALID_REDIRECT, detail).with_failure("redirect_refused", "redirect")
    };
    assert_eq!(observe("/ftp"), refused("ftp://127.0.0.1/file"));
    assert_eq!(observe("/bad"), refused("invalid IPv6 address: http://[::1/"));
    let detail = format!("more than 10, last to http://127.0.0.1:{}/loop", site.port());
    let looped = || {
        incomplete(phrase::TOO_MANY_REDIRECTS, &detail)
            .with_failure("too_many_redirects", "redirect")
    };
    // A relative redirect keeps credentials, and no detail shows them.
    let with_secret = format!("http://user:s3cret@127.0.0.1:{}/loop", site.port());
    let observed = Observed::from(probe(&with_secret, None));
    assert_eq!(observed, looped());
    assert_eq!(observe("/ftp-user"), refused("ftp://127.0.0.1/file"));
    let before = site.connections();
    assert_eq!(observe("/loop"), looped());
    assert_eq!(site.connections() - before, 11);
    let no_redirects = Limits { redirects_max: 0, ..limits() };
    let observed = Observed::from(probe_within(no_redirects, &url(&site, "/302"), None));
    assert_eq!(observed.phrase, phrase::TOO_MANY_REDIRECTS);
}

#[test]
fn a_failure_after_a_redirect_names_the_host() {
    let refusing = RefusingPort::new().unwrap();
    let port = refusing.port().unwrap();
    let site = Site::http(move |path| {
        vec![Step::Send(redirect(
            302,
            &match path {
                "/gone" => "http://gone.invalid/".to_owned(),
                _ => format!("http://127.0.0.1:{port}/"),
            },
        ))]
    })
    .unwrap();
    let observed = Observed::from(probe(&url(&site, "/gone"), None));
    assert_eq!(observed, no_such_domain(Some("gone.invalid")));
    let observed = Observed::from(probe(&url(&site, "/"), None));
    let detail = format!("127.0.0.1: 127.0.0.1:{port}");
    assert_eq!(observed, refused(&detail));
}

#[test]
fn each_failure_to_connect_has_its_reason() {
    let refusing = RefusingPort::new().unwrap();
    let port = refusing.port().unwrap();
    let observed = Observed::from(probe(&format!("http://127.0.0.1:{port}/"), None));
    assert_eq!(observed, refused(&format!("127.0.0.1:{port}")));

    // No host has the broadcast address, and the kernel reports that at once.
    let observed = Observed::from(probe("http://127.255.255.255:81/", None));
    let expected = no_response(phrase::NETWORK_UNREACHABLE, "127.255.255.255:81");
    assert_eq!(observed, expected.with_failure("connect_unreachable", "connect"));

    let hole = BlackHole::new().unwrap();
    let port = hole.port().unwrap();
    let short = Limits { timeout: Duration::from_millis(300), ..limits() };
    let observed = Observed::from(probe_within(short, &format!("http://127.0.0.1:{port}/"), None));
    let expected = no_response(phrase::CONNECTION_TIMEOUT, &format!("127.0.0.1:{port}"));
    assert_eq!(observed, expected.with_failure("connect_timeout", "connect"));

    let observed = Observed::from(probe("http://no-such-name.invalid/", None));
    assert_eq!(observed, no_such_domain(None));
}

/// A link-local address without its interface: the only other error of connect(2) that a test
/// can cause without privileges.
#[test]
fn an_error_of_the_system_is_in_the_detail() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: no ipv6 on this machine");
        return;
    }
    let observed = Observed::from(probe("http://[fe80::1]/", None));
    let text = "Invalid argument (os error 22) ([fe80::1]:80)";
    let expected = no_response(phrase::CONNECTION_FAILED, text);
    assert_eq!(observed, expected.with_failure("connect_failed", "connect"));
}

#[test]
fn a_reset_while_sending_is_a_failed_request() {
    let site = Site::raw_with_small_buffers(vec![Step::ReadSome, Step::Reset]).unwrap();
    let observed = Observed::from(probe(&large_request_url(&site), None));
    let expected = no_response(phrase::CONNECTION_FAILED, "in the request: connection reset");
    assert_eq!(observed, expected.with_failure("send_failed", "request"));
}

#[test]
fn a_broken_connection_has_its_reason_and_phase() {
    let (closed, reset) = (phrase::CONNECTION_CLOSED, phrase::CONNECTION_RESET);
    let mut half = status_response(200);
    half.truncate(20);
    let mut nearly_all = status_response(200);
    nearly_all.truncate(nearly_all.len() - 1);
    let no_length = response_head(200, &[]);
    let read = Step::ReadRequest;
    let send = |bytes: &Vec<u8>| Step::Send(bytes.clone());
    for (steps, expected) in [
        (
            vec![read.clone()],
            no_response(closed, "before the first byte").with_failure("closed_early", "first_byte"),
        ),
        (
            vec![read.clone(), send(&half)],
            no_response(closed, "in the head").with_failure("closed_early", "head"),
        ),
        (
            vec![read.clone(), send(&nearly_all)],
            incomplete(closed, "in the body").with_failure("closed_early", "body"),
        ),
        (
            vec![read.clone(), Step::Reset],
            no_response(reset, "before the first byte")
                .with_failure("connection_reset", "first_byte"),
        ),
        (
            vec![read.clone(), send(&half), Step::Reset],
            no_response(reset, "in the head").with_failure("connection_reset", "head"),
        ),
        (
            vec![read.clone(), send(&nearly_all), Step::Reset],
            incomplete(reset, "in the body").with_failure("connection_reset", "body"),
        ),
        // A body without a length is complete only if the connection is closed.
        (vec![read.clone(), send(&no_length)], success("ok")),
        (
            vec![read.clone(), send(&no_length), Step::Reset],
            incomplete(reset, "in the body").with_failure("connection_reset", "body"),
        ),
    ] {
        let shown = format!("{steps:?}");
        assert_eq!(probe_steps(steps), expected, "{shown}");
    }
}

#[test]
fn a_response_that_is_not_http_is_invalid() {
    let invalid = phrase::INVALID_RESPONSE;
    let large = response_head(200, &[&format!("X: {}", "x".repeat(70_000))]);
    let bad_length = response_head(200, &["Content-Length: many"]);
    let bad_chunks = [response_head(200, &["Transfer-Encoding: chunked"]), b"xyz\r\n".to_vec()];
    let many: Vec<_> = (0..200).map(|i| format!("X-{i}: x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for (bytes, expected) in [
        (
            b"220 mail.example ESMTP\r\n".to_vec(),
            no_response(invalid, "http parse fail: invalid HTTP version")
                .with_failure("malformed_response", "head"),
        ),
        (
            b"\x16\x03\x01\x00\x01".to_vec(),
            no_response(invalid, "http parse fail: invalid HTTP version")
                .with_failure("malformed_response", "head"),
        ),
        (
            b"HTTP/1.1 2000 Ok\r\n\r\n".to_vec(),
            no_response(invalid, "http parse fail: invalid response status")
                .with_failure("malformed_response", "head"),
        ),
        (large, no_response(invalid, "more than 64 KiB").with_failure("head_too_large", "head")),
        (
            response_head(200, &many),
            no_response(invalid, "http parse resulted in too many headers")
                .with_failure("malformed_response", "head"),
        ),
        (
            bad_length,
            no_response(invalid, "content-length header not a number")
                .with_failure("malformed_response", "head"),
        ),
        (
            bad_chunks.concat(),
            incomplete(invalid, "chunk length cannot be read as a number")
                .with_failure("malformed_response", "body"),
        ),
    ] {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(probe_bytes(bytes), expected, "{start}");
    }
    // A large head within the limit.
    let long = response_head(204, &[&format!("X: {}", "x".repeat(60_000))]);
    assert_eq!(probe_bytes(long), success("no content"));
}

#[test]
fn dns_and_response_times_are_separate_and_summed_over_redirects() {
    let wait = Duration::from_millis(150);
    let late = |does| Behaviour::Delayed(wait * 2, Box::new(does));
    let address = Behaviour::Addresses(vec!["127.0.0.1".parse().unwrap()]);
    let server = DnsServer::start(&[
        ("slow.example", QueryType::A, late(address)),
        ("slow.example", QueryType::Aaaa, Behaviour::NoData),
    ])
    .unwrap();
    let site = Site::http(move |path| {
        let bytes = if path == "/" { redirect(302, "/next") } else { page("end") };
        vec![
            Step::Wait(wait),
            Step::Send(bytes[..10].to_vec()),
            Step::Drip(bytes[10..].to_vec(), Duration::ZERO),
        ]
    })
    .unwrap();
    let sources = resolver_config(vec![server.address()]);
    let prober = TestProber::with(limits(), sources, &Roots::Custom(vec![]));
    let url = format!("http://slow.example:{}/", site.port());
    let outcome = prober.probe(&url.parse().unwrap(), None);
    let (dns, response) = (outcome.dns_ms.unwrap(), outcome.response_ms.unwrap());
    // Two lookups of 300 ms, two answers of 150 ms.
    assert!((600..1600).contains(&dns), "{outcome:?}");
    assert!((300..590).contains(&response), "{outcome:?}");
    let outcome = probe(&format!("http://127.0.0.1:{}/next", site.port()), None);
    assert_eq!(outcome.dns_ms, Some(0));
    assert!((150..590).contains(&outcome.response_ms.unwrap()), "{outcome:?}");
}

#[test]
fn a_proxy_in_the_environment_is_ignored() {
    // A process can't change its own environment safely, so another process runs one test of
    // this file.
    let program = std::env::current_exe().unwrap();
    let run = std::process::Command::new(program)
        .args(["--exact", "responses::each_probe_and_each_redirect_uses_a_new_connection"])
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
fn each_site_of_the_demo_has_the_promised_outcome() {
    let demo = start_demo_sites().unwrap();
    let roots = certificates(&demo.ca_pem);
    let limits = Limits { timeout: Duration::from_millis(2500), ..limits() };
    let prober = TestProber::with(limits, resolver_config(vec![]), &Roots::Custom(roots));
    let outcomes: Vec<ProbeOutcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = demo
            .sites
            .iter()
            .map(|site| {
                let check = site.check.map(|check| regex::Regex::new(check).unwrap());
                let prober = &prober;
                scope.spawn(move || prober.probe(&site.url.parse().unwrap(), check.as_ref()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (site, outcome) in demo.sites.iter().zip(outcomes) {
        assert_eq!(
            (outcome.status, outcome.phrase),
            (site.status, site.phrase),
            "{} {:?}",
            site.name,
            outcome.detail
        );
    }
}

fn certificates(pem: &str) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}
