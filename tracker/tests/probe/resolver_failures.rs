//! All combinations of behaviours of a server for A and AAAA, and the protection against
//! forged answers.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use testkit::dns::{Behaviour, DnsServer, QueryType};
use tracker::probe::net::deadline::Deadline;
use tracker::probe::net::resolver::Resolver;
use tracker::probe::reason::Reason;

use crate::{LONG_TIMEOUT, resolver_config};

const V4: &str = "192.0.2.1";
const V6: &str = "2001:db8::1";

const PAIRS_A_SERVER: usize = 50;

/// A name, and the behaviours for its A and AAAA records.
type Pair<'a> = (String, &'a (Behaviour, FamilyEffect), &'a (Behaviour, FamilyEffect));

/// The effect of a behaviour on one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FamilyEffect {
    Addresses,
    NoSuchName,
    NoData,
    Failed,
    NoAnswer,
}

fn behaviours(address: &str) -> Vec<(Behaviour, FamilyEffect)> {
    let good = Behaviour::Addresses(vec![address.parse().unwrap()]);
    let boxed = |does: &Behaviour| Box::new(does.clone());
    let forged =
        Behaviour::Addresses(vec!["198.51.100.66".parse().unwrap(), "::bad".parse().unwrap()]);
    let by_tcp = |does: &Behaviour| Behaviour::Truncated(boxed(does));
    vec![
        (good.clone(), FamilyEffect::Addresses),
        (
            Behaviour::Aliases(vec!["one.example", "two.example"], vec![address.parse().unwrap()]),
            FamilyEffect::Addresses,
        ),
        (by_tcp(&good), FamilyEffect::Addresses),
        (Behaviour::RejectEdns(boxed(&good)), FamilyEffect::Addresses),
        (Behaviour::UppercaseName(boxed(&good)), FamilyEffect::Addresses),
        (
            Behaviour::Both(Box::new(Behaviour::WrongId(boxed(&forged))), boxed(&good)),
            FamilyEffect::Addresses,
        ),
        (Behaviour::NxDomain, FamilyEffect::NoSuchName),
        (Behaviour::NoData, FamilyEffect::NoData),
        (Behaviour::ServerFailure, FamilyEffect::Failed),
        (Behaviour::Refused, FamilyEffect::Failed),
        (Behaviour::AliasLoop, FamilyEffect::Failed),
        (Behaviour::Referral, FamilyEffect::Failed),
        (by_tcp(&Behaviour::NoAnswer), FamilyEffect::Failed),
        (by_tcp(&Behaviour::WrongId(boxed(&forged))), FamilyEffect::Failed),
        (by_tcp(&Behaviour::Garbage), FamilyEffect::Failed),
        (Behaviour::WrongId(boxed(&forged)), FamilyEffect::NoAnswer),
        (Behaviour::WrongQuestion(boxed(&forged)), FamilyEffect::NoAnswer),
        (Behaviour::Garbage, FamilyEffect::NoAnswer),
        (Behaviour::Delayed(Duration::from_millis(1200), boxed(&good)), FamilyEffect::NoAnswer),
        (Behaviour::NoAnswer, FamilyEffect::NoAnswer),
    ]
}

fn expected(a: FamilyEffect, aaaa: FamilyEffect) -> Result<Vec<&'static str>, Reason> {
    let either = |comes| a == comes || aaaa == comes;
    match (aaaa, a) {
        (FamilyEffect::Addresses, FamilyEffect::Addresses) => Ok(vec![V6, V4]),
        (FamilyEffect::Addresses, _) => Ok(vec![V6]),
        (_, FamilyEffect::Addresses) => Ok(vec![V4]),
        _ if either(FamilyEffect::NoSuchName) => Err(Reason::DnsNoSuchDomain),
        _ if either(FamilyEffect::Failed) => Err(Reason::DnsServerFailure),
        _ if either(FamilyEffect::NoAnswer) => Err(Reason::DnsTimeout),
        _ => Err(Reason::DnsNoAddress),
    }
}

/// Resolves a name. Returns a text if the result is not the expected result.
fn check_pair(resolver: &Resolver, (name, a, aaaa): &Pair<'_>) -> Option<String> {
    // Without a family that is not answered the look-up does not wait.
    let waits = a.1 == FamilyEffect::NoAnswer || aaaa.1 == FamilyEffect::NoAnswer;
    let time = if waits { Duration::from_millis(800) } else { LONG_TIMEOUT };
    let found = resolver
        .resolve(name, None, Deadline::after(time))
        .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        .map_err(|failure| failure.reason);
    let expected =
        expected(a.1, aaaa.1).map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
    (found != expected).then(|| format!("A {:?}, AAAA {:?}: {found:?}", a.0, aaaa.0))
}

