//! The URL of a target: the form to request, the form to record, and the form that an error may
//! show.

use common::domain::Domain;
use url::Url;

use super::TargetError;

/// Most characters of a recorded URL: the width of the column in the tables.
pub(super) const URL_CHARS_MAX: usize = 256;

/// A target's URL and everything that follows from it.
#[derive(Debug)]
pub(super) struct TargetUrl {
    /// The URL to request, with user and password.
    pub(super) url: Url,
    /// The URL in records: as written, in lower case, without user and password.
    pub(super) recorded_url: String,
    pub(super) domain: Domain,
    pub(super) topic: String,
}

impl TargetUrl {
    pub(super) fn parse(text: &str, topic_prefix: &str) -> Result<Self, TargetError> {
        let mut url = Url::parse(text).map_err(TargetError::InvalidUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::UnsupportedScheme(url.scheme().to_owned()));
        }
        if url.port() == Some(0) {
            return Err(TargetError::PortZero);
        }
        // A fragment is never sent to the server (RFC 9110, section 7.1).
        url.set_fragment(None);
        let recorded_url = strip_credentials(text).to_lowercase();
        let chars = recorded_url.chars().count();
        if chars > URL_CHARS_MAX {
            return Err(TargetError::UrlTooLong(chars));
        }
        let domain = Domain::from_url(&url)?;
        let topic = domain.topic(topic_prefix)?;
        Ok(Self { url, recorded_url, domain, topic })
    }
}

/// Returns the URL as written, without user and password.
pub(super) fn strip_credentials(text: &str) -> String {
    let (scheme, rest) = split_before_authority(text);
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}{}", &rest[at + 1..]),
        None => text.to_owned(),
    }
}

/// Splits a URL after its scheme and any number of slashes, even none: the URL standard parses
/// the text that follows as user and host in each of these cases.
fn split_before_authority(text: &str) -> (&str, &str) {
    let Some((_, rest)) = text.split_once(':') else { return ("", text) };
    let rest = rest.trim_start_matches(['/', '\\']);
    text.split_at(text.len() - rest.len())
}

/// Returns the part of a rejected URL that an error may show. The end of a password is unknown in
/// a text that is not a URL, so everything that may belong to a password is removed.
pub(super) fn redact(text: &str, error: &TargetError) -> String {
    let TargetError::InvalidUrl(cause) = error else { return strip_credentials(text) };
    let (scheme, rest) = split_before_authority(text);
    match (rest.rsplit_once('@'), rest.split_once(':'), cause) {
        (Some((_, after)), _, _) => format!("{scheme}{after}"),
        // An invalid port may be the part of a password before a comma or a space.
        (None, Some((host, _)), url::ParseError::InvalidPort) => format!("{scheme}{host}:..."),
        _ => text.to_owned(),
    }
}
