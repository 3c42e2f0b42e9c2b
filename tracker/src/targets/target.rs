//! [`Target`]: one URL and how to probe it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::domain::{self, Domain};
use url::Url;

use crate::probe::{Family, Limits, ProbeRequest, ProbeSpec};

/// One URL and how to probe it. URL and name together identify a target.
///
/// `Debug` leaves out the URL that is requested, because it may hold a password.
#[derive(Clone)]
pub struct Target {
    /// The URL to request: host name in punycode, user and password included.
    pub(crate) url: Url,
    /// The URL in records: as written, in lower case, without user and password, so that no
    /// secret reaches Kafka.
    pub(crate) recorded_url: String,
    /// Distinguishes targets with the same URL. In WEBSITES it is the text of the regexp.
    pub(crate) name: Option<String>,
    /// The domain of the URL.
    pub(crate) domain: Domain,
    /// The topic of this target's records.
    pub(crate) topic: String,
    /// Time from one probe to the next.
    pub(crate) period: Duration,
    /// Further attempts after a failed attempt.
    pub(crate) retries: u32,
    /// Limits of one attempt.
    pub(crate) limits: Limits,
    /// Address family of the probe.
    pub(crate) family: Family,
    /// Request, route and checks. Targets with the same ones share it.
    pub(crate) spec: Arc<ProbeSpec>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({:?}, {:?}, {:?})", self.recorded_url, self.name, self.topic)
    }
}

impl PartialEq for Target {
    /// True if both targets send the same requests and check the same things.
    fn eq(&self, other: &Self) -> bool {
        let numbers = |target: &Self| (target.period, target.retries, target.limits, target.family);
        (&self.url, &self.recorded_url, &self.name, &self.topic)
            == (&other.url, &other.recorded_url, &other.name, &other.topic)
            && numbers(self) == numbers(other)
            && (Arc::ptr_eq(&self.spec, &other.spec) || self.spec == other.spec)
    }
}

impl Target {
    /// Returns the request for one attempt.
    pub fn probe_request(&self) -> ProbeRequest<'_> {
        ProbeRequest {
            spec: &self.spec,
            limits: self.limits,
            family: self.family,
            ..ProbeRequest::new(&self.url)
        }
    }

    /// Returns the target's text in logs and on standard output: the URL, with the name if any.
    pub(crate) fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.recorded_url),
            None => self.recorded_url.clone(),
        }
    }

    /// True if the certificate of the site is not verified.
    pub(crate) fn is_insecure(&self) -> bool {
        self.spec.tls.as_ref().is_some_and(|tls| tls.is_insecure())
    }

    /// Returns a hash of location, URL and name. It places the target within its period, at the
    /// same point at every start, and spreads the targets evenly.
    pub(crate) fn phase_hash(&self, location: &str) -> u64 {
        let name = self.name.as_deref().unwrap_or_default();
        domain::stable_hash(format!("{location}\0{}\0{name}", self.url).as_bytes())
    }
}
