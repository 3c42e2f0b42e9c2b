//! The sites that the trackers probe, and the times of their requests: a record that is
//! independent of the programs.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use testkit::sites::{Site, Step, status_response};

use crate::testbed::managed_program::now_s;

/// Number of domains.
pub(crate) const DOMAINS: usize = 20;
/// Kinds of behaviour. Each domain has one of these, some have a second kind.
const KINDS: [&str; 5] = ["ok", "ok", "flaps", "down", "closes"];

/// Request times by path, in seconds since 1970.
type Times = Arc<Mutex<BTreeMap<String, Vec<f64>>>>;

/// One server that acts as all sites.
pub(crate) struct StormSite {
    site: Site,
    requests: Times,
}

impl StormSite {
    /// Starts the server on a free port of loopback.
    ///
    /// # Errors
    /// Fails if no port is available.
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let requests = Times::default();
        let for_site = Arc::clone(&requests);
        let site = Site::http(move |path| {
            let mut requests = for_site.lock().unwrap_or_else(PoisonError::into_inner);
            let times = requests.entry(path.to_owned()).or_default();
            times.push(now_s());
            let count = times.len();
            drop(requests);
            steps(path, count)
        })?;
        Ok(Self { site, requests })
    }

    /// The targets of a tracker. Each has a different path, so that requests can be matched to
    /// targets.
    pub(crate) fn targets(&self, tracker: usize) -> Vec<String> {
        let port = self.site.port();
        let url = |index: usize, kind: &str, more: &str| {
            format!("http://{}:{port}/{tracker}/{index}/{kind}{more}", host(index))
        };
        let first = (0..DOMAINS).map(|index| url(index, KINDS[index % KINDS.len()], ""));
        // Two targets of one topic, which smart mode must keep apart.
        let second = (0..DOMAINS).step_by(7).map(|index| url(index, "flaps", "/b"));
        first.chain(second).collect()
    }

    /// Request times by URL, in seconds since 1970.
    pub(crate) fn requests(&self) -> BTreeMap<String, Vec<f64>> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let url = |path: &String| {
            let index = path.split('/').nth(2).and_then(|it| it.parse().ok()).unwrap_or(0);
            format!("http://{}:{}{path}", host(index), self.site.port())
        };
        requests.iter().map(|(path, times)| (url(path), times.clone())).collect()
    }
}

/// A host name that is loopback by RFC 6761, without a name server.
pub(crate) fn host(index: usize) -> String {
    format!("storm{index:02}.localhost")
}

fn steps(path: &str, count: usize) -> Vec<Step> {
    match path.split('/').nth(3) {
        Some("down") => vec![Step::Send(status_response(503))],
        // Seven successes, then three failures.
        Some("flaps") if count % 10 >= 7 => vec![Step::Send(status_response(503))],
        Some("closes") => vec![],
        _ => vec![Step::Send(status_response(200))],
    }
}
