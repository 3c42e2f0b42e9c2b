//! Every way in which a server can fail one family while it does well, or fails
//! in another way, on the other; and what a forger would have to guess.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use testkit::dns::{DnsServer, Does, Kind};
use tracker::probe::net::resolver::Resolver;
use tracker::probe::net::socket::Deadline;
use tracker::probe::reason::Reason;

use crate::{AMPLE, sources};

const V4: &str = "192.0.2.1";
const V6: &str = "2001:db8::1";

const PAIRS_A_SERVER: usize = 50;

/// A name, and what is done for its A and its AAAA records.
type Pair<'a> = (String, &'a (Does, Comes), &'a (Does, Comes));

/// What a server's behaviour comes to for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    Good,
    Gone,
    Empty,
    Failed,
    Silent,
}

fn behaviours(address: &str) -> Vec<(Does, Comes)> {
    let good = Does::Addresses(vec![address.parse().unwrap()]);
    let boxed = |does: &Does| Box::new(does.clone());
    let stray = Does::Addresses(vec!["198.51.100.66".parse().unwrap(), "::bad".parse().unwrap()]);
    let by_tcp = |does: &Does| Does::Truncated(boxed(does));
    vec![
        (good.clone(), Comes::Good),
        (
            Does::Aliases(vec!["one.example", "two.example"], vec![address.parse().unwrap()]),
            Comes::Good,
        ),
        (by_tcp(&good), Comes::Good),
        (Does::WithoutEdns(boxed(&good)), Comes::Good),
        (Does::OtherCase(boxed(&good)), Comes::Good),
        (Does::Both(Box::new(Does::WrongId(boxed(&stray))), boxed(&good)), Comes::Good),
        (Does::NoSuchName, Comes::Gone),
        (Does::NoData, Comes::Empty),
        (Does::ServerFailure, Comes::Failed),
        (Does::Refused, Comes::Failed),
        (Does::AliasLoop, Comes::Failed),
        (Does::Referral, Comes::Failed),
        (by_tcp(&Does::Silent), Comes::Failed),
        (by_tcp(&Does::WrongId(boxed(&stray))), Comes::Failed),
        (by_tcp(&Does::Garbage), Comes::Failed),
        (Does::WrongId(boxed(&stray)), Comes::Silent),
        (Does::OtherQuestion(boxed(&stray)), Comes::Silent),
        (Does::Garbage, Comes::Silent),
        (Does::Late(Duration::from_millis(1200), boxed(&good)), Comes::Silent),
        (Does::Silent, Comes::Silent),
    ]
}

fn expected(a: Comes, aaaa: Comes) -> Result<Vec<&'static str>, Reason> {
    let either = |comes| a == comes || aaaa == comes;
    match (aaaa, a) {
        (Comes::Good, Comes::Good) => Ok(vec![V6, V4]),
        (Comes::Good, _) => Ok(vec![V6]),
        (_, Comes::Good) => Ok(vec![V4]),
        _ if either(Comes::Gone) => Err(Reason::DnsNoSuchDomain),
        _ if either(Comes::Failed) => Err(Reason::DnsServerFailure),
        _ if either(Comes::Silent) => Err(Reason::DnsTimeout),
        _ => Err(Reason::DnsNoAddress),
    }
}

/// What was found, where that is not what was expected.
fn wrong_pair(resolver: &Resolver, (name, a, aaaa): &Pair<'_>) -> Option<String> {
    // Where nobody is silent, all is known without waiting.
    let waits = a.1 == Comes::Silent || aaaa.1 == Comes::Silent;
    let time = if waits { Duration::from_millis(800) } else { AMPLE };
    let found = resolver
        .resolve(name, None, Deadline::after(time))
        .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        .map_err(|failure| failure.reason);
    let expected =
        expected(a.1, aaaa.1).map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
    (found != expected).then(|| format!("A {:?}, AAAA {:?}: {found:?}", a.0, aaaa.0))
}

