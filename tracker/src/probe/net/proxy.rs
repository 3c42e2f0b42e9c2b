//! A way through an HTTP proxy: CONNECT (RFC 9110, section 9.3.6), after which
//! the connection is as good as one to the site.

use std::io::{ErrorKind, Read, Write};

use common::secret::Secret;
use url::Url;

use crate::probe::http::request;
use crate::probe::net::socket::Wire;
use crate::probe::reason::{Failure, Phase, Reason};

/// The longest answer to CONNECT.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A proxy. Its `Debug` shows neither user nor password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Of scheme http, without user and password.
    pub(crate) url: Url,
    authorization: Option<Secret>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`; the port is 80 when none is given.
    ///
    /// # Errors
    /// When it is anything else. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "no proxy: expected http://[user:password@]host[:port]";
        let mut url = Url::parse(text).map_err(|_| EXPECTED)?;
        let is_plain = url.scheme() == "http"
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.port() != Some(0);
        if !is_plain {
            return Err(EXPECTED);
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        let authorization = has_user.then(|| request::basic_of(&url));
        // These two fail only for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, authorization })
    }

    /// Asks the proxy, to which the wire stands, for a connection to the host of a URL.
    ///
    /// # Errors
    /// [`Reason::ProxyRefused`] when it answers and does not connect,
    /// [`Reason::ProxyTimeout`] at the deadline, [`Reason::ProxyFailed`] else.
    pub(crate) fn connect(&self, wire: &mut Wire, url: &Url) -> Result<(), Failure> {
        let port = url.port_or_known_default().unwrap_or(80);
        let host = format!("{}:{port}", url.host_str().unwrap_or_default());
        let authorization = match &self.authorization {
            Some(value) => format!("Proxy-Authorization: {}\r\n", value.expose()),
            None => String::new(),
        };
        let head = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n");
        let answer = wire.write_all(head.as_bytes()).and_then(|()| read_head(wire));
        let answer = answer.map_err(|cause| match cause.kind() {
            ErrorKind::TimedOut => self.failure(Reason::ProxyTimeout, "no answer"),
            ErrorKind::UnexpectedEof => self.failure(Reason::ProxyFailed, "closed"),
            _ => self.failure(Reason::ProxyFailed, cause),
        })?;
        match status(&answer) {
            Some((200..=299, _)) if answer.ends_with(b"\r\n\r\n") => Ok(()),
            // The site speaks only when spoken to.
            Some((200..=299, _)) => {
                Err(self.failure(Reason::ProxyFailed, "bytes behind the answer"))
            }
            Some((number, said)) => {
                Err(self.failure(Reason::ProxyRefused, format!("{number} {said}").trim_end()))
            }
            None => Err(self.failure(Reason::ProxyFailed, "the answer is not http")),
        }
    }

    /// What happened at the proxy.
    pub(crate) fn failure(&self, reason: Reason, what: impl std::fmt::Display) -> Failure {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or(80);
        Failure::with(reason, Phase::Connect, format!("proxy {host}:{port}: {what}"))
    }
}

/// Reads an answer up to its empty line.
fn read_head(wire: &mut Wire) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = wire.read(&mut chunk)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // The empty line may have begun in what was read before.
        let from = head.len().saturating_sub(3);
        head.extend_from_slice(&chunk[..count]);
        if head[from..].windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(head);
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(std::io::Error::other("an answer without an end"));
        }
    }
}

/// The number and the words of `HTTP/1.1 200 Connection established`.
fn status(head: &[u8]) -> Option<(u16, String)> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(3, ' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let number = words.next()?.parse().ok().filter(|number| (100..=999).contains(number))?;
    Some((number, words.next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_perhaps_who_asks() {
        let proxy = Proxy::parse("http://u:p%20w@[::1]:3128").unwrap();
        assert_eq!(proxy.url.as_str(), "http://[::1]:3128/");
        assert_eq!(proxy.authorization.as_ref().unwrap().expose(), "Basic dTpwIHc=");
        assert!(!format!("{proxy:?}").contains("dTpw"));
        for text in [
            "proxy:3128",
            "https://proxy",
            "socks5://proxy",
            "http://proxy/x",
            "http://u:s3cret@:1",
        ] {
            let fault = Proxy::parse(text).unwrap_err();
            assert_eq!(fault, "no proxy: expected http://[user:password@]host[:port]");
        }
    }

    #[test]
    fn an_answer_begins_with_its_status() {
        for (head, expected) in [
            (
                &b"HTTP/1.1 200 Connection established\r\n\r\n"[..],
                Some((200, "Connection established")),
            ),
            (b"HTTP/1.0 407\r\n\r\n", Some((407, ""))),
            (b"HTTP/2 200\r\n\r\n", None),
            (b"SSH-2.0\r\n\r\n", None),
            (b"HTTP/1.1 99 x\r\n\r\n", None),
        ] {
            assert_eq!(status(head), expected.map(|(number, said)| (number, said.to_owned())));
        }
    }
}
