use std::net::IpAddr;
use std::time::Duration;

use common::phrase;
use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::sites::{Site, Step, status_response};
use tracker::probe::{Ask, Family, Limits, Outcome, Roots};

use crate::{Seen, Tester, limits, sources, unresolved};

fn four() -> Behaviour {
    Behaviour::Addresses(vec![IpAddr::from([127, 0, 0, 1])])
}

fn six() -> Behaviour {
    Behaviour::Addresses(vec!["::1".parse().unwrap()])
}

/// The server's rules, for a name of each.
fn server(rules: &[(&'static str, Behaviour, Behaviour)]) -> DnsServer {
    let rules: Vec<_> = rules
        .iter()
        .flat_map(|(name, a, aaaa)| {
            [(*name, QueryType::A, a.clone()), (*name, QueryType::Aaaa, aaaa.clone())]
        })
        .collect();
    DnsServer::start(&rules).unwrap()
}

#[test]
fn a_name_that_gives_no_address_is_told_apart_by_why() {
    let failure = phrase::DNS_FAILURE;
    let server = server(&[
        ("empty.example", Behaviour::NoData, Behaviour::NoData),
        ("broken.example", Behaviour::ServerFailure, Behaviour::ServerFailure),
        ("refused.example", Behaviour::Refused, Behaviour::Refused),
        ("loop.example", Behaviour::AliasLoop, Behaviour::AliasLoop),
        ("silent.example", Behaviour::NoAnswer, Behaviour::NoAnswer),
    ]);
    let short = Limits { timeout: Duration::from_millis(300), ..limits() };
    let tester = Tester::with(short, sources(vec![server.address()]), &Roots::These(vec![]));
    let from = server.address();
    for (name, phrase, reason, detail) in [
        ("missing.example", phrase::DOMAIN_NOT_EXIST, "dns_no_such_domain", None),
        ("empty.example", phrase::DOMAIN_WITHOUT_ADDRESS, "dns_no_address", None),
        ("broken.example", failure, "dns_server_failure", Some(format!("SERVFAIL from {from}"))),
        ("refused.example", failure, "dns_server_failure", Some(format!("REFUSED from {from}"))),
        (
            "loop.example",
            failure,
            "dns_server_failure",
            Some(format!("a loop of aliases from {from}")),
        ),
        ("silent.example", failure, "dns_timeout", Some(format!("no answer from {from}"))),
    ] {
        let seen = Seen::from(tester.probe(&format!("http://{name}/").parse().unwrap(), None));
        let expected = unresolved(phrase, detail.as_deref()).because(reason, "resolve");
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn a_family_that_is_asked_for_is_the_one_that_is_taken() {
    let site = Site::http(|_| vec![Step::Send(status_response(200))]).unwrap();
    let server = server(&[
        ("dual.example", four(), six()),
        ("four.example", four(), Behaviour::NoData),
        ("six.example", Behaviour::NoData, six()),
        ("half.example", Behaviour::ServerFailure, six()),
    ]);
    let tester = Tester::with(limits(), sources(vec![server.address()]), &Roots::These(vec![]));
    let probe = |name: &str, family| -> Outcome {
        let url = format!("http://{name}:{}/", site.port()).parse().unwrap();
        tester.prober.probe(&Ask { family, limits: limits(), ..Ask::new(&url) })
    };
    let told = |outcome: Outcome| {
        let reason = outcome.failure.map(|failure| failure.reason.as_str());
        (reason, outcome.detail, outcome.facts.address)
    };
    let loopback = Some(IpAddr::from([127, 0, 0, 1]));
    let none = "dns_no_address";
    // The site listens on IPv4 alone.
    assert_eq!(told(probe("dual.example", Family::Any)), (None, None, loopback));
    assert_eq!(told(probe("dual.example", Family::V4)), (None, None, loopback));
    let (reason, detail, address) = told(probe("dual.example", Family::V6));
    assert!(matches!(reason, Some("connect_refused" | "connect_unreachable")), "{reason:?}");
    assert_eq!((detail, address), (Some(format!("[::1]:{}", site.port())), None));

    assert_eq!(told(probe("four.example", Family::V6)), (Some(none), None, None));
    assert_eq!(told(probe("six.example", Family::V4)), (Some(none), None, None));

    // What is asked for is what counts, and nothing else is asked for.
    let (reason, _, _) = told(probe("half.example", Family::V4));
    assert_eq!(reason, Some("dns_server_failure"));
    let asked: Vec<_> =
        server.queried_names().into_iter().filter(|(name, _)| name == "half.example").collect();
    assert!(!asked.is_empty() && asked.iter().all(|(_, kind)| *kind == QueryType::A), "{asked:?}");

    let (reason, detail, _) = told(probe("dual.example", Family::Both));
    assert!(matches!(reason, Some("connect_refused" | "connect_unreachable")), "{reason:?}");
    assert_eq!(detail, Some(format!("ipv6: [::1]:{}", site.port())));
    let seen = told(probe("four.example", Family::Both));
    assert_eq!(seen, (Some(none), Some("ipv6".to_owned()), None));
    let (reason, detail, _) = told(probe("missing.example", Family::Both));
    assert_eq!((reason, detail), (Some("dns_no_such_domain"), Some("ipv6 and ipv4".to_owned())));
}
