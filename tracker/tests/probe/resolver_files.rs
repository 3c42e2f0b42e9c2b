//! The options of resolv.conf, the hosts file, the cache, and changes of the files.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use testkit::dns::{Behaviour, DnsServer, QueryType};
use tracker::probe::net::deadline::Deadline;
use tracker::probe::net::resolver::{NameServers, Resolver, ResolverConfig};
use tracker::probe::reason::Reason;

use crate::LONG_TIMEOUT;
use crate::resolver::{V4, addresses, ok, reason, start_server, to_texts};

/// A temporary folder, removed at the end.
struct ResolverFolder(std::path::PathBuf);

impl ResolverFolder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("resolver-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        // Replaces the file by renaming, as package managers and container engines do.
        let new = self.0.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.0.join(name)).unwrap();
    }

    fn resolver_config(&self, server: SocketAddr) -> ResolverConfig {
        ResolverConfig {
            resolv_conf: self.0.join("resolv.conf"),
            hosts: self.0.join("hosts"),
            servers: Some(server.into()),
            cache: false,
        }
    }
}

impl Drop for ResolverFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_hosts_file_takes_precedence_and_is_read_again_when_it_changes() {
    let folder = ResolverFolder::new("hosts");
    let server = start_server(addresses(&[V4]), Behaviour::NoData);
    let resolver = Resolver::new(folder.resolver_config(server.address()));
    let look_up =
        || to_texts(resolver.resolve("site.example", None, Deadline::after(LONG_TIMEOUT)));
    assert_eq!(look_up(), ok(&[V4]));
    folder.write("hosts", "192.0.2.7 site.example\n");
    assert_eq!(look_up(), ok(&["192.0.2.7"]));
    folder.write("hosts", "192.0.2.8 site.example\n2001:db8::8 site.example\n");
    assert_eq!(look_up(), ok(&["2001:db8::8", "192.0.2.8"]));
    // While the file is missing its last content stays valid.
    fs::remove_file(folder.0.join("hosts")).unwrap();
    assert_eq!(look_up(), ok(&["2001:db8::8", "192.0.2.8"]));
    folder.write("hosts", "\n");
    assert_eq!(look_up(), ok(&[V4]));
    folder.write("hosts", "192.0.2.5 localhost a.localhost\n");
    let localhost = to_texts(resolver.resolve("a.localhost", None, Deadline::after(LONG_TIMEOUT)));
    assert_eq!(localhost, ok(&["192.0.2.5"]));
}

#[test]
fn short_names_are_looked_up_with_the_search_suffixes() {
    let folder = ResolverFolder::new("search");
    let (a, aaaa) = (QueryType::A, QueryType::Aaaa);
    let server = DnsServer::start(&[
        ("site.two.example", a, addresses(&[V4])),
        ("site.two.example", aaaa, Behaviour::NoData),
        ("a.b.two.example", a, addresses(&[V4])),
        ("a.b.two.example", aaaa, Behaviour::NoData),
    ])
    .unwrap();
    let resolver = Resolver::new(folder.resolver_config(server.address()));
    let asked = |host: &str, conf: &str| {
        folder.write("resolv.conf", &format!("search one.example two.example\n{conf}\n"));
        let before = server.queried_names().len();
        let found = resolver.resolve(host, None, Deadline::after(LONG_TIMEOUT)).is_ok();
        let names = server.queried_names().split_off(before).into_iter();
        let names: Vec<_> = names.filter(|(_, kind)| *kind == a).map(|(name, _)| name).collect();
        (names, found)
    };
    let names = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let both = names(&["site.one.example", "site.two.example"]);
    assert_eq!(asked("site", ""), (both, true));
    let all = names(&["other.one.example", "other.two.example", "other"]);
    assert_eq!(asked("other", ""), (all, false));
    assert_eq!(asked("site.", ""), (names(&["site"]), false));
    // A name with a dot is first looked up as it is, and with few dots also with suffixes.
    assert_eq!(asked("a.b", ""), (names(&["a.b"]), false));
    let all = names(&["a.b", "a.b.one.example", "a.b.two.example"]);
    assert_eq!(asked("a.b", "options ndots:5"), (all, true));
    let all = names(&["a.b", "a.b.one.example"]);
    assert_eq!(asked("a.b", "search one.example\noptions ndots:5"), (all, false));
}

#[test]
fn servers_rotate_with_the_option() {
    let folder = ResolverFolder::new("rotate");
    let server = || start_server(addresses(&[V4]), Behaviour::NoData);
    let (one, other) = (server(), server());
    let servers = NameServers::from_first(vec![one.address(), other.address()]);
    let resolver =
        Resolver::new(ResolverConfig { servers, ..folder.resolver_config(one.address()) });
    let v4 = || {
        (0..4).for_each(|_| {
            drop(resolver.resolve("site.example", None, Deadline::after(LONG_TIMEOUT)))
        })
    };
    v4();
    assert_eq!((one.queried_names().len(), other.queried_names().len()), (8, 0));
    folder.write("resolv.conf", "options rotate\n");
    v4();
    assert_eq!((one.queried_names().len(), other.queried_names().len()), (12, 4));
}

