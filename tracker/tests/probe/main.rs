//! The probe on real sockets: every outcome with its exact texts, the deadline in every
//! phase, and every way in which a name server fails.

#![cfg(test)]

mod bodies;
mod certificates;
mod deadlines;
mod families;
mod measurements;
mod proxies;
mod reasons;
mod resolver;
mod resolver_failures;
mod resolver_files;
mod responses;
mod target_options;

use std::net::SocketAddr;
use std::time::Duration;

use common::record::Status;
use regex::Regex;
use rustls::pki_types::CertificateDer;
use testkit::sites::Site;
use tracker::probe::http::checks::Checks;
use tracker::probe::net::resolver::{NameServers, ResolverConfig};
use tracker::probe::reason::Failure;
use tracker::probe::{Limits, ProbeOutcome, ProbeRequest, ProbeSpec, Prober, Roots};
use url::Url;

/// Much longer than any probe of a test takes.
const LONG_TIMEOUT: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    Limits { timeout: LONG_TIMEOUT, ..Limits::default() }
}

/// Uses no file of the machine. Without servers every question goes to a closed port.
fn resolver_config(servers: Vec<SocketAddr>) -> ResolverConfig {
    let servers = if servers.is_empty() { vec!["127.0.0.1:1".parse().unwrap()] } else { servers };
    ResolverConfig {
        resolv_conf: "/no/such/resolv.conf".into(),
        hosts: "/no/such/hosts".into(),
        servers: NameServers::from_first(servers),
        cache: false,
    }
}

/// A prober and its limits.
struct TestProber {
    prober: Prober,
    limits: Limits,
}

impl TestProber {
    fn with(limits: Limits, sources: ResolverConfig, roots: &Roots) -> Self {
        Self { prober: Prober::new(sources, roots).unwrap(), limits }
    }

    fn probe(&self, url: &Url, check: Option<&Regex>) -> ProbeOutcome {
        let checks = check.cloned().map_or_else(Checks::default, Checks::for_body);
        let spec = ProbeSpec { checks, ..ProbeSpec::default() };
        self.prober.probe(&ProbeRequest {
            spec: &spec,
            limits: self.limits,
            ..ProbeRequest::new(url)
        })
    }
}

fn test_prober(limits: Limits, roots: Vec<CertificateDer<'static>>) -> TestProber {
    TestProber::with(limits, resolver_config(vec![]), &Roots::Custom(roots))
}

fn probe(url: &str, check: Option<&str>) -> ProbeOutcome {
    probe_within(limits(), url, check)
}

fn probe_within(limits: Limits, url: &str, check: Option<&str>) -> ProbeOutcome {
    let check = check.map(|check| Regex::new(check).unwrap());
    test_prober(limits, vec![]).probe(&url.parse().unwrap(), check.as_ref())
}

/// The parts of an outcome that tests compare. For a time: whether it exists.
#[derive(Debug, PartialEq, Eq)]
struct Observed {
    status: Status,
    phrase: &'static str,
    /// Reason and phase of the failure.
    failure: Option<(&'static str, &'static str)>,
    dns: bool,
    response: bool,
    detail: Option<String>,
}

impl From<ProbeOutcome> for Observed {
    fn from(outcome: ProbeOutcome) -> Self {
        let reason_and_phase = |failure: Failure| (failure.reason.as_str(), failure.phase.as_str());
        Self {
            status: outcome.status,
            phrase: outcome.phrase,
            failure: outcome.failure.map(reason_and_phase),
            dns: outcome.dns_ms.is_some(),
            response: outcome.response_ms.is_some(),
            detail: outcome.detail,
        }
    }
}

impl Observed {
    fn with_failure(self, reason: &'static str, phase: &'static str) -> Self {
        Self { failure: Some((reason, phase)), ..self }
    }
}

/// A successful probe.
fn success(phrase: &'static str) -> Observed {
    Observed {
        status: Status::Responsive,
        phrase,
        failure: None,
        dns: true,
        response: true,
        detail: None,
    }
}

/// A complete response with an unexpected status.
fn unexpected_status(phrase: &'static str, detail: Option<&str>) -> Observed {
    Observed { detail: detail.map(str::to_owned), ..success(phrase) }
        .with_failure("status_not_expected", "check")
}

/// A complete response with an unexpected body.
fn unexpected_body(check: &str) -> Observed {
    unexpected_status("page content not expected", Some(check))
        .with_failure("body_not_expected", "check")
}

/// A response whose body was not read.
fn incomplete(phrase: &'static str, detail: &str) -> Observed {
    Observed { response: false, detail: Some(detail.to_owned()), ..success(phrase) }
}

/// No response, though the name was resolved.
fn no_response(phrase: &'static str, detail: &str) -> Observed {
    Observed { status: Status::Unresponsive, ..incomplete(phrase, detail) }
}

/// The name was not resolved.
fn unresolved(phrase: &'static str, detail: Option<&str>) -> Observed {
    Observed { dns: false, detail: detail.map(str::to_owned), ..no_response(phrase, "") }
}

/// The URL of a request that is larger than the socket buffers of a narrow site.
fn large_request_url(site: &Site) -> String {
    format!("http://user:{}@127.0.0.1:{}/", "x".repeat(128 * 1024), site.port())
}

/// How long this thread has waited for a CPU: the second number of /proc/thread-self/schedstat.
/// Zero if the kernel does not count it.
fn time_waiting_for_cpu() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns = schedstat.split(' ').nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(waited_ns.unwrap_or(0))
}
