//! HTTP basic authentication (RFC 7617).

use common::secret::Secret;
use data_encoding::BASE64;
use url::Url;

/// The header value for this user and password, in UTF-8.
pub(crate) fn encode(user: &str, password: &str) -> Secret {
    encode_pair(format!("{user}:{password}").as_bytes())
}

/// The header value for the user and password in a URL. The URL has them
/// percent-encoded; decoded they can be any bytes.
pub(crate) fn from_url(url: &Url) -> Secret {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<_>>();
    let mut pair = decode(url.username());
    pair.push(b':');
    pair.extend(decode(url.password().unwrap_or_default()));
    encode_pair(&pair)
}

fn encode_pair(pair: &[u8]) -> Secret {
    Secret::new(format!("Basic {}", BASE64.encode(pair)))
}
