//! What is sent: method, headers, body, credentials; and what of it goes on
//! over a redirect.

use std::borrow::Cow;
use std::fmt;

use common::secret::Secret;
use url::Url;

/// The methods that a probe may use. CONNECT is a proxy's, TRACE is refused by
/// nearly every server.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The longest value of a header, token or password, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;
/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Headers that say how the connection and the message on it are made, which
/// is the probe's own business.
const OWN: [&str; 10] = [
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

/// Headers that every site may see: what is asked for, not by whom.
const HARMLESS: [&str; 4] = ["accept", "accept-encoding", "accept-language", "user-agent"];

/// A request, less its URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// In capital letters.
    pub method: Cow<'static, str>,
    /// Names in small letters, and values.
    pub headers: Vec<(String, Secret)>,
    /// Sent with its length.
    pub body: Option<Secret>,
    /// The value of the header Authorization; before user and password in the URL.
    pub authorization: Option<Secret>,
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

/// Its values may be secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        write!(f, "Request({}, {names:?})", self.method)
    }
}

impl Request {
    /// A GET with no more than what every request has.
    pub const fn new() -> Self {
        let method = Cow::Borrowed("GET");
        Self { method, headers: Vec::new(), body: None, authorization: None }
    }

    /// The request to where an answer of this status leads, as browsers make
    /// it (Fetch standard, "HTTP-redirect fetch", step 12): 303 asks for the
    /// other page with a GET, and so do 301 and 302 after a POST. To another
    /// site go neither credentials nor headers that may be some.
    ///
    /// None where a body would go to another site: it may be a password in a
    /// form as well, which 307 and 308 hand on (RFC 9700, section 4.12).
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
            next.headers.retain(|(name, _)| HARMLESS.contains(&name.as_str()));
        }
        Some(next).filter(|next| to_same_site || next.body.is_none())
    }

    /// The value of Authorization: the target's, else that of user and
    /// password in the URL that is asked; none beside a header of that name.
    pub(crate) fn authorization(&self, url: &Url) -> Option<Secret> {
        if self.headers.iter().any(|(name, _)| name == "authorization") {
            return None;
        }
        self.authorization.clone().or_else(|| {
            let password = url.password();
            if url.username().is_empty() && password.is_none() {
                return None;
            }
            Some(basic_of(url))
        })
    }

    /// What is sent as body: of a method that is about one, an empty one too.
    pub(crate) fn body(&self) -> Option<&[u8]> {
        match &self.body {
            Some(body) => Some(body.expose().as_bytes()),
            None if matches!(&*self.method, "POST" | "PUT" | "PATCH") => Some(&[]),
            None => None,
        }
    }

    /// Bytes of its headers, as they are sent.
    pub(crate) fn header_bytes(&self) -> usize {
        self.headers.iter().map(|(name, value)| name.len() + value.expose().len() + 4).sum()
    }
}

/// HTTP's basic authentication (RFC 7617), in UTF-8.
pub fn basic(user: &str, password: &str) -> Secret {
    let pair = format!("{user}:{password}");
    Secret::new(format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes())))
}

/// The same from a URL, in which they are percent-encoded, as any bytes.
pub(crate) fn basic_of(url: &Url) -> Secret {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<_>>();
    let mut pair = decode(url.username());
    pair.push(b':');
    pair.extend(decode(url.password().unwrap_or_default()));
    Secret::new(format!("Basic {}", data_encoding::BASE64.encode(&pair)))
}

/// A header's name in small letters (RFC 9110, sections 5.1 and 5.6.2).
///
/// # Errors
/// When it is none.
pub fn header_name(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        // Behind a colon stands what was meant for its value.
        let name = text.split(':').next().unwrap_or_default();
        return Err(format!("{name:?} is no header's name"));
    }
    Ok(text.to_ascii_lowercase())
}

/// The name of a header that a target may set.
///
/// # Errors
/// When it is no name, or one that the probe sets.
pub fn own_header_name(text: &str) -> Result<String, String> {
    match header_name(text)? {
        name if OWN.contains(&name.as_str()) => Err(format!("{name} is set by the probe itself")),
        name => Ok(name),
    }
}

/// Whether this Accept-Encoding asks for nothing that can't be decoded.
///
/// # Errors
/// What a site that followed it might send.
pub fn accept_encoding(text: &str) -> Result<(), String> {
    let codings = text.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    let is_known = |coding: &str| {
        ["", "identity", "gzip", "x-gzip", "deflate"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(coding))
    };
    match codings.into_iter().find(|coding| !is_known(coding)) {
        None => Ok(()),
        Some(coding) => Err(format!("{coding:?}: expected identity, gzip or deflate")),
    }
}

/// Whether it can be a header's value (RFC 9110, section 5.5).
///
/// # Errors
/// When it can't; the text may be a secret and is not repeated.
pub fn header_value(text: &str) -> Result<(), &'static str> {
    match text.chars().any(|letter| letter.is_control() && letter != '\t') {
        true => Err("a control character: expected one line of text"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_takes_along_what_a_browser_would() {
        let header = |name: &str| (name.to_owned(), Secret::new("v"));
        let post = Request {
            method: "POST".into(),
            headers: ["accept", "content-type", "x-key"].map(header).into(),
            body: Some(Secret::new("b")),
            authorization: Some(Secret::new("Bearer s3cret")),
        };
        for (method, status, same, expected) in [
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
            let next = Request { method: method.into(), ..post.clone() }.redirected(status, same);
            let mut seen = Vec::new();
            if let Some(next) = &next {
                seen.push(&*next.method);
                seen.extend(next.headers.iter().map(|(name, _)| name.as_str()));
                seen.extend(next.body.as_ref().map(|_| "body"));
                seen.extend(next.authorization.as_ref().map(|_| "auth"));
            }
            assert_eq!(seen.join(" "), expected, "{method} {status} {same}");
        }
        assert!(!format!("{post:?}").contains("s3cret"));
        let bare = Request { body: None, ..post };
        assert!(bare.redirected(308, false).is_some_and(|next| next.method == "POST"));
    }
}
