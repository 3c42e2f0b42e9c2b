//! Targets: what WEBSITES and TARGETS ask for, parsed so that nothing is left
//! to fail later.

pub mod file;
mod options;
mod share;
mod source;
#[cfg(test)]
mod tests;
mod values;
mod websites;

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use common::domain::{self, Domain, DomainError, RelationNames};
use url::Url;

use crate::probe::{Ask, Family, Limits, Spec};
pub use share::{SHARES_MAX, Share};
pub use source::{Listed, Listing};
pub use websites::{WebsitesError, parse};

/// The most characters of a URL: the tables' column holds no more.
pub const URL_CHARS_MAX: usize = 256;

/// In what a target may be probed once.
pub const PERIODS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// The bounds that an attempt may have.
pub const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);
/// How often a failed probe may be repeated.
pub const RETRIES: RangeInclusive<u64> = 0..=10;

/// What holds for a target that does not say otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// In which it is probed once.
    pub period: Duration,
    /// The bound on one attempt.
    pub timeout: Duration,
    /// Further attempts after a failure.
    pub retries: u32,
    /// The bound on a body's decoded bytes.
    pub body_bytes_max: u64,
}

impl Default for Defaults {
    /// 300 s, 10 s, 1 and 1 MiB.
    fn default() -> Self {
        Self {
            period: Duration::from_secs(300),
            timeout: Duration::from_secs(10),
            retries: 1,
            body_bytes_max: 1024 * 1024,
        }
    }
}

/// One thing to probe: a URL, by its name told from others of the same URL.
///
/// Its `Debug` leaves out the URL that is asked for, which may hold a password.
#[derive(Clone)]
pub struct Target {
    /// What is asked for, its name in punycode, user and password included.
    pub url: Url,
    /// What records carry: the URL as written, in lower case, without user and
    /// password, so that no secret reaches Kafka.
    pub recorded_url: String,
    /// What tells it from others of the same URL: in WEBSITES the regexp's text.
    pub name: Option<String>,
    /// The URL's domain.
    pub domain: Domain,
    /// The topic that its records go to.
    pub topic: String,
    /// In which it is probed once.
    pub period: Duration,
    /// Further attempts after a failure.
    pub retries: u32,
    /// What an attempt may take.
    pub limits: Limits,
    /// By which family of addresses it is probed.
    pub family: Family,
    /// What is sent, on which way, and what is expected of the answer.
    pub spec: Arc<Spec>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({:?}, {:?}, {:?})", self.recorded_url, self.name, self.topic)
    }
}

impl PartialEq for Target {
    /// Whether the same is asked for in the same way.
    fn eq(&self, other: &Self) -> bool {
        let plain = |target: &Self| (target.period, target.retries, target.limits, target.family);
        (&self.url, &self.recorded_url, &self.name, &self.topic)
            == (&other.url, &other.recorded_url, &other.name, &other.topic)
            && plain(self) == plain(other)
            && (Arc::ptr_eq(&self.spec, &other.spec) || self.spec == other.spec)
    }
}

impl Target {
    /// What is asked of a probe.
    pub fn ask(&self) -> Ask<'_> {
        Ask { spec: &self.spec, limits: self.limits, family: self.family, ..Ask::new(&self.url) }
    }

    /// How it is called where a person reads it.
    pub fn called(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.recorded_url),
            None => self.recorded_url.clone(),
        }
    }

    /// Whether any certificate of its site is taken.
    pub fn is_insecure(&self) -> bool {
        self.spec.trust.as_ref().is_some_and(|trust| trust.insecure())
    }

    /// The target's own point in a period, the same at every start: a hash of
    /// location, URL and name, so that probes spread evenly.
    pub fn phase_hash(&self, location: &str) -> u64 {
        let name = self.name.as_deref().unwrap_or_default();
        domain::stable_hash(format!("{location}\0{}\0{name}", self.url).as_bytes())
    }
}

/// All targets, of both settings, no two of which are the same.
#[derive(Debug, Default)]
pub struct List {
    targets: Vec<Target>,
    seen: HashSet<(String, Option<String>)>,
    domains: HashSet<Domain>,
    tables: RelationNames,
}

