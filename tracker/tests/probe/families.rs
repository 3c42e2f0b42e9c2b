//! Failed look-ups, and the choice of the address family.

use std::net::IpAddr;
use std::time::Duration;

use common::phrase;
use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::sites::{Site, Step, status_response};
use tracker::probe::{Family, Limits, ProbeOutcome, ProbeRequest, Roots};

use crate::{Observed, TestProber, limits, resolver_config, unresolved};

fn v4() -> Behaviour {
    Behaviour::Addresses(vec![IpAddr::from([127, 0, 0, 1])])
}

fn v6() -> Behaviour {
    Behaviour::Addresses(vec!["::1".parse().unwrap()])
}

/// Starts a name server with these names, A and AAAA behaviours.
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
fn each_failure_of_a_look_up_has_its_reason() {
    let failure = phrase::DNS_FAILURE;
    let server = server(&[
        ("empty.example", Behaviour::NoData, Behaviour::NoData),
        ("broken.example", Behaviour::ServerFailure, Behaviour::ServerFailure),
        ("refused.example", Behaviour::Refused, Behaviour::Refused),
        ("loop.example", Behaviour::AliasLoop, Behaviour::AliasLoop),
        ("silent.example", Behaviour::NoAnswer, Behaviour::NoAnswer),
    ]);
    let short = Limits { timeout: Duration::from_millis(300), ..limits() };
    let prober =
        TestProber::with(short, resolver_config(vec![server.address()]), &Roots::Custom(vec![]));
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
        let observed =
            Observed::from(prober.probe(&format!("http://{name}/").parse().unwrap(), None));
        let expected = unresolved(phrase, detail.as_deref()).with_failure(reason, "resolve");
        assert_eq!(observed, expected, "{name}");
    }
}

#[test]
fn only_the_requested_family_is_used() {
    let site = Site::http(|_| vec![Step::Send(status_response(200))]).unwrap();
    let server = server(&[
        ("dual.example", v4(), v6()),
        ("four.example", v4(), Behaviour::NoData),
        ("six.example", Behaviour::NoData, v6()),
        ("half.example", Behaviour::ServerFailure, v6()),
    ]);
    let prober =
        TestProber::with(limits(), resolver_config(vec![server.address()]), &Roots::Custom(vec![]));
    let probe = |name: &str, family| -> ProbeOutcome {
        let url = format!("http://{name}:{}/", site.port()).parse().unwrap();
        prober.prober.probe(&ProbeRequest { family, limits: limits(), ..ProbeRequest::new(&url) })
    };
    let summary = |outcome: ProbeOutcome| {
        let reason = outcome.failure.map(|failure| failure.reason.as_str());
        (reason, outcome.detail, outcome.facts.address)
    };
    let loopback = Some(IpAddr::from([127, 0, 0, 1]));
    let none = "dns_no_address";
    // The site listens on IPv4 only.
    assert_eq!(summary(probe("dual.example", Family::Any)), (None, None, loopback));
    assert_eq!(summary(probe("dual.example", Family::V4)), (None, None, loopback));
    let (reason, detail, address) = summary(probe("dual.example", Family::V6));
    assert!(matches!(reason, Some("connect_refused" | "connect_unreachable")), "{reason:?}");
    assert_eq!((detail, address), (Some(format!("[::1]:{}", site.port())), None));

    assert_eq!(summary(probe("four.example", Family::V6)), (Some(none), None, None));
    assert_eq!(summary(probe("six.example", Family::V4)), (Some(none), None, None));

    // The other family can't fail the probe, because it is not asked for.
    let (reason, _, _) = summary(probe("half.example", Family::V4));
    assert_eq!(reason, Some("dns_server_failure"));
    let asked: Vec<_> =
        server.queried_names().into_iter().filter(|(name, _)| name == "half.example").collect();
    assert!(!asked.is_empty() && asked.iter().all(|(_, kind)| *kind == QueryType::A), "{asked:?}");

    let (reason, detail, _) = summary(probe("dual.example", Family::Both));
    assert!(matches!(reason, Some("connect_refused" | "connect_unreachable")), "{reason:?}");
    assert_eq!(detail, Some(format!("ipv6: [::1]:{}", site.port())));
    let observed = summary(probe("four.example", Family::Both));
    assert_eq!(observed, (Some(none), Some("ipv6".to_owned()), None));
    let (reason, detail, _) = summary(probe("missing.example", Family::Both));
    assert_eq!((reason, detail), (Some("dns_no_such_domain"), Some("ipv6 and ipv4".to_owned())));
}
