//! WEBSITES: the simple list of targets, as 1.1.0 has it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use regex::Regex;

use super::{Defaults, Fault, List, Located, Target, shown};
use crate::probe::http::checks::Checks;
use crate::probe::{Family, Limits, Spec};

/// Reads a list as the README of 1.1.0 has it: entries separated by commas,
/// each a URL and optionally, behind white space, a regexp, which may hold
/// spaces and, written `\,`, commas.
///
/// # Errors
/// [`WebsitesError`] names the first entry at fault.
pub fn parse(
    list: &str,
    topic_prefix: &str,
    defaults: &Defaults,
) -> Result<Vec<Target>, WebsitesError> {
    let mut targets = List::default();
    add(&mut targets, list, topic_prefix, defaults)?;
    Ok(targets.targets())
}

/// Adds such a list to others.
///
/// # Errors
/// As [`parse`].
pub(super) fn add(
    targets: &mut List,
    list: &str,
    topic_prefix: &str,
    defaults: &Defaults,
) -> Result<(), WebsitesError> {
    let mut specs = Specs { defaults: *defaults, made: HashMap::new() };
    let mut count = 0;
    for (index, entry) in split(list).iter().enumerate() {
        if entry.is_empty() {
            continue;
        }
        let (url, check) = match entry.split_once(char::is_whitespace) {
            Some((url, check)) => (url, Some(check.trim())),
            None => (entry.as_str(), None),
        };
        target(url, check, topic_prefix, &mut specs).and_then(|one| targets.add(one)).map_err(
            |fault| WebsitesError::At { entry: index + 1, url: shown(url, &fault), fault },
        )?;
        count += 1;
    }
    if count == 0 { Err(WebsitesError::NoUrl) } else { Ok(()) }
}

/// Entries that say the same share what follows from it.
struct Specs {
    defaults: Defaults,
    made: HashMap<Option<String>, Arc<Spec>>,
}

impl Specs {
    fn of(&mut self, check: Option<&str>) -> Result<Arc<Spec>, Fault> {
        let key = check.map(str::to_owned);
        if let Some(made) = self.made.get(&key) {
            return Ok(Arc::clone(made));
        }
        let regexp = check.map(Regex::new).transpose().map_err(Fault::Regexp)?;
        let spec = Arc::new(Spec {
            checks: regexp.map_or_else(Checks::default, Checks::page),
            ..Spec::default()
        });
        self.made.insert(key, Arc::clone(&spec));
        Ok(spec)
    }
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
    specs: &mut Specs,
) -> Result<Target, Fault> {
    let Located { url, recorded_url, domain, topic } = Located::parse(text, topic_prefix)?;
    let spec = specs.of(check)?;
    let Defaults { period, timeout, retries, body_bytes_max } = specs.defaults;
    let limits = Limits { timeout, body_bytes_max, ..Limits::default() };
    let (name, family) = (check.map(str::to_owned), Family::default());
    Ok(Target { url, recorded_url, name, domain, topic, period, retries, limits, family, spec })
}

/// What is wrong with such a list.
#[derive(Debug)]
pub enum WebsitesError {
    /// There is nothing in it.
    NoUrl,
    /// An entry can't be used.
    #[expect(private_interfaces, reason = "what is wrong is for its text alone")]
    At {
        /// Which, from 1.
        entry: usize,
        /// Its URL, less what may be a password.
        url: String,
        /// What is wrong with it.
        fault: Fault,
    },
}

impl fmt::Display for WebsitesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::At { entry, url, fault } = self else {
            return f.write_str("no url in it");
        };
        write!(f, "entry {entry} ({url}): ")?;
        let may_be_cut = match fault {
            Fault::Twice => return f.write_str("the same url and regexp stand there twice"),
            Fault::NotAUrl(_) => true,
            Fault::Regexp(cause) => {
                let text = cause.to_string();
                text.contains("repetition") || text.contains("unclosed")
            }
            _ => false,
        };
        let hint = if may_be_cut { " (a comma inside a regexp is written \\,)" } else { "" };
        write!(f, "{fault}{hint}")
    }
}

impl std::error::Error for WebsitesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoUrl => None,
            Self::At { fault, .. } => std::error::Error::source(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::domain;

    use super::super::URL_CHARS_MAX;
    use super::*;

    fn parsed(list: &str, topic_prefix: &str) -> Result<Vec<Target>, WebsitesError> {
        parse(list, topic_prefix, &Defaults::default())
    }

    fn listed(list: &str) -> Vec<(String, Option<String>)> {
        parsed(list, domain::TOPIC_PREFIX)
            .unwrap()
            .into_iter()
            .map(|target| (target.recorded_url, target.name))
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
                "entry 2 (http://a_b): domains a.b and a_b would share the name web_activity_a_b in postgresql",
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
