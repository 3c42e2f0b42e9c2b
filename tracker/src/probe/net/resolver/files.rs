//! resolv.conf and the hosts file, each read again when it changes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::servers::{self, Servers};

/// Asked when the file names nobody, as in the C libraries.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// As many suffixes as are tried for a short name.
const SEARCH_MAX: usize = 16;

/// What of a file is read; a list of every advertiser's hosts has a few MiB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file that is parsed again when its identity, time or length changes.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    path: PathBuf,
    parse: fn(&str) -> T,
    newest: Mutex<(Option<Stamp>, Arc<T>)>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            bytes: metadata.len(),
        })
    }
}

impl<T> Watched<T> {
    pub(crate) fn new(path: PathBuf, parse: fn(&str) -> T) -> Self {
        Self { path, parse, newest: Mutex::new((None, Arc::new(parse("")))) }
    }

    /// The file's content as of now. While it can't be read, as during its
    /// replacement, the last content stands; at first, that of an empty file.
    pub(crate) fn get(&self) -> Arc<T> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the content is read: a change in between is seen at the
        // next look.
        let stamp = Stamp::of(&self.path);
        if stamp.is_some() && stamp != newest.0 {
            // Neither file has to be UTF-8; what matters of them is ASCII.
            if let Ok(bytes) = read(&self.path) {
                *newest = (stamp, Arc::new((self.parse)(&String::from_utf8_lossy(&bytes))));
            }
        }
        Arc::clone(&newest.1)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// resolv.conf(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// The first three that the file names; the rest of the lines is left out.
    pub(crate) servers: Servers,
    pub(crate) search: Vec<String>,
    /// A name with fewer dots is also looked for below the search suffixes.
    pub(crate) ndots: usize,
    /// The longest wait for one server.
    pub(crate) timeout: Duration,
    /// Rounds through the servers.
    pub(crate) attempts: usize,
    /// Whether each lookup begins at the next server.
    pub(crate) rotate: bool,
}

impl ResolvConf {
    /// Lines and options that are not known are passed over, and numbers are
    /// held to the ranges of glibc.
    pub(crate) fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: LOOPBACK.into(),
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
                Some("nameserver") => {
                    servers.extend(words.next().and_then(servers::on_dns_port));
                }
                Some("search") => conf.search = words.map(str::to_owned).collect(),
                Some("domain") => conf.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| conf.set(option)),
                _ => {}
            }
        }
        conf.search.truncate(SEARCH_MAX);
        if let Some(servers) = Servers::first_of(servers) {
            conf.servers = servers;
        }
        conf
    }

    fn set(&mut self, option: &str) {
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

/// hosts(5): names in lower case and without a final dot.
#[derive(Debug, Default)]
pub(crate) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    pub(crate) fn parse(text: &str) -> Self {
        let mut hosts = HashMap::<String, Vec<IpAddr>>::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
                continue;
            };
            // Two dots at the end are no name's.
            for name in words.filter(|word| !word.ends_with("..")) {
                let of_name = hosts.entry(canonical(name)).or_default();
                if !of_name.contains(&address) {
                    of_name.push(address);
                }
            }
        }
        Self(hosts)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(&canonical(name)).map(Vec::as_slice)
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(empty.servers.as_slice(), [LOOPBACK]);
        assert_eq!((empty.ndots, empty.timeout.as_secs(), empty.attempts), (1, 5, 2));
        assert!(!empty.rotate && empty.search.is_empty());
    }

    #[test]
    fn a_hosts_file_is_read_by_name_and_alias() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost # six\n192.0.2.7\tWWW.Example.org www\n\
             192.0.2.7 www\nnonsense www\n#192.0.2.9 off\n",
        );
        let get =
            |name| hosts.get(name).map(|all| all.iter().map(IpAddr::to_string).collect::<Vec<_>>());
        assert_eq!(get("LOCALHOST").unwrap(), ["127.0.0.1", "::1"]);
        assert_eq!(get("www.example.org.").unwrap(), ["192.0.2.7"]);
        assert_eq!(get("www").unwrap(), ["192.0.2.7"]);
        assert_eq!(get("off"), None);
    }

    #[test]
    fn fuzzed_files_are_read_within_their_bounds() {
        let samples = [
            b"nameserver fe80::1%7\nsearch a.example b.example\noptions ndots:99 timeout:0\n"
                .to_vec(),
            b"127.0.0.1 localhost\n::1 localhost six # six\n".to_vec(),
            b"192.0.2.1:5353,[2001:db8::1]:53,fe80::1%7".to_vec(),
        ];
        let tried = testkit::fuzz::run(&samples, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let conf = ResolvConf::parse(&text);
            assert!((1..=servers::SERVERS_MAX).contains(&conf.servers.as_slice().len()));
            assert!(conf.search.len() <= SEARCH_MAX && conf.ndots <= 15);
            assert!(conf.timeout.as_secs() >= 1 && (1..=5).contains(&conf.attempts));
            for (name, addresses) in Hosts::parse(&text).0 {
                assert!(!addresses.is_empty() && name == canonical(&name), "{name}");
            }
            if let Ok(given) = Servers::parse(&text) {
                let shown = given.as_slice().iter().map(SocketAddr::to_string);
                assert_eq!(Servers::parse(&shown.collect::<Vec<_>>().join(",")), Ok(given));
            }
        });
        println!("files of the resolver: {tried} inputs");
    }
}
