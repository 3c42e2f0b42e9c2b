//! The head of a response: status, version and headers.

use std::time::Instant;

use ureq::http::{HeaderMap, Version, header};

/// The largest head of a response, in bytes.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The head of a response.
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) first_byte_at: Instant,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
}

impl ResponseHead {
    /// For example `1.1`. ureq accepts no other version than these two.
    pub(crate) fn version(&self) -> Option<&'static str> {
        match self.version {
            Version::HTTP_10 => Some("1.0"),
            Version::HTTP_11 => Some("1.1"),
            _ => None,
        }
    }

    /// The Location header of a redirect; `None` for a final response. The Fetch
    /// standard defines the redirect statuses.
    ///
    /// Some proxies send the header twice: the first header counts. Commas do not
    /// separate values, because a URL can contain them.
    pub(crate) fn location(&self) -> Option<String> {
        let value = match self.status {
            301 | 302 | 303 | 307 | 308 => self.headers.get(header::LOCATION)?,
            _ => return None,
        };
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// The value of a header. Several values are joined by commas, as HTTP defines it.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}