/// A family that fails neither fails the other family nor changes its reason.
#[test]
fn each_family_has_its_own_result() {
    let (a_behaviours, aaaa_behaviours) = (behaviours(V4), behaviours(V6));
    let pairs: Vec<_> = (0..a_behaviours.len() * aaaa_behaviours.len())
        .map(|pair| {
            (
                format!("p{pair}.example"),
                &a_behaviours[pair / aaaa_behaviours.len()],
                &aaaa_behaviours[pair % aaaa_behaviours.len()],
            )
        })
        .collect();
    let serve = |pairs: &[Pair<'_>]| {
        let rules = pairs.iter().flat_map(|(name, a, aaaa)| {
            [(name.as_str(), QueryType::A, a.0.clone()), (name, QueryType::Aaaa, aaaa.0.clone())]
        });
        DnsServer::start(&rules.collect::<Vec<_>>()).unwrap()
    };
    // The buffer of a socket holds no more questions at once.
    let servers: Vec<_> = pairs.chunks(PAIRS_A_SERVER).map(serve).collect();
    let resolvers: Vec<_> = servers
        .iter()
        .map(|server| Resolver::new(resolver_config(vec![server.address()])))
        .collect();
    let wrong: Vec<usize> = thread::scope(|scope| {
        let running: Vec<_> = pairs
            .iter()
            .enumerate()
            .map(|(index, pair)| {
                let resolver = &resolvers[index / PAIRS_A_SERVER];
                scope.spawn(move || check_pair(resolver, pair).map(|_| index))
            })
            .collect();
        running.into_iter().filter_map(|one| one.join().unwrap()).collect()
    });
    // On a busy machine so many look-ups at once can time out: try the failed ones one by one.
    let wrong: Vec<_> = wrong
        .into_iter()
        .filter_map(|index| check_pair(&resolvers[index / PAIRS_A_SERVER], &pairs[index]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The answer of one family is used while the other family waits for TCP.
#[test]
fn a_family_that_hangs_on_tcp_does_not_delay_the_other() {
    let late = |does| Behaviour::Delayed(Duration::from_millis(1500), Box::new(does));
    let v6 = Behaviour::Addresses(vec![V6.parse().unwrap()]);
    let server = DnsServer::start(&[
        ("site.example", QueryType::Aaaa, Behaviour::Truncated(Box::new(late(v6)))),
        ("site.example", QueryType::A, Behaviour::Addresses(vec![V4.parse().unwrap()])),
    ])
    .unwrap();
    let resolver = Resolver::new(resolver_config(vec![server.address()]));
    let started_at = Instant::now();
    let found = resolver.resolve("site.example", None, Deadline::after(LONG_TIMEOUT)).unwrap();
    assert_eq!(found, [V4.parse::<std::net::IpAddr>().unwrap()]);
    assert!(started_at.elapsed() < Duration::from_millis(1400), "{:?}", started_at.elapsed());
}

/// A wait reads a limited number of packets.
#[test]
fn a_flood_of_invalid_packets_ends_the_wait() {
    let flood = (0..150).fold(Behaviour::NoAnswer, |more, _| {
        Behaviour::Both(Box::new(Behaviour::Garbage), Box::new(more))
    });
    let rules = [
        ("site.example", QueryType::A, flood),
        ("site.example", QueryType::Aaaa, Behaviour::NoAnswer),
    ];
    let server = DnsServer::start(&rules).unwrap();
    let resolver = Resolver::new(resolver_config(vec![server.address()]));
    let deadline = Deadline::after(LONG_TIMEOUT);
    let failure = resolver.resolve("site.example", None, deadline).unwrap_err();
    assert_eq!(failure.reason, Reason::DnsTimeout);
    // Without the limit the second of the two rounds would wait for 5 s.
    assert!(LONG_TIMEOUT - deadline.remaining() < Duration::from_secs(4), "{deadline:?}");
}

/// Each look-up has new ports and random ids.
#[test]
fn ids_and_ports_are_not_predictable() {
    let server = DnsServer::start(&[("site.example", QueryType::A, Behaviour::NoData)]).unwrap();
    let resolver = Resolver::new(resolver_config(vec![server.address()]));
    let count = 40;
    for _ in 0..count {
        let _ = resolver.resolve("site.example", None, Deadline::after(LONG_TIMEOUT));
    }
    let asked = server.queries();
    assert_eq!(asked.len(), 2 * count);
    let ids: HashSet<_> = asked.iter().map(|one| one.id).collect();
    let ports: HashSet<_> = asked.iter().map(|one| one.port).collect();
    // Among 80 random ids, two are equal in one of 20 runs, and five are never equal.
    assert!(ids.len() > 2 * count - 5, "{ids:?}");
    assert!(ports.len() > count - 5, "{ports:?}");
    let steps: HashSet<_> =
        asked.windows(2).map(|pair| pair[1].id.wrapping_sub(pair[0].id)).collect();
    assert!(steps.len() > count, "sequential ids: {ids:?}");
}
