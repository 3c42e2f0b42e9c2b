//! How a target is probed, beyond its URL.

use std::sync::Arc;

use super::checks::Checks;
use super::proxy::Proxy;
use super::request::Request;
use super::resolver::Servers;
use super::trust::Trust;

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
