use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use testkit::dns::{DnsServer, Does, Kind};
use tracker::probe::deadline::Deadline;
use tracker::probe::resolver::{Resolver, Sources};
use tracker::probe::verdict::{Failure, Reason};

use crate::{AMPLE, sources};

const V4: &str = "192.0.2.1";
const V6: &str = "2001:db8::1";

fn addresses(all: &[&str]) -> Does {
    Does::Addresses(all.iter().map(|one| one.parse().unwrap()).collect())
}

fn both(a: Does, aaaa: Does) -> DnsServer {
    DnsServer::start(&[("site.example", Kind::A, a), ("site.example", Kind::Aaaa, aaaa)]).unwrap()
}

fn resolve(servers: Vec<SocketAddr>, host: &str, time: Duration) -> Result<Vec<String>, Failure> {
    shown(Resolver::new(sources(servers)).resolve(host, Deadline::after(time)))
}

fn shown(found: Result<Vec<IpAddr>, Failure>) -> Result<Vec<String>, Failure> {
    found.map(|all| all.iter().map(IpAddr::to_string).collect())
}

fn ask(a: Does, aaaa: Does) -> Result<Vec<String>, Failure> {
    resolve(vec![both(a, aaaa).address()], "site.example", AMPLE)
}

fn found(all: &[&str]) -> Result<Vec<String>, Failure> {
    Ok(all.iter().map(|one| (*one).to_owned()).collect())
}

fn reason(result: Result<Vec<String>, Failure>) -> Reason {
    result.unwrap_err().reason
}

