//! What resolv.conf and the hosts file say, and what is made of a change.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use testkit::dns::{DnsServer, Does, Kind};
use tracker::probe::net::resolver::{Resolver, Servers, Sources};
use tracker::probe::net::socket::Deadline;
use tracker::probe::reason::Reason;

use crate::AMPLE;
use crate::resolver::{V4, addresses, both, found, reason, shown};

/// A folder of this test's own, removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("resolver-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        // As package managers and container engines do: whole, by renaming.
        let new = self.0.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.0.join(name)).unwrap();
    }

    fn sources(&self, server: SocketAddr) -> Sources {
        Sources {
            resolv_conf: self.0.join("resolv.conf"),
            hosts: self.0.join("hosts"),
            servers: Some(server.into()),
            cache: false,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_hosts_file_comes_first_and_is_read_again_when_it_changes() {
    let folder = Folder::new("hosts");
    let server = both(addresses(&[V4]), Does::NoData);
    let resolver = Resolver::new(folder.sources(server.address()));
    let see = || shown(resolver.resolve("site.example", None, Deadline::after(AMPLE)));
    assert_eq!(see(), found(&[V4]));
    folder.write("hosts", "192.0.2.7 site.example\n");
    assert_eq!(see(), found(&["192.0.2.7"]));
    folder.write("hosts", "192.0.2.8 site.example\n2001:db8::8 site.example\n");
    assert_eq!(see(), found(&["2001:db8::8", "192.0.2.8"]));
    // While the file is away its last content stands.
    fs::remove_file(folder.0.join("hosts")).unwrap();
    assert_eq!(see(), found(&["2001:db8::8", "192.0.2.8"]));
    folder.write("hosts", "\n");
    assert_eq!(see(), found(&[V4]));
    folder.write("hosts", "192.0.2.5 localhost a.localhost\n");
    let found_here = shown(resolver.resolve("a.localhost", None, Deadline::after(AMPLE)));
    assert_eq!(found_here, found(&["192.0.2.5"]));
}

#[test]
fn short_names_are_looked_for_below_the_search_suffixes() {
    let folder = Folder::new("search");
    let (a, aaaa) = (Kind::A, Kind::Aaaa);
    let server = DnsServer::start(&[
        ("site.two.example", a, addresses(&[V4])),
        ("site.two.example", aaaa, Does::NoData),
        ("a.b.two.example", a, addresses(&[V4])),
        ("a.b.two.example", aaaa, Does::NoData),
    ])
    .unwrap();
    let resolver = Resolver::new(folder.sources(server.address()));
    let asked = |host: &str, conf: &str| {
        folder.write("resolv.conf", &format!("search one.example two.example\n{conf}\n"));
        let before = server.asked().len();
        let found = resolver.resolve(host, None, Deadline::after(AMPLE)).is_ok();
        let names = server.asked().split_off(before).into_iter();
        let names: Vec<_> = names.filter(|(_, kind)| *kind == a).map(|(name, _)| name).collect();
        (names, found)
    };
    let names = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let both = names(&["site.one.example", "site.two.example"]);
    assert_eq!(asked("site", ""), (both, true));
    let all = names(&["other.one.example", "other.two.example", "other"]);
    assert_eq!(asked("other", ""), (all, false));
    assert_eq!(asked("site.", ""), (names(&["site"]), false));
    // A name with a dot first as it stands, and with few dots below the suffixes.
    assert_eq!(asked("a.b", ""), (names(&["a.b"]), false));
    let all = names(&["a.b", "a.b.one.example", "a.b.two.example"]);
    assert_eq!(asked("a.b", "options ndots:5"), (all, true));
    let all = names(&["a.b", "a.b.one.example"]);
    assert_eq!(asked("a.b", "search one.example\noptions ndots:5"), (all, false));
}

#[test]
fn servers_take_turns_when_told_to() {
    let folder = Folder::new("rotate");
    let server = || both(addresses(&[V4]), Does::NoData);
    let (one, other) = (server(), server());
    let servers = Servers::first_of(vec![one.address(), other.address()]);
    let resolver = Resolver::new(Sources { servers, ..folder.sources(one.address()) });
    let four = || {
        (0..4).for_each(|_| drop(resolver.resolve("site.example", None, Deadline::after(AMPLE))))
    };
    four();
    assert_eq!((one.asked().len(), other.asked().len()), (8, 0));
    folder.write("resolv.conf", "options rotate\n");
    four();
    assert_eq!((one.asked().len(), other.asked().len()), (12, 4));
}

/// Goes red when an answer is kept by no cache, or one that may not be kept is,
/// or one family is taken for both.
#[test]
fn kept_answers_are_not_asked_for_again_each_family_apart() {
    let folder = Folder::new("cache");
    let lasting = |does| Does::For(60, Box::new(does));
    let with_zone = |does| Does::WithSoa(60, 60, Box::new(does));
    let four = || addresses(&[V4]);
    let to_two = || lasting(Does::Aliases(vec!["two.example"], vec![]));
    let cases = [
        ("kept.example", lasting(four()), with_zone(Does::NoData), 0, 0),
        ("gone.example", with_zone(Does::NoSuchName), with_zone(Does::NoSuchName), 0, 0),
        ("short.example", Does::For(0, Box::new(four())), with_zone(Does::NoData), 1, 0),
        ("failed.example", lasting(four()), Does::Refused, 0, 1),
        ("zoneless.example", Does::NoSuchName, Does::NoSuchName, 1, 1),
        // Two names: the first is kept, of the second A alone.
        ("alias.example", to_two(), to_two(), 0, 1),
        ("two.example", lasting(four()), Does::NoData, 0, 1),
    ];
    let rules: Vec<_> = cases
        .iter()
        .flat_map(|(name, a, aaaa, ..)| {
            [(*name, Kind::A, a.clone()), (*name, Kind::Aaaa, aaaa.clone())]
        })
        .collect();
    let server = DnsServer::start(&rules).unwrap();
    let other = DnsServer::start(&rules).unwrap();
    let sources = Sources { cache: true, ..folder.sources(server.address()) };
    let resolver = Resolver::new(sources);
    let look = |name, servers: Option<&Servers>| {
        shown(resolver.resolve(name, servers, Deadline::after(AMPLE))).map_err(|one| one.reason)
    };
    for (name, .., fours, sixes) in &cases {
        let first = look(name, None);
        let before = server.asked().len();
        assert_eq!(look(name, None), first, "{name}");
        let asked = server.asked().split_off(before);
        let count = |kind| asked.iter().filter(|one| one.1 == kind).count();
        assert_eq!((count(Kind::A), count(Kind::Aaaa)), (*fours, *sixes), "{name}");
    }
    // Another server's answers are its own, and the hosts file comes first.
    assert_eq!(look("kept.example", Some(&other.address().into())), Ok(vec![V4.to_owned()]));
    assert_eq!(other.asked().len(), 2);
    folder.write("hosts", "192.0.2.7 kept.example\n");
    assert_eq!(look("kept.example", None), Ok(vec!["192.0.2.7".to_owned()]));
}

/// Goes red when the lines of the file have no effect, or are read once alone.
#[test]
fn the_servers_of_the_file_are_asked_and_change_with_it() {
    let folder = Folder::new("servers");
    let sources = folder.sources("127.0.0.1:1".parse().unwrap());
    let resolver = Resolver::new(Sources { servers: None, ..sources });
    let time = Duration::from_millis(300);
    // Nobody is there, and who is not is told.
    for server in ["127.85.0.1", "127.85.0.2"] {
        folder.write("resolv.conf", &format!("nameserver {server}\noptions attempts:1\n"));
        let failure = resolver.resolve("site.example", None, Deadline::after(time)).unwrap_err();
        let detail = failure.detail.unwrap_or_default();
        assert!(detail.ends_with(&format!("from {server}:53")), "{detail}");
    }
}

/// Goes red when `attempts` or `timeout` has no effect, or a question that is asked
/// again is another, to which a late answer is none.
#[test]
fn a_silent_server_is_asked_as_often_and_waited_for_as_long_as_the_file_says() {
    let folder = Folder::new("attempts");
    let server = both(Does::Silent, Does::Silent);
    let resolver = Resolver::new(folder.sources(server.address()));
    for (options, questions, time, ends_itself) in
        [("attempts:1 timeout:1", 2, AMPLE, true), ("attempts:4", 8, Duration::from_secs(1), false)]
    {
        folder.write("resolv.conf", &format!("options {options}\n"));
        let before = server.asked().len();
        let deadline = Deadline::after(time);
        let result = shown(resolver.resolve("site.example", None, deadline));
        assert_eq!(reason(result), Reason::DnsTimeout, "{options}");
        let asked = server.questions().split_off(before);
        assert_eq!(asked.len(), questions, "{options}");
        let ids: HashSet<_> = asked.iter().map(|one| (one.kind, one.id, one.port)).collect();
        assert_eq!(ids.len(), 2, "{options}");
        assert_eq!(deadline.passed(), !ends_itself, "{options}");
    }
}
