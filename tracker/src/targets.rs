//! Targets: what WEBSITES asks for, parsed so that nothing is left to fail later.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use common::domain::{self, Domain};
use regex::Regex;
use url::Url;

use crate::probe::{Ask, Family, Limits};

/// The most characters of a URL: the tables' column holds no more.
pub const URL_CHARS_MAX: usize = 256;

/// What holds for a target that does not say otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// In which it is probed once.
    pub period: Duration,
    /// The bound on one attempt.
    pub timeout: Duration,
    /// Further attempts after a failure.
    pub retries: u32,
}

impl Default for Defaults {
    /// 300 s, 10 s and 1.
    fn default() -> Self {
        Self { period: Duration::from_secs(300), timeout: Duration::from_secs(10), retries: 1 }
    }
}

/// One thing to probe: a URL, and a regexp that its page must match.
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
    /// The check on the page.
    pub check: Option<Regex>,
    /// What a probe of it may take.
    pub limits: Limits,
    /// By which family of addresses it is probed.
    pub family: Family,
    /// The URL's domain.
    pub domain: Domain,
    /// The topic that its records go to.
    pub topic: String,
    /// In which it is probed once.
    pub period: Duration,
    /// The bound on one attempt.
    pub timeout: Duration,
    /// Further attempts after a failure.
    pub retries: u32,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({:?}, {:?}, {:?})", self.recorded_url, self.name, self.topic)
    }
}

impl PartialEq for Target {
    /// Whether the same is asked for in the same way.
    fn eq(&self, other: &Self) -> bool {
        let check = |target: &Self| target.check.as_ref().map(|check| check.as_str().to_owned());
        let plain = |target: &Self| (target.period, target.timeout, target.retries);
        (&self.url, &self.recorded_url, &self.name)
            == (&other.url, &other.recorded_url, &other.name)
            && self.topic == other.topic
            && check(self) == check(other)
            && plain(self) == plain(other)
    }
}

impl Target {
    /// What is asked of a probe.
    pub fn ask(&self) -> Ask<'_> {
        Ask {
            check: self.check.as_ref(),
            limits: Limits { timeout: self.timeout, ..self.limits },
            family: self.family,
            ..Ask::new(&self.url)
        }
    }

    /// The target's own point in a period, the same at every start: a hash of
    /// location, URL and name, so that probes spread evenly.
    pub fn phase_hash(&self, location: &str) -> u64 {
        let name = self.name.as_deref().unwrap_or_default();
        domain::stable_hash(format!("{location}\0{}\0{name}", self.url).as_bytes())
    }
}

/// Reads a list as the README of 1.1.0 has it: entries separated by commas,
/// each a URL and optionally, behind white space, a regexp, which may hold
/// spaces and, written `\,`, commas.
///
/// # Errors
/// [`TargetsError`] names the first entry at fault.
pub fn parse(
    list: &str,
    topic_prefix: &str,
    defaults: &Defaults,
) -> Result<Vec<Target>, TargetsError> {
    let mut targets = Vec::new();
    let mut seen = HashSet::new();
    for (index, entry) in split(list).iter().enumerate() {
        if entry.is_empty() {
            continue;
        }
        let (url, check) = match entry.split_once(char::is_whitespace) {
            Some((url, check)) => (url, Some(check.trim())),
            None => (entry.as_str(), None),
        };
        let at = |fault| TargetsError { entry: index + 1, url: shown(url, &fault), fault };
        let target = target(url, check, topic_prefix, defaults).map_err(at)?;
        if !seen.insert((target.url.clone(), target.name.clone())) {
            return Err(at(Fault::Twice));
        }
        targets.push(target);
    }
    if targets.is_empty() {
        return Err(TargetsError { entry: 1, url: String::new(), fault: Fault::NoUrl });
    }
    domain::refuse_shared_names(targets.iter().map(|target| &target.domain)).map_err(|error| {
        TargetsError { entry: targets.len(), url: String::new(), fault: Fault::Domain(error) }
    })?;
    Ok(targets)
}

/// Splits at commas. A backslash keeps the comma behind it, and any other
/// character behind it stays as it is, so that `\\,` is a regexp's backslash
/// and an entry's end.
fn split(list: &str) -> Vec<String> {
    let mut entries = Vec::new();
    let mut entry = String::new();
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ',' => entries.push(std::mem::take(&mut entry)),
            '\\' => match letters.next() {
                Some(',') => entry.push(','),
                Some(next) => entry.extend(['\\', next]),
                None => entry.push('\\'),
            },
            _ => entry.push(letter),
        }
    }
    entries.push(entry);
    entries.into_iter().map(|entry| entry.trim().to_owned()).collect()
}

