//! The one place that turns a URL into the names of its domain, topic and table.

use std::collections::HashMap;
use std::fmt;

use url::{Host, Url};

/// What topics begin with unless a setting says otherwise.
pub const TOPIC_PREFIX: &str = "webactivity-";
/// What 1.1.0 in fact puts on the wire: its spelling has an `i` too many.
pub const TOPIC_PREFIX_OF_1_1_0: &str = "webactiviity-";

/// The most bytes of a topic's name (Kafka's own limit).
const TOPIC_BYTES_MAX: usize = 249;
/// The most bytes of a table's or index's name (PostgreSQL's NAMEDATALEN − 1).
const NAME_BYTES_MAX: usize = 63;
/// Hexadecimal digits of the hash that ends a name which had to be cut.
const HASH_DIGITS: usize = 16;

/// A site's host name in lower case, an internationalised one in punycode,
/// without port or user; an IPv6 literal with its colons as hyphens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// The domain of a URL.
    ///
    /// # Errors
    /// See [`DomainError`].
    pub fn of_url(url: &Url) -> Result<Self, DomainError> {
        let name = match url.host() {
            None => return Err(DomainError::NoHost),
            Some(Host::Ipv6(address)) => address.to_string().replace(':', "-"),
            Some(Host::Ipv4(address)) => address.to_string(),
            // A dot at the end says that the name is complete; it is the same site.
            Some(Host::Domain(name)) => name.strip_suffix('.').unwrap_or(name).to_owned(),
        };
        Self::checked(name)
    }

    /// A domain as a person writes it: `Aiven.io`, `bücher.example`, `[::1]`
    /// or `--1`.
    ///
    /// # Errors
    /// See [`DomainError`].
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        // What only an address of another family can look like is already in
        // our own spelling, which a URL would not take.
        let has_hyphens_for_colons = text.contains("--") || text.matches('-').count() >= 7;
        if has_hyphens_for_colons && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Self::checked(text.to_ascii_lowercase());
        }
        if text.contains(['/', '@', '?', '#', '\\']) {
            return Err(DomainError::NotAHost(text.to_owned()));
        }
        let url = Url::parse(&format!("http://{text}"))
            .map_err(|_| DomainError::NotAHost(text.to_owned()))?;
        if url.port().is_some() || text.ends_with(":80") {
            return Err(DomainError::HasPort(text.to_owned()));
        }
        Self::of_url(&url)
    }

    fn checked(name: String) -> Result<Self, DomainError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        // Between two dots stands something (RFC 1035, 2.3.1); a URL lets nothing stand there.
        if !name.split('.').all(|label| !label.is_empty() && label.bytes().all(fits)) {
            return Err(DomainError::NotAHost(name));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic's name.
    ///
    /// # Errors
    /// [`DomainError::TopicTooLong`] above Kafka's 249 bytes.
    pub fn topic(&self, prefix: &str) -> Result<String, DomainError> {
        let topic = format!("{prefix}{}", self.0);
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(DomainError::TopicTooLong(topic));
        }
        Ok(topic)
    }

    /// The table's name, not quoted, at most 63 bytes.
    pub fn table(&self) -> String {
        bounded(&format!("web_activity_{}", self.0.replace('.', "_")))
    }

    /// The name of the table's index on its URLs, not quoted, at most 63 bytes.
    pub fn url_index(&self) -> String {
        bounded(&format!("web_activity_url_index_{}", self.0.replace('.', "_")))
    }

    /// The name of the table's index on its targets and their times, which smart
    /// mode looks up by, not quoted, at most 63 bytes.
    pub fn target_index(&self) -> String {
        bounded(&format!("web_activity_target_index_{}", self.0.replace('.', "_")))
    }

    /// Every name that the domain takes in PostgreSQL, where tables, indexes
    /// and sequences share one set of names: the table, its indexes on URLs and
    /// on targets, its primary key and its sequence.
    fn relations(&self) -> [String; 5] {
        let table = self.table();
        let key = format!("{table}_pkey");
        let sequence = format!("{table}_id_seq");
        [table, self.url_index(), self.target_index(), key, sequence]
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The prefix that a topic may stand under instead of `prefix`: the slip in
/// 1.1.0 and what its comments say are easily taken for each other.
pub fn other_prefix(prefix: &str) -> Option<&'static str> {
    match prefix {
        TOPIC_PREFIX => Some(TOPIC_PREFIX_OF_1_1_0),
        TOPIC_PREFIX_OF_1_1_0 => Some(TOPIC_PREFIX),
        _ => None,
    }
}

