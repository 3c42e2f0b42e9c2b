//! The options of a target: each option has its effect.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::phrase;
use common::settings::{Environment, Origin, SettingValue};
use testkit::certificates::{Authority, CertificateValidity};
use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::sites::{Site, Step, page, redirect, response_with_body};
use tracker::probe::{ProbeOutcome, Prober, Roots};
use tracker::targets::{Target, TargetDefaults, TargetSource};

use super::{
    Observed, incomplete, no_response, resolver_config, success, unexpected_body,
    unexpected_status, unresolved,
};

/// Reads a file with one target: this URL and these options.
fn target(url: &str, lines: &str) -> Arc<Target> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("probe-targets-{}-{count}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, format!("[[target]]\nurl = '{url}'\n{lines}\n")).unwrap();
    let listing = TargetSource {
        websites: None,
        file: Some(SettingValue {
            value: path.display().to_string(),
            origin: Origin::Flag("--targets"),
        }),
        defaults: TargetDefaults { timeout: super::LONG_TIMEOUT, ..TargetDefaults::default() },
        topic_prefix: "webactivity-".to_owned(),
        location: "oslo".to_owned(),
        share: None,
    };
    let listed = listing.read(&Environment::from_variables(&[("TOKEN", "t0ken")]));
    std::fs::remove_file(&path).unwrap();
    listed.unwrap().targets.remove(0)
}

pub(crate) fn probe_target(roots: Roots, url: &str, lines: &str) -> ProbeOutcome {
    Prober::new(resolver_config(vec![]), &roots).unwrap().probe(&target(url, lines).probe_request())
}

pub(crate) fn observe(url: &str, lines: &str) -> Observed {
    probe_target(Roots::Custom(vec![]), url, lines).into()
}

/// Probes a site with these options, and returns the request that the site received.
fn request_with(lines: &str) -> String {
    let site = Site::http(|_| vec![Step::Send(page("x"))]).unwrap();
    assert_eq!(observe(&url_of(&site), lines), success("ok"), "{lines}");
    site.requests()[0].clone()
}

pub(crate) fn url_of(site: &Site) -> String {
    format!("http://127.0.0.1:{}/", site.port())
}

/// A temporary file, removed at the end.
struct TargetFile(PathBuf);

impl TargetFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("probe-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TargetFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_request_is_as_the_target_defines() {
    let plain = request_with("");
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
        let request = request_with(lines);
        for part in expected {
            assert!(request.contains(part), "{lines}: {part}: {request}");
        }
        let hosts = request.lines().filter(|line| line.starts_with("host:")).count();
        assert_eq!(hosts, 1, "{request}");
    }
    let long = "v".repeat(8 * 1024);
    assert!(request_with(&format!("headers = {{ a = '{long}', b = '{long}' }}")).contains(&long));
    let body = "b".repeat(64 * 1024);
    assert!(request_with(&format!("method = 'POST'\nbody = '{body}'")).ends_with(&body));
}

#[test]
fn a_response_to_head_has_no_body() {
    let site =
        Site::http(|_| vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec())]);
    let site = site.unwrap();
    assert_eq!(
        observe(&url_of(&site), "method = 'HEAD'\nheader_match = { content-length = '^9$' }"),
        success("ok")
    );
    assert!(site.requests()[0].starts_with("HEAD / HTTP/1.1\r\n"));
}

#[test]
fn secrets_are_not_sent_to_another_site() {
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
    assert_eq!(observe(&format!("{}same", url_of(&site)), lines), success("ok"));
    let same = site.requests()[1].clone();
    for part in ["POST /end", "x-key: s3cret", "authorization: Bearer s3cret", "\r\n\r\nthe body"] {
        assert!(same.contains(part), "{part}: {same}");
    }
    assert_eq!(observe(&format!("{}303", url_of(&site)), lines), success("ok"));
    let request = other.requests().back().unwrap().clone();
    assert!(request.starts_with("GET / ") && request.ends_with("\r\n\r\n"), "{request}");
    assert!(request.contains("accept: text/html") && !request.contains("s3cret"), "{request}");
    // A body can be a secret, too.
    for status in [307, 308] {
        let outcome =
            probe_target(Roots::Custom(vec![]), &format!("{}{status}", url_of(&site)), lines);
        let detail = format!("the body is for its own site alone: {}", url_of(&other));
        assert_eq!(outcome.detail, Some(detail));
        assert_eq!((outcome.phrase, outcome.facts.redirects), (phrase::INVALID_REDIRECT, 0));
    }
    assert_eq!(other.requests().len(), 1);
}