/// Cached answers are not asked for again; each family is cached on its own.
#[test]
fn cached_answers_are_not_asked_for_again() {
    let folder = ResolverFolder::new("cache");
    let lasting = |does| Behaviour::WithTtl(60, Box::new(does));
    let with_zone = |does| Behaviour::WithSoa(60, 60, Box::new(does));
    let v4 = || addresses(&[V4]);
    let to_two = || lasting(Behaviour::Aliases(vec!["two.example"], vec![]));
    let cases = [
        ("cached.example", lasting(v4()), with_zone(Behaviour::NoData), 0, 0),
        ("gone.example", with_zone(Behaviour::NxDomain), with_zone(Behaviour::NxDomain), 0, 0),
        (
            "short.example",
            Behaviour::WithTtl(0, Box::new(v4())),
            with_zone(Behaviour::NoData),
            1,
            0,
        ),
        ("failed.example", lasting(v4()), Behaviour::Refused, 0, 1),
        ("zoneless.example", Behaviour::NxDomain, Behaviour::NxDomain, 1, 1),
        // Two look-ups: both answers for the alias are cached, and A for its target.
        ("alias.example", to_two(), to_two(), 0, 1),
        ("two.example", lasting(v4()), Behaviour::NoData, 0, 1),
    ];
    let rules: Vec<_> = cases
        .iter()
        .flat_map(|(name, a, aaaa, ..)| {
            [(*name, QueryType::A, a.clone()), (*name, QueryType::Aaaa, aaaa.clone())]
        })
        .collect();
    let server = DnsServer::start(&rules).unwrap();
    let other = DnsServer::start(&rules).unwrap();
    let sources = ResolverConfig { cache: true, ..folder.resolver_config(server.address()) };
    let resolver = Resolver::new(sources);
    let look_up = |name, servers: Option<&NameServers>| {
        to_texts(resolver.resolve(name, servers, Deadline::after(LONG_TIMEOUT)))
            .map_err(|one| one.reason)
    };
    for (name, .., a_count, aaaa_count) in &cases {
        let first = look_up(name, None);
        let before = server.queried_names().len();
        assert_eq!(look_up(name, None), first, "{name}");
        let asked = server.queried_names().split_off(before);
        let count = |kind| asked.iter().filter(|one| one.1 == kind).count();
        assert_eq!(
            (count(QueryType::A), count(QueryType::Aaaa)),
            (*a_count, *aaaa_count),
            "{name}"
        );
    }
    // The cache is separate for other servers, and the hosts file takes precedence.
    assert_eq!(look_up("cached.example", Some(&other.address().into())), Ok(vec![V4.to_owned()]));
    assert_eq!(other.queried_names().len(), 2);
    folder.write("hosts", "192.0.2.7 cached.example\n");
    assert_eq!(look_up("cached.example", None), Ok(vec!["192.0.2.7".to_owned()]));
}

#[test]
fn the_servers_of_the_file_are_used_and_change_with_it() {
    let folder = ResolverFolder::new("servers");
    let sources = folder.resolver_config("127.0.0.1:1".parse().unwrap());
    let resolver = Resolver::new(ResolverConfig { servers: None, ..sources });
    let time = Duration::from_millis(300);
    // The servers do not exist; the detail names them.
    for server in ["127.85.0.1", "127.85.0.2"] {
        folder.write("resolv.conf", &format!("nameserver {server}\noptions attempts:1\n"));
        let failure = resolver.resolve("site.example", None, Deadline::after(time)).unwrap_err();
        let detail = failure.detail.unwrap_or_default();
        assert!(detail.ends_with(&format!("from {server}:53")), "{detail}");
    }
}

/// `attempts` and `timeout` apply, and a repeated question keeps its id and port.
#[test]
fn a_server_that_does_not_answer_is_asked_as_the_options_define() {
    let folder = ResolverFolder::new("attempts");
    let server = start_server(Behaviour::NoAnswer, Behaviour::NoAnswer);
    let resolver = Resolver::new(folder.resolver_config(server.address()));
    for (options, questions, time, ends_early) in [
        ("attempts:1 timeout:1", 2, LONG_TIMEOUT, true),
        ("attempts:4", 8, Duration::from_secs(1), false),
    ] {
        folder.write("resolv.conf", &format!("options {options}\n"));
        let before = server.queried_names().len();
        let deadline = Deadline::after(time);
        let result = to_texts(resolver.resolve("site.example", None, deadline));
        assert_eq!(reason(result), Reason::DnsTimeout, "{options}");
        let asked = server.queries().split_off(before);
        assert_eq!(asked.len(), questions, "{options}");
        let ids: HashSet<_> = asked.iter().map(|one| (one.kind, one.id, one.port)).collect();
        assert_eq!(ids.len(), 2, "{options}");
        assert_eq!(deadline.has_passed(), !ends_early, "{options}");
    }
}