/// A topic's prefix, as a setting gives it.
///
/// # Errors
/// [`DomainError::BadPrefix`] when it is empty, longer than 100 bytes or holds
/// what a topic's name can't.
pub fn parse_topic_prefix(text: &str) -> Result<String, DomainError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 100 || !text.bytes().all(fits) {
        return Err(DomainError::BadPrefix(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Refuses two domains that would share a table, an index, a key or a sequence.
///
/// # Errors
/// [`DomainError::SharedName`], which names both.
pub fn refuse_shared_names<'a>(
    domains: impl IntoIterator<Item = &'a Domain>,
) -> Result<(), DomainError> {
    let mut taken = TakenNames::default();
    domains.into_iter().try_for_each(|domain| taken.take(domain))
}

/// The names in PostgreSQL of the domains so far.
#[derive(Debug, Clone, Default)]
pub struct TakenNames(HashMap<String, Domain>);

impl TakenNames {
    /// Takes the names of one more domain, or of one that has them already.
    ///
    /// # Errors
    /// [`DomainError::SharedName`], with nothing taken, when another has one.
    pub fn take(&mut self, domain: &Domain) -> Result<(), DomainError> {
        let relations = domain.relations();
        for relation in &relations {
            if let Some(other) = self.0.get(relation).filter(|other| *other != domain) {
                return Err(DomainError::SharedName {
                    one: other.clone(),
                    other: domain.clone(),
                    relation: relation.clone(),
                });
            }
        }
        self.0.extend(relations.map(|relation| (relation, domain.clone())));
        Ok(())
    }
}

/// The name as it is when it fits, else cut and ended with a hash of the whole.
fn bounded(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    // A domain is ASCII, so that a cut between bytes is one between characters.
    let head = name.get(..NAME_BYTES_MAX - HASH_DIGITS - 1).unwrap_or_default();
    format!("{head}_{:0HASH_DIGITS$x}", stable_hash(name.as_bytes()))
}

/// A hash that is the same on every machine and in every version: the first
/// 64 bits of SHA-256. Names of tables and phases in the schedule hang on it.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Why a text is no domain, or a domain can't be served. Always permanent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainError {
    /// The URL has no host.
    NoHost,
    /// Not a host name or address, or with characters that a topic can't have.
    NotAHost(String),
    /// A domain is given without its port.
    HasPort(String),
    /// The topic's name is above 249 bytes.
    TopicTooLong(String),
    /// A topic can't begin so.
    BadPrefix(String),
    /// Two domains would write to the same table or index.
    SharedName {
        /// The domain that stands first.
        one: Domain,
        /// The domain that stands second.
        other: Domain,
        /// The name they share.
        relation: String,
    },
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHost => f.write_str("no host name in the url"),
            Self::NotAHost(text) => write!(
                f,
                "{text:?} is no host name: expected letters, digits, dots, hyphens, underscores"
            ),
            Self::HasPort(text) => {
                write!(f, "{text:?} has a port: expected the host name alone")
            }
            Self::TopicTooLong(topic) => write!(
                f,
                "the topic {topic} would have {} bytes: kafka takes {TOPIC_BYTES_MAX}",
                topic.len()
            ),
            Self::BadPrefix(text) => write!(
                f,
                "{text:?} can't begin a topic: expected 1 to 100 letters, digits, '.', '_', '-'"
            ),
            Self::SharedName { one, other, relation } => {
                write!(f, "domains {one} and {other} would share the name {relation} in postgresql")
            }
        }
    }
}

impl std::error::Error for DomainError {}

#[cfg(test)]
mod tests;
