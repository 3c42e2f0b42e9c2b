//! A named set of sites that shows every verdict there is.

use std::io;
use std::time::Duration;

use common::phrase;
use common::record::Status;

use super::{BlackHole, Refusing, Site, Step, answer, page, redirect};
use crate::certificates::{Authority, Validity, self_signed};

/// The host of all sites but one: loopback by RFC 6761, so that all land in one
/// topic and one table, and no name server is needed.
const HOST: &str = "demo.localhost";

/// How long the slow site takes.
const SLOW: Duration = Duration::from_secs(2);

/// One site of the demonstration and what is expected of it.
#[derive(Debug, Clone)]
pub struct DemoSite {
    /// A word or a few.
    pub name: &'static str,
    /// What to probe.
    pub url: String,
    /// The regexp to look for.
    pub check: Option<&'static str>,
    /// The status that it is to get.
    pub status: Status,
    /// The phrase that it is to get.
    pub phrase: &'static str,
}

/// The sites, which run until this is dropped.
pub struct Demo {
    /// All of them, in the order in which they are to be shown.
    pub sites: Vec<DemoSite>,
    /// The authority to trust, in PEM.
    pub ca_pem: String,
    _running: Vec<Site>,
    _refusing: Refusing,
    _black_hole: BlackHole,
}

/// Starts the sites on free ports of 127.0.0.1.
///
/// # Errors
/// When a port is not to be had or a certificate can't be made.
pub fn demo() -> io::Result<Demo> {
    let authority = Authority::new("demonstration")?;
    let good = authority.server(&[HOST], Validity::Now)?;
    let plain = Site::http(by_path)?;
    let secure = Site::https(good, by_path)?;
    let expired = Site::https(authority.server(&[HOST], Validity::Expired)?, by_path)?;
    let early = Site::https(authority.server(&[HOST], Validity::NotYetValid)?, by_path)?;
    let other = authority.server(&["other.localhost"], Validity::Now)?;
    let wrong_host = Site::https(other, by_path)?;
    let selfish = Site::https(self_signed(&[HOST])?, by_path)?;
    let stranger = Authority::new("stranger")?.server(&[HOST], Validity::Now)?;
    let unknown_issuer = Site::https(stranger, by_path)?;
    let refusing = Refusing::new()?;
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
        up("self-signed", tls(&selfish), phrase::SSL_ERROR),
        up("unknown issuer", tls(&unknown_issuer), phrase::SSL_ERROR),
        down("hanging", at(&plain, "/hang"), phrase::RESPONSE_TIMEOUT),
        down("reset", at(&plain, "/reset"), phrase::CONNECTION_RESET),
        down("closed", at(&plain, "/closed"), phrase::CONNECTION_CLOSED),
        down("not http", at(&plain, "/garbage"), phrase::INVALID_RESPONSE),
        down("refused", port(refusing.port()?), phrase::CONNECTION_REFUSED),
        down("black hole", port(black_hole.port()?), phrase::CONNECTION_TIMEOUT),
        down("no such domain", "http://demo.invalid/".to_owned(), phrase::DOMAIN_NOT_EXIST),
    ];
    let running = vec![plain, secure, expired, early, wrong_host, selfish, unknown_issuer];
    let ca_pem = authority.pem();
    Ok(Demo { sites, ca_pem, _running: running, _refusing: refusing, _black_hole: black_hole })
}

/// What a site does for a path.
fn by_path(path: &str) -> Vec<Step> {
    let path = path.trim_start_matches('/');
    let (name, argument) = path.split_once('/').unwrap_or((path, ""));
    let sent = |bytes| vec![Step::Send(bytes)];
    match (name, argument.parse::<u16>()) {
        ("status", Ok(status)) => sent(answer(status)),
        ("chain", Ok(0)) => sent(answer(200)),
        ("chain", Ok(left)) => sent(redirect(301, &format!("/chain/{}", left - 1))),
        ("loop", _) => sent(redirect(302, "/loop")),
        ("ftp", _) => sent(redirect(302, "ftp://demo.localhost/")),
        ("match", _) => sent(page("<html><title>Hello, world</title></html>")),
        ("slow", _) => vec![Step::Wait(SLOW), Step::Send(answer(200))],
        ("hang", _) => vec![Step::Hang],
        ("reset", _) => vec![Step::Reset],
        ("closed", _) => vec![],
        ("garbage", _) => sent(b"220 mail.demo.localhost ESMTP\r\n".to_vec()),
        ("stall", _) => {
            let mut bytes = answer(200);
            bytes.truncate(bytes.len() - 10);
            vec![Step::Send(bytes), Step::Hang]
        }
        ("cut", _) => {
            let mut bytes = answer(200);
            bytes.truncate(bytes.len() - 10);
            sent(bytes)
        }
        _ => sent(answer(200)),
    }
}
