use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use testkit::dns::{DnsServer, Does, Kind};
use tracker::probe::net::resolver::Resolver;
use tracker::probe::net::socket::Deadline;
use tracker::probe::reason::{Failure, Reason};

use crate::{AMPLE, sources};

pub(crate) const V4: &str = "192.0.2.1";
pub(crate) const V6: &str = "2001:db8::1";

pub(crate) fn addresses(all: &[&str]) -> Does {
    Does::Addresses(all.iter().map(|one| one.parse().unwrap()).collect())
}

pub(crate) fn both(a: Does, aaaa: Does) -> DnsServer {
    DnsServer::start(&[("site.example", Kind::A, a), ("site.example", Kind::Aaaa, aaaa)]).unwrap()
}

fn resolve(servers: Vec<SocketAddr>, host: &str, time: Duration) -> Result<Vec<String>, Failure> {
    shown(Resolver::new(sources(servers)).resolve(host, None, Deadline::after(time)))
}

pub(crate) fn shown(found: Result<Vec<IpAddr>, Failure>) -> Result<Vec<String>, Failure> {
    found.map(|all| all.iter().map(IpAddr::to_string).collect())
}

fn ask(a: Does, aaaa: Does) -> Result<Vec<String>, Failure> {
    resolve(vec![both(a, aaaa).address()], "site.example", AMPLE)
}

pub(crate) fn found(all: &[&str]) -> Result<Vec<String>, Failure> {
    Ok(all.iter().map(|one| (*one).to_owned()).collect())
}

pub(crate) fn reason(result: Result<Vec<String>, Failure>) -> Reason {
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