/// Goes red when a family that fails in any of these ways takes the other with
/// it, or lends it its reason.
#[test]
fn each_family_is_judged_apart_whatever_the_other_does() {
    let (fours, sixes) = (behaviours(V4), behaviours(V6));
    let pairs: Vec<_> = (0..fours.len() * sixes.len())
        .map(|pair| {
            (format!("p{pair}.example"), &fours[pair / sixes.len()], &sixes[pair % sixes.len()])
        })
        .collect();
    let serve = |pairs: &[Pair<'_>]| {
        let rules = pairs.iter().flat_map(|(name, a, aaaa)| {
            [(name.as_str(), Kind::A, a.0.clone()), (name, Kind::Aaaa, aaaa.0.clone())]
        });
        DnsServer::start(&rules.collect::<Vec<_>>()).unwrap()
    };
    // More questions at once than these do not fit into one socket's buffer.
    let servers: Vec<_> = pairs.chunks(PAIRS_A_SERVER).map(serve).collect();
    let resolvers: Vec<_> =
        servers.iter().map(|server| Resolver::new(sources(vec![server.address()]))).collect();
    let wrong: Vec<usize> = thread::scope(|scope| {
        let running: Vec<_> = pairs
            .iter()
            .enumerate()
            .map(|(index, pair)| {
                let resolver = &resolvers[index / PAIRS_A_SERVER];
                scope.spawn(move || wrong_pair(resolver, pair).map(|_| index))
            })
            .collect();
        running.into_iter().filter_map(|one| one.join().unwrap()).collect()
    });
    // So many at once can be too much for a busy machine; one alone is not.
    let wrong: Vec<_> = wrong
        .into_iter()
        .filter_map(|index| wrong_pair(&resolvers[index / PAIRS_A_SERVER], &pairs[index]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Goes red when the TCP of one family is waited for before the other is read.
#[test]
fn a_family_that_hangs_by_tcp_does_not_hold_up_the_other() {
    let late = |does| Does::Late(Duration::from_millis(1500), Box::new(does));
    let six = Does::Addresses(vec![V6.parse().unwrap()]);
    let server = DnsServer::start(&[
        ("site.example", Kind::Aaaa, Does::Truncated(Box::new(late(six)))),
        ("site.example", Kind::A, Does::Addresses(vec![V4.parse().unwrap()])),
    ])
    .unwrap();
    let resolver = Resolver::new(sources(vec![server.address()]));
    let begun = Instant::now();
    let found = resolver.resolve("site.example", None, Deadline::after(AMPLE)).unwrap();
    assert_eq!(found, [V4.parse::<std::net::IpAddr>().unwrap()]);
    assert!(begun.elapsed() < Duration::from_millis(1400), "{:?}", begun.elapsed());
}

/// Goes red when a wait has no bound on what it reads.
#[test]
fn a_flood_of_strays_ends_the_wait() {
    let flood =
        (0..150).fold(Does::Silent, |more, _| Does::Both(Box::new(Does::Garbage), Box::new(more)));
    let rules = [("site.example", Kind::A, flood), ("site.example", Kind::Aaaa, Does::Silent)];
    let server = DnsServer::start(&rules).unwrap();
    let resolver = Resolver::new(sources(vec![server.address()]));
    let deadline = Deadline::after(AMPLE);
    let failure = resolver.resolve("site.example", None, deadline).unwrap_err();
    assert_eq!(failure.reason, Reason::DnsTimeout);
    // Two rounds, of which the second alone would wait for 5 s.
    assert!(AMPLE - deadline.remaining() < Duration::from_secs(4), "{deadline:?}");
}

/// Goes red when a socket is kept from one look-up to the next, or ids are
/// counted.
#[test]
fn ids_and_ports_can_not_be_foretold() {
    let server = DnsServer::start(&[("site.example", Kind::A, Does::NoData)]).unwrap();
    let resolver = Resolver::new(sources(vec![server.address()]));
    let count = 40;
    for _ in 0..count {
        let _ = resolver.resolve("site.example", None, Deadline::after(AMPLE));
    }
    let asked = server.questions();
    assert_eq!(asked.len(), 2 * count);
    let ids: HashSet<_> = asked.iter().map(|one| one.id).collect();
    let ports: HashSet<_> = asked.iter().map(|one| one.port).collect();
    // Two of 80 ids are the same in one run of 20, five never.
    assert!(ids.len() > 2 * count - 5, "{ids:?}");
    assert!(ports.len() > count - 5, "{ports:?}");
    let steps: HashSet<_> =
        asked.windows(2).map(|pair| pair[1].id.wrapping_sub(pair[0].id)).collect();
    assert!(steps.len() > count, "ids are counted: {ids:?}");
}
