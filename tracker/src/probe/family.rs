//! The families of IP addresses.

use std::net::IpAddr;

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
    pub(crate) fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Any | Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    /// For a person; empty when no family was asked for.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any | Self::Both => "",
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}
