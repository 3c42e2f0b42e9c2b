//! Which domains are to be recorded: those named, and those whose topics are
//! there and match a pattern.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use common::domain::{Domain, DomainError, TakenNames};

/// The most domains that patterns may come to: a thread each.
pub const DOMAINS_MAX: usize = 10_000;

/// What stands for domains that need not be known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: any.
    All,
    /// `*.example.com`: any below that, which itself is not meant.
    Below(Domain),
}

impl Pattern {
    /// A pattern as a setting gives it; none when the text is meant as a name.
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

/// The domains to record, by topic. What was found once stays: a topic that is
/// deleted is waited for like one that is not there yet.
#[derive(Debug)]
pub struct Wanted {
    prefix: String,
    patterns: Vec<Pattern>,
    domains: BTreeMap<String, Domain>,
    taken: TakenNames,
    /// Topics of which was said why they are left out; those of the brokers.
    left_out: HashSet<String>,
}

impl Wanted {
    /// For names and patterns, with what topics' names begin with.
    ///
    /// # Errors
    /// [`DomainError::TopicTooLong`], [`DomainError::SharedName`].
    pub fn new(
        prefix: &str,
        names: Vec<Domain>,
        patterns: Vec<Pattern>,
    ) -> Result<Self, DomainError> {
        let mut wanted = Self {
            prefix: prefix.to_owned(),
            patterns,
            domains: BTreeMap::new(),
            taken: TakenNames::default(),
            left_out: HashSet::new(),
        };
        for domain in names {
            wanted.taken.take(&domain)?;
            wanted.domains.insert(domain.topic(prefix)?, domain);
        }
        Ok(wanted)
    }

    /// Whether topics are to be looked for.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// The domains known so far, by topic.
    pub fn domains(&self) -> &BTreeMap<String, Domain> {
        &self.domains
    }

    /// Takes in the topics that are there; `is_known` says which of them some
    /// recorder has worked on. Those go first, so that all recorders choose the
    /// same of two that can't both be recorded. A topic left out is one line,
    /// once.
    pub fn found(&mut self, mut topics: Vec<String>, is_known: impl Fn(&str) -> bool) {
        topics.sort_by_cached_key(|topic| (!is_known(topic), topic.clone()));
        for topic in topics {
            if self.domains.contains_key(&topic) || self.left_out.contains(&topic) {
                continue;
            }
            let reason = match self.choose(&topic) {
                Some(Ok(domain)) => {
                    self.domains.insert(topic, domain);
                    continue;
                }
                Some(Err(reason)) => reason,
                None => continue,
            };
            log::error!("topic {topic} is left out: {reason}");
            self.left_out.insert(topic);
        }
    }

    /// The domain of a topic; none when nobody asked for it.
    fn choose(&mut self, topic: &str) -> Option<Result<Domain, String>> {
        let name = topic.strip_prefix(&self.prefix)?;
        let domain = match Domain::parse(name) {
            Ok(domain) if domain.as_str() == name => domain,
            Ok(domain) => return Some(Err(format!("{name:?} is not spelt like {domain}"))),
            Err(error) => return Some(Err(error.to_string())),
        };
        if !self.patterns.iter().any(|pattern| pattern.matches(&domain)) {
            return None;
        }
        if self.domains.len() >= DOMAINS_MAX {
            return Some(Err(format!("there are {DOMAINS_MAX} domains already")));
        }
        Some(self.taken.take(&domain).map(|()| domain).map_err(|error| error.to_string()))
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} domains", self.domains.len())?;
        for pattern in &self.patterns {
            write!(f, " and {pattern}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str], patterns: &[&str]) -> Wanted {
        let names = names.iter().map(|name| Domain::parse(name).unwrap()).collect();
        let patterns = patterns.iter().map(|text| Pattern::parse(text).unwrap().unwrap());
        Wanted::new("webactivity-", names, patterns.collect()).unwrap()
    }

    fn found(mut wanted: Wanted, names: &[&str], known: &[&str]) -> Vec<String> {
        let topic = |name: &&str| format!("webactivity-{name}");
        let known: Vec<_> = known.iter().map(topic).collect();
        let topics: Vec<_> = names.iter().map(topic).collect();
        wanted.found(topics.clone(), |topic| known.iter().any(|known| known == topic));
        wanted.found(topics, |_| false);
        wanted.domains().values().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pattern_is_everything_or_everything_below() {
        let names = ["a.example.com", "b.a.example.com", "example.com", "xexample.com", "c.d"];
        assert_eq!(found(wanted(&[], &["*"]), &names, &[]).len(), 5);
        let below = found(wanted(&["c.d"], &["*.EXAMPLE.com"]), &names, &[]);
        assert_eq!(below, ["a.example.com", "b.a.example.com", "c.d"]);
        assert!(found(wanted(&[], &[]), &names, &[]).is_empty());
        assert!(Pattern::parse("example.com").is_none());
        assert!(Pattern::parse("*.a b").unwrap().is_err());
    }

    /// Goes red when `choose` does not compare the name with its domain's.
    #[test]
    fn a_topic_that_is_no_domains_own_is_left_out() {
        let names = ["A.b", "", "c..", "--1", "x", "01.2.3.4", "xn--", "ok.d"];
        assert_eq!(found(wanted(&[], &["*"]), &names, &[]), ["--1", "ok.d", "x"]);
        let mut other = wanted(&[], &["*"]);
        other.found(vec!["another-topic".to_owned()], |_| false);
        assert!(other.domains().is_empty() && other.left_out.is_empty());
    }

    /// Goes red when the topics that are known are not sorted to the front.
    #[test]
    fn of_two_that_share_a_table_the_first_known_goes_on() {
        assert_eq!(found(wanted(&[], &["*"]), &["a.b", "a_b", "c"], &[]), ["a.b", "c"]);
        assert_eq!(found(wanted(&[], &["*"]), &["a.b", "a_b", "c"], &["a_b"]), ["a_b", "c"]);
        assert_eq!(found(wanted(&["a_b"], &["*"]), &["a.b", "a_b"], &["a.b"]), ["a_b"]);
    }
}
