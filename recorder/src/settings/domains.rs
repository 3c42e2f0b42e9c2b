//! The domains to record. They are given by name, or by a pattern that matches existing topics.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use common::domain::{Domain, DomainError, RelationNames};

/// The maximum number of domains that patterns may add. Each domain needs a thread.
const DOMAINS_MAX: usize = 10_000;

/// A pattern that selects domains by their existing topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: all domains.
    All,
    /// `*.example.com`: all domains below example.com, without example.com itself.
    Below(Domain),
}

impl Pattern {
    /// Parses a pattern. `None`: the text is a name and not a pattern.
    ///
    /// # Errors
    /// See [`Domain::parse`].
    pub fn parse(text: &str) -> Option<Result<Self, DomainError>> {
        if text == "*" {
            return Some(Ok(Self::All));
        }
        text.strip_prefix("*.").map(|parent| Domain::parse(parent).map(Self::Below))
    }

    fn matches(&self, domain: &Domain) -> bool {
        match self {
            Self::All => true,
            Self::Below(parent) => domain
                .as_str()
                .strip_suffix(parent.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// The domains to record, by topic.
///
/// A domain that a pattern has found stays selected, because a deleted topic may be created again.
#[derive(Debug)]
pub struct DomainSelection {
    prefix: String,
    patterns: Vec<Pattern>,
    domains: BTreeMap<String, Domain>,
    taken: RelationNames,
    /// Topics that match a pattern but can't be recorded. The reason was logged.
    rejected: HashSet<String>,
}

impl DomainSelection {
    /// Selects domains by name and by pattern. `prefix` is the prefix of the names of topics.
    ///
    /// # Errors
    /// [`DomainError::TopicTooLong`], [`DomainError::SharedName`].
    pub fn new(
        prefix: &str,
        names: Vec<Domain>,
        patterns: Vec<Pattern>,
    ) -> Result<Self, DomainError> {
        let mut selection = Self {
            prefix: prefix.to_owned(),
            patterns,
            domains: BTreeMap::new(),
            taken: RelationNames::default(),
            rejected: HashSet::new(),
        };
        for domain in names {
            selection.taken.claim(&domain)?;
            selection.domains.insert(domain.topic(prefix)?, domain);
        }
        Ok(selection)
    }

    /// Whether the list of topics is needed.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// The domains selected so far, by topic.
    pub fn domains(&self) -> &BTreeMap<String, Domain> {
        &self.domains
    }

    /// Adds the domains of existing topics that match a pattern.
    ///
    /// `has_lease` returns whether a recorder has recorded the topic before. Such topics are added
    /// first. So all recorders select the same domain if two domains would share a table. A
    /// rejected topic is logged once.
    pub fn add_topics(&mut self, mut topics: Vec<String>, has_lease: impl Fn(&str) -> bool) {
        topics.sort_by_cached_key(|topic| (!has_lease(topic), topic.clone()));
        for topic in topics {
            if self.domains.contains_key(&topic) || self.rejected.contains(&topic) {
                continue;
            }
            let reason = match self.select(&topic) {
                Some(Ok(domain)) => {
                    self.domains.insert(topic, domain);
                    continue;
                }
                Some(Err(reason)) => reason,
                None => continue,
            };
            log::error!("topic {topic} is not recorded: {reason}");
            self.rejected.insert(topic);
        }
    }

    /// The domain of a topic, or the reason why it can't be recorded. `None`: no pattern matches.
    fn select(&mut self, topic: &str) -> Option<Result<Domain, String>> {
        let name = topic.strip_prefix(&self.prefix)?;
        let domain = match Domain::parse(name) {
            Ok(domain) if domain.as_str() == name => domain,
            Ok(domain) => {
                return Some(Err(format!("{name:?} is not the normal spelling, {domain}")));
            }
            Err(error) => return Some(Err(error.to_string())),
        };
        if !self.patterns.iter().any(|pattern| pattern.matches(&domain)) {
            return None;
        }
        if self.domains.len() >= DOMAINS_MAX {
            return Some(Err(format!("{DOMAINS_MAX} domains are recorded already")));
        }
        Some(self.taken.claim(&domain).map(|()| domain).map_err(|error| error.to_string()))
    }
}

impl fmt::Display for DomainSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.domains.len() {
            1 => f.write_str("1 domain")?,
            count => write!(f, "{count} domains")?,
        }
        for pattern in &self.patterns {
            write!(f, " and {pattern}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(names: &[&str], patterns: &[&str]) -> DomainSelection {
        let names = names.iter().map(|name| Domain::parse(name).unwrap()).collect();
        let patterns = patterns.iter().map(|text| Pattern::parse(text).unwrap().unwrap());
        DomainSelection::new("webactivity-", names, patterns.collect()).unwrap()
    }

    fn select(mut selection: DomainSelection, names: &[&str], known: &[&str]) -> Vec<String> {
        let topic = |name: &&str| format!("webactivity-{name}");
        let known: Vec<_> = known.iter().map(topic).collect();
        let topics: Vec<_> = names.iter().map(topic).collect();
        selection.add_topics(topics.clone(), |topic| known.iter().any(|known| known == topic));
        selection.add_topics(topics, |_| false);
        selection.domains().values().map(ToString::to_string).collect()
    }

    #[test]
    fn patterns_match_all_domains_or_all_below_a_domain() {
        let names = ["a.example.com", "b.a.example.com", "example.com", "xexample.com", "c.d"];
        assert_eq!(select(selection(&[], &["*"]), &names, &[]).len(), 5);
        let below = select(selection(&["c.d"], &["*.EXAMPLE.com"]), &names, &[]);
        assert_eq!(below, ["a.example.com", "b.a.example.com", "c.d"]);
        assert!(select(selection(&[], &[]), &names, &[]).is_empty());
        assert!(Pattern::parse("example.com").is_none());
        assert!(Pattern::parse("*.a b").unwrap().is_err());
    }

    #[test]
    fn topics_whose_names_are_not_normalised_domains_are_rejected() {
        let names = ["A.b", "", "c..", "--1", "x", "01.2.3.4", "xn--", "ok.d"];
        assert_eq!(select(selection(&[], &["*"]), &names, &[]), ["--1", "ok.d", "x"]);
        let mut other = selection(&[], &["*"]);
        other.add_topics(vec!["another-topic".to_owned()], |_| false);
        assert!(other.domains().is_empty() && other.rejected.is_empty());
    }

    /// Recorders agree: a domain with a lease takes precedence over the first domain in the
    /// alphabet.
    #[test]
    fn of_two_domains_that_share_a_table_the_one_with_a_lease_is_recorded() {
        assert_eq!(select(selection(&[], &["*"]), &["a.b", "a_b", "c"], &[]), ["a.b", "c"]);
        assert_eq!(select(selection(&[], &["*"]), &["a.b", "a_b", "c"], &["a_b"]), ["a_b", "c"]);
        assert_eq!(select(selection(&["a_b"], &["*"]), &["a.b", "a_b"], &["a.b"]), ["a_b"]);
    }
}
