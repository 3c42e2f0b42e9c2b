//! What a file of targets can ask for, each key seen to be honoured.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::phrase;
use common::settings::{Environment, Given, Origin};
use testkit::certificates::{Authority, Validity};
use testkit::dns::{DnsServer, Does, Kind};
use testkit::sites::{Site, Step, page, redirect, with_length};
use tracker::probe::{Outcome, Prober, Roots};
use tracker::targets::{Defaults, Listing, Target};

use super::{Seen, broken, mismatched, sources, unanswered, unexpected, unresolved, well};

/// Reads a file with one target, of this URL and these further lines.
fn target(url: &str, lines: &str) -> Arc<Target> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("probe-targets-{}-{count}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, format!("[[target]]\nurl = '{url}'\n{lines}\n")).unwrap();
    let listing = Listing {
        websites: None,
        file: Some(Given { value: path.display().to_string(), origin: Origin::Flag("--targets") }),
        defaults: Defaults { timeout: super::AMPLE, ..Defaults::default() },
        topic_prefix: "webactivity-".to_owned(),
        location: "oslo".to_owned(),
        share: None,
    };
    let listed = listing.read(&Environment::from_variables(&[("TOKEN", "t0ken")]));
    std::fs::remove_file(&path).unwrap();
    listed.unwrap().targets.remove(0)
}

pub(crate) fn outcome_with(roots: Roots, url: &str, lines: &str) -> Outcome {
    Prober::new(sources(vec![]), &roots).unwrap().probe(&target(url, lines).ask())
}

pub(crate) fn see(url: &str, lines: &str) -> Seen {
    outcome_with(Roots::These(vec![]), url, lines).into()
}

/// A site that answers so whatever is asked, and what it is asked with these lines.
fn asked(lines: &str) -> String {
    let site = Site::http(|_| vec![Step::Send(page("x"))]).unwrap();
    assert_eq!(see(&url_of(&site), lines), well("ok"), "{lines}");
    site.requests()[0].clone()
}

pub(crate) fn url_of(site: &Site) -> String {
    format!("http://127.0.0.1:{}/", site.port())
}

/// A file of the system's for temporary ones, with this text.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("probe-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn what_is_sent_is_what_the_target_says() {
    let plain = asked("");
    let agent = concat!("websites-availability-tracker/", env!("CARGO_PKG_VERSION"));
    for line in ["GET / HTTP/1.1\r\n", "connection: close\r\n", "accept: */*\r\n", agent] {
        assert!(plain.contains(line), "{line}: {plain}");
    }
    for (lines, expected) in [
        ("method = 'delete'", &["DELETE / HTTP/1.1\r\n"][..]),
        ("method = 'OPTIONS'", &["OPTIONS / HTTP/1.1\r\n"]),
        ("method = 'POST'", &["POST / HTTP/1.1\r\n", "content-length: 0\r\n", "\r\n\r\n"]),
        (
            "method = 'PUT'\nbody = 'söme'\nheaders = { Content-Type = 'text/plain' }",
            &["PUT / ", "content-type: text/plain\r\n", "content-length: 5\r\n", "\r\n\r\nsöme"],
        ),
        ("body = '{}'", &["GET / ", "content-length: 2\r\n", "\r\n\r\n{}"]),
        ("headers = { Host = 'a.example' }", &["host: a.example\r\n"]),
        ("headers = { User-Agent = 'me', X = 'ü' }", &["user-agent: me\r\n", "x: ü\r\n"]),
        ("headers = { X = { variable = 'TOKEN' } }", &["x: t0ken\r\n"]),
        ("bearer = { variable = 'TOKEN' }", &["authorization: Bearer t0ken\r\n"]),
        ("basic = { user = 'u', password = 'pü' }", &["authorization: Basic dTpww7w=\r\n"]),
    ] {
        let request = asked(lines);
        for part in expected {
            assert!(request.contains(part), "{lines}: {part}: {request}");
        }
        let hosts = request.lines().filter(|line| line.starts_with("host:")).count();
        assert_eq!(hosts, 1, "{request}");
    }
    let long = "v".repeat(8 * 1024);
    assert!(asked(&format!("headers = {{ a = '{long}', b = '{long}' }}")).contains(&long));
    let body = "b".repeat(64 * 1024);
    assert!(asked(&format!("method = 'POST'\nbody = '{body}'")).ends_with(&body));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let site =
        Site::http(|_| vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec())]);
    let site = site.unwrap();
    assert_eq!(
        see(&url_of(&site), "method = 'HEAD'\nheader_match = { content-length = '^9$' }"),
        well("ok")
    );
    assert!(site.requests()[0].starts_with("HEAD / HTTP/1.1\r\n"));
}

