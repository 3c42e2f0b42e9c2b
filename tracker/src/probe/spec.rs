//! The input of a probe: the URL, how to probe it, and the limits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::family::Family;
use super::http::checks::Checks;
use super::http::request::HttpRequest;
use super::net::proxy::Proxy;
use super::net::resolver::NameServers;
use super::net::tls::target::TargetTls;

static DEFAULT_SPEC: ProbeSpec = ProbeSpec::new();

/// The input of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct ProbeRequest<'a> {
    /// An `http` or `https` URL. User and password are sent to its host only.
    pub url: &'a Url,
    /// The request, the route, and the checks.
    pub spec: &'a ProbeSpec,
    /// Time and size limits.
    pub limits: Limits,
    /// The address families to use.
    pub family: Family,
    /// The address to try last: the previous attempt failed at it.
    pub last_resort: Option<IpAddr>,
}

impl<'a> ProbeRequest<'a> {
    /// A GET of this URL with the default settings.
    pub fn new(url: &'a Url) -> Self {
        Self {
            url,
            spec: &DEFAULT_SPEC,
            limits: Limits::default(),
            family: Family::default(),
            last_resort: None,
        }
    }
}

/// How a target is probed. Targets with the same settings share one value.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeSpec {
    /// The request.
    pub request: HttpRequest,
    /// Whether redirects are followed. If not, a redirect is the final response.
    pub follows_redirects: bool,
    /// The checks on the final response.
    pub checks: Checks,
    /// Name servers. `None`: use the tracker's name servers.
    pub name_servers: Option<NameServers>,
    /// TLS settings. `None`: use the tracker's TLS settings.
    pub tls: Option<Arc<TargetTls>>,
    /// The HTTP proxy. `None`: connect directly.
    pub proxy: Option<Proxy>,
}

impl ProbeSpec {
    /// A GET whose only check is the status, with the settings of the tracker.
    pub const fn new() -> Self {
        Self {
            request: HttpRequest::new(),
            follows_redirects: true,
            checks: Checks::new(),
            name_servers: None,
            tls: None,
            proxy: None,
        }
    }
}

impl Default for ProbeSpec {
    fn default() -> Self {
        Self::new()
    }
}

/// The limits of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The time for the whole attempt: DNS, TLS, redirects and body included.
    pub timeout: Duration,
    /// The number of decoded bytes of the body to read. Reading, the response time and
    /// the checks end there.
    pub body_bytes_max: u64,
    /// The number of redirects to follow.
    pub redirects_max: u32,
}

impl Default for Limits {
    /// 10 s, 1 MiB and 10 redirects.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), body_bytes_max: 1024 * 1024, redirects_max: 10 }
    }
}
