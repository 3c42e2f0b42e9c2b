//! The addresses of name servers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use thiserror::Error;

const DNS_PORT: u16 = 53;

/// The most servers, as in the C libraries. Each server costs a look-up a socket and a
/// share of its time.
pub const SERVERS_MAX: usize = 3;

/// Why a text is not a list of name servers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameServersError {
    /// An entry is not an address.
    #[error("{0:?} is not an ip address")]
    InvalidAddress(String),
    /// The list is empty.
    #[error("no address")]
    Empty,
    /// The list has this number of addresses.
    #[error("{0} servers are more than {SERVERS_MAX}")]
    TooMany(usize),
}

/// One to three name servers, in the order in which they are queried. A clone is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameServers(Arc<[SocketAddr]>);

impl NameServers {
    /// The first three servers. `None` if there are none.
    pub fn from_first(mut servers: Vec<SocketAddr>) -> Option<Self> {
        servers.truncate(SERVERS_MAX);
        (!servers.is_empty()).then(|| Self(servers.into()))
    }

    /// Parses addresses separated by commas. The default port is 53: `192.0.2.1`,
    /// `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`, `fe80::1%eth0`.
    ///
    /// # Errors
    /// When an entry is not an address, or there are none or more than three.
    pub fn parse(text: &str) -> Result<Self, NameServersError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let servers: Vec<_> = parts
            .map(|part| {
                let error = || NameServersError::InvalidAddress(part.to_owned());
                parse_server(part).ok_or_else(error)
            })
            .collect::<Result<_, _>>()?;
        match servers.len() {
            ..=SERVERS_MAX => Self::from_first(servers).ok_or(NameServersError::Empty),
            count => Err(NameServersError::TooMany(count)),
        }
    }

    /// At least one address.
    pub fn as_slice(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl From<SocketAddr> for NameServers {
    fn from(server: SocketAddr) -> Self {
        Self([server].into())
    }
}

/// Parses an address with an optional port.
fn parse_server(text: &str) -> Option<SocketAddr> {
    if let Some(server) = parse_address(text) {
        return Some(server);
    }
    // std parses an IPv6 address with a port only in brackets, and its scope only as a number.
    let (address, port) = text.rsplit_once(':')?;
    let is_bracketed = address.starts_with('[') && address.ends_with(']');
    let mut server = match is_bracketed {
        true => parse_address(&address[1..address.len() - 1]).filter(SocketAddr::is_ipv6)?,
        false => parse_address(address).filter(SocketAddr::is_ipv4)?,
    };
    server.set_port(port.parse().ok().filter(|port| *port != 0)?);
    Some(server)
}

/// Parses an address without a port. A link-local address can have its interface
/// (`fe80::1%eth0`).
pub(super) fn parse_address(text: &str) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT));
    };
    let scope = scope.parse().ok().or_else(|| interface_index(scope))?;
    let address: Ipv6Addr = address.parse().ok()?;
    Some(SocketAddrV6::new(address, DNS_PORT, 0, scope).into())
}

/// The same number as if_nametoindex(3), without unsafe code.
fn interface_index(name: &str) -> Option<u32> {
    let is_file_name = !name.contains('/') && !name.starts_with('.');
    let path = is_file_name.then(|| format!("/sys/class/net/{name}/ifindex"))?;
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let servers = NameServers::parse(text).map_err(|error| error.to_string())?;
        Ok(servers.as_slice().iter().map(SocketAddr::to_string).collect())
    }

    #[test]
    fn servers_are_addresses_with_an_optional_port() {
        for (text, expected) in [
            ("192.0.2.1", &["192.0.2.1:53"][..]),
            ("192.0.2.1:5353, 192.0.2.2,", &["192.0.2.1:5353", "192.0.2.2:53"]),
            ("2001:db8::1", &["[2001:db8::1]:53"]),
            ("[2001:db8::1]:5353", &["[2001:db8::1]:5353"]),
            ("fe80::1%7,[fe80::1%lo]:54", &["[fe80::1%7]:53", "[fe80::1%1]:54"]),
            ("::1:53", &["[::1:53]:53"]),
        ] {
            let expected = expected.iter().map(|one| (*one).to_owned()).collect();
            assert_eq!(parsed(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("dns.example", "\"dns.example\" is not an ip address"),
            ("192.0.2.1:0", "\"192.0.2.1:0\" is not an ip address"),
            ("192.0.2.1:x", "\"192.0.2.1:x\" is not an ip address"),
            ("[192.0.2.1]:53", "\"[192.0.2.1]:53\" is not an ip address"),
            ("fe80::1%no such", "\"fe80::1%no such\" is not an ip address"),
            (" , ", "no address"),
            ("::1,::2,::3,::4", "4 servers are more than 3"),
        ] {
            assert_eq!(parsed(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn fuzzed_servers_are_displayed_as_they_are_parsed() {
        let samples = [b"192.0.2.1:5353,[2001:db8::1]:53,fe80::1%7".to_vec()];
        let inputs = testkit::fuzz::run(&samples, |bytes| {
            if let Ok(servers) = NameServers::parse(&String::from_utf8_lossy(bytes)) {
                let displayed: Vec<_> =
                    servers.as_slice().iter().map(SocketAddr::to_string).collect();
                assert_eq!(NameServers::parse(&displayed.join(",")), Ok(servers));
            }
        });
        println!("name servers: {inputs} inputs");
    }
}
