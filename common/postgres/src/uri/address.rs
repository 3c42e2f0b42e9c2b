//! The addresses in a URI.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use postgres::config::Host;

use super::error::UriError;

/// PostgreSQL's default port.
const PORT_DEFAULT: u16 = 5432;

/// One address of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerAddress {
    /// The host name for the certificate, the IP address to connect to if given (`hostaddr`), and
    /// the port.
    Tcp { host: String, address: Option<IpAddr>, port: u16 },
    /// A Unix socket: its folder, and the port in its file name.
    Unix { folder: PathBuf, port: u16 },
}

impl ServerAddress {
    /// Returns the addresses of a parsed URI, at least one.
    pub(super) fn from_config(parsed: &postgres::Config) -> Result<Vec<Self>, UriError> {
        let (hosts, numeric, ports) =
            (parsed.get_hosts(), parsed.get_hostaddrs(), parsed.get_ports());
        let count = hosts.len().max(numeric.len());
        if count == 0 || hosts.contains(&Host::Tcp(String::new())) {
            return Err(UriError::NoHost);
        }
        let matches = |len: usize| len == 0 || len == count;
        let has_one_port = ports.len() == 1;
        if !matches(hosts.len())
            || !matches(numeric.len())
            || !(matches(ports.len()) || has_one_port)
        {
            return Err(UriError::value("port", "as many hosts, hostaddrs and ports"));
        }
        let address_at = |index: usize| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT_DEFAULT);
            let address = numeric.get(index).copied();
            match (hosts.get(index), address) {
                (Some(Host::Unix(folder)), None) => Self::Unix { folder: folder.clone(), port },
                (Some(Host::Tcp(host)), _) => Self::Tcp { host: host.clone(), address, port },
                (_, Some(ip)) => Self::Tcp { host: ip.to_string(), address, port },
                // Not reached: one of the two lists has `count` entries.
                (None, None) => Self::Unix { folder: PathBuf::new(), port },
            }
        };
        Ok((0..count).map(address_at).collect())
    }

    /// Whether the server is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { host, address, .. } => match address.or_else(|| host.parse().ok()) {
                Some(address) => address.is_loopback(),
                None => host.eq_ignore_ascii_case("localhost"),
            },
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}