#[test]
fn both_families_are_asked_for_and_given_in_turn() {
    let a = addresses(&[V4, "192.0.2.2", "192.0.2.3"]);
    let aaaa = addresses(&[V6, "2001:db8::2"]);
    let expected = found(&[V6, V4, "2001:db8::2", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(ask(a, aaaa), expected);
}

#[test]
fn one_good_family_is_enough_and_does_not_wait_for_the_other() {
    let late = || Does::Late(Duration::from_secs(1), Box::new(addresses(&["192.0.2.9"])));
    let answered = [Does::ServerFailure, Does::Refused, Does::NoData, Does::NoSuchName];
    let (a, aaaa) = (addresses(&[V4]), addresses(&[V6]));
    let mut cases = Vec::new();
    for bad in answered {
        cases.push((a.clone(), bad.clone(), V4));
        cases.push((bad, aaaa.clone(), V6));
    }
    for bad in [Does::Silent, Does::Garbage, late()] {
        cases.push((a.clone(), bad, V4));
    }
    for (a, aaaa, expected) in cases {
        let shown = format!("{a:?} {aaaa:?}");
        let server = both(a, aaaa);
        let begun = Instant::now();
        let result = resolve(vec![server.address()], "site.example", AMPLE);
        let took = begun.elapsed();
        assert_eq!(result, found(&[expected]), "{shown}");
        assert!(took < Duration::from_millis(900), "{shown}: {took:?}");
    }
    // Broken servers say NXDOMAIN of AAAA alone.
    let slow = Does::Late(Duration::from_millis(200), Box::new(addresses(&[V4])));
    assert_eq!(ask(slow, Does::NoSuchName), found(&[V4]));
}

#[test]
fn an_a_record_that_is_late_or_lost_is_waited_for() {
    let late = Does::Late(Duration::from_millis(400), Box::new(addresses(&[V4])));
    assert_eq!(ask(late, addresses(&[V6])), found(&[V6, V4]));
    let lossy = both(Does::Silent, addresses(&[V6]));
    let good = both(addresses(&[V4]), addresses(&[V6]));
    let result = resolve(vec![lossy.address(), good.address()], "site.example", AMPLE);
    assert_eq!(result, found(&[V6, V4]));
    // A server that never answers it costs some time, and no verdict.
    let begun = Instant::now();
    assert_eq!(ask(Does::Silent, addresses(&[V6])), found(&[V6]));
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn only_nxdomain_means_that_there_is_no_such_name() {
    for (does, expected) in [
        (Does::NoSuchName, Reason::DnsNoSuchDomain),
        (Does::NoData, Reason::DnsNoAddress),
        (Does::ServerFailure, Reason::DnsServerFailure),
        (Does::Refused, Reason::DnsServerFailure),
        (Does::AliasLoop, Reason::DnsServerFailure),
    ] {
        assert_eq!(reason(ask(does.clone(), does.clone())), expected, "{does:?}");
    }
    let result = ask(Does::NoData, Does::ServerFailure);
    assert_eq!(reason(result), Reason::DnsServerFailure);
    let result = ask(Does::Silent, Does::NoSuchName);
    assert_eq!(reason(result), Reason::DnsNoSuchDomain);
}

#[test]
fn a_failure_says_which_server_said_what() {
    let server = both(Does::ServerFailure, Does::ServerFailure);
    let failure = resolve(vec![server.address()], "site.example", AMPLE).unwrap_err();
    assert_eq!(failure.detail, Some(format!("SERVFAIL from {}", server.address())));
    // Nobody listens there, which the kernel says at once.
    let nobody = "127.0.0.1:1".parse().unwrap();
    let begun = Instant::now();
    let failure = resolve(vec![nobody], "site.example", AMPLE).unwrap_err();
    assert_eq!(failure.reason, Reason::DnsServerFailure);
    let detail = failure.detail.unwrap();
    assert!(detail.ends_with("from 127.0.0.1:1"), "{detail}");
    assert!(begun.elapsed() < Duration::from_millis(900));
}

#[test]
fn answers_to_something_else_are_passed_over() {
    let real = || Box::new(addresses(&[V4]));
    let forged = || Box::new(addresses(&["198.51.100.66"]));
    for stray in [Does::WrongId(forged()), Does::OtherQuestion(forged()), Does::Garbage] {
        let does = Does::Both(Box::new(stray.clone()), real());
        assert_eq!(ask(does, Does::NoData), found(&[V4]), "{stray:?}");
        let server = both(stray.clone(), stray.clone());
        let short = Duration::from_millis(300);
        let result = resolve(vec![server.address()], "site.example", short);
        assert_eq!(reason(result), Reason::DnsTimeout, "{stray:?}");
    }
}

#[test]
fn a_truncated_answer_is_asked_for_by_tcp() {
    let many: Vec<_> = (0..200).map(|i| format!("192.0.2.{i}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let server = both(Does::Truncated(Box::new(addresses(&many))), Does::NoData);
    let result = resolve(vec![server.address()], "site.example", AMPLE);
    assert_eq!(result, found(&many));
    assert_eq!(server.asked().iter().filter(|(_, kind)| *kind == Kind::A).count(), 2);
}

#[test]
fn a_server_without_edns_is_asked_without_it() {
    let without = |does| Does::WithoutEdns(Box::new(does));
    let result = ask(without(addresses(&[V4])), without(Does::NoData));
    assert_eq!(result, found(&[V4]));
}

#[test]
fn aliases_are_followed_within_an_answer_and_beyond_it() {
    let to = vec!["one.example", "two.example"];
    let all = |one: &str| vec![one.parse().unwrap()];
    let result = ask(Does::Aliases(to.clone(), all(V4)), Does::Aliases(to.clone(), all(V6)));
    assert_eq!(result, found(&[V6, V4]));
    let rules = |two: Does| {
        DnsServer::start(&[
            ("site.example", Kind::A, Does::Aliases(vec!["two.example"], vec![])),
            ("site.example", Kind::Aaaa, Does::Aliases(vec!["two.example"], vec![])),
            ("two.example", Kind::A, two),
            ("two.example", Kind::Aaaa, Does::NoData),
        ])
        .unwrap()
    };
    let server = rules(addresses(&[V4]));
    assert_eq!(resolve(vec![server.address()], "site.example", AMPLE), found(&[V4]));
    let server = rules(Does::NoData);
    let result = resolve(vec![server.address()], "site.example", AMPLE);
    assert_eq!(reason(result), Reason::DnsNoAddress);
    let server = rules(Does::Aliases(vec!["site.example"], vec![]));
    let result = resolve(vec![server.address()], "site.example", AMPLE);
    assert_eq!(result.unwrap_err().detail.as_deref(), Some("a loop of aliases"));
}

#[test]
fn the_next_server_is_asked_when_one_fails_or_is_silent() {
    let good = || both(addresses(&[V4]), addresses(&[V6]));
    for bad in [Does::ServerFailure, Does::Refused, Does::Silent, Does::Garbage] {
        let (first, second) = (both(bad.clone(), bad.clone()), good());
        let servers = vec![first.address(), second.address()];
        let begun = Instant::now();
        let result = resolve(servers, "site.example", Duration::from_secs(10));
        assert_eq!(result, found(&[V6, V4]), "{bad:?}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "{bad:?}: {took:?}");
    }
    let second = good();
    let servers = vec!["127.0.0.1:1".parse().unwrap(), second.address()];
    assert_eq!(resolve(servers, "site.example", AMPLE), found(&[V6, V4]));
    // NXDOMAIN is an answer: nobody else is asked.
    let (first, second) = (both(Does::NoSuchName, Does::NoSuchName), good());
    let servers = vec![first.address(), second.address()];
    assert_eq!(reason(resolve(servers, "site.example", AMPLE)), Reason::DnsNoSuchDomain);
    assert!(second.asked().is_empty());
}

#[test]
fn a_late_answer_of_the_first_server_still_counts() {
    let late = |does| Does::Late(Duration::from_millis(1300), Box::new(does));
    let first = both(late(addresses(&[V4])), late(addresses(&[V6])));
    let second = both(Does::Silent, Does::Silent);
    let servers = vec![first.address(), second.address()];
    let begun = Instant::now();
    let result = resolve(servers, "site.example", Duration::from_secs(10));
    assert_eq!(result, found(&[V6, V4]));
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(!second.asked().is_empty());
}

#[test]
fn special_names_are_answered_without_a_server() {
    let server = both(Does::NoData, Does::NoData);
    for (host, expected) in [
        ("localhost", Ok(())),
        ("localhost.", Ok(())),
        ("a.b.LocalHost", Ok(())),
        ("invalid", Err(Reason::DnsNoSuchDomain)),
        ("site.invalid", Err(Reason::DnsNoSuchDomain)),
    ] {
        let result = resolve(vec![server.address()], host, AMPLE);
        match expected {
            Ok(()) => assert_eq!(result, found(&["::1", "127.0.0.1"]), "{host}"),
            Err(expected) => assert_eq!(reason(result), expected, "{host}"),
        }
    }
    let label = format!("{}.example", "x".repeat(64));
    let failure = resolve(vec![server.address()], &label, AMPLE).unwrap_err();
    assert_eq!(failure.reason, Reason::DnsServerFailure);
    assert!(server.asked().is_empty());
}

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
            servers: Some(vec![server]),
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
    let see = || shown(resolver.resolve("site.example", Deadline::after(AMPLE)));
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
    let found_here = shown(resolver.resolve("a.localhost", Deadline::after(AMPLE)));
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
        let found = resolver.resolve(host, Deadline::after(AMPLE)).is_ok();
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
    let servers = Some(vec![one.address(), other.address()]);
    let resolver = Resolver::new(Sources { servers, ..folder.sources(one.address()) });
    let four =
        || (0..4).for_each(|_| drop(resolver.resolve("site.example", Deadline::after(AMPLE))));
    four();
    assert_eq!((one.asked().len(), other.asked().len()), (8, 0));
    folder.write("resolv.conf", "options rotate\n");
    four();
    assert_eq!((one.asked().len(), other.asked().len()), (12, 4));
}