impl List {
    fn add(&mut self, target: Target) -> Result<(), Fault> {
        if !self.domains.contains(&target.domain) {
            self.tables.claim(&target.domain).map_err(Fault::Domain)?;
            self.domains.insert(target.domain.clone());
        }
        if !self.seen.insert((target.url.to_string(), target.name.clone())) {
            return Err(Fault::Twice);
        }
        self.targets.push(target);
        Ok(())
    }

    /// The targets, those of WEBSITES first.
    pub fn targets(self) -> Vec<Target> {
        self.targets
    }
}

/// What follows from a URL.
#[derive(Debug)]
struct Located {
    url: Url,
    recorded_url: String,
    domain: Domain,
    topic: String,
}

impl Located {
    fn parse(text: &str, topic_prefix: &str) -> Result<Self, Fault> {
        let mut url = Url::parse(text).map_err(Fault::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Fault::Scheme(url.scheme().to_owned()));
        }
        if url.port() == Some(0) {
            return Err(Fault::Port);
        }
        // A fragment is for the reader of a page and is never sent (RFC 9110, 7.1).
        url.set_fragment(None);
        let recorded_url = without_secret(text).to_lowercase();
        let chars = recorded_url.chars().count();
        if chars > URL_CHARS_MAX {
            return Err(Fault::TooLong(chars));
        }
        let domain = Domain::from_url(&url).map_err(Fault::Domain)?;
        let topic = domain.topic(topic_prefix).map_err(Fault::Domain)?;
        Ok(Self { url, recorded_url, domain, topic })
    }
}

/// The URL as written, less user and password.
fn without_secret(text: &str) -> String {
    let (lead, rest) = authority(text);
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{lead}{}", &rest[at + 1..]),
        None => text.to_owned(),
    }
}

/// Splits a URL behind its scheme and however many slashes follow, none
/// included: the URL standard takes what comes then for user and host all the
/// same.
fn authority(text: &str) -> (&str, &str) {
    let Some((_, rest)) = text.split_once(':') else { return ("", text) };
    let rest = rest.trim_start_matches(['/', '\\']);
    text.split_at(text.len() - rest.len())
}

/// What an error shows of a URL. Of one that is no URL nobody can tell where
/// a password in it ends, so all that may be part of one is left out.
fn shown(text: &str, fault: &Fault) -> String {
    let Fault::NotAUrl(cause) = fault else { return without_secret(text) };
    let (lead, rest) = authority(text);
    match (rest.rsplit_once('@'), rest.split_once(':'), cause) {
        (Some((_, behind)), _, _) => format!("{lead}{behind}"),
        // A port that is none may be the password's part in front of a comma or space.
        (None, Some((host, _)), url::ParseError::InvalidPort) => format!("{lead}{host}:..."),
        _ => text.to_owned(),
    }
}

/// What is wrong with a target, wherever it stands.
#[derive(Debug)]
enum Fault {
    NotAUrl(url::ParseError),
    Scheme(String),
    Port,
    TooLong(usize),
    Twice,
    Domain(DomainError),
    Regexp(regex::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAUrl(cause) => cause.fmt(f),
            Self::Scheme(scheme) => write!(f, "scheme {scheme} is neither http nor https"),
            Self::Port => f.write_str("nothing listens on port 0"),
            Self::TooLong(chars) => {
                write!(f, "{chars} characters, the tables hold {URL_CHARS_MAX}")
            }
            Self::Twice => f.write_str("the same url and name stand there twice"),
            Self::Domain(cause) => cause.fmt(f),
            Self::Regexp(cause) => write!(f, "regexp: {}", regexp_fault(cause)),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotAUrl(cause) => Some(cause),
            Self::Domain(cause) => Some(cause),
            Self::Regexp(cause) => Some(cause),
            _ => None,
        }
    }
}

/// The last line of the crate's message, which holds the reason; the lines in
/// front of it draw the regexp.
fn regexp_fault(cause: &regex::Error) -> String {
    let text = cause.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
}