#[test]
fn secrets_stay_on_their_own_site() {
    let other = Site::http(|_| vec![Step::Send(page("x"))]).unwrap();
    let location = url_of(&other);
    let site = Site::http(move |path| {
        let status = path.trim_start_matches('/').parse().unwrap_or(307);
        vec![Step::Send(if path == "/end" {
            page("x")
        } else if path == "/same" {
            redirect(307, "/end")
        } else {
            redirect(status, &location)
        })]
    })
    .unwrap();
    let lines = "method = 'POST'\nbody = 'the body'\nbearer = 's3cret'\n\
                 headers = { X-Key = 's3cret', Accept = 'text/html', Content-Type = 'a/b' }";
    assert_eq!(see(&format!("{}same", url_of(&site)), lines), well("ok"));
    let same = site.requests()[1].clone();
    for part in ["POST /end", "x-key: s3cret", "authorization: Bearer s3cret", "\r\n\r\nthe body"] {
        assert!(same.contains(part), "{part}: {same}");
    }
    assert_eq!(see(&format!("{}303", url_of(&site)), lines), well("ok"));
    let request = other.requests().back().unwrap().clone();
    assert!(request.starts_with("GET / ") && request.ends_with("\r\n\r\n"), "{request}");
    assert!(request.contains("accept: text/html") && !request.contains("s3cret"), "{request}");
    // A body may be a secret, too.
    for status in [307, 308] {
        let outcome =
            outcome_with(Roots::These(vec![]), &format!("{}{status}", url_of(&site)), lines);
        let detail = format!("the body is for its own site alone: {}", url_of(&other));
        assert_eq!(outcome.detail, Some(detail));
        assert_eq!((outcome.phrase, outcome.facts.redirects), (phrase::INVALID_REDIRECT, 0));
    }
    assert_eq!(other.requests().len(), 1);
}

/// Two headers of that name are a bad request to most servers.
#[test]
fn who_asks_is_said_once() {
    let site = Site::http(|_| vec![Step::Send(page("x"))]).unwrap();
    let url = url_of(&site).replace("//", "//u:s3cret@");
    for (lines, expected) in [
        ("headers = { Authorization = 'Digest x' }", "Digest x"),
        ("bearer = 't'", "Bearer t"),
        ("", "Basic dTpzM2NyZXQ="),
    ] {
        assert_eq!(see(&url, lines), well("ok"));
        let request = site.requests().back().unwrap().clone();
        let said: Vec<_> =
            request.lines().filter_map(|line| line.strip_prefix("authorization: ")).collect();
        assert_eq!(said, [expected], "{request}");
    }
}

