//! One probe: a GET on a fresh connection, followed through its redirects to
//! one deadline, and the verdict on what came.
//!
//! Resolver, connection, TLS and HTTP are separate steps here, each with its
//! own time and its own failures; [`verdict`] alone knows what they are called.

mod ask;
mod body;
mod both;
mod buffers;
mod checks;
mod connect;
pub mod deadline;
mod http;
mod outcome;
mod reach;
mod redirect;
pub mod resolver;
mod stream;
mod tls;
pub mod verdict;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use url::{Host, Url};

pub use ask::{Ask, Family, Limits};
use checks::Page;
use deadline::{Deadline, Wire};
use outcome::Course;
pub use outcome::{Facts, Outcome, Sum, Timings};
use resolver::{Resolver, Sources};
use stream::Stream;
pub use tls::Roots;
use verdict::{Failure, Phase, Reason};

/// The longest final URL that a record carries, in characters; a longer one,
/// which only a site itself can make, is cut.
const FINAL_URL_CHARS_MAX: usize = 1024;

/// Does probes; shared by all workers, each of which does one at a time.
#[derive(Debug)]
pub struct Prober {
    resolver: Resolver,
    tls: Arc<ClientConfig>,
    client: http::Client,
}

impl Prober {
    /// A prober that resolves by these sources and trusts these roots. No root
    /// certificates at all is a warning, as plain HTTP needs none.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(sources: Sources, roots: &Roots) -> Result<Self, rustls::Error> {
        Ok(Self {
            resolver: Resolver::new(sources),
            tls: tls::client_config(roots)?,
            client: http::Client::new(),
        })
    }

    /// Probes. It takes at most the time-out asked for, but for the moment in
    /// which a page within its bound is decoded and searched.
    pub fn probe(&self, ask: &Ask<'_>) -> Outcome {
        match ask.family {
            Family::Both => both::probe(self, ask),
            _ => self.attempt(ask),
        }
    }

    fn attempt(&self, ask: &Ask<'_>) -> Outcome {
        let mut course = Course::begin(ask.limits.timeout);
        let result = self.follow(ask, &mut course);
        course.end(result)
    }

    /// Follows redirects to the final answer, and what that warns of.
    fn follow(&self, ask: &Ask<'_>, course: &mut Course) -> Result<Option<Failure>, Failure> {
        let mut url = ask.url.clone();
        for redirects in 0..=ask.limits.redirects_max {
            match self.hop(&url, ask, course) {
                Ok(Hop::Final(warning)) => return Ok(warning),
                Ok(Hop::Redirect(_)) if redirects == ask.limits.redirects_max => {}
                Ok(Hop::Redirect(location)) => {
                    // A target's bound is not a redirect's: the text that a
                    // person sees is cut.
                    url = redirect::next(&url, &location)?;
                    let shown = http::target_of(&url);
                    course.facts.follow(shown.chars().take(FINAL_URL_CHARS_MAX).collect());
                }
                Err(failure) if redirects == 0 || failure.phase == Phase::Check => {
                    return Err(failure);
                }
                Err(failure) => return Err(failure.at_host(url.host_str().unwrap_or_default())),
            }
        }
        let last = http::target_of(&url);
        let detail = format!("more than {}, last to {last}", ask.limits.redirects_max);
        Err(Failure::with(Reason::TooManyRedirects, Phase::Redirect, detail))
    }

    /// One request and its answer. A redirect's body is not read.
    fn hop(&self, url: &Url, ask: &Ask<'_>, course: &mut Course) -> Result<Hop, Failure> {
        let begun = Instant::now();
        let addresses = self.resolve(url, ask, course.deadline);
        let connecting = course.timings.resolve.add_since(begun);
        let hop = self.load(url, &addresses?, ask, course);
        course.timings.response.add_since(connecting);
        hop
    }

    fn resolve(
        &self,
        url: &Url,
        ask: &Ask<'_>,
        deadline: Deadline,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let port = url.port_or_known_default().unwrap_or(80);
        let mut addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            Some(Host::Domain(name)) => {
                self.resolver.resolve_by(ask.family, name, None, deadline)?
            }
            None => {
                return Err(Failure::with(Reason::DnsServerFailure, Phase::Resolve, "no host"));
            }
        };
        addresses.retain(|address| ask.family.has(*address));
        if addresses.is_empty() {
            return Err(Failure::new(Reason::DnsNoAddress, Phase::Resolve));
        }
        addresses.sort_by_key(|address| Some(*address) == ask.last_resort);
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    fn load(
        &self,
        url: &Url,
        addresses: &[SocketAddr],
        ask: &Ask<'_>,
        course: &mut Course,
    ) -> Result<Hop, Failure> {
        let stream = self.open(url, addresses, course)?;
        let mut answer = self.client.get(url, stream, &mut course.timings.first_byte)?;
        course.facts.http_version = answer.version();
        course.facts.http_status = Some(answer.status);
        if let Some(location) = answer.location() {
            return Ok(Hop::Redirect(location));
        }
        let codings = answer.header("content-encoding");
        let limit = body::Limit {
            bytes_max: ask.limits.body_bytes_max,
            deadline: course.deadline,
            is_wanted: ask.check.is_some(),
        };
        let mut bytes_read = 0;
        let bytes = body::read(&mut answer.body, codings.as_deref(), limit, &mut bytes_read);
        course.facts.body_bytes = Some(bytes_read);
        course.timings.transfer.add_since(answer.first_byte_at);
        let content_type = answer.header("content-type");
        let page = Page { body: &bytes?, content_type: content_type.as_deref() };
        checks::look(ask, answer.status, &page).map(Hop::Final)
    }

    /// A connection, secured where the scheme asks for it.
    fn open(
        &self,
        url: &Url,
        addresses: &[SocketAddr],
        course: &mut Course,
    ) -> Result<Stream, Failure> {
        let begun = Instant::now();
        let connected = connect::connect(addresses, course.deadline);
        let securing = course.timings.connect.add_since(begun);
        let (socket, address) = connected?;
        course.facts.address = Some(address.ip());
        course.facts.has_other_address = addresses.len() > 1;
        let wire = Wire::new(socket, course.deadline).map_err(|cause| {
            Failure::with(Reason::ConnectFailed, Phase::Connect, cause.to_string())
        })?;
        if url.scheme() != "https" {
            return Ok(Stream::plain(wire));
        }
        let secured = self.secure(url, wire, &mut course.facts);
        course.timings.tls.add_since(securing);
        secured
    }

    fn secure(&self, url: &Url, wire: Wire, facts: &mut Facts) -> Result<Stream, Failure> {
        let name = server_name(url).ok_or_else(|| {
            let text = "no certificate can name this host";
            Failure::with(Reason::TlsProtocol, Phase::Tls, text)
        })?;
        let stream = Stream::tls(wire, Arc::clone(&self.tls), name);
        facts.certificate_end = match &stream {
            Ok(stream) => stream.certificate().and_then(tls::certificate_end),
            Err(fault) => fault.certificate_end(),
        };
        stream.map_err(|fault| fault.into_failure(Phase::Tls))
    }
}

/// Where a request led.
enum Hop {
    /// To an answer that passed all checks, with what it warns of.
    Final(Option<Failure>),
    Redirect(String),
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
