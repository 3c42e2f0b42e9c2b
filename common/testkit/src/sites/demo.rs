//! A named set of local sites that covers the verdicts of the tracker.

use std::io;
use std::time::Duration;

use common::phrase;
use common::record::Status;

use super::{BlackHole, RefusingPort, Site, Step, page, redirect, status_response};
use crate::certificates::{Authority, CertificateValidity, self_signed};

/// The host of all sites but one. It is loopback by RFC 6761, so that no name server is needed
/// and all results go to one topic and one table.
const HOST: &str = "demo.localhost";

/// Response time of the slow site.
const SLOW: Duration = Duration::from_secs(2);

/// One site of the demonstration and the expected result of its probes.
#[derive(Debug, Clone)]
pub struct DemoSite {
    /// A short name.
    pub name: &'static str,
    /// The URL to probe.
    pub url: String,
    /// The regexp that the page must match.
    pub check: Option<&'static str>,
    /// The expected status.
    pub status: Status,
    /// The expected phrase.
    pub phrase: &'static str,
}

/// The running sites. Dropping this stops them.
pub struct DemoSites {
    /// All sites, in the order in which they are shown.
    pub sites: Vec<DemoSite>,
    /// The certificate authority to trust, in PEM.
    pub ca_pem: String,
    _running: Vec<Site>,
    _refusing: RefusingPort,
    _black_hole: BlackHole,
}

/// Starts the sites on free ports of 127.0.0.1.
///
/// # Errors
/// Fails if no port is available or a certificate can't be made.
pub fn start_demo_sites() -> io::Result<DemoSites> {
    let authority = Authority::new("demonstration")?;
    let good = authority.server(&[HOST], CertificateValidity::Now)?;
    let plain = Site::http(by_path)?;
    let secure = Site::https(good, by_path)?;
    let expired = Site::https(authority.server(&[HOST], CertificateValidity::Expired)?, by_path)?;
    let early = Site::https(authority.server(&[HOST], CertificateValidity::NotYetValid)?, by_path)?;
    let other = authority.server(&["other.localhost"], CertificateValidity::Now)?;
    let wrong_host = Site::https(other, by_path)?;
    let self_signed_site = Site::https(self_signed(&[HOST])?, by_path)?;
    let unknown_authority_site =
        Authority::new("stranger")?.server(&[HOST], CertificateValidity::Now)?;
    let unknown_issuer = Site::https(unknown_authority_site, by_path)?;
    let refusing = RefusingPort::new()?;
    let black_hole = BlackHole::new()?;

    let at = |site: &Site, path: &str| format!("http://{HOST}:{}{path}", site.port());
    let tls = |site: &Site| format!("https://{HOST}:{}/", site.port());
    let port = |port: u16| format!("http://{HOST}:{port}/");
    let up =
        |name, url, phrase| DemoSite { name, url, check: None, status: Status::Responsive, phrase };
    let down = |name, url, phrase| DemoSite {
        name,
        url,
        check: None,
        status: Status::Unresponsive,
        phrase,
    };
    let not_expected = phrase::PAGE_CONTENT_NOT_EXPECTED;
    let sites = vec![
        up("ok", at(&plain, "/"), phrase::OK),
        up("ok over tls", tls(&secure), phrase::OK),
        up("redirects", at(&plain, "/chain/3"), phrase::OK),
        up("forbidden", at(&plain, "/status/403"), "forbidden"),
        up("not found", at(&plain, "/status/404"), "not found"),
        up("server error", at(&plain, "/status/500"), "internal server error"),
        up("unavailable", at(&plain, "/status/503"), "service unavailable"),
        up("unknown status", at(&plain, "/status/299"), phrase::UNKNOWN_STATUS),
        DemoSite {
            check: Some(r"<title>\w+, world</title>"),
            ..up("body matches", at(&plain, "/match"), phrase::OK)
        },
        DemoSite {
            check: Some("<svg"),
            ..up("body does not match", at(&plain, "/no-match"), not_expected)
        },
        up("slow", at(&plain, "/slow"), phrase::OK),
        up("redirect loop", at(&plain, "/loop"), phrase::TOO_MANY_REDIRECTS),
        up("redirect to ftp", at(&plain, "/ftp"), phrase::INVALID_REDIRECT),
        up("stalled body", at(&plain, "/stall"), phrase::RESPONSE_TIMEOUT),
        up("body cut short", at(&plain, "/cut"), phrase::CONNECTION_CLOSED),
        up("expired certificate", tls(&expired), phrase::SSL_ERROR),
        up("certificate not yet valid", tls(&early), phrase::SSL_ERROR),
        up("wrong host", tls(&wrong_host), phrase::SSL_ERROR),
        up("self-signed", tls(&self_signed_site), phrase::SSL_ERROR),
        up("unknown issuer", tls(&unknown_issuer), phrase::SSL_ERROR),
        down("hanging", at(&plain, "/hang"), phrase::RESPONSE_TIMEOUT),
        down("reset", at(&plain, "/reset"), phrase::CONNECTION_RESET),
        down("closed", at(&plain, "/closed"), phrase::CONNECTION_CLOSED),
        down("not http", at(&plain, "/garbage"), phrase::INVALID_RESPONSE),
        down("refused", port(refusing.port()?), phrase::CONNECTION_REFUSED),
        down("black hole", port(black_hole.port()?), phrase::CONNECTION_TIMEOUT),
        down("no such domain", "http://demo.invalid/".to_owned(), phrase::DOMAIN_NOT_EXIST),
    ];
    let running = vec![plain, secure, expired, early, wrong_host, self_signed_site, unknown_issuer];
    let ca_pem = authority.pem();
    Ok(DemoSites { sites, ca_pem, _running: running, _refusing: refusing, _black_hole: black_hole })
}

/// Returns the steps for a path.
fn by_path(path: &str) -> Vec<Step> {
    let path = path.trim_start_matches('/');
    let (name, argument) = path.split_once('/').unwrap_or((path, ""));
    let sent = |bytes| vec![Step::Send(bytes)];
    match (name, argument.parse::<u16>()) {
        ("status", Ok(status)) => sent(status_response(status)),
        ("chain", Ok(0)) => sent(status_response(200)),
        ("chain", Ok(left)) => sent(redirect(301, &format!("/chain/{}", left - 1))),
        ("loop", _) => sent(redirect(302, "/loop")),
        ("ftp", _) => sent(redirect(302, "ftp://demo.localhost/")),
        ("match", _) => sent(page("<html><title>Hello, world</title></html>")),
        ("slow", _) => vec![Step::Wait(SLOW), Step::Send(status_response(200))],
        ("hang", _) => vec![Step::Hang],
        ("reset", _) => vec![Step::Reset],
        ("closed", _) => vec![],
        ("garbage", _) => sent(b"220 mail.demo.localhost ESMTP\r\n".to_vec()),
        ("stall", _) => {
            let mut bytes = status_response(200);
            bytes.truncate(bytes.len() - 10);
            vec![Step::Send(bytes), Step::Hang]
        }
        ("cut", _) => {
            let mut bytes = status_response(200);
            bytes.truncate(bytes.len() - 10);
            sent(bytes)
        }
        _ => sent(status_response(200)),
    }
}