#[test]
fn each_check_says_what_it_found() {
    let site = Site::http(|path| {
        let headers = ["Content-Type: application/json", "Server: nginx/1.2"];
        let body = br#"{"state": "up", "count": 3}"#;
        vec![Step::Send(with_length(path.trim_start_matches('/').parse().unwrap(), &headers, body))]
    })
    .unwrap();
    let see = |status: u16, lines: &str| see(&format!("{}{status}", url_of(&site)), lines);
    let page_not = phrase::PAGE_CONTENT_NOT_EXPECTED;
    for (status, lines, expected) in [
        (200, "status = '200-299'", well("ok")),
        (404, "status = [404, 410]", well("not found")),
        (404, "status = 200", unexpected("not found", Some("404: expected 200"))),
        (
            200,
            "status = ['404', '500-599']",
            unexpected(page_not, Some("200: expected 404, 500-599")),
        ),
        (
            500,
            "status = 200\nmatch = 'x'",
            unexpected("internal server error", Some("500: expected 200")),
        ),
        (500, "match = 'zzz'", mismatched("zzz")),
        (200, "match = ['state', 'up']", well("ok")),
        (200, "match = ['state', 'down']", mismatched("down")),
        (200, "not_match = 'down'", well("ok")),
        (200, "not_match = ['down', 'up']", mismatched("found: up")),
        (200, "header_match = { server = '^nginx' }", well("ok")),
        (
            200,
            "header_match = { server = 'caddy' }",
            mismatched("server: nginx/1.2: expected caddy").because("header_not_expected", "check"),
        ),
        (
            200,
            r"header_not_match = { server = '\d' }",
            mismatched(r"server: nginx/1.2: expected not \d")
                .because("header_not_expected", "check"),
        ),
        (200, "json = { '/state' = 'up', '/count' = 3.0 }", well("ok")),
        (
            200,
            "json = { '/state' = 'down' }",
            mismatched(r#"/state: "up": expected "down""#).because("json_not_expected", "check"),
        ),
        (200, "match = 'state'\nbody_bytes_max = 8", well("ok")),
        (200, "match = 'state'\nbody_bytes_max = 4", mismatched("state")),
        (200, "latency_ms_max = 20000", well("ok")),
        (200, "certificate_days_min = 10", well("ok")),
    ] {
        assert_eq!(see(status, lines), expected, "{lines}");
    }
}

#[test]
fn slow_is_a_warning_or_a_failure() {
    let site =
        Site::http(|_| vec![Step::Wait(Duration::from_millis(30)), Step::Send(page("x"))]).unwrap();
    for (lines, healthy, phrase) in [
        ("latency_ms_max = 20", true, "ok"),
        ("latency_ms_max = 20\ntoo_slow = 'failure'", false, phrase::RESPONSE_TIMEOUT),
    ] {
        let outcome = outcome_with(Roots::These(vec![]), &url_of(&site), lines);
        assert_eq!((outcome.healthy(), outcome.phrase), (healthy, phrase));
        let detail = outcome.detail.unwrap();
        assert!(detail.ends_with(" ms: expected 20 at most"), "{detail}");
        assert_eq!(outcome.failure.unwrap().reason.as_str(), "too_slow");
    }
}

#[test]
fn redirects_are_counted_or_are_the_answer() {
    let site = Site::http(|path| {
        let next = path.len().to_string();
        vec![Step::Send(if path.len() > 3 {
            page("x")
        } else {
            redirect(302, &format!("{path}{next}"))
        })]
    })
    .unwrap();
    let url = url_of(&site);
    assert_eq!(see(&url, "redirects = 3"), well("ok"));
    let detail = format!("more than 2, last to {url}12");
    let expected =
        broken(phrase::TOO_MANY_REDIRECTS, &detail).because("too_many_redirects", "redirect");
    assert_eq!(see(&url, "redirects = 2"), expected);
    assert_eq!(see(&url, "redirects = 'none'"), well("found"));
    assert_eq!(
        see(&url, "redirects = 'none'\nstatus = 302\nheader_match = { location = '^/1$' }"),
        well("found")
    );
}

#[test]
fn the_time_out_is_the_targets_own() {
    let site = Site::http(|_| vec![Step::Hang]).unwrap();
    let begun = Instant::now();
    let expected = unanswered(phrase::RESPONSE_TIMEOUT, "before the first byte")
        .because("first_byte_timeout", "first_byte");
    assert_eq!(see(&url_of(&site), "timeout_s = 0.2"), expected);
    let took = begun.elapsed();
    assert!((200..5_000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn families_and_name_servers_are_the_targets_own() {
    let site = Site::http(|_| vec![Step::Send(page("x"))]).unwrap();
    let expected = |detail| {
        unresolved(phrase::DOMAIN_WITHOUT_ADDRESS, detail).because("dns_no_address", "resolve")
    };
    assert_eq!(see(&url_of(&site), "ip = 4"), well("ok"));
    let rules = [
        ("site.example", Kind::A, Does::Addresses(vec!["127.0.0.1".parse().unwrap()])),
        ("site.example", Kind::Aaaa, Does::Addresses(vec![])),
    ];
    let server = DnsServer::start(&rules).unwrap();
    let url = format!("http://site.example:{}/", site.port());
    assert_eq!(see(&url, &format!("resolver = '{}'", server.address())), well("ok"));
    let six = format!("ip = 6\nresolver = '{}'", server.address());
    assert_eq!(see(&url, &six), expected(None));
    let both = outcome_with(
        Roots::These(vec![]),
        &url,
        &format!("ip = 'both'\nresolver = ['{}']", server.address()),
    );
    assert_eq!(both.failure.unwrap().reason.as_str(), "dns_no_address");
}

#[test]
fn certificates_are_the_targets_own() {
    let (trusted, own) = (Authority::new("trusted").unwrap(), Authority::new("own").unwrap());
    let names = ["127.0.0.1"];
    let (certificate, key) = own.client().unwrap();
    let files = [
        File::new("ca.pem", &own.pem()),
        File::new("cert.pem", &certificate),
        File::new("key.pem", &key),
    ];
    let [ca, cert, key] = files.each_ref().map(|file| file.0.display());
    let ca = format!("ca = '{ca}'");
    let identity = format!("cert = '{cert}'\nkey = '{key}'\n{ca}");
    let soon = "certificate_days_min = 14";
    let soon_fails = format!("{soon}\ncertificate_expires_soon = 'failure'");
    let warned = |seen: Seen| {
        Seen { detail: Some("ends in 3 days: expected 14 at least".to_owned()), ..seen }
            .because("certificate_expires_soon", "check")
    };
    let unknown = || {
        broken(phrase::SSL_ERROR, "certificate of an unknown issuer")
            .because("tls_unknown_issuer", "tls")
    };
    for (config, lines, expected) in [
        (trusted.server(&names, Validity::Now), "", well("ok")),
        (trusted.server(&names, Validity::Now), &*ca, well("ok")),
        (own.server(&names, Validity::Now), "", unknown()),
        (own.server(&names, Validity::Now), &*ca, well("ok")),
        (own.server(&["other.example"], Validity::Over), "insecure = true", well("ok")),
        (trusted.server(&names, Validity::EndsInDays(15)), soon, well("ok")),
        (trusted.server(&names, Validity::EndsInDays(3)), soon, warned(well("ok"))),
        (
            trusted.server(&names, Validity::EndsInDays(3)),
            &*soon_fails,
            warned(well(phrase::SSL_ERROR)),
        ),
        (own.server_for_clients(&names), &*identity, well("ok")),
    ] {
        let site = Site::https(config.unwrap(), |_| vec![Step::Send(page("x"))]).unwrap();
        let url = format!("https://127.0.0.1:{}/", site.port());
        let roots = Roots::These(vec![trusted.certificate()]);
        assert_eq!(Seen::from(outcome_with(roots, &url, lines)), expected, "{lines}");
    }
    let site =
        Site::https(own.server_for_clients(&names).unwrap(), |_| vec![Step::Send(page("x"))])
            .unwrap();
    let url = format!("https://127.0.0.1:{}/", site.port());
    let seen = see(&url, &ca);
    assert_eq!(seen.detail.as_deref(), Some("the site says: certificate required"));
    // To a site that it led to, the target's own certificate is not shown.
    let location = url.clone();
    let config = own.server(&names, Validity::Now).unwrap();
    let first = Site::https(config, move |_| vec![Step::Send(redirect(302, &location))]).unwrap();
    let seen = see(&format!("https://127.0.0.1:{}/", first.port()), &identity);
    assert_eq!(seen.detail.as_deref(), Some("127.0.0.1: the site says: certificate required"));
}
