//! Connects to a site through an HTTP proxy, with CONNECT (RFC 9110, section 9.3.6).

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};

use common::secret::Secret;
use thiserror::Error;
use url::Url;

use super::socket::TimedSocket;
use crate::probe::basic_auth;
use crate::probe::reason::{Failure, Phase, Reason};

/// The largest response to CONNECT, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A text is not the URL of a proxy. The error does not repeat the text, which can have a
/// password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a proxy: expected http://[user:password@]host[:port]")]
pub(crate) struct ProxyUrlError;

/// An HTTP proxy. `Debug` shows neither user nor password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// An `http` URL without user and password.
    pub(crate) url: Url,
    authorization: Option<Secret>,
}

impl Proxy {
    /// Parses `http://[user:password@]host[:port]`. The default port is 80.
    ///
    /// # Errors
    /// When the text is anything else.
    pub(crate) fn parse(text: &str) -> Result<Self, ProxyUrlError> {
        let mut url = Url::parse(text).map_err(|_| ProxyUrlError)?;
        let is_proxy = url.scheme() == "http"
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.port() != Some(0);
        if !is_proxy {
            return Err(ProxyUrlError);
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        let authorization = has_user.then(|| basic_auth::from_url(&url));
        // These two calls fail only for a URL without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, authorization })
    }

    /// Asks the proxy to connect to the host of `url`. `socket` is connected to the proxy;
    /// afterwards it is connected to the site.
    ///
    /// # Errors
    /// [`Reason::ProxyRefused`] if the proxy answers and does not connect,
    /// [`Reason::ProxyTimeout`] at the deadline, [`Reason::ProxyFailed`] for all other failures.
    pub(crate) fn connect(&self, socket: &mut TimedSocket, url: &Url) -> Result<(), Failure> {
        let port = url.port_or_known_default().unwrap_or(80);
        let host = format!("{}:{port}", url.host_str().unwrap_or_default());
        let authorization = match &self.authorization {
            Some(value) => format!("Proxy-Authorization: {}\r\n", value.expose()),
            None => String::new(),
        };
        let request = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n");
        let head = socket.write_all(request.as_bytes()).and_then(|()| read_head(socket));
        let head = head.map_err(|cause| match cause.kind() {
            ErrorKind::TimedOut => self.failure(Reason::ProxyTimeout, "no answer"),
            ErrorKind::UnexpectedEof => self.failure(Reason::ProxyFailed, "closed"),
            _ => self.failure(Reason::ProxyFailed, cause),
        })?;
        match parse_status(&head) {
            Some((200..=299, _)) if head.ends_with(END_OF_HEAD) => Ok(()),
            // A site sends nothing before the request.
            Some((200..=299, _)) => {
                Err(self.failure(Reason::ProxyFailed, "bytes behind the answer"))
            }
            Some((number, text)) => {
                Err(self.failure(Reason::ProxyRefused, format!("{number} {text}").trim_end()))
            }
            None => Err(self.failure(Reason::ProxyFailed, "the answer is not http")),
        }
    }

    /// A failure of this proxy.
    pub(crate) fn failure(&self, reason: Reason, detail: impl Display) -> Failure {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or(80);
        Failure::with_detail(reason, Phase::Connect, format!("proxy {host}:{port}: {detail}"))
    }
}

/// Reads a response up to its empty line.
fn read_head(socket: &mut TimedSocket) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = socket.read(&mut chunk)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // The end of the head may have started in the previous chunk.
        let search_from = head.len().saturating_sub(END_OF_HEAD.len() - 1);
        head.extend_from_slice(&chunk[..count]);
        if head[search_from..].windows(END_OF_HEAD.len()).any(|bytes| bytes == END_OF_HEAD) {
            return Ok(head);
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("an answer without an end"));
        }
    }
}

/// The status and the text of `HTTP/1.1 200 Connection established`.
fn parse_status(head: &[u8]) -> Option<(u16, String)> {
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
    fn a_proxy_has_a_host_and_optional_credentials() {
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
            assert_eq!(Proxy::parse(text), Err(ProxyUrlError), "{text}");
        }
    }

    #[test]
    fn the_status_is_in_the_first_line() {
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
            assert_eq!(
                parse_status(head),
                expected.map(|(number, text)| (number, text.to_owned()))
            );
        }
    }
}
