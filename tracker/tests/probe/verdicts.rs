use std::time::Duration;

use common::phrase;
use testkit::certificates::{Authority, Validity, self_signed};
use testkit::dns::{DnsServer, Does, Kind};
use testkit::sites::{
    BlackHole, Refusing, Site, Step, answer, demo, head_of, page, redirect, with_length,
};
use tracker::probe::{Limits, Outcome, Prober, Roots};

use crate::{
    Seen, answered, broken, limits, probe, probe_within, prober_with, sources, unanswered,
    unresolved,
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
        assert_eq!(sends(answer(status)), answered(phrase, None), "{status}");
    }
    for (status, number) in [(299, "299"), (418, "418"), (599, "599"), (999, "999")] {
        let expected = answered(phrase::UNKNOWN_STATUS, Some(number));
        assert_eq!(sends(answer(status)), expected, "{status}");
    }
}

#[test]
fn an_interim_answer_is_passed_over() {
    let early = head_of(103, &["Link: </style.css>; rel=preload"]);
    assert_eq!(sends([early, answer(200)].concat()), answered("ok", None));
}

#[test]
fn the_page_is_searched_whatever_its_status() {
    let site = Site::http(|path| {
        let status = if path == "/gone" { 404 } else { 200 };
        vec![Step::Send(with_length(status, &[], b"one <b>two</b> three"))]
    })
    .unwrap();
    for (path, check, expected) in [
        ("/", r"<b>t\w+", answered("ok", None)),
        ("/gone", "three$", answered("not found", None)),
        ("/", "four", answered(phrase::PAGE_CONTENT_NOT_EXPECTED, Some("four"))),
        ("/gone", "four", answered(phrase::PAGE_CONTENT_NOT_EXPECTED, Some("four"))),
    ] {
        assert_eq!(Seen::from(probe(&url(&site, path), Some(check))), expected, "{path} {check}");
    }
    let long = "é".repeat(200);
    let outcome = probe(&url(&site, "/"), Some(&long));
    assert_eq!(outcome.detail, Some("é".repeat(128)));
}

#[test]
fn a_request_says_who_asks_and_for_what() {
    let site = Site::http(|_| vec![Step::Send(answer(200))]).unwrap();
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
    assert_eq!(seen, answered("ok", None));
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
    let expected = answered("ok", None);
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
            "/twice" => with_length(302, &["Location: /end", "Location: /end"], b""),
            "/nowhere" => answer(302),
            "/ftp" => redirect(302, "ftp://127.0.0.1/file"),
            "/ftp-user" => redirect(302, "ftp://user:s3cret@127.0.0.1/file"),
            "/bad" => redirect(302, "http://[::1/"),
            "/loop" => redirect(302, "/loop"),
            "/end" | "/307?end" => page("end"),
            _ => answer(404),
        };
        vec![Step::Send(step)]
    })
    .unwrap();
    let see = |path: &str| Seen::from(probe(&url(&site, path), None));
    assert_eq!(see("/300"), answered("multiple choices", None));
    assert_eq!(see("/302"), answered("ok", None));
    assert_eq!(see("/303"), answered("ok", None));
    assert_eq!(see("/307"), answered("ok", None));
    assert_eq!(see("/twice"), answered("ok", None));
    assert_eq!(see("/nowhere"), answered("found", None));
    assert_eq!(see("/ftp"), broken(phrase::INVALID_REDIRECT, "ftp://127.0.0.1/file"));
    assert_eq!(see("/bad"), broken(phrase::INVALID_REDIRECT, "invalid IPv6 address: http://[::1/"));
    let looped = format!("more than 10, last to http://127.0.0.1:{}/loop", site.port());
    // Credentials stay with a relative redirect, and out of what is told of it.
    let with_secret = format!("http://user:s3cret@127.0.0.1:{}/loop", site.port());
    let seen = Seen::from(probe(&with_secret, None));
    assert_eq!(seen, broken(phrase::TOO_MANY_REDIRECTS, &looped));
    assert_eq!(see("/ftp-user"), broken(phrase::INVALID_REDIRECT, "ftp://127.0.0.1/file"));
    let before = site.connections();
    assert_eq!(see("/loop"), broken(phrase::TOO_MANY_REDIRECTS, &looped));
    assert_eq!(site.connections() - before, 11);
    let none = Limits { redirects_max: 0, ..limits() };
    let seen = Seen::from(probe_within(none, &url(&site, "/302"), None));
    assert_eq!(seen.phrase, phrase::TOO_MANY_REDIRECTS);
}

