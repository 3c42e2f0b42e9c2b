//! Broker addresses and bootstrap lists.

use std::fmt;

/// The port of a broker in a bootstrap list that names no port.
pub const PORT_DEFAULT: u16 = 9092;

/// Host name or IP address, and TCP port, of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerAddress {
    /// A name or an IP address; an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl BrokerAddress {
    /// Parses a bootstrap list: `host:port` or `[ipv6]:port`, separated by commas. Blanks around an
    /// entry are ignored. An entry without a port gets [`PORT_DEFAULT`].
    ///
    /// # Errors
    /// A text with the wrong entry and the expected form. An entry with an `@` is not shown,
    /// because it may contain a password.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, String> {
        let addresses: Vec<Self> = list
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(Self::parse)
            .collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            return Err("the list is empty: expected host:port,host:port".to_owned());
        }
        Ok(addresses)
    }

    fn parse(part: &str) -> Result<Self, String> {
        if part.contains('@') {
            // The entry is not shown: the text before the '@' can be a password.
            return Err("an entry contains a user or password: expected host:port".to_owned());
        }
        let expected = || format!("{part:?} is not host:port");
        let (host, port) = if let Some(rest) = part.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(expected)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| expected())?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':').ok_or_else(expected)?)),
            }
        } else if part.matches(':').count() > 1 {
            if part.parse::<std::net::Ipv6Addr>().is_ok() {
                return Err(format!("{part:?}: an IPv6 address needs brackets: [{part}]:port"));
            }
            return Err(expected());
        } else {
            match part.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (part, None),
            }
        };
        let is_host_char =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(is_host_char) {
            return Err(expected());
        }
        let port = match port {
            None => PORT_DEFAULT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => {
                    return Err(format!("{part:?}: the port is not a number from 1 to 65535"));
                }
                Ok(port) => port,
            },
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// Whether the address is this machine, so that plain text does not cross a network.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_list_is_parsed_and_displayed() {
        let list = BrokerAddress::parse_list("a:9093, [::1]:9094,b ,[2001:db8::1]").unwrap();
        let shown: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a:9093", "[::1]:9094", "b:9092", "[2001:db8::1]:9092"]);
        assert!(!list[0].is_loopback());
        assert!(list[1].is_loopback());
    }

    #[test]
    fn wrong_entry_is_named() {
        for (list, expected) in [
            ("", "the list is empty: expected host:port,host:port"),
            (" , ", "the list is empty: expected host:port,host:port"),
            ("a:b", "\"a:b\": the port is not a number from 1 to 65535"),
            ("a:0", "\"a:0\": the port is not a number from 1 to 65535"),
            (":9092", "\":9092\" is not host:port"),
            ("kafka://a", "\"kafka://a\": the port is not a number from 1 to 65535"),
            ("a:1,u:secret@b:1", "an entry contains a user or password: expected host:port"),
            ("a b:1", "\"a b:1\" is not host:port"),
            ("::1", "\"::1\": an IPv6 address needs brackets: [::1]:port"),
            ("[::1", "\"[::1\" is not host:port"),
            ("[::1]9092", "\"[::1]9092\" is not host:port"),
        ] {
            assert_eq!(BrokerAddress::parse_list(list).unwrap_err(), expected);
        }
    }
}
