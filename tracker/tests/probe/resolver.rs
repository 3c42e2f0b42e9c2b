//! The answers of name servers, and the results of the resolver.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use testkit::dns::{Behaviour, DnsServer, QueryType};
use tracker::probe::net::deadline::Deadline;
use tracker::probe::net::resolver::Resolver;
use tracker::probe::reason::{Failure, Reason};

use crate::{LONG_TIMEOUT, resolver_config};

pub(crate) const V4: &str = "192.0.2.1";
pub(crate) const V6: &str = "2001:db8::1";

pub(crate) fn addresses(all: &[&str]) -> Behaviour {
    Behaviour::Addresses(all.iter().map(|one| one.parse().unwrap()).collect())
}

pub(crate) fn start_server(a: Behaviour, aaaa: Behaviour) -> DnsServer {
    DnsServer::start(&[("site.example", QueryType::A, a), ("site.example", QueryType::Aaaa, aaaa)])
        .unwrap()
}

fn resolve(servers: Vec<SocketAddr>, host: &str, time: Duration) -> Result<Vec<String>, Failure> {
    to_texts(Resolver::new(resolver_config(servers)).resolve(host, None, Deadline::after(time)))
}

pub(crate) fn to_texts(found: Result<Vec<IpAddr>, Failure>) -> Result<Vec<String>, Failure> {
    found.map(|all| all.iter().map(IpAddr::to_string).collect())
}

fn resolve_site(a: Behaviour, aaaa: Behaviour) -> Result<Vec<String>, Failure> {
    resolve(vec![start_server(a, aaaa).address()], "site.example", LONG_TIMEOUT)
}

pub(crate) fn ok(all: &[&str]) -> Result<Vec<String>, Failure> {
    Ok(all.iter().map(|one| (*one).to_owned()).collect())
}

pub(crate) fn reason(result: Result<Vec<String>, Failure>) -> Reason {
    result.unwrap_err().reason
}

