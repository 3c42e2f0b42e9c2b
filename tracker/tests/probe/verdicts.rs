use std::time::Duration;

use common::phrase;
use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::sites::{
    BlackHole, RefusingPort, Site, Step, page, redirect, response_head, response_with_body,
    start_demo_sites, status_response,
};
use tracker::probe::{Limits, Outcome, Roots};

use crate::{
    Seen, Tester, broken, large_request, limits, mismatched, probe, probe_within, sources,
    unanswered, unexpected, unresolved, well,
};

fn url(site: &Site, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", site.port())
}

/// What a site that sends these bytes to any request gets.
fn sends(bytes: Vec<u8>) -> Seen {
    let site = Site::sends(bytes).unwrap();
    probe(&url(&site, "/"), None).into()
}

fn does(steps: Vec<Step>) -> Seen {
    let site = Site::raw(steps).unwrap();
    probe(&url(&site, "/"), None).into()
}

fn no_such_domain(detail: Option<&str>) -> Seen {
    unresolved(phrase::DOMAIN_NOT_EXIST, detail).because("dns_no_such_domain", "resolve")
}

fn refused(detail: &str) -> Seen {
    unanswered(phrase::CONNECTION_REFUSED, detail).because("connect_refused", "connect")
}

#[test]
fn an_answer_is_called_by_its_number_and_not_by_its_own_words() {
    for (status, phrase) in [
        (200, "ok"),
        (201, "created"),
        (204, "no content"),
        (304, "not modified"),
        (403, "forbidden"),
        (404, "not found"),
        (413, "request entity too large"),
        (500, "internal server error"),
        (503, "service unavailable"),
    ] {
        let expected = if status < 400 { well(phrase) } else { unexpected(phrase, None) };
        assert_eq!(sends(status_response(status)), expected, "{status}");
    }
    let unknown = phrase::UNKNOWN_STATUS;
    let without_name = Seen { detail: Some("299".to_owned()), ..well(unknown) };
    assert_eq!(sends(status_response(299)), without_name);
    for (status, number) in [(418, "418"), (599, "599"), (999, "999")] {
        assert_eq!(sends(status_response(status)), unexpected(unknown, Some(number)), "{status}");
    }
}

#[test]
fn an_interim_answer_is_passed_over() {
    let early = response_head(103, &["Link: </style.css>; rel=preload"]);
    assert_eq!(sends([early, status_response(200)].concat()), well("ok"));
}

#[test]
fn the_page_is_searched_whatever_its_status() {
    let site = Site::http(|path| {
        let status = if path == "/gone" { 404 } else { 200 };
        vec![Step::Send(response_with_body(status, &[], b"one <b>two</b> three"))]
    })
    .unwrap();
    for (path, check, expected) in [
        ("/", r"<b>t\w+", well("ok")),
        ("/gone", "three$", unexpected("not found", None)),
        ("/", "four", mismatched("four")),
        ("/gone", "four", mismatched("four")),
    ] {
        assert_eq!(Seen::from(probe(&url(&site, path), Some(check))), expected, "{path} {check}");
    }
    let long = "é".repeat(200);
    let outcome = probe(&url(&site, "/"), Some(&long));
    assert_eq!(outcome.detail, Some("é".repeat(128)));
}

#[test]
fn a_request_says_who_asks_and_for_what() {
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
    // A token is a long password.
    let seen = Seen::from(probe(&format!("http://u:{}@127.0.0.1:{port}/", "x".repeat(6000)), None));
    assert_eq!(seen, well("ok"));
}

#[test]
fn each_probe_and_each_redirect_has_a_connection_of_its_own() {
    let site = Site::http(|path| {
        vec![Step::Send(match path {
            "/" => redirect(301, "/second?a=b"),
            "/second?a=b" => redirect(308, "third"),
            _ => page("arrived"),
        })]
    })
    .unwrap();
    let expected = well("ok");
    assert_eq!(Seen::from(probe(&url(&site, "/"), Some("arrived"))), expected);
    assert_eq!(site.connections(), 3);
}

