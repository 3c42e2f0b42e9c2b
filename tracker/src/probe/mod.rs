//! One probe: a GET on a fresh connection, followed through its redirects to
//! one deadline, and the verdict on what came.
//!
//! Resolver, connection, TLS and HTTP are separate steps here, each with its
//! own time and its own failures; [`reason`] alone knows what they are called.

mod dual_stack;
mod family;
pub mod http;
pub mod net;
mod outcome;
mod reach;
pub mod reason;
mod spec;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

pub use family::Family;
use http::checks::Page;
use http::request::Request;
use http::{body, client, redirect};
use net::proxy::Proxy;
use net::resolver::{Resolver, Sources};
use net::socket::{Deadline, Wire};
use net::stream::Stream;
pub use net::tls::Roots;
use net::{connect, tls};
use outcome::Course;
pub use outcome::{Facts, Outcome, Sum, Timings};
use reason::{Failure, Phase, Reason};
pub use spec::{Ask, Limits, Spec};

/// The longest final URL that a record carries, in characters; a longer one,
/// which only a site itself can make, is cut.
const FINAL_URL_CHARS_MAX: usize = 1024;

/// Does probes; shared by all workers, each of which does one at a time.
#[derive(Debug)]
pub struct Prober {
    resolver: Resolver,
    roots: RootCertStore,
    tls: Arc<ClientConfig>,
    client: client::Client,
}

