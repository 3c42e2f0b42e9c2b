//! How a target is probed, beyond its URL.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::family::Family;
use crate::probe::http::checks::Checks;
use crate::probe::http::request::Request;
use crate::probe::net::proxy::Proxy;
use crate::probe::net::resolver::Servers;
use crate::probe::net::tls::target::Trust;

/// What is sent, on which way, and what is expected of the answer. Targets
/// that say the same share one.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// What is sent.
    pub request: Request,
    /// Whether a redirect is followed, or is the answer.
    pub follows_redirects: bool,
    /// What is expected.
    pub checks: Checks,
    /// Who is asked for names, when not whom the tracker asks.
    pub servers: Option<Servers>,
    /// Certificates, when not the tracker's own.
    pub trust: Option<Arc<Trust>>,
    /// Through whom, when not directly.
    pub proxy: Option<Proxy>,
}

impl Spec {
    /// A GET of which nothing is expected, on the tracker's own way.
    pub const fn new() -> Self {
        Self {
            request: Request::new(),
            follows_redirects: true,
            checks: Checks::new(),
            servers: None,
            trust: None,
            proxy: None,
        }
    }
}

impl Default for Spec {
    fn default() -> Self {
        Self::new()
    }
}

/// What is asked where nothing else is.
static PLAIN: Spec = Spec::new();

/// What is asked of one probe.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Of scheme http or https; user and password are sent to its host alone.
    pub url: &'a Url,
    /// What is sent, on which way, and what is expected of the answer.
    pub spec: &'a Spec,
    /// What the probe may take.
    pub limits: Limits,
    /// By which of the Internet's two families it goes.
    pub family: Family,
    /// An address that is tried after all others: the one that the attempt before failed at.
    pub last_resort: Option<IpAddr>,
}

impl<'a> Ask<'a> {
    /// A GET of that page, with nothing else asked.
    pub fn new(url: &'a Url) -> Self {
        Self {
            url,
            spec: &PLAIN,
            limits: Limits::default(),
            family: Family::default(),
            last_resort: None,
        }
    }
}

/// What a probe may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
