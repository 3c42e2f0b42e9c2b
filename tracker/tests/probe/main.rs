//! The probe on real sockets: every verdict with its exact words, every phase
//! to its deadline, every way in which a name server fails.

#![cfg(test)]

mod bodies;
mod certificates;
mod deadlines;
mod facts;
mod names;
mod proxies;
mod reasons;
mod resolver;
mod resolver_faults;
mod resolver_files;
mod targets;
mod verdicts;

use std::net::SocketAddr;
use std::time::Duration;

use common::record::Status;
use regex::Regex;
use rustls::pki_types::CertificateDer;
use testkit::sites::Site;
use tracker::probe::http::checks::Checks;
use tracker::probe::net::resolver::{Servers, Sources};
use tracker::probe::reason::Failure;
use tracker::probe::{Ask, Limits, Outcome, Prober, Roots, Spec};
use url::Url;

/// No probe of a test that passes comes near this.
const AMPLE: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    Limits { timeout: AMPLE, ..Limits::default() }
}

/// No file of the machine has a say; without servers every name that is asked
/// for goes to a port where nobody is.
fn sources(servers: Vec<SocketAddr>) -> Sources {
    let servers = if servers.is_empty() { vec!["127.0.0.1:1".parse().unwrap()] } else { servers };
    Sources {
        resolv_conf: "/no/such/resolv.conf".into(),
        hosts: "/no/such/hosts".into(),
        servers: Servers::first_of(servers),
        cache: false,
    }
}

/// A prober, and what it may take.
struct Tester {
    prober: Prober,
    limits: Limits,
}

impl Tester {
    fn with(limits: Limits, sources: Sources, roots: &Roots) -> Self {
        Self { prober: Prober::new(sources, roots).unwrap(), limits }
    }

    fn probe(&self, url: &Url, check: Option<&Regex>) -> Outcome {
        let checks = check.cloned().map_or_else(Checks::default, Checks::page);
        let spec = Spec { checks, ..Spec::default() };
        self.prober.probe(&Ask { spec: &spec, limits: self.limits, ..Ask::new(url) })
    }
}

fn prober_with(limits: Limits, roots: Vec<CertificateDer<'static>>) -> Tester {
    Tester::with(limits, sources(vec![]), &Roots::These(roots))
}

fn probe(url: &str, check: Option<&str>) -> Outcome {
    probe_within(limits(), url, check)
}

fn probe_within(limits: Limits, url: &str, check: Option<&str>) -> Outcome {
    let check = check.map(|check| Regex::new(check).unwrap());
    prober_with(limits, vec![]).probe(&url.parse().unwrap(), check.as_ref())
}

/// What a test compares: times are there or not.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: Status,
    phrase: &'static str,
    /// The words for why and in which phase; none when all is well.
    because: Option<(&'static str, &'static str)>,
    dns: bool,
    response: bool,
    detail: Option<String>,
}

impl From<Outcome> for Seen {
    fn from(outcome: Outcome) -> Self {
        let of = |failure: Failure| (failure.reason.as_str(), failure.phase.as_str());
        Self {
            status: outcome.status,
            phrase: outcome.phrase,
            because: outcome.failure.map(of),
            dns: outcome.dns_ms.is_some(),
            response: outcome.response_ms.is_some(),
            detail: outcome.detail,
        }
    }
}

impl Seen {
    fn because(self, reason: &'static str, phase: &'static str) -> Self {
        Self { because: Some((reason, phase)), ..self }
    }
}

/// All is well.
fn well(phrase: &'static str) -> Seen {
    Seen {
        status: Status::Responsive,
        phrase,
        because: None,
        dns: true,
        response: true,
        detail: None,
    }
}

/// Answered in full, with a status that is not expected.
fn unexpected(phrase: &'static str, detail: Option<&str>) -> Seen {
    Seen { detail: detail.map(str::to_owned), ..well(phrase) }
        .because("status_not_expected", "check")
}

/// Answered in full, without what is looked for.
fn mismatched(check: &str) -> Seen {
    unexpected("page content not expected", Some(check)).because("body_not_expected", "check")
}

/// Answered, and the page was not loaded.
fn broken(phrase: &'static str, detail: &str) -> Seen {
    Seen { response: false, detail: Some(detail.to_owned()), ..well(phrase) }
}

/// Not answered, though the name was resolved.
fn unanswered(phrase: &'static str, detail: &str) -> Seen {
    Seen { status: Status::Unresponsive, ..broken(phrase, detail) }
}

/// The name was not resolved.
fn unresolved(phrase: &'static str, detail: Option<&str>) -> Seen {
    Seen { dns: false, detail: detail.map(str::to_owned), ..unanswered(phrase, "") }
}

/// A request that the buffers of a narrow site do not hold.
fn large_request(site: &Site) -> String {
    format!("http://user:{}@127.0.0.1:{}/", "x".repeat(128 * 1024), site.port())
}

/// How long this thread has been ready to run and did not: the second number of
/// proc_pid_schedstat(5). Nothing where the kernel does not count it.
fn waited_for_a_processor() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = counted.split(' ').nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(waited.unwrap_or(0))
}
