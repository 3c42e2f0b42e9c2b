//! The choice between IPv4 and IPv6.

use std::net::IpAddr;

/// The address families that a probe uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Family {
    /// The family that connects first; IPv6 is tried first (RFC 8305).
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Each family on its own, at the same time: both must be healthy.
    Both,
}

impl Family {
    /// Whether the probe may connect to this address.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Any | Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    /// The name in detail texts; empty if not restricted to one family.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any | Self::Both => "",
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}
