//! WEBSITES: the short list of targets, in the format of version 1.1.0.
//!
//! Entries are separated by commas. An entry is a URL, optionally followed by white space and a
//! regexp. A regexp may contain spaces, and commas if they are written `\,`.

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;

use super::url::{TargetUrl, redact};
use super::{Target, TargetDefaults, TargetError, TargetList};
use crate::probe::http::checks::Checks;
use crate::probe::{Family, Limits, ProbeSpec};

/// Parses a list of its own.
#[cfg(test)]
pub(crate) fn parse_websites(
    list: &str,
    topic_prefix: &str,
    defaults: &TargetDefaults,
) -> Result<Vec<Target>, WebsitesError> {
    let mut targets = TargetList::default();
    add_targets(&mut targets, list, topic_prefix, defaults)?;
    Ok(targets.into_targets())
}

/// Adds the targets of WEBSITES to the list.
///
/// # Errors
/// [`WebsitesError`] for the first invalid entry.
pub(super) fn add_targets(
    targets: &mut TargetList,
    list: &str,
    topic_prefix: &str,
    defaults: &TargetDefaults,
) -> Result<(), WebsitesError> {
    let mut specs = RegexpSpecs::default();
    let mut count = 0;
    for (index, entry) in split_entries(list).iter().enumerate() {
        if entry.is_empty() {
            continue;
        }
        let (url, regexp) = match entry.split_once(char::is_whitespace) {
            Some((url, regexp)) => (url, Some(regexp.trim())),
            None => (entry.as_str(), None),
        };
        parse_target(url, regexp, topic_prefix, defaults, &mut specs)
            .and_then(|target| targets.add(target))
            .map_err(|error| WebsitesError::InvalidEntry {
                number: index + 1,
                url: redact(url, &error),
                error,
            })?;
        count += 1;
    }
    if count == 0 { Err(WebsitesError::Empty) } else { Ok(()) }
}

/// The specs of all regexps. Entries with the same regexp share one.
#[derive(Default)]
struct RegexpSpecs {
    specs: HashMap<Option<String>, Arc<ProbeSpec>>,
}

impl RegexpSpecs {
    fn spec(&mut self, regexp: Option<&str>) -> Result<Arc<ProbeSpec>, TargetError> {
        let key = regexp.map(str::to_owned);
        if let Some(spec) = self.specs.get(&key) {
            return Ok(Arc::clone(spec));
        }
        let regexp = regexp.map(Regex::new).transpose()?;
        let spec = Arc::new(ProbeSpec {
            checks: regexp.map_or_else(Checks::default, Checks::for_body),
            ..ProbeSpec::default()
        });
        self.specs.insert(key, Arc::clone(&spec));
        Ok(spec)
    }
}

/// Splits the list at commas. A backslash protects the comma after it. Any other character after a
/// backslash stays as written, so that `\\,` is a backslash of the regexp and the end of the entry.
fn split_entries(list: &str) -> Vec<String> {
    let mut entries = Vec::new();
    let mut entry = String::new();
    let mut chars = list.chars();
    while let Some(char) = chars.next() {
        match char {
            ',' => entries.push(std::mem::take(&mut entry)),
            '\\' => match chars.next() {
                Some(',') => entry.push(','),
                Some(next) => entry.extend(['\\', next]),
                None => entry.push('\\'),
            },
            _ => entry.push(char),
        }
    }
    entries.push(entry);
    entries.into_iter().map(|entry| entry.trim().to_owned()).collect()
}

fn parse_target(
    url: &str,
    regexp: Option<&str>,
    topic_prefix: &str,
    defaults: &TargetDefaults,
    specs: &mut RegexpSpecs,
) -> Result<Target, TargetError> {
    let TargetUrl { url, recorded_url, domain, topic } = TargetUrl::parse(url, topic_prefix)?;
    let spec = specs.spec(regexp)?;
    let TargetDefaults { period, timeout, retries, body_bytes_max } = *defaults;
    let limits = Limits { timeout, body_bytes_max, ..Limits::default() };
    let (name, family) = (regexp.map(str::to_owned), Family::default());
    Ok(Target { url, recorded_url, name, domain, topic, period, retries, limits, family, spec })
}

/// Why WEBSITES is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebsitesError {
    #[error("it contains no URL")]
    Empty,
    #[error("entry {number} ({url}): {}", entry_error(.error))]
    InvalidEntry {
        /// From 1.
        number: usize,
        /// Without user and password.
        url: String,
        #[source]
        error: TargetError,
    },
}

/// Returns the text of an error in the terms of WEBSITES, with a hint if a comma may have cut a
/// regexp in two.
fn entry_error(error: &TargetError) -> String {
    let may_be_cut = match error {
        TargetError::Duplicate => return "the same URL and regexp are listed twice".to_owned(),
        TargetError::InvalidUrl(_) => true,
        TargetError::Regexp(cause) => {
            let text = cause.to_string();
            text.contains("repetition") || text.contains("unclosed")
        }
        _ => false,
    };
    let hint = if may_be_cut { " (a comma inside a regexp is written \\,)" } else { "" };
    format!("{error}{hint}")
}

#[cfg(test)]
mod tests;