#[test]
fn redirects_are_followed_as_browsers_do() {
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
    let see = |path: &str| Seen::from(probe(&url(&site, path), None));
    assert_eq!(see("/300"), well("multiple choices"));
    assert_eq!(see("/302"), well("ok"));
    assert_eq!(see("/303"), well("ok"));
    assert_eq!(see("/307"), well("ok"));
    assert_eq!(see("/twice"), well("ok"));
    assert_eq!(see("/nowhere"), well("found"));
    let refused =
        |detail| broken(phrase::INVALID_REDIRECT, detail).because("redirect_refused", "redirect");
    assert_eq!(see("/ftp"), refused("ftp://127.0.0.1/file"));
    assert_eq!(see("/bad"), refused("invalid IPv6 address: http://[::1/"));
    let looped = format!("more than 10, last to http://127.0.0.1:{}/loop", site.port());
    let looped =
        || broken(phrase::TOO_MANY_REDIRECTS, &looped).because("too_many_redirects", "redirect");
    // Credentials stay with a relative redirect, and out of what is told of it.
    let with_secret = format!("http://user:s3cret@127.0.0.1:{}/loop", site.port());
    let seen = Seen::from(probe(&with_secret, None));
    assert_eq!(seen, looped());
    assert_eq!(see("/ftp-user"), refused("ftp://127.0.0.1/file"));
    let before = site.connections();
    assert_eq!(see("/loop"), looped());
    assert_eq!(site.connections() - before, 11);
    let none = Limits { redirects_max: 0, ..limits() };
    let seen = Seen::from(probe_within(none, &url(&site, "/302"), None));
    assert_eq!(seen.phrase, phrase::TOO_MANY_REDIRECTS);
}

#[test]
fn what_fails_behind_a_redirect_names_the_host() {
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
    let seen = Seen::from(probe(&url(&site, "/gone"), None));
    assert_eq!(seen, no_such_domain(Some("gone.invalid")));
    let seen = Seen::from(probe(&url(&site, "/"), None));
    let detail = format!("127.0.0.1: 127.0.0.1:{port}");
    assert_eq!(seen, refused(&detail));
}

#[test]
fn a_connection_that_does_not_come_about_is_told_apart() {
    let refusing = RefusingPort::new().unwrap();
    let port = refusing.port().unwrap();
    let seen = Seen::from(probe(&format!("http://127.0.0.1:{port}/"), None));
    assert_eq!(seen, refused(&format!("127.0.0.1:{port}")));

    // No host has the broadcast address, and the kernel says so at once.
    let seen = Seen::from(probe("http://127.255.255.255:81/", None));
    let expected = unanswered(phrase::NETWORK_UNREACHABLE, "127.255.255.255:81");
    assert_eq!(seen, expected.because("connect_unreachable", "connect"));

    let hole = BlackHole::new().unwrap();
    let port = hole.port().unwrap();
    let short = Limits { timeout: Duration::from_millis(300), ..limits() };
    let seen = Seen::from(probe_within(short, &format!("http://127.0.0.1:{port}/"), None));
    let expected = unanswered(phrase::CONNECTION_TIMEOUT, &format!("127.0.0.1:{port}"));
    assert_eq!(seen, expected.because("connect_timeout", "connect"));

    let seen = Seen::from(probe("http://no-such-name.invalid/", None));
    assert_eq!(seen, no_such_domain(None));
}

/// The one thing that connect(2) refuses for another reason without rights:
/// an address that is a link's, and the link is not said.
#[test]
fn what_the_system_says_of_a_connection_is_passed_on() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        println!("not tried: no ipv6 on this machine");
        return;
    }
    let seen = Seen::from(probe("http://[fe80::1]/", None));
    let text = "Invalid argument (os error 22) ([fe80::1]:80)";
    let expected = unanswered(phrase::CONNECTION_FAILED, text);
    assert_eq!(seen, expected.because("connect_failed", "connect"));
}

#[test]
fn a_request_that_is_not_taken_is_told_from_an_answer_that_does_not_come() {
    let site = Site::raw_with_small_buffers(vec![Step::ReadSome, Step::Reset]).unwrap();
    let seen = Seen::from(probe(&large_request(&site), None));
    let expected = unanswered(phrase::CONNECTION_FAILED, "in the request: connection reset");
    assert_eq!(seen, expected.because("send_failed", "request"));
}

