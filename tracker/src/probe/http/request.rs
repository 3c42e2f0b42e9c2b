//! The request of a target, and the parts of it that are sent again after a redirect.

use std::borrow::Cow;
use std::fmt;

use common::secret::Secret;
use thiserror::Error;
use url::Url;

use crate::probe::basic_auth;

/// The methods that a target may use. CONNECT is for proxies, and nearly every server
/// refuses TRACE.
pub(crate) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The longest header value, token or password, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 8 * 1024;
/// The longest body, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Headers about the connection and the framing of the message. The probe sets them; a
/// target may not.
const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that are sent after a redirect to another site: they hold no credentials.
const CROSS_SITE_HEADERS: [&str; 4] =
    ["accept", "accept-encoding", "accept-language", "user-agent"];

/// A request without its URL.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// In capital letters.
    pub method: Cow<'static, str>,
    /// Names in lower case, and values.
    pub headers: Vec<(String, Secret)>,
    /// Sent with a Content-Length.
    pub body: Option<Secret>,
    /// The value of the Authorization header. It takes precedence over user and
    /// password in the URL.
    pub authorization: Option<Secret>,
}

impl Default for HttpRequest {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows no header values: they can be secrets.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        write!(f, "HttpRequest({}, {names:?})", self.method)
    }
}

impl HttpRequest {
    /// A GET without additional headers.
    pub const fn new() -> Self {
        let method = Cow::Borrowed("GET");
        Self { method, headers: Vec::new(), body: None, authorization: None }
    }

    /// The request to send after a redirect with this status, by the rules of browsers
    /// (Fetch standard, "HTTP-redirect fetch", step 12): a GET after 303, and after 301
    /// and 302 in response to a POST. After a redirect to another site, it has neither
    /// credentials nor headers that can hold credentials.
    ///
    /// `None` if a body would be sent to another site: a form can hold a password, which
    /// 307 and 308 would forward (RFC 9700, section 4.12).
    pub(crate) fn redirected(&self, status: u16, to_same_site: bool) -> Option<Self> {
        let mut next = self.clone();
        let becomes_get = match status {
            301 | 302 => self.method == "POST",
            303 => !matches!(&*self.method, "GET" | "HEAD"),
            _ => false,
        };
        if becomes_get {
            next.method = Cow::Borrowed("GET");
            next.body = None;
            next.headers.retain(|(name, _)| !name.starts_with("content-"));
        }
        if !to_same_site {
            next.authorization = None;
            next.headers.retain(|(name, _)| CROSS_SITE_HEADERS.contains(&name.as_str()));
        }
        Some(next).filter(|next| to_same_site || next.body.is_none())
    }

    /// The value of the Authorization header: from the target, else from user and
    /// password in the URL. `None` if the target sets the header itself.
    pub(crate) fn authorization(&self, url: &Url) -> Option<Secret> {
        if self.headers.iter().any(|(name, _)| name == "authorization") {
            return None;
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        self.authorization.clone().or_else(|| has_user.then(|| basic_auth::from_url(url)))
    }

    /// The body to send. A method that requires a body gets an empty one.
    pub(crate) fn body(&self) -> Option<&[u8]> {
        match &self.body {
            Some(body) => Some(body.expose().as_bytes()),
            None if matches!(&*self.method, "POST" | "PUT" | "PATCH") => Some(&[]),
            None => None,
        }
    }

    /// The size of the target's headers on the wire, in bytes.
    pub(crate) fn header_bytes(&self) -> usize {
        const SEPARATORS: usize = ": \r\n".len();
        self.headers
            .iter()
            .map(|(name, value)| name.len() + value.expose().len() + SEPARATORS)
            .sum()
    }
}

/// The URL without credentials and fragment. It is sent in the request, and it can be
/// shown.
pub(crate) fn displayable_url(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    // These two calls fail only for a URL without a host, which has no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// Why a text can't be the name of a header.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum HeaderNameError {
    #[error("{0:?} is not a header name")]
    Invalid(String),
    #[error("{0} is set by the probe itself")]
    Reserved(String),
}

/// Why a text can't be the value of a header. It does not repeat the text, which can be a
/// secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a control character: expected one line of text")]
pub(crate) struct HeaderValueError;

/// Parses a header name and returns it in lower case (RFC 9110, sections 5.1 and 5.6.2).
///
/// # Errors
/// When the text is not a header name.
pub(crate) fn parse_header_name(text: &str) -> Result<String, HeaderNameError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        // The text after a colon can be a secret value.
        let name = text.split(':').next().unwrap_or_default();
        return Err(HeaderNameError::Invalid(name.to_owned()));
    }
    Ok(text.to_ascii_lowercase())
}

/// Parses the name of a header that a target may set.
///
/// # Errors
/// When the text is not a header name, or the name of a header that the probe sets.
pub(crate) fn parse_settable_header_name(text: &str) -> Result<String, HeaderNameError> {
    match parse_header_name(text)? {
        name if RESERVED_HEADERS.contains(&name.as_str()) => Err(HeaderNameError::Reserved(name)),
        name => Ok(name),
    }
}

/// Checks that a text can be a header value (RFC 9110, section 5.5).
///
/// # Errors
/// When it can't.
pub(crate) fn check_header_value(text: &str) -> Result<(), HeaderValueError> {
    match text.chars().any(|letter| letter.is_control() && letter != '\t') {
        true => Err(HeaderValueError),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_keeps_what_a_browser_keeps() {
        let header = |name: &str| (name.to_owned(), Secret::new("v"));
        let post = HttpRequest {
            method: "POST".into(),
            headers: ["accept", "content-type", "x-key"].map(header).into(),
            body: Some(Secret::new("b")),
            authorization: Some(Secret::new("Bearer s3cret")),
        };
        for (method, status, to_same_site, expected) in [
            ("POST", 303, true, "GET accept x-key auth"),
            ("POST", 302, true, "GET accept x-key auth"),
            ("POST", 301, false, "GET accept"),
            ("POST", 307, true, "POST accept content-type x-key body auth"),
            ("POST", 307, false, ""),
            ("POST", 308, false, ""),
            ("PUT", 302, true, "PUT accept content-type x-key body auth"),
            ("PUT", 303, true, "GET accept x-key auth"),
            ("HEAD", 303, true, "HEAD accept content-type x-key body auth"),
        ] {
            let next = HttpRequest { method: method.into(), ..post.clone() }
                .redirected(status, to_same_site);
            let mut kept = Vec::new();
            if let Some(next) = &next {
                kept.push(&*next.method);
                kept.extend(next.headers.iter().map(|(name, _)| name.as_str()));
                kept.extend(next.body.as_ref().map(|_| "body"));
                kept.extend(next.authorization.as_ref().map(|_| "auth"));
            }
            assert_eq!(kept.join(" "), expected, "{method} {status} {to_same_site}");
        }
        assert!(!format!("{post:?}").contains("s3cret"));
        let bare = HttpRequest { body: None, ..post };
        assert!(bare.redirected(308, false).is_some_and(|next| next.method == "POST"));
    }
}
