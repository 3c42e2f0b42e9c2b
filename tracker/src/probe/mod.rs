//! One probe: a GET on a fresh connection, followed through its redirects to
//! one deadline, and the verdict on what came.
//!
//! Resolver, connection, TLS and HTTP are separate steps here, each with its
//! own time and its own failures; [`verdict`] alone knows what they are called.

mod body;
mod buffers;
mod connect;
pub mod deadline;
mod http;
pub mod resolver;
mod stream;
mod tls;
pub mod verdict;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::record::Status;
use regex::Regex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use url::{Host, Url};

use deadline::{Deadline, Wire};
use resolver::{Resolver, Sources};
use stream::Stream;
pub use tls::Roots;
use verdict::{Failure, Phase, Reason};

/// What a probe may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The whole of it: DNS, TLS, redirects and body included.
    pub timeout: Duration,
    /// Decoded bytes of the body that are read; reading stops there, the
    /// response's time ends there, and the check sees no further.
    pub body_bytes_max: u64,
    /// Redirects that are followed.
    pub redirects_max: u32,
}

impl Default for Limits {
    /// 10 s, 1 MiB and 10 redirects.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), body_bytes_max: 1024 * 1024, redirects_max: 10 }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything answered.
    pub status: Status,
    /// One of [`common::phrase::all`].
    pub phrase: &'static str,
    /// Time spent to resolve names, over all redirects; 0 for an address. None
    /// when a name was not resolved.
    pub dns_ms: Option<u32>,
    /// From the start of the connection to the body's last byte, without DNS,
    /// over all redirects. None when the page was not loaded to its end or
    /// bound.
    pub response_ms: Option<u32>,
    /// For a person, at most 128 characters.
    pub detail: Option<String>,
    /// Why it failed and in which phase; none when there was a final answer
    /// that passed the check, whatever its status.
    pub failure: Option<(Reason, Phase)>,
}

/// Times over all hops of a probe.
#[derive(Debug, Default)]
struct Timings {
    dns: Duration,
    response: Duration,
}

/// Does probes; shared by all workers, each of which does one at a time.
#[derive(Debug)]
pub struct Prober {
    limits: Limits,
    resolver: Resolver,
    tls: Arc<ClientConfig>,
    client: http::Client,
}

impl Prober {
    /// A prober on the machine's own resolver settings and root certificates.
    /// No root certificates at all is a warning, as plain HTTP needs none.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(limits: Limits) -> Result<Self, rustls::Error> {
        Self::with(limits, Sources::default(), &Roots::System)
    }

    /// A prober on settings of the caller's.
    ///
    /// # Errors
    /// As [`Prober::new`].
    pub fn with(limits: Limits, sources: Sources, roots: &Roots) -> Result<Self, rustls::Error> {
        Ok(Self {
            limits,
            resolver: Resolver::new(sources),
            tls: tls::client_config(roots)?,
            client: http::Client::new(),
        })
    }

    /// Probes a URL of scheme http or https. It takes at most the limit's time-out.
    pub fn probe(&self, url: &Url, check: Option<&Regex>) -> Outcome {
        let mut timings = Timings::default();
        let result = self.follow(url, check, &mut timings);
        verdict::outcome(result, &timings)
    }

    /// Follows redirects to the status of the final answer.
    fn follow(
        &self,
        target: &Url,
        check: Option<&Regex>,
        timings: &mut Timings,
    ) -> Result<u16, Failure> {
        let deadline = Deadline::after(self.limits.timeout);
        let mut url = target.clone();
        for redirects in 0..=self.limits.redirects_max {
            match self.hop(&url, check, deadline, timings) {
                Ok(Hop::Final(status)) => return Ok(status),
                Ok(Hop::Redirect(location)) => {
                    // A target's bound is not a redirect's: the text that a
                    // person sees is cut.
                    url = next(&url, &location)?;
                }
                Err(failure) if redirects == 0 || failure.phase == Phase::Check => {
                    return Err(failure);
                }
                Err(failure) => return Err(failure.at_host(url.host_str().unwrap_or_default())),
            }
        }
        let last = http::target_of(&url);
        let detail = format!("more than {}, last to {last}", self.limits.redirects_max);
        Err(Failure::with(Reason::TooManyRedirects, Phase::Body, detail))
    }

    /// One request and its answer. A redirect's body is not read.
    fn hop(
        &self,
        url: &Url,
        check: Option<&Regex>,
        deadline: Deadline,
        timings: &mut Timings,
    ) -> Result<Hop, Failure> {
        let begun = Instant::now();
        let addresses = self.resolve(url, deadline);
        let connecting = Instant::now();
        timings.dns += connecting - begun;
        self.load(url, &addresses?, check, deadline, connecting, timings)
    }

    fn resolve(&self, url: &Url, deadline: Deadline) -> Result<Vec<SocketAddr>, Failure> {
        let port = url.port_or_known_default().unwrap_or(80);
        let addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            Some(Host::Domain(name)) => self.resolver.resolve(name, None, deadline)?,
            None => {
                return Err(Failure::with(Reason::DnsServerFailure, Phase::Resolve, "no host"));
            }
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    fn load(
        &self,
        url: &Url,
        addresses: &[SocketAddr],
        check: Option<&Regex>,
        deadline: Deadline,
        begun: Instant,
        timings: &mut Timings,
    ) -> Result<Hop, Failure> {
        let socket = connect::connect(addresses, deadline)?;
        let stream = self.secure(url, socket, deadline)?;
        let mut answer = self.client.get(url, stream)?;
        if let Some(location) = answer.location() {
            timings.response += begun.elapsed();
            return Ok(Hop::Redirect(location));
        }
        let codings = answer.header("content-encoding");
        let limit = self.limits.body_bytes_max;
        let bytes = body::read(&mut answer.body, codings.as_deref(), limit, check.is_some())?;
        timings.response += begun.elapsed();
        if let Some(check) = check {
            let content_type = answer.header("content-type");
            if !check.is_match(&body::text(&bytes, content_type.as_deref())) {
                let expected = check.as_str();
                return Err(Failure::with(Reason::BodyNotExpected, Phase::Check, expected));
            }
        }
        Ok(Hop::Final(answer.status))
    }

    fn secure(
        &self,
        url: &Url,
        socket: std::net::TcpStream,
        deadline: Deadline,
    ) -> Result<Stream, Failure> {
        let wire = Wire::new(socket, deadline).map_err(|cause| {
            Failure::with(Reason::ConnectFailed, Phase::Connect, cause.to_string())
        })?;
        if url.scheme() != "https" {
            return Ok(Stream::plain(wire));
        }
        let name = server_name(url).ok_or_else(|| {
            let text = "no certificate can name this host";
            Failure::with(Reason::TlsProtocol, Phase::Tls, text)
        })?;
        Stream::tls(wire, Arc::clone(&self.tls), name)
            .map_err(|fault| fault.into_failure(Phase::Tls, "in the tls handshake"))
    }
}