#[test]
fn what_fails_behind_a_redirect_names_the_host() {
    let refusing = Refusing::new().unwrap();
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
    assert_eq!(seen, unresolved(phrase::DOMAIN_NOT_EXIST, Some("gone.invalid")));
    let seen = Seen::from(probe(&url(&site, "/"), None));
    let detail = format!("127.0.0.1: 127.0.0.1:{port}");
    assert_eq!(seen, unanswered(phrase::CONNECTION_REFUSED, &detail));
}

#[test]
fn a_connection_that_does_not_come_about_is_told_apart() {
    let refusing = Refusing::new().unwrap();
    let port = refusing.port().unwrap();
    let seen = Seen::from(probe(&format!("http://127.0.0.1:{port}/"), None));
    assert_eq!(seen, unanswered(phrase::CONNECTION_REFUSED, &format!("127.0.0.1:{port}")));

    // No host has the broadcast address, and the kernel says so at once.
    let seen = Seen::from(probe("http://127.255.255.255:81/", None));
    assert_eq!(seen, unanswered(phrase::NETWORK_UNREACHABLE, "127.255.255.255:81"));

    let hole = BlackHole::new().unwrap();
    let port = hole.port().unwrap();
    let short = Limits { timeout: Duration::from_millis(300), ..limits() };
    let seen = Seen::from(probe_within(short, &format!("http://127.0.0.1:{port}/"), None));
    assert_eq!(seen, unanswered(phrase::CONNECTION_TIMEOUT, &format!("127.0.0.1:{port}")));

    let seen = Seen::from(probe("http://no-such-name.invalid/", None));
    assert_eq!(seen, unresolved(phrase::DOMAIN_NOT_EXIST, None));
}

#[test]
fn a_connection_that_breaks_is_told_apart_by_how_and_where() {
    let (closed, reset) = (phrase::CONNECTION_CLOSED, phrase::CONNECTION_RESET);
    let mut half = answer(200);
    half.truncate(20);
    let mut most = answer(200);
    most.truncate(most.len() - 1);
    let headless = head_of(200, &[]);
    let read = Step::ReadRequest;
    let send = |bytes: &Vec<u8>| Step::Send(bytes.clone());
    for (steps, expected) in [
        (vec![read.clone()], unanswered(closed, "before the first byte")),
        (vec![read.clone(), send(&half)], unanswered(closed, "in the head")),
        (vec![read.clone(), send(&most)], broken(closed, "in the body")),
        (vec![read.clone(), Step::Reset], unanswered(reset, "before the first byte")),
        (vec![read.clone(), send(&half), Step::Reset], unanswered(reset, "in the head")),
        (vec![read.clone(), send(&most), Step::Reset], broken(reset, "in the body")),
        // A body that ends with the connection ends well only by a close.
        (vec![read.clone(), send(&headless)], answered("ok", None)),
        (vec![read.clone(), send(&headless), Step::Reset], broken(reset, "in the body")),
    ] {
        let shown = format!("{steps:?}");
        assert_eq!(does(steps), expected, "{shown}");
    }
}

