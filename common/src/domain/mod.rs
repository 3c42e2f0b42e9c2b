//! The domain of a URL, and the names of its topic, table and indexes. The only place that derives
//! these names.

use std::collections::HashMap;
use std::fmt;

use url::{Host, Url};

/// The default prefix of topic names.
pub const TOPIC_PREFIX: &str = "webactivity-";
/// The prefix that 1.1.0 really uses: it has an `i` too many.
pub const TOPIC_PREFIX_OF_1_1_0: &str = "webactiviity-";

/// The most bytes of a topic name (a limit of Kafka).
const TOPIC_BYTES_MAX: usize = 249;
/// The most bytes of a table or index name (PostgreSQL's NAMEDATALEN − 1).
const NAME_BYTES_MAX: usize = 63;
/// The hexadecimal digits of the hash at the end of a shortened name.
const HASH_DIGITS: usize = 16;

/// The host name of a site, in lower case, without port and user. An internationalised name is in
/// punycode; an IPv6 address has hyphens instead of colons.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Returns the domain of a URL.
    ///
    /// # Errors
    /// [`DomainError::NoHost`], or [`DomainError::NotAHost`] for a host with other characters than
    /// letters, digits, `.`, `_` and `-`.
    pub fn from_url(url: &Url) -> Result<Self, DomainError> {
        let name = match url.host() {
            None => return Err(DomainError::NoHost),
            Some(Host::Ipv6(address)) => address.to_string().replace(':', "-"),
            Some(Host::Ipv4(address)) => address.to_string(),
            // A trailing dot marks an absolute name of the same site (RFC 1034, 3.1).
            Some(Host::Domain(name)) => name.strip_suffix('.').unwrap_or(name).to_owned(),
        };
        Self::from_host(name)
    }

    /// Parses a domain as a user writes it: `Aiven.io`, `bücher.example`, `[::1]` or `--1`.
    ///
    /// # Errors
    /// [`DomainError::NotAHost`] or [`DomainError::HasPort`].
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        // An IPv6 address with hyphens, which is not valid in a URL.
        let has_hyphens_for_colons = text.contains("--") || text.matches('-').count() >= 7;
        if has_hyphens_for_colons && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Self::from_host(text.to_ascii_lowercase());
        }
        if text.contains(['/', '@', '?', '#', '\\']) {
            return Err(DomainError::NotAHost(text.to_owned()));
        }
        let url = Url::parse(&format!("http://{text}"))
            .map_err(|_| DomainError::NotAHost(text.to_owned()))?;
        if url.port().is_some() || text.ends_with(":80") {
            return Err(DomainError::HasPort(text.to_owned()));
        }
        Self::from_url(&url)
    }

    fn from_host(name: String) -> Result<Self, DomainError> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        // A label is not empty (RFC 1035, 2.3.1); the URL parser allows empty labels.
        if !name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_valid)) {
            return Err(DomainError::NotAHost(name));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the topic name.
    ///
    /// # Errors
    /// [`DomainError::TopicTooLong`] above 249 bytes.
    pub fn topic(&self, prefix: &str) -> Result<String, DomainError> {
        let topic = format!("{prefix}{}", self.0);
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(DomainError::TopicTooLong(topic));
        }
        Ok(topic)
    }

    /// Returns the table name, not quoted, at most 63 bytes.
    pub fn table(&self) -> String {
        shorten(&format!("web_activity_{}", self.0.replace('.', "_")))
    }

    /// Returns the name of the table's index on URLs, not quoted, at most 63 bytes.
    pub fn url_index(&self) -> String {
        shorten(&format!("web_activity_url_index_{}", self.0.replace('.', "_")))
    }

    /// Returns the name of the table's index on targets and times, which smart mode uses. Not
    /// quoted, at most 63 bytes.
    pub fn target_index(&self) -> String {
        shorten(&format!("web_activity_target_index_{}", self.0.replace('.', "_")))
    }

    /// Returns all names of the domain in PostgreSQL: the table, its indexes on URLs and targets,
    /// its primary key and its sequence. Tables, indexes and sequences share one namespace.
    fn relation_names(&self) -> [String; 5] {
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

/// Returns the other one of [`TOPIC_PREFIX`] and [`TOPIC_PREFIX_OF_1_1_0`], which are easily
/// confused. `None`: `prefix` is neither.
pub fn other_prefix(prefix: &str) -> Option<&'static str> {
    match prefix {
        TOPIC_PREFIX => Some(TOPIC_PREFIX_OF_1_1_0),
        TOPIC_PREFIX_OF_1_1_0 => Some(TOPIC_PREFIX),
        _ => None,
    }
}

/// Checks a topic prefix from a setting.
///
/// # Errors
/// [`DomainError::BadPrefix`] if it is empty, longer than 100 bytes, or has characters that a topic
/// name can't have.
pub fn parse_topic_prefix(text: &str) -> Result<String, DomainError> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 100 || !text.bytes().all(is_valid) {
        return Err(DomainError::BadPrefix(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Checks that no two domains share the name of a table, index, primary key or sequence.
///
/// # Errors
/// [`DomainError::SharedName`] with both domains.
pub fn check_shared_names<'a>(
    domains: impl IntoIterator<Item = &'a Domain>,
) -> Result<(), DomainError> {
    let mut names = RelationNames::default();
    domains.into_iter().try_for_each(|domain| names.claim(domain))
}

/// The names in PostgreSQL that are in use, and the domain of each.
#[derive(Debug, Clone, Default)]
pub struct RelationNames(HashMap<String, Domain>);

impl RelationNames {
    /// Claims all names of a domain. A domain can claim its names again.
    ///
    /// # Errors
    /// [`DomainError::SharedName`] if another domain has one of the names. Nothing is claimed then.
    pub fn claim(&mut self, domain: &Domain) -> Result<(), DomainError> {
        let relations = domain.relation_names();
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

/// Shortens a name that is too long: its beginning and a hash of the whole name.
fn shorten(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    // A domain is ASCII, so any byte is a character boundary.
    let head = name.get(..NAME_BYTES_MAX - HASH_DIGITS - 1).unwrap_or_default();
    format!("{head}_{:0HASH_DIGITS$x}", stable_hash(name.as_bytes()))
}

/// Returns the first 64 bits of SHA-256. Table names and the schedule's phases depend on it, so it
/// must be the same on every machine and in every version.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Why a text is not a domain, or a domain can't be used. Always permanent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The URL has no host.
    #[error("no host name in the url")]
    NoHost,
    /// Not a host name or address, or it has characters that a topic name can't have.
    #[error("{0:?} is not a host name: expected letters, digits, dots, hyphens, underscores")]
    NotAHost(String),
    /// The domain has a port.
    #[error("{0:?} has a port: expected the host name alone")]
    HasPort(String),
    /// The topic name has more than 249 bytes.
    #[error("topic {0} would have {len} bytes: expected at most {TOPIC_BYTES_MAX}", len = .0.len())]
    TopicTooLong(String),
    /// Not a valid prefix of a topic name.
    #[error("{0:?} can't begin a topic: expected 1 to 100 letters, digits, '.', '_', '-'")]
    BadPrefix(String),
    /// Two domains would use the same table, index or sequence.
    #[error("domains {one} and {other} would share the name {relation} in postgresql")]
    SharedName {
        /// The first domain.
        one: Domain,
        /// The second domain.
        other: Domain,
        /// The shared name.
        relation: String,
    },
}

#[cfg(test)]
mod tests;
