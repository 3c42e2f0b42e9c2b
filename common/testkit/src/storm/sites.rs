//! The sites that are probed, and how often each was: a truth that does not
//! come from the programs.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::DOMAINS;
use crate::sites::{Site, Step, answer};

/// What the sites answer; each domain has one of these, some a second one.
const KINDS: [&str; 5] = ["ok", "ok", "flaps", "down", "closes"];

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// One site that stands for all of them.
pub(super) struct Sites {
    site: Site,
    requests: Counts,
}

impl Sites {
    /// Starts it on a free port of loopback.
    ///
    /// # Errors
    /// When none is to be had.
    pub(super) fn start() -> Result<Self, Box<dyn Error>> {
        let requests = Counts::default();
        let of_site = Arc::clone(&requests);
        let site = Site::http(move |path| {
            let mut requests = of_site.lock().unwrap_or_else(PoisonError::into_inner);
            let count = requests.entry(path.to_owned()).or_insert(0);
            *count += 1;
            let count = *count;
            drop(requests);
            steps(path, count)
        })?;
        Ok(Self { site, requests })
    }

    /// The targets of a tracker. Each has a path of its own, so that requests
    /// can be told apart.
    pub(super) fn targets(&self, tracker: usize) -> Vec<String> {
        let port = self.site.port();
        let url = |index: usize, kind: &str, more: &str| {
            format!("http://{}:{port}/{tracker}/{index}/{kind}{more}", host(index))
        };
        let one = (0..DOMAINS).map(|index| url(index, KINDS[index % KINDS.len()], ""));
        // Two targets of one topic, which smart mode has to keep apart.
        let other = (0..DOMAINS).step_by(7).map(|index| url(index, "flaps", "/b"));
        one.chain(other).collect()
    }

    /// How many requests came from each tracker.
    pub(super) fn requests(&self) -> BTreeMap<usize, u64> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = BTreeMap::new();
        for (path, count) in &*requests {
            if let Some(tracker) = path.split('/').nth(1).and_then(|it| it.parse().ok()) {
                *sums.entry(tracker).or_insert(0) += count;
            }
        }
        sums
    }
}

/// A host that is loopback by RFC 6761, without a name server.
pub(super) fn host(index: usize) -> String {
    format!("storm{index:02}.localhost")
}

fn steps(path: &str, count: u64) -> Vec<Step> {
    match path.split('/').nth(3) {
        Some("down") => vec![Step::Send(answer(503))],
        // Seven good ones, then three bad ones.
        Some("flaps") if count % 10 >= 7 => vec![Step::Send(answer(503))],
        Some("closes") => vec![],
        _ => vec![Step::Send(answer(200))],
    }
}
