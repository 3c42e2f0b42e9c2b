//! The probe on real sockets: every verdict with its exact words, every phase
//! to its deadline, every way in which a name server fails.

#![cfg(test)]

mod bodies;
mod deadlines;
mod resolver;
mod resolver_faults;
mod resolver_files;
mod verdicts;

use std::net::SocketAddr;
use std::time::Duration;

use common::record::Status;
use regex::Regex;
use rustls::pki_types::CertificateDer;
use tracker::probe::resolver::{Servers, Sources};
use tracker::probe::{Limits, Outcome, Prober, Roots};

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

fn prober_with(limits: Limits, roots: Vec<CertificateDer<'static>>) -> Prober {
    Prober::with(limits, sources(vec![]), &Roots::These(roots)).unwrap()
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
    dns: bool,
    response: bool,
    detail: Option<String>,
}

impl From<Outcome> for Seen {
    fn from(outcome: Outcome) -> Self {
        Self {
            status: outcome.status,
            phrase: outcome.phrase,
            dns: outcome.dns_ms.is_some(),
            response: outcome.response_ms.is_some(),
            detail: outcome.detail,
        }
    }
}

/// Answered in full.
fn answered(phrase: &'static str, detail: Option<&str>) -> Seen {
    Seen {
        status: Status::Responsive,
        phrase,
        dns: true,
        response: true,
        detail: detail.map(str::to_owned),
    }
}

/// Answered, and the page was not loaded.
fn broken(phrase: &'static str, detail: &str) -> Seen {
    Seen { response: false, ..answered(phrase, Some(detail)) }
}

/// Not answered, though the name was resolved.
fn unanswered(phrase: &'static str, detail: &str) -> Seen {
    Seen { status: Status::Unresponsive, ..broken(phrase, detail) }
}

/// The name was not resolved.
fn unresolved(phrase: &'static str, detail: Option<&str>) -> Seen {
    Seen { dns: false, detail: detail.map(str::to_owned), ..unanswered(phrase, "") }
}