#[test]
fn the_addresses_of_both_families_alternate() {
    let a = addresses(&[V4, "192.0.2.2", "192.0.2.3"]);
    let aaaa = addresses(&[V6, "2001:db8::2"]);
    let expected = ok(&[V6, V4, "2001:db8::2", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(resolve_site(a, aaaa), expected);
}

#[test]
fn one_family_with_addresses_is_enough() {
    let late = || Behaviour::Delayed(Duration::from_secs(1), Box::new(addresses(&["192.0.2.9"])));
    let answered =
        [Behaviour::ServerFailure, Behaviour::Refused, Behaviour::NoData, Behaviour::NxDomain];
    let (a, aaaa) = (addresses(&[V4]), addresses(&[V6]));
    let mut cases = Vec::new();
    for bad in answered {
        cases.push((a.clone(), bad.clone(), V4));
        cases.push((bad, aaaa.clone(), V6));
    }
    for bad in [Behaviour::NoAnswer, Behaviour::Garbage, late()] {
        cases.push((a.clone(), bad, V4));
    }
    for (a, aaaa, expected) in cases {
        let shown = format!("{a:?} {aaaa:?}");
        let server = start_server(a, aaaa);
        let started_at = Instant::now();
        let result = resolve(vec![server.address()], "site.example", LONG_TIMEOUT);
        let elapsed = started_at.elapsed();
        assert_eq!(result, ok(&[expected]), "{shown}");
        assert!(elapsed < Duration::from_millis(900), "{shown}: {elapsed:?}");
    }
    // Broken servers answer NXDOMAIN to AAAA only.
    let slow = Behaviour::Delayed(Duration::from_millis(200), Box::new(addresses(&[V4])));
    assert_eq!(resolve_site(slow, Behaviour::NxDomain), ok(&[V4]));
}

#[test]
fn the_resolver_waits_for_a_late_or_lost_a_record() {
    let late = Behaviour::Delayed(Duration::from_millis(400), Box::new(addresses(&[V4])));
    assert_eq!(resolve_site(late, addresses(&[V6])), ok(&[V6, V4]));
    let lossy = start_server(Behaviour::NoAnswer, addresses(&[V6]));
    let good = start_server(addresses(&[V4]), addresses(&[V6]));
    let result = resolve(vec![lossy.address(), good.address()], "site.example", LONG_TIMEOUT);
    assert_eq!(result, ok(&[V6, V4]));
    // A server that never answers A delays the look-up, and does not fail it.
    let started_at = Instant::now();
    assert_eq!(resolve_site(Behaviour::NoAnswer, addresses(&[V6])), ok(&[V6]));
    assert!(started_at.elapsed() < Duration::from_secs(4));
}

#[test]
fn only_nxdomain_means_no_such_domain() {
    for (does, expected) in [
        (Behaviour::NxDomain, Reason::DnsNoSuchDomain),
        (Behaviour::NoData, Reason::DnsNoAddress),
        (Behaviour::ServerFailure, Reason::DnsServerFailure),
        (Behaviour::Refused, Reason::DnsServerFailure),
        (Behaviour::AliasLoop, Reason::DnsServerFailure),
    ] {
        assert_eq!(reason(resolve_site(does.clone(), does.clone())), expected, "{does:?}");
    }
    let result = resolve_site(Behaviour::NoData, Behaviour::ServerFailure);
    assert_eq!(reason(result), Reason::DnsServerFailure);
    let result = resolve_site(Behaviour::NoAnswer, Behaviour::NxDomain);
    assert_eq!(reason(result), Reason::DnsNoSuchDomain);
}

#[test]
fn a_failure_names_the_server_and_its_error() {
    let server = start_server(Behaviour::ServerFailure, Behaviour::ServerFailure);
    let failure = resolve(vec![server.address()], "site.example", LONG_TIMEOUT).unwrap_err();
    assert_eq!(failure.detail, Some(format!("SERVFAIL from {}", server.address())));
    // The port is closed, and the kernel reports that at once.
    let closed_port = "127.0.0.1:1".parse().unwrap();
    let started_at = Instant::now();
    let failure = resolve(vec![closed_port], "site.example", LONG_TIMEOUT).unwrap_err();
    assert_eq!(failure.reason, Reason::DnsServerFailure);
    let detail = failure.detail.unwrap();
    assert!(detail.ends_with("from 127.0.0.1:1"), "{detail}");
    assert!(started_at.elapsed() < Duration::from_millis(900));
}

#[test]
fn answers_to_another_question_are_ignored() {
    let real = || Box::new(addresses(&[V4]));
    let forged = || Box::new(addresses(&["198.51.100.66"]));
    for stray in
        [Behaviour::WrongId(forged()), Behaviour::WrongQuestion(forged()), Behaviour::Garbage]
    {
        let does = Behaviour::Both(Box::new(stray.clone()), real());
        assert_eq!(resolve_site(does, Behaviour::NoData), ok(&[V4]), "{stray:?}");
        let server = start_server(stray.clone(), stray.clone());
        let short = Duration::from_millis(300);
        let result = resolve(vec![server.address()], "site.example", short);
        assert_eq!(reason(result), Reason::DnsTimeout, "{stray:?}");
    }
}

#[test]
fn a_truncated_answer_is_repeated_by_tcp() {
    let many: Vec<_> = (0..200).map(|i| format!("192.0.2.{i}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let server = start_server(Behaviour::Truncated(Box::new(addresses(&many))), Behaviour::NoData);
    let result = resolve(vec![server.address()], "site.example", LONG_TIMEOUT);
    assert_eq!(result, ok(&many));
    assert_eq!(server.queried_names().iter().filter(|(_, kind)| *kind == QueryType::A).count(), 2);
}

#[test]
fn a_server_without_edns_is_asked_again_without_edns() {
    let without = |does| Behaviour::RejectEdns(Box::new(does));
    let result = resolve_site(without(addresses(&[V4])), without(Behaviour::NoData));
    assert_eq!(result, ok(&[V4]));
}

#[test]
fn aliases_are_followed_within_and_beyond_an_answer() {
    let to = vec!["one.example", "two.example"];
    let all = |one: &str| vec![one.parse().unwrap()];
    let result = resolve_site(
        Behaviour::Aliases(to.clone(), all(V4)),
        Behaviour::Aliases(to.clone(), all(V6)),
    );
    assert_eq!(result, ok(&[V6, V4]));
    let rules = |two: Behaviour| {
        DnsServer::start(&[
            ("site.example", QueryType::A, Behaviour::Aliases(vec!["two.example"], vec![])),
            ("site.example", QueryType::Aaaa, Behaviour::Aliases(vec!["two.example"], vec![])),
            ("two.example", QueryType::A, two),
            ("two.example", QueryType::Aaaa, Behaviour::NoData),
        ])
        .unwrap()
    };
    let server = rules(addresses(&[V4]));
    assert_eq!(resolve(vec![server.address()], "site.example", LONG_TIMEOUT), ok(&[V4]));
    let server = rules(Behaviour::NoData);
    let result = resolve(vec![server.address()], "site.example", LONG_TIMEOUT);
    assert_eq!(reason(result), Reason::DnsNoAddress);
    let server = rules(Behaviour::Aliases(vec!["site.example"], vec![]));
    let result = resolve(vec![server.address()], "site.example", LONG_TIMEOUT);
    assert_eq!(result.unwrap_err().detail.as_deref(), Some("a loop of aliases"));
}

#[test]
fn the_next_server_is_asked_when_one_fails_or_does_not_answer() {
    let good = || start_server(addresses(&[V4]), addresses(&[V6]));
    for bad in
        [Behaviour::ServerFailure, Behaviour::Refused, Behaviour::NoAnswer, Behaviour::Garbage]
    {
        let (first, second) = (start_server(bad.clone(), bad.clone()), good());
        let servers = vec![first.address(), second.address()];
        let started_at = Instant::now();
        let result = resolve(servers, "site.example", Duration::from_secs(10));
        assert_eq!(result, ok(&[V6, V4]), "{bad:?}");
        let elapsed = started_at.elapsed();
        assert!(elapsed < Duration::from_secs(3), "{bad:?}: {elapsed:?}");
    }
    let second = good();
    let servers = vec!["127.0.0.1:1".parse().unwrap(), second.address()];
    assert_eq!(resolve(servers, "site.example", LONG_TIMEOUT), ok(&[V6, V4]));
    // NXDOMAIN is an answer: no other server is queried.
    let (first, second) = (start_server(Behaviour::NxDomain, Behaviour::NxDomain), good());
    let servers = vec![first.address(), second.address()];
    assert_eq!(reason(resolve(servers, "site.example", LONG_TIMEOUT)), Reason::DnsNoSuchDomain);
    assert!(second.queried_names().is_empty());
}

#[test]
fn a_late_answer_of_the_first_server_still_counts() {
    let late = |does| Behaviour::Delayed(Duration::from_millis(1300), Box::new(does));
    let first = start_server(late(addresses(&[V4])), late(addresses(&[V6])));
    let second = start_server(Behaviour::NoAnswer, Behaviour::NoAnswer);
    let servers = vec![first.address(), second.address()];
    let started_at = Instant::now();
    let result = resolve(servers, "site.example", Duration::from_secs(10));
    assert_eq!(result, ok(&[V6, V4]));
    assert!(started_at.elapsed() < Duration::from_secs(3));
    assert!(!second.queried_names().is_empty());
}

#[test]
fn special_names_need_no_server() {
    let server = start_server(Behaviour::NoData, Behaviour::NoData);
    for (host, expected) in [
        ("localhost", Ok(())),
        ("localhost.", Ok(())),
        ("a.b.LocalHost", Ok(())),
        ("invalid", Err(Reason::DnsNoSuchDomain)),
        ("site.invalid", Err(Reason::DnsNoSuchDomain)),
    ] {
        let result = resolve(vec![server.address()], host, LONG_TIMEOUT);
        match expected {
            Ok(()) => assert_eq!(result, ok(&["::1", "127.0.0.1"]), "{host}"),
            Err(expected) => assert_eq!(reason(result), expected, "{host}"),
        }
    }
    let label = format!("{}.example", "x".repeat(64));
    let failure = resolve(vec![server.address()], &label, LONG_TIMEOUT).unwrap_err();
    assert_eq!(failure.reason, Reason::DnsServerFailure);
    assert!(server.queried_names().is_empty());
}
