//! Parses resolv.conf(5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::name_servers::{NameServers, parse_address};

/// The server if the file names none, as in the C libraries.
const DEFAULT_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// The most search suffixes.
const SEARCH_MAX: usize = 16;

/// The content of resolv.conf(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// The first three servers in the file.
    pub(super) servers: NameServers,
    pub(super) search: Vec<String>,
    /// A name with fewer dots is also looked up with the search suffixes.
    pub(super) ndots: usize,
    /// The longest wait for one server.
    pub(super) timeout: Duration,
    /// How often each server is queried.
    pub(super) attempts: usize,
    /// Whether each look-up starts with the next server.
    pub(super) rotate: bool,
}

impl ResolvConf {
    /// Ignores unknown lines and options, and limits numbers to the ranges of glibc.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: DEFAULT_SERVER.into(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
        };
        let mut servers = Vec::new();
        for line in text.lines() {
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(parse_address)),
                Some("search") => conf.search = words.map(str::to_owned).collect(),
                Some("domain") => conf.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| conf.set_option(option)),
                _ => {}
            }
        }
        conf.search.truncate(SEARCH_MAX);
        if let Some(servers) = NameServers::from_first(servers) {
            conf.servers = servers;
        }
        conf
    }

    fn set_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = value.parse::<usize>().ok();
        match (name, number) {
            ("ndots", Some(number)) => self.ndots = number.min(15),
            ("timeout", Some(number)) => {
                self.timeout = Duration::from_secs(number.clamp(1, 30) as u64);
            }
            ("attempts", Some(number)) => self.attempts = number.clamp(1, 5),
            ("rotate", None) => self.rotate = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::net::resolver::SERVERS_MAX;

    #[test]
    fn a_resolv_conf_is_read_as_the_c_libraries_do() {
        let conf = ResolvConf::parse(
            "# a comment\n; another\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver nonsense\n\
             nameserver fe80::1%7\nnameserver 192.0.2.4\ndomain ignored.example\nsearch a.example b.example\n\
             options ndots:99 timeout:0 attempts:3 rotate edns0 single-request\nsortlist 1.2.3.4\n",
        );
        let servers: Vec<_> = conf.servers.as_slice().iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!((conf.ndots, conf.timeout.as_secs(), conf.attempts), (15, 1, 3));
        assert!(conf.rotate);
        let empty = ResolvConf::parse("");
        assert_eq!(empty.servers.as_slice(), [DEFAULT_SERVER]);
        assert_eq!((empty.ndots, empty.timeout.as_secs(), empty.attempts), (1, 5, 2));
        assert!(!empty.rotate && empty.search.is_empty());
    }

    #[test]
    fn fuzzed_files_stay_within_the_limits() {
        let samples =
            [b"nameserver fe80::1%7\nsearch a.example b.example\noptions ndots:99 timeout:0\n"
                .to_vec()];
        let inputs = testkit::fuzz::run(&samples, |bytes| {
            let conf = ResolvConf::parse(&String::from_utf8_lossy(bytes));
            assert!((1..=SERVERS_MAX).contains(&conf.servers.as_slice().len()));
            assert!(conf.search.len() <= SEARCH_MAX && conf.ndots <= 15);
            assert!(conf.timeout.as_secs() >= 1 && (1..=5).contains(&conf.attempts));
        });
        println!("resolv.conf: {inputs} inputs");
    }
}