/// Where a request led.
enum Hop {
    Final(u16),
    Redirect(String),
}

/// Where a redirect leads: to http or https, as in a browser from either.
fn next(from: &Url, location: &str) -> Result<Url, Failure> {
    let refused = |detail: &str| Failure::with(Reason::RedirectRefused, Phase::Body, detail);
    match from.join(location) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err(refused(&http::target_of(&url)))
        }
        Ok(mut url) => {
            let has_none = url.username().is_empty() && url.password().is_none();
            if has_none && is_same_site(from, &url) {
                // These two fail only for URLs without a host.
                let _ = url.set_username(from.username());
                let _ = url.set_password(from.password());
            }
            Ok(url)
        }
        Err(cause) => Err(refused(&format!("{cause}: {location}"))),
    }
}

/// Whether credentials for one are meant for the other as well: the same host
/// and port, or the same host's change from http to https.
fn is_same_site(one: &Url, other: &Url) -> bool {
    let ports = [one, other].map(|url| (url.scheme(), url.port_or_known_default()));
    let is_upgrade = ports == [("http", Some(80)), ("https", Some(443))];
    one.origin() == other.origin() || (is_upgrade && one.host() == other.host())
}

/// The name that the certificate must hold; a name's final dot is not part of
/// it (RFC 6066, section 3).
fn server_name(url: &Url) -> Option<ServerName<'static>> {
    Some(match url.host()? {
        Host::Ipv4(address) => std::net::IpAddr::from(address).into(),
        Host::Ipv6(address) => std::net::IpAddr::from(address).into(),
        Host::Domain(name) => {
            ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned()).ok()?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_on_to_the_same_site_alone() {
        for (from, location, expected) in [
            ("http://u:p%20@a.io/", "/x", "http://u:p%20@a.io/x"),
            ("http://u:p%20@a.io/", "http://A.io:80/x", "http://u:p%20@a.io/x"),
            ("http://u@a.io/", "https://a.io/", "https://u@a.io/"),
            ("http://u:p@a.io/", "http://v:q@a.io/", "http://v:q@a.io/"),
            ("http://u:p@a.io/", "http://a.io:81/", "http://a.io:81/"),
            ("http://u:p@a.io/", "//b.a.io/", "http://b.a.io/"),
            ("https://u:p@a.io/", "http://a.io/", "http://a.io/"),
            ("http://a.io/", "/x", "http://a.io/x"),
        ] {
            let url = next(&from.parse().unwrap(), location).unwrap();
            assert_eq!(url.as_str(), expected, "{from} to {location}");
        }
    }
}
