//! Runs the steps of an attempt: resolve, connect, TLS, request, redirects, checks.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::dual_stack;
use super::family::Family;
use super::http::body::{self, BodyLimits};
use super::http::checks::FinalResponse;
use super::http::client::HttpClient;
use super::http::redirect;
use super::http::request::{HttpRequest, displayable_url};
use super::net::connect;
use super::net::deadline::Deadline;
use super::net::proxy::Proxy;
use super::net::resolver::{Resolver, ResolverConfig};
use super::net::socket::TimedSocket;
use super::net::stream::Stream;
use super::net::tls;
use super::net::tls::roots::Roots;
use super::outcome::{Facts, ProbeOutcome, ProbeState};
use super::reason::{Failure, Phase, Reason};
use super::spec::ProbeRequest;

/// The longest final URL in a record, in characters. Longer URLs are cut; only a site
/// can cause one.
const FINAL_URL_CHARS_MAX: usize = 1024;

/// Runs probes. All workers share one.
#[derive(Debug)]
pub struct Prober {
    resolver: Resolver,
    roots: RootCertStore,
    tls: Arc<ClientConfig>,
    client: HttpClient,
}

impl Prober {
    /// Loads the root certificates. An empty set is logged as a warning, because plain
    /// HTTP needs none.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(config: ResolverConfig, roots: &Roots) -> Result<Self, rustls::Error> {
        let roots = roots.load();
        Ok(Self {
            resolver: Resolver::new(config),
            tls: tls::client_config(roots.clone(), false, None)?,
            roots,
            client: HttpClient::new(),
        })
    }

    /// Runs one attempt. It takes at most the time-out of the request, plus the time to
    /// decode and search the body.
    pub fn probe(&self, request: &ProbeRequest<'_>) -> ProbeOutcome {
        match request.family {
            Family::Both => {
                dual_stack::probe(|family| self.run_attempt(&ProbeRequest { family, ..*request }))
            }
            _ => self.run_attempt(request),
        }
    }

    /// Resolves a host and connects to it, as a probe does, and closes the connection.
    ///
    /// # Errors
    /// When the host can't be reached within `timeout`.
    pub(crate) fn try_connect(
        &self,
        host: &Host,
        port: u16,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let deadline = Deadline::after(timeout);
        let addresses = match host {
            Host::Ipv4(address) => vec![(*address).into()],
            Host::Ipv6(address) => vec![(*address).into()],
            Host::Domain(name) => self.resolver.resolve(name, None, deadline)?,
        };
        connect::connect(&with_port(addresses, port), deadline).map(drop)
    }

    fn run_attempt(&self, request: &ProbeRequest<'_>) -> ProbeOutcome {
        let mut state = ProbeState::start(request.limits.timeout);
        let result = self.follow_redirects(request, &mut state);
        state.finish(result)
    }

    /// Follows redirects to the final response. Returns the warning, if any.
    fn follow_redirects(
        &self,
        probe: &ProbeRequest<'_>,
        state: &mut ProbeState,
    ) -> Result<Option<Failure>, Failure> {
        let mut url = probe.url.clone();
        let mut request = Cow::Borrowed(&probe.spec.request);
        for redirects in 0..=probe.limits.redirects_max {
            match self.exchange(&url, &request, probe, state) {
                Ok(Exchange::Final(warning)) => return Ok(warning),
                Ok(Exchange::Redirect { .. }) if redirects == probe.limits.redirects_max => {}
                Ok(Exchange::Redirect { status, location }) => {
                    let next = redirect::next_url(&url, &location)?;
                    let to_same_site = redirect::is_same_site(&url, &next);
                    let redirected = request.redirected(status, to_same_site);
                    request = Cow::Owned(redirected.ok_or_else(|| redirect::body_not_sent(&next))?);
                    url = next;
                    let shown = displayable_url(&url);
                    state.facts.start_redirect(shown.chars().take(FINAL_URL_CHARS_MAX).collect());
                }
                Err(failure) if redirects == 0 || failure.phase == Phase::Check => {
                    return Err(failure);
                }
                // After a redirect, the host can differ from the target's host.
                Err(failure) => {
                    return Err(failure.prefix_detail(url.host_str().unwrap_or_default()));
                }
            }
        }
        let last = displayable_url(&url);
        let detail = format!("more than {}, last to {last}", probe.limits.redirects_max);
        Err(Failure::with_detail(Reason::TooManyRedirects, Phase::Redirect, detail))
    }

    /// One request and its response.
    fn exchange(
        &self,
        url: &Url,
        request: &HttpRequest,
        probe: &ProbeRequest<'_>,
        state: &mut ProbeState,
    ) -> Result<Exchange, Failure> {
        let resolve_started = Instant::now();
        let proxy = probe.spec.proxy.as_ref();
        let peer_url = proxy.map_or(url, |proxy| &proxy.url);
        let addresses = self.resolve(peer_url, probe, state.deadline);
        let addresses = addresses.map_err(|failure| attribute_to_proxy(proxy, failure));
        let connect_started = state.timings.resolve.add_since(resolve_started);
        let exchange = self.send_and_check(url, request, &addresses?, probe, state);
        state.timings.response.add_since(connect_started);
        exchange
    }

    fn resolve(
        &self,
        url: &Url,
        probe: &ProbeRequest<'_>,
        deadline: Deadline,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let port = url.port_or_known_default().unwrap_or(80);
        let mut addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            Some(Host::Domain(name)) => {
                let servers = probe.spec.name_servers.as_ref();
                self.resolver.resolve_family(probe.family, name, servers, deadline)?
            }
            None => {
                let reason = Reason::DnsServerFailure;
                return Err(Failure::with_detail(reason, Phase::Resolve, "no host"));
            }
        };
        addresses.retain(|address| probe.family.allows(*address));
        if addresses.is_empty() {
            return Err(Failure::new(Reason::DnsNoAddress, Phase::Resolve));
        }
        addresses.sort_by_key(|address| Some(*address) == probe.last_resort);
        Ok(with_port(addresses, port))
    }

    /// Connects, sends the request, and reads and checks the response. The body of a
    /// redirect is not read.
    fn send_and_check(
        &self,
        url: &Url,
        request: &HttpRequest,
        addresses: &[SocketAddr],
        probe: &ProbeRequest<'_>,
        state: &mut ProbeState,
    ) -> Result<Exchange, Failure> {
        let stream = self.connect(url, addresses, probe, state)?;
        let first_byte_time = &mut state.timings.first_byte;
        let (head, mut body_reader) = self.client.send(url, request, stream, first_byte_time)?;
        state.facts.http_version = head.version();
        state.facts.http_status = Some(head.status);
        if let Some(location) = head.location().filter(|_| probe.spec.follows_redirects) {
            return Ok(Exchange::Redirect { status: head.status, location });
        }
        let encodings = head.header("content-encoding");
        let limits = BodyLimits {
            bytes_max: probe.limits.body_bytes_max,
            deadline: state.deadline,
            keep_bytes: probe.spec.checks.needs_body(),
        };
        let mut bytes_read = 0;
        let body = body::read(&mut body_reader, encodings.as_deref(), limits, &mut bytes_read);
        state.facts.body_bytes = Some(bytes_read);
        state.timings.transfer.add_since(head.first_byte_at);
        let response = FinalResponse {
            status: head.status,
            header: &|name| head.header(name),
            body: &body?,
            latency: state.started_at.elapsed(),
            certificate_end: state.facts.certificate_end,
        };
        probe.spec.checks.evaluate(&response).map(Exchange::Final)
    }

    /// Opens a connection, through the proxy if there is one, with TLS for `https`.
    fn connect(
        &self,
        url: &Url,
        addresses: &[SocketAddr],
        probe: &ProbeRequest<'_>,
        state: &mut ProbeState,
    ) -> Result<Stream, Failure> {
        let proxy = probe.spec.proxy.as_ref();
        let connect_started = Instant::now();
        let connected = connect::connect(addresses, state.deadline);
        let proxy_started = state.timings.connect.add_since(connect_started);
        let (socket, address) = connected.map_err(|failure| attribute_to_proxy(proxy, failure))?;
        state.facts.address = Some(address.ip());
        state.facts.has_other_address = addresses.len() > 1;
        let mut socket = TimedSocket::new(socket, state.deadline).map_err(|cause| {
            Failure::with_detail(Reason::ConnectFailed, Phase::Connect, cause.to_string())
        })?;
        if let Some(proxy) = proxy {
            let connected = proxy.connect(&mut socket, url);
            state.timings.connect.add_since(proxy_started);
            connected?;
        }
        if url.scheme() != "https" {
            return Ok(Stream::plain(socket));
        }
        let tls_started = Instant::now();
        let stream = self.start_tls(url, socket, probe, &mut state.facts);
        state.timings.tls.add_since(tls_started);
        stream
    }

    fn start_tls(
        &self,
        url: &Url,
        socket: TimedSocket,
        probe: &ProbeRequest<'_>,
        facts: &mut Facts,
    ) -> Result<Stream, Failure> {
        let name = server_name(url).ok_or_else(|| {
            let detail = "no certificate can name this host";
            Failure::with_detail(Reason::TlsProtocol, Phase::Tls, detail)
        })?;
        let config = match &probe.spec.tls {
            None => Arc::clone(&self.tls),
            Some(tls) => tls
                .client_config(&self.roots, redirect::is_same_site(probe.url, url))
                .map_err(|cause| tls::failure(&cause, Phase::Tls))?,
        };
        let stream = Stream::tls(socket, config, name);
        facts.certificate_end = match &stream {
            Ok(stream) => stream.certificate().and_then(tls::certificate_end),
            Err(error) => error.certificate_end(),
        };
        stream.map_err(|error| error.into_failure(Phase::Tls))
    }
}

/// The result of one request.
enum Exchange {
    /// The final response passed the checks. Holds the warning, if any.
    Final(Option<Failure>),
    Redirect {
        status: u16,
        location: String,
    },
}

fn with_port(addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

/// Turns a failure to reach the proxy into a failure of the proxy.
fn attribute_to_proxy(proxy: Option<&Proxy>, failure: Failure) -> Failure {
    let Some(proxy) = proxy else { return failure };
    let reason = match failure.reason {
        Reason::ConnectTimeout | Reason::DnsTimeout => Reason::ProxyTimeout,
        _ => Reason::ProxyFailed,
    };
    let detail = failure.detail.unwrap_or_default();
    proxy.failure(
        reason,
        format!("{}: {detail}", failure.reason.as_str()).trim_end_matches([':', ' ']),
    )
}

/// The name that the certificate must have. A final dot is not part of it (RFC 6066,
/// section 3).
fn server_name(url: &Url) -> Option<ServerName<'static>> {
    Some(match url.host()? {
        Host::Ipv4(address) => IpAddr::from(address).into(),
        Host::Ipv6(address) => IpAddr::from(address).into(),
        Host::Domain(name) => {
            ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned()).ok()?
        }
    })
}
