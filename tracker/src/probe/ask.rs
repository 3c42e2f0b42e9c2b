//! What is asked of a probe.

use std::net::IpAddr;
use std::time::Duration;

use url::Url;

use super::spec::Spec;

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

/// By which family of addresses a probe goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Family {
    /// By whichever connects first, IPv6 tried first (RFC 8305).
    #[default]
    Any,
    /// By IPv4 alone.
    V4,
    /// By IPv6 alone.
    V6,
    /// By each alone, at the same time: both must be well.
    Both,
}

impl Family {
    /// Whether it may go to that address.
    pub(super) fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Any | Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    /// For a person; empty when no family was asked for.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Any | Self::Both => "",
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}
