//! Which name servers are asked.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

const DNS_PORT: u16 = 53;

/// As many servers as the C libraries use: each costs a look-up a socket, and a
/// share of its time.
pub const SERVERS_MAX: usize = 3;

/// One to three name servers, in the order in which they are asked. A clone
/// costs next to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Servers(Arc<[SocketAddr]>);

impl Servers {
    /// The first three of them; none when there is none.
    pub fn first_of(mut servers: Vec<SocketAddr>) -> Option<Self> {
        servers.truncate(SERVERS_MAX);
        (!servers.is_empty()).then(|| Self(servers.into()))
    }

    /// Reads addresses separated by commas, each with a port or for port 53:
    /// `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`,
    /// `fe80::1%eth0`.
    ///
    /// # Errors
    /// What is wrong, for a person: an entry that is no address, none at all,
    /// or more than three.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let servers: Vec<_> = parts
            .map(|part| server(part).ok_or_else(|| format!("{part:?} is no ip address")))
            .collect::<Result<_, _>>()?;
        match servers.len() {
            ..=SERVERS_MAX => Self::first_of(servers).ok_or_else(|| "holds no address".to_owned()),
            count => Err(format!("{count} servers are more than {SERVERS_MAX}")),
        }
    }

    /// At least one.
    pub fn as_slice(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl From<SocketAddr> for Servers {
    fn from(server: SocketAddr) -> Self {
        Self([server].into())
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    if let Some(server) = on_dns_port(text) {
        return Some(server);
    }
    // Of IPv6 std reads a port behind brackets alone, and a scope as a number.
    let (address, port) = text.rsplit_once(':')?;
    let is_bracketed = address.starts_with('[') && address.ends_with(']');
    let address = match is_bracketed {
        true => on_dns_port(&address[1..address.len() - 1]).filter(SocketAddr::is_ipv6)?,
        false => on_dns_port(address).filter(SocketAddr::is_ipv4)?,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let mut server = address;
    server.set_port(port);
    Some(server)
}

/// An address, with its interface when it is a link's own (`fe80::1%eth0`).
pub(crate) fn on_dns_port(text: &str) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT));
    };
    let scope = scope.parse().ok().or_else(|| {
        // The kernel's own word for if_nametoindex(3).
        let plain = scope.bytes().all(|byte| byte != b'/') && !scope.starts_with('.');
        let path = plain.then(|| format!("/sys/class/net/{scope}/ifindex"))?;
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })?;
    let address: Ipv6Addr = address.parse().ok()?;
    Some(SocketAddrV6::new(address, DNS_PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let servers = Servers::parse(text)?;
        Ok(servers.as_slice().iter().map(SocketAddr::to_string).collect())
    }

    #[test]
    fn servers_are_addresses_with_or_without_a_port() {
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
            ("dns.example", "\"dns.example\" is no ip address"),
            ("192.0.2.1:0", "\"192.0.2.1:0\" is no ip address"),
            ("192.0.2.1:x", "\"192.0.2.1:x\" is no ip address"),
            ("[192.0.2.1]:53", "\"[192.0.2.1]:53\" is no ip address"),
            ("fe80::1%no such", "\"fe80::1%no such\" is no ip address"),
            (" , ", "holds no address"),
            ("::1,::2,::3,::4", "4 servers are more than 3"),
        ] {
            assert_eq!(parsed(text), Err(expected.to_owned()), "{text}");
        }
    }
}