/// Most servers reject a request with two Authorization headers.
#[test]
fn there_is_one_authorization_header() {
    let site = Site::http(|_| vec![Step::Send(page("x"))]).unwrap();
    let url = url_of(&site).replace("//", "//u:s3cret@");
    for (lines, expected) in [
        ("headers = { Authorization = 'Digest x' }", "Digest x"),
        ("bearer = 't'", "Bearer t"),
        ("", "Basic dTpzM2NyZXQ="),
    ] {
        assert_eq!(observe(&url, lines), success("ok"));
        let request = site.requests().back().unwrap().clone();
        let values: Vec<_> =
            request.lines().filter_map(|line| line.strip_prefix("authorization: ")).collect();
        assert_eq!(values, [expected], "{request}");
    }
}

#[test]
fn each_check_reports_the_received_value() {
    let site = Site::http(|path| {
        let headers = ["Content-Type: application/json", "Server: nginx/1.2"];
        let body = br#"{"state": "up", "count": 3}"#;
        vec![Step::Send(response_with_body(
            path.trim_start_matches('/').parse().unwrap(),
            &headers,
            body,
        ))]
    })
    .unwrap();
    let observe = |status: u16, lines: &str| observe(&format!("{}{status}", url_of(&site)), lines);
    let not_expected = phrase::PAGE_CONTENT_NOT_EXPECTED;
    for (status, lines, expected) in [
        (200, "status = '200-299'", success("ok")),
        (404, "status = [404, 410]", success("not found")),
        (404, "status = 200", unexpected_status("not found", Some("404: expected 200"))),
        (
            200,
            "status = ['404', '500-599']",
            unexpected_status(not_expected, Some("200: expected 404, 500-599")),
        ),
        (
            500,
            "status = 200\nmatch = 'x'",
            unexpected_status("internal server error", Some("500: expected 200")),
        ),
        (500, "match = 'zzz'", unexpected_body("zzz")),
        (200, "match = ['state', 'up']", success("ok")),
        (200, "match = ['state', 'down']", unexpected_body("down")),
        (200, "not_match = 'down'", success("ok")),
        (200, "not_match = ['down', 'up']", unexpected_body("found: up")),
        (200, "header_match = { server = '^nginx' }", success("ok")),
        (
            200,
            "header_match = { server = 'caddy' }",
            unexpected_body("server: nginx/1.2: expected caddy")
                .with_failure("header_not_expected", "check"),
        ),
        (
            200,
            r"header_not_match = { server = '\d' }",
            unexpected_body(r"server: nginx/1.2: expected not \d")
                .with_failure("header_not_expected", "check"),
        ),
        (200, "json = { '/state' = 'up', '/count' = 3.0 }", success("ok")),
        (
            200,
            "json = { '/state' = 'down' }",
            unexpected_body(r#"/state: "up": expected "down""#)
                .with_failure("json_not_expected", "check"),
        ),
        (200, "match = 'state'\nbody_bytes_max = 8", success("ok")),
        (200, "match = 'state'\nbody_bytes_max = 4", unexpected_body("state")),
        (200, "latency_ms_max = 20000", success("ok")),
        (200, "certificate_days_min = 10", success("ok")),
    ] {
        assert_eq!(observe(status, lines), expected, "{lines}");
    }
}

#[test]
fn a_slow_response_is_a_warning_or_a_failure() {
    let site =
        Site::http(|_| vec![Step::Wait(Duration::from_millis(30)), Step::Send(page("x"))]).unwrap();
    for (lines, healthy, phrase) in [
        ("latency_ms_max = 20", true, "ok"),
        ("latency_ms_max = 20\ntoo_slow = 'failure'", false, phrase::RESPONSE_TIMEOUT),
    ] {
        let outcome = probe_target(Roots::Custom(vec![]), &url_of(&site), lines);
        assert_eq!((outcome.healthy(), outcome.phrase), (healthy, phrase));
        let detail = outcome.detail.unwrap();
        assert!(detail.ends_with(" ms: expected 20 at most"), "{detail}");
        assert_eq!(outcome.failure.unwrap().reason.as_str(), "too_slow");
    }
}

#[test]
fn redirects_are_limited_or_not_followed() {
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
    assert_eq!(observe(&url, "redirects = 3"), success("ok"));
    let detail = format!("more than 2, last to {url}12");
    let expected = incomplete(phrase::TOO_MANY_REDIRECTS, &detail)
        .with_failure("too_many_redirects", "redirect");
    assert_eq!(observe(&url, "redirects = 2"), expected);
    assert_eq!(observe(&url, "redirects = 'none'"), success("found"));
    assert_eq!(
        observe(&url, "redirects = 'none'\nstatus = 302\nheader_match = { location = '^/1$' }"),
        success("found")
    );
}

#[test]
fn a_target_has_its_own_time_out() {
    let site = Site::http(|_| vec![Step::Hang]).unwrap();
    let started_at = Instant::now();
    let expected = no_response(phrase::RESPONSE_TIMEOUT, "before the first byte")
        .with_failure("first_byte_timeout", "first_byte");
    assert_eq!(observe(&url_of(&site), "timeout_s = 0.2"), expected);
    let elapsed = started_at.elapsed();
    assert!((200..5_000).contains(&elapsed.as_millis()), "{elapsed:?}");
}

#[test]
fn a_target_has_its_own_families_and_name_servers() {
    let site = Site::http(|_| vec![Step::Send(page("x"))]).unwrap();
    let expected = |detail| {
        unresolved(phrase::DOMAIN_WITHOUT_ADDRESS, detail).with_failure("dns_no_address", "resolve")
    };
    assert_eq!(observe(&url_of(&site), "ip = 4"), success("ok"));
    let rules = [
        ("site.example", QueryType::A, Behaviour::Addresses(vec!["127.0.0.1".parse().unwrap()])),
        ("site.example", QueryType::Aaaa, Behaviour::Addresses(vec![])),
    ];
    let server = DnsServer::start(&rules).unwrap();
    let url = format!("http://site.example:{}/", site.port());
    assert_eq!(observe(&url, &format!("resolver = '{}'", server.address())), success("ok"));
    let v6_only = format!("ip = 6\nresolver = '{}'", server.address());
    assert_eq!(observe(&url, &v6_only), expected(None));
    let outcome = probe_target(
        Roots::Custom(vec![]),
        &url,
        &format!("ip = 'both'\nresolver = ['{}']", server.address()),
    );
    assert_eq!(outcome.failure.unwrap().reason.as_str(), "dns_no_address");
}

#[test]
fn a_target_has_its_own_certificates() {
    let (trusted, own) = (Authority::new("trusted").unwrap(), Authority::new("own").unwrap());
    let names = ["127.0.0.1"];
    let (certificate, key) = own.client().unwrap();
    let files = [
        TargetFile::new("ca.pem", &own.pem()),
        TargetFile::new("cert.pem", &certificate),
        TargetFile::new("key.pem", &key),
    ];
    let [ca, cert, key] = files.each_ref().map(|file| file.0.display());
    let ca = format!("ca = '{ca}'");
    let identity = format!("cert = '{cert}'\nkey = '{key}'\n{ca}");
    let soon = "certificate_days_min = 14";
    let soon_fails = format!("{soon}\ncertificate_expires_soon = 'failure'");
    let with_warning = |observed: Observed| {
        Observed { detail: Some("ends in 3 days: expected 14 at least".to_owned()), ..observed }
            .with_failure("certificate_expires_soon", "check")
    };
    let unknown = || {
        incomplete(phrase::SSL_ERROR, "certificate of an unknown issuer")
            .with_failure("tls_unknown_issuer", "tls")
    };
    for (config, lines, expected) in [
        (trusted.server(&names, CertificateValidity::Now), "", success("ok")),
        (trusted.server(&names, CertificateValidity::Now), &*ca, success("ok")),
        (own.server(&names, CertificateValidity::Now), "", unknown()),
        (own.server(&names, CertificateValidity::Now), &*ca, success("ok")),
        (
            own.server(&["other.example"], CertificateValidity::Expired),
            "insecure = true",
            success("ok"),
        ),
        (trusted.server(&names, CertificateValidity::EndsInDays(15)), soon, success("ok")),
        (
            trusted.server(&names, CertificateValidity::EndsInDays(3)),
            soon,
            with_warning(success("ok")),
        ),
        (
            trusted.server(&names, CertificateValidity::EndsInDays(3)),
            &*soon_fails,
            with_warning(success(phrase::SSL_ERROR)),
        ),
        (own.server_requiring_client_certificate(&names), &*identity, success("ok")),
    ] {
        let site = Site::https(config.unwrap(), |_| vec![Step::Send(page("x"))]).unwrap();
        let url = format!("https://127.0.0.1:{}/", site.port());
        let roots = Roots::Custom(vec![trusted.certificate()]);
        assert_eq!(Observed::from(probe_target(roots, &url, lines)), expected, "{lines}");
    }
    let site = Site::https(own.server_requiring_client_certificate(&names).unwrap(), |_| {
        vec![Step::Send(page("x"))]
    })
    .unwrap();
    let url = format!("https://127.0.0.1:{}/", site.port());
    let observed = observe(&url, &ca);
    assert_eq!(observed.detail.as_deref(), Some("the site says: certificate required"));
    // Another site after a redirect does not get the client certificate.
    let location = url.clone();
    let config = own.server(&names, CertificateValidity::Now).unwrap();
    let first = Site::https(config, move |_| vec![Step::Send(redirect(302, &location))]).unwrap();
    let observed = observe(&format!("https://127.0.0.1:{}/", first.port()), &identity);
    assert_eq!(observed.detail.as_deref(), Some("127.0.0.1: the site says: certificate required"));
}