fn target(
    text: &str,
    check: Option<&str>,
    topic_prefix: &str,
    defaults: &Defaults,
) -> Result<Target, Fault> {
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
    let domain = Domain::of_url(&url).map_err(Fault::Domain)?;
    let topic = domain.topic(topic_prefix).map_err(Fault::Domain)?;
    let name = check.map(str::to_owned);
    let check = check.map(Regex::new).transpose().map_err(Fault::Check)?;
    let (limits, family) = (Limits::default(), Family::default());
    let Defaults { period, timeout, retries } = *defaults;
    Ok(Target {
        url,
        recorded_url,
        name,
        check,
        limits,
        family,
        domain,
        topic,
        period,
        timeout,
        retries,
    })
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

/// What an error shows of an entry. Of one that is no URL nobody can tell where
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

/// What is wrong with a list of targets.
#[derive(Debug)]
pub struct TargetsError {
    entry: usize,
    url: String,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    NoUrl,
    NotAUrl(url::ParseError),
    Scheme(String),
    Port,
    TooLong(usize),
    Twice,
    Domain(domain::DomainError),
    Check(regex::Error),
}

impl fmt::Display for TargetsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.fault, Fault::NoUrl) {
            return f.write_str("no url in it");
        }
        write!(f, "entry {}", self.entry)?;
        if !self.url.is_empty() {
            write!(f, " ({})", self.url)?;
        }
        match &self.fault {
            Fault::NoUrl => Ok(()),
            Fault::NotAUrl(cause) => {
                write!(f, ": {cause} (a comma inside a regexp is written \\,)")
            }
            Fault::Scheme(scheme) => write!(f, ": scheme {scheme} is neither http nor https"),
            Fault::Port => f.write_str(": nothing listens on port 0"),
            Fault::TooLong(chars) => {
                write!(f, ": {chars} characters, the tables hold {URL_CHARS_MAX}")
            }
            Fault::Twice => f.write_str(": the same url and regexp stand there twice"),
            Fault::Domain(cause) => write!(f, ": {cause}"),
            Fault::Check(cause) => write!(f, ": {}", regexp_fault(cause)),
        }
    }
}

impl std::error::Error for TargetsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::NotAUrl(cause) => Some(cause),
            Fault::Domain(cause) => Some(cause),
            Fault::Check(cause) => Some(cause),
            _ => None,
        }
    }
}