impl Prober {
    /// A prober that resolves by these sources and trusts these roots. No root
    /// certificates at all is a warning, as plain HTTP needs none.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(sources: Sources, roots: &Roots) -> Result<Self, rustls::Error> {
        let roots = roots.load();
        Ok(Self {
            resolver: Resolver::new(sources),
            tls: tls::client_config(roots.clone(), false, None)?,
            roots,
            client: client::Client::new(),
        })
    }

    /// Probes. It takes at most the time-out asked for, but for the moment in
    /// which a page within its bound is decoded and searched.
    pub fn probe(&self, ask: &Ask<'_>) -> Outcome {
        match ask.family {
            Family::Both => dual_stack::probe(self, ask),
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
        let mut request = Cow::Borrowed(&ask.spec.request);
        for redirects in 0..=ask.limits.redirects_max {
            match self.hop(&url, &request, ask, course) {
                Ok(Hop::Final(warning)) => return Ok(warning),
                Ok(Hop::Redirect(..)) if redirects == ask.limits.redirects_max => {}
                Ok(Hop::Redirect(status, location)) => {
                    // A target's bound is not a redirect's: the text that a
                    // person sees is cut.
                    let next = redirect::next(&url, &location)?;
                    let same_site = redirect::is_same_site(&url, &next);
                    let redirected = request.redirected(status, same_site);
                    request = Cow::Owned(redirected.ok_or_else(|| redirect::of_body(&next))?);
                    url = next;
                    let shown = client::target_of(&url);
                    course.facts.follow(shown.chars().take(FINAL_URL_CHARS_MAX).collect());
                }
                Err(failure) if redirects == 0 || failure.phase == Phase::Check => {
                    return Err(failure);
                }
                Err(failure) => return Err(failure.at_host(url.host_str().unwrap_or_default())),
            }
        }
        let last = client::target_of(&url);
        let detail = format!("more than {}, last to {last}", ask.limits.redirects_max);
        Err(Failure::with(Reason::TooManyRedirects, Phase::Redirect, detail))
    }

    /// One request and its answer. A redirect's body is not read.
    fn hop(
        &self,
        url: &Url,
        request: &Request,
        ask: &Ask<'_>,
        course: &mut Course,
    ) -> Result<Hop, Failure> {
        let begun = Instant::now();
        let via = ask.spec.proxy.as_ref();
        let addresses = self.resolve(via.map_or(url, |proxy| &proxy.url), ask, course.deadline);
        let addresses = addresses.map_err(|failure| by_way_of(via, failure));
        let connecting = course.timings.resolve.add_since(begun);
        let hop = self.load(url, request, &addresses?, ask, course);
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
                let servers = ask.spec.servers.as_ref();
                self.resolver.resolve_by(ask.family, name, servers, deadline)?
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
        request: &Request,
        addresses: &[SocketAddr],
        ask: &Ask<'_>,
        course: &mut Course,
    ) -> Result<Hop, Failure> {
        let stream = self.open(url, addresses, ask, course)?;
        let mut answer = self.client.send(url, request, stream, &mut course.timings.first_byte)?;
        course.facts.http_version = answer.version();
        course.facts.http_status = Some(answer.status);
        if let Some(location) = answer.location().filter(|_| ask.spec.follows_redirects) {
            return Ok(Hop::Redirect(answer.status, location));
        }
        let codings = answer.header("content-encoding");
        let limit = body::Limit {
            bytes_max: ask.limits.body_bytes_max,
            deadline: course.deadline,
            is_wanted: ask.spec.checks.wants_body(),
        };
        let mut bytes_read = 0;
        let bytes = body::read(&mut answer.body, codings.as_deref(), limit, &mut bytes_read);
        course.facts.body_bytes = Some(bytes_read);
        course.timings.transfer.add_since(answer.first_byte_at);
        let page = Page {
            status: answer.status,
            header: &|name| answer.header(name),
            body: &bytes?,
            took: course.begun.elapsed(),
            certificate_end: course.facts.certificate_end,
        };
        ask.spec.checks.look(&page).map(Hop::Final)
    }

    /// A connection, secured where the scheme asks for it.
    fn open(
        &self,
        url: &Url,
        addresses: &[SocketAddr],
        ask: &Ask<'_>,
        course: &mut Course,
    ) -> Result<Stream, Failure> {
        let via = ask.spec.proxy.as_ref();
        let begun = Instant::now();
        let connected = connect::connect(addresses, course.deadline);
        let securing = course.timings.connect.add_since(begun);
        let (socket, address) = connected.map_err(|failure| by_way_of(via, failure))?;
        course.facts.address = Some(address.ip());
        course.facts.has_other_address = addresses.len() > 1;
        let mut wire = Wire::new(socket, course.deadline).map_err(|cause| {
            Failure::with(Reason::ConnectFailed, Phase::Connect, cause.to_string())
        })?;
        if let Some(proxy) = via {
            let connected = proxy.connect(&mut wire, url);
            course.timings.connect.add_since(securing);
            connected?;
        }
        if url.scheme() != "https" {
            return Ok(Stream::plain(wire));
        }
        let securing = Instant::now();
        let secured = self.secure(url, wire, ask, &mut course.facts);
        course.timings.tls.add_since(securing);
        secured
    }

    fn secure(
        &self,
        url: &Url,
        wire: Wire,
        ask: &Ask<'_>,
        facts: &mut Facts,
    ) -> Result<Stream, Failure> {
        let name = server_name(url).ok_or_else(|| {
            let text = "no certificate can name this host";
            Failure::with(Reason::TlsProtocol, Phase::Tls, text)
        })?;
        let config = match &ask.spec.trust {
            None => Arc::clone(&self.tls),
            Some(trust) => trust
                .config(&self.roots, redirect::is_same_site(ask.url, url))
                .map_err(|cause| tls::failure(&cause, Phase::Tls))?,
        };
        let stream = Stream::tls(wire, config, name);
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
    /// With the status that says how, and to where.
    Redirect(u16, String),
}

/// What failed on the way to a proxy is the proxy's failure, if there is one.
fn by_way_of(proxy: Option<&Proxy>, failure: Failure) -> Failure {
    let Some(proxy) = proxy else { return failure };
    let reason = match failure.reason {
        Reason::ConnectTimeout | Reason::DnsTimeout => Reason::ProxyTimeout,
        _ => Reason::ProxyFailed,
    };
    let what = failure.detail.unwrap_or_default();
    proxy.failure(
        reason,
        format!("{}: {what}", failure.reason.as_str()).trim_end_matches([':', ' ']),
    )
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