#[test]
fn a_connection_that_breaks_is_told_apart_by_how_and_where() {
    let (closed, reset) = (phrase::CONNECTION_CLOSED, phrase::CONNECTION_RESET);
    let mut half = status_response(200);
    half.truncate(20);
    let mut most = status_response(200);
    most.truncate(most.len() - 1);
    let headless = response_head(200, &[]);
    let read = Step::ReadRequest;
    let send = |bytes: &Vec<u8>| Step::Send(bytes.clone());
    for (steps, expected) in [
        (
            vec![read.clone()],
            unanswered(closed, "before the first byte").because("closed_early", "first_byte"),
        ),
        (
            vec![read.clone(), send(&half)],
            unanswered(closed, "in the head").because("closed_early", "head"),
        ),
        (
            vec![read.clone(), send(&most)],
            broken(closed, "in the body").because("closed_early", "body"),
        ),
        (
            vec![read.clone(), Step::Reset],
            unanswered(reset, "before the first byte").because("connection_reset", "first_byte"),
        ),
        (
            vec![read.clone(), send(&half), Step::Reset],
            unanswered(reset, "in the head").because("connection_reset", "head"),
        ),
        (
            vec![read.clone(), send(&most), Step::Reset],
            broken(reset, "in the body").because("connection_reset", "body"),
        ),
        // A body that ends with the connection ends well only by a close.
        (vec![read.clone(), send(&headless)], well("ok")),
        (
            vec![read.clone(), send(&headless), Step::Reset],
            broken(reset, "in the body").because("connection_reset", "body"),
        ),
    ] {
        let shown = format!("{steps:?}");
        assert_eq!(does(steps), expected, "{shown}");
    }
}

#[test]
fn what_is_not_http_is_an_invalid_response() {
    let invalid = phrase::INVALID_RESPONSE;
    let large = response_head(200, &[&format!("X: {}", "x".repeat(70_000))]);
    let bad_length = response_head(200, &["Content-Length: many"]);
    let bad_chunks = [response_head(200, &["Transfer-Encoding: chunked"]), b"xyz\r\n".to_vec()];
    let many: Vec<_> = (0..200).map(|i| format!("X-{i}: x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for (bytes, expected) in [
        (
            b"220 mail.example ESMTP\r\n".to_vec(),
            unanswered(invalid, "http parse fail: invalid HTTP version")
                .because("malformed_response", "head"),
        ),
        (
            b"\x16\x03\x01\x00\x01".to_vec(),
            unanswered(invalid, "http parse fail: invalid HTTP version")
                .because("malformed_response", "head"),
        ),
        (
            b"HTTP/1.1 2000 Ok\r\n\r\n".to_vec(),
            unanswered(invalid, "http parse fail: invalid response status")
                .because("malformed_response", "head"),
        ),
        (large, unanswered(invalid, "more than 64 KiB").because("head_too_large", "head")),
        (
            response_head(200, &many),
            unanswered(invalid, "http parse resulted in too many headers")
                .because("malformed_response", "head"),
        ),
        (
            bad_length,
            unanswered(invalid, "content-length header not a number")
                .because("malformed_response", "head"),
        ),
        (
            bad_chunks.concat(),
            broken(invalid, "chunk length cannot be read as a number")
                .because("malformed_response", "body"),
        ),
    ] {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(sends(bytes), expected, "{start}");
    }
    // Long, and within the bound.
    let long = response_head(204, &[&format!("X: {}", "x".repeat(60_000))]);
    assert_eq!(sends(long), well("no content"));
}

#[test]
fn the_times_are_those_of_dns_and_of_the_response_apart_and_summed_over_redirects() {
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
    let sources = sources(vec![server.address()]);
    let prober = Tester::with(limits(), sources, &Roots::These(vec![]));
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
fn a_proxy_in_the_environment_is_not_taken() {
    // The test's own process can't change its environment safely, so another
    // process runs one test of this file with it.
    let program = std::env::current_exe().unwrap();
    let run = std::process::Command::new(program)
        .args(["--exact", "verdicts::each_probe_and_each_redirect_has_a_connection_of_its_own"])
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn every_site_of_the_demonstration_gets_what_it_promises() {
    let demo = start_demo_sites().unwrap();
    let roots = certificates(&demo.ca_pem);
    let limits = Limits { timeout: Duration::from_millis(2500), ..limits() };
    let prober = Tester::with(limits, sources(vec![]), &Roots::These(roots));
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
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