/// The last line of the crate's message, which holds the reason; the lines in
/// front of it draw the regexp.
fn regexp_fault(cause: &regex::Error) -> String {
    let text = cause.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    let may_be_cut = reason.contains("repetition") || reason.contains("unclosed");
    let hint = if may_be_cut { " (a comma inside a regexp is written \\,)" } else { "" };
    format!("regexp: {reason}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str, topic_prefix: &str) -> Result<Vec<Target>, TargetsError> {
        parse(list, topic_prefix, &Defaults::default())
    }

    fn listed(list: &str) -> Vec<(String, Option<String>)> {
        parsed(list, domain::TOPIC_PREFIX)
            .unwrap()
            .into_iter()
            .map(|target| (target.recorded_url, target.check.map(|check| check.to_string())))
            .collect()
    }

    #[test]
    fn the_example_of_the_first_version_is_read() {
        assert_eq!(
            listed(r"https://aiven.io <svg\s+,https://www.google.com"),
            [
                ("https://aiven.io".to_owned(), Some(r"<svg\s+".to_owned())),
                ("https://www.google.com".to_owned(), None),
            ]
        );
    }

    #[test]
    fn a_regexp_may_hold_spaces_and_commas() {
        for (entry, check) in [
            (r"http://a.io  <h1>Hello  World</h1> ", r"<h1>Hello  World</h1>"),
            (r"http://a.io x{1\,3}", "x{1,3}"),
            (r"http://a.io \d\\", r"\d\\"),
            (r"http://a.io htt?p", "htt?p"),
        ] {
            let expected = [("http://a.io".to_owned(), Some(check.to_owned()))];
            assert_eq!(listed(entry), expected, "{entry}");
            assert_eq!(listed(&format!("{entry},http://b.io"))[..1], expected, "{entry}");
        }
    }

    #[test]
    fn the_same_url_may_stand_with_several_regexps() {
        assert_eq!(listed("http://a.io x, http://a.io y,\nhttp://a.io,").len(), 3);
    }

    #[test]
    fn a_target_is_asked_for_as_written_and_recorded_without_secrets() {
        let list = "https://User:Pass@Bücher.example:8443/A%20b?Q=1#top";
        let target = &parsed(list, "webactiviity-").unwrap()[0];
        let asked = "https://User:Pass@xn--bcher-kva.example:8443/A%20b?Q=1";
        assert_eq!(target.url.as_str(), asked);
        assert_eq!(target.recorded_url, "https://bücher.example:8443/a%20b?q=1#top");
        assert_eq!(target.topic, "webactiviity-xn--bcher-kva.example");
    }

    #[test]
    fn a_password_is_not_shown_however_the_url_is_written() {
        for (list, expected) in [
            ("http:u:s3cret@a.io/x", "http:a.io/x"),
            ("http:/u:s3cret@a.io/x", "http:/a.io/x"),
            (r"https:///u:s3c@ret@a.io\x@y", r"https:///a.io\x@y"),
            ("http://a.io/x@y", "http://a.io/x@y"),
        ] {
            let target = parsed(list, domain::TOPIC_PREFIX).unwrap().remove(0);
            assert_eq!((target.url.host_str(), &*target.recorded_url), (Some("a.io"), expected));
            assert!(!format!("{target:?}").contains("s3c"), "{target:?}");
        }
        for list in [
            "u:s3cret@a.io",
            "//u:s3cret@a.io",
            "http://u:s3cret/x@a.io",
            "http://u:s3cret,x@a.io",
            "http://u:s3cret x@a.io",
        ] {
            let error = parsed(list, domain::TOPIC_PREFIX).unwrap_err().to_string();
            assert!(error.starts_with("entry 1 (") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!("http://a.io/{}", "x".repeat(245));
        for (list, expected) in [
            ("", "no url in it"),
            (" , ", "no url in it"),
            (
                "http://a.io x{1,3}",
                "entry 1 (http://a.io): regexp: unclosed counted repetition \
                 (a comma inside a regexp is written \\,)",
            ),
            (
                "http://a.io,aiven.io",
                "entry 2 (aiven.io): relative URL without a base \
                 (a comma inside a regexp is written \\,)",
            ),
            ("ftp://a.io", "entry 1 (ftp://a.io): scheme ftp is neither http nor https"),
            ("http://a.io:0", "entry 1 (http://a.io:0): nothing listens on port 0"),
            (
                "http://a.io x,http://u:s3cret@a.io,http://a.io x",
                "entry 3 (http://a.io): the same url and regexp stand there twice",
            ),
            (
                "http://a.io (?=x)",
                "entry 1 (http://a.io): regexp: look-around, including look-ahead and \
                 look-behind, is not supported",
            ),
            (
                r"http://a.io (x)\1",
                "entry 1 (http://a.io): regexp: backreferences are not supported",
            ),
            (
                "http://a.b,http://a_b",
                "entry 2: domains a.b and a_b would share the name web_activity_a_b in postgresql",
            ),
        ] {
            let error = parsed(list, domain::TOPIC_PREFIX).unwrap_err().to_string();
            assert_eq!(error, expected, "{list}");
        }
        let error = parsed(&long, domain::TOPIC_PREFIX).unwrap_err().to_string();
        assert!(error.ends_with(": 257 characters, the tables hold 256"), "{error}");
    }

    #[test]
    fn the_phase_hangs_on_location_url_and_regexp() {
        let targets = parsed("http://a.io x,http://a.io y", domain::TOPIC_PREFIX).unwrap();
        let [one, other] = [&targets[0], &targets[1]];
        assert_eq!(one.phase_hash("oslo"), one.phase_hash("oslo"));
        assert_ne!(one.phase_hash("oslo"), one.phase_hash("rome"));
        assert_ne!(one.phase_hash("oslo"), other.phase_hash("oslo"));
    }

    /// Goes red when `target` lets a URL of 257 characters through.
    #[test]
    fn fuzzed_lists_are_targets_that_fit_or_an_error() {
        let longest = format!("http://a.io/{}", "x".repeat(URL_CHARS_MAX - 12));
        let mut samples: Vec<Vec<u8>> = [
            r"https://aiven.io <svg\s+,https://www.google.com",
            r"http://u:s3cret@a.io x{1\,3},http://b\u{fc}cher.example:81/A?q#f \d\\,ftp://x",
        ]
        .map(Into::into)
        .into();
        samples.push(longest.into());
        let tried = testkit::fuzz::run(&samples, |bytes| {
            let Ok(targets) = parsed(&String::from_utf8_lossy(bytes), domain::TOPIC_PREFIX) else {
                return;
            };
            assert!(!targets.is_empty());
            for target in targets {
                assert!(target.recorded_url.chars().count() <= URL_CHARS_MAX);
                assert!(target.topic.len() <= 249);
                assert!(matches!(target.url.scheme(), "http" | "https"));
            }
        });
        println!("targets: {tried} inputs");
    }
}