#[test]
fn what_is_not_http_is_an_invalid_response() {
    let invalid = phrase::INVALID_RESPONSE;
    let large = head_of(200, &[&format!("X: {}", "x".repeat(70_000))]);
    let bad_length = head_of(200, &["Content-Length: many"]);
    let bad_chunks = [head_of(200, &["Transfer-Encoding: chunked"]), b"xyz\r\n".to_vec()];
    let many: Vec<_> = (0..200).map(|i| format!("X-{i}: x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for (bytes, expected) in [
        (
            b"220 mail.example ESMTP\r\n".to_vec(),
            unanswered(invalid, "http parse fail: invalid HTTP version"),
        ),
        (
            b"\x16\x03\x01\x00\x01".to_vec(),
            unanswered(invalid, "http parse fail: invalid HTTP version"),
        ),
        (
            b"HTTP/1.1 2000 Ok\r\n\r\n".to_vec(),
            unanswered(invalid, "http parse fail: invalid response status"),
        ),
        (large, unanswered(invalid, "a head of more than 64 KiB")),
        (head_of(200, &many), unanswered(invalid, "http parse resulted in too many headers")),
        (bad_length, unanswered(invalid, "content-length header not a number")),
        (bad_chunks.concat(), broken(invalid, "chunk length cannot be read as a number")),
    ] {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(sends(bytes), expected, "{start}");
    }
    // Long, and within the bound.
    let long = head_of(204, &[&format!("X: {}", "x".repeat(60_000))]);
    assert_eq!(sends(long), answered("no content", None));
}

#[test]
fn each_fault_of_a_certificate_is_named() {
    let authority = Authority::new("trusted").unwrap();
    let other = Authority::new("other").unwrap();
    let prober = prober_with(limits(), vec![authority.certificate()]);
    let see = |config| {
        let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
        let url = format!("https://site.localhost:{}/", site.port());
        Seen::from(prober.probe(&url.parse().unwrap(), None))
    };
    let name = ["site.localhost"];
    let error = phrase::SSL_ERROR;
    let now = Validity::Now;
    assert_eq!(see(authority.server(&name, now).unwrap()), answered("ok", None));
    for (config, detail) in [
        (authority.server(&name, Validity::Over), "certificate expired"),
        (authority.server(&name, Validity::NotYet), "certificate not yet valid"),
        (
            authority.server(&["a.example", "b.example"], now),
            "certificate for another host: a.example, b.example",
        ),
        (authority.server(&[], now), "certificate for another host: it names none"),
        (other.server(&name, now), "certificate of an unknown issuer"),
        (self_signed(&name), "self-signed certificate"),
    ] {
        assert_eq!(see(config.unwrap()), broken(error, detail));
    }
}

#[test]
fn an_address_and_a_name_with_a_dot_have_certificates_too() {
    let authority = Authority::new("trusted").unwrap();
    let prober = prober_with(limits(), vec![authority.certificate()]);
    let config = authority.server(&["127.0.0.1", "site.localhost"], Validity::Now).unwrap();
    let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
    for host in ["127.0.0.1", "site.localhost."] {
        let url = format!("https://{host}:{}/", site.port());
        let seen = Seen::from(prober.probe(&url.parse().unwrap(), None));
        assert_eq!(seen, answered("ok", None), "{host}");
    }
}

#[test]
fn tls_that_does_not_come_about_is_told_apart() {
    let see = |steps| {
        let site = Site::raw(steps).unwrap();
        Seen::from(probe(&format!("https://127.0.0.1:{}/", site.port()), None))
    };
    let answers = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    // A fatal alert, handshake_failure.
    let alert = b"\x15\x03\x03\x00\x02\x02\x28".to_vec();
    assert_eq!(
        see(vec![Step::Send(answers), Step::Hang]),
        broken(phrase::SSL_ERROR, "the answer is not tls")
    );
    assert_eq!(
        see(vec![Step::Send(alert), Step::Hang]),
        broken(phrase::SSL_ERROR, "the site says: handshake failure")
    );
    let place = "in the tls handshake";
    assert_eq!(see(vec![Step::Reset]), unanswered(phrase::CONNECTION_RESET, place));
    // A close with the greeting unread is a reset; half a record is read here.
    let half = b"\x16\x03\x03\x00\x40".to_vec();
    let shut = vec![Step::ReadSome, Step::Send(half)];
    assert_eq!(see(shut), unanswered(phrase::CONNECTION_CLOSED, place));
}

#[test]
fn a_machine_without_roots_says_so() {
    let authority = Authority::new("trusted").unwrap();
    let config = authority.server(&["127.0.0.1"], Validity::Now).unwrap();
    let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
    let seen = Seen::from(probe(&format!("https://127.0.0.1:{}/", site.port()), None));
    let detail = "no root certificates on this machine";
    assert_eq!(seen, broken(phrase::SSL_ERROR, detail));
}

#[test]
fn the_times_are_those_of_dns_and_of_the_response_apart_and_summed_over_redirects() {
    let wait = Duration::from_millis(150);
    let late = |does| Does::Late(wait * 2, Box::new(does));
    let address = Does::Addresses(vec!["127.0.0.1".parse().unwrap()]);
    let server = DnsServer::start(&[
        ("slow.example", Kind::A, late(address)),
        ("slow.example", Kind::Aaaa, Does::NoData),
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
    let prober = Prober::with(limits(), sources, &Roots::These(vec![])).unwrap();
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
    let demo = demo().unwrap();
    let roots = certificates(&demo.ca_pem);
    let limits = Limits { timeout: Duration::from_millis(2500), ..limits() };
    let prober = Prober::with(limits, sources(vec![]), &Roots::These(roots)).unwrap();
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
