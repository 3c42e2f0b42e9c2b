//! A connection string cut into what is read here and what the crate reads.
//!
//! Both of libpq's forms: `postgres://…?key=value` and `key=value key='v v'`.

use super::uri::UriError;

/// Keys that this module's neighbours read themselves: the crate does not know
/// them, or knows them with another meaning.
const TAKEN: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl",
    "tcp_user_timeout",
    "keepalives_count",
    "fallback_application_name",
    "gssencmode",
];

/// Keys that the crate reads as libpq does.
const PASSED: [&str; 17] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
    // Known to the crate alone; kept for those who wrote it for another tool.
    "keepalives_retries",
    // Asks for what is done in any case: see `is_moot`.
    "client_encoding",
];

/// Keys of libpq that are refused: to ignore one would be to connect in
/// another way than it says.
const REFUSED: [&str; 22] = [
    "passfile",
    "require_auth",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslsni",
    "ssl_max_protocol_version",
    "sslkeylogfile",
    "min_protocol_version",
    "max_protocol_version",
    "requiressl",
    "requirepeer",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "replication",
    "service",
    "servicefile",
    "scram_client_key",
    "scram_server_key",
    "oauth_issuer",
];

/// A connection string in its two parts.
pub(super) struct Parameters {
    /// What the crate reads, in the form in which it stood.
    pub(super) passed: String,
    /// The rest, in order.
    pub(super) taken: Vec<(&'static str, String)>,
}

impl Parameters {
    /// # Errors
    /// See [`UriError`]; none of them shows a value.
    pub(super) fn split(text: &str) -> Result<Self, UriError> {
        let scheme = ["postgres://", "postgresql://"].iter().find(|s| text.starts_with(**s));
        match scheme {
            Some(scheme) => Self::split_uri(text, scheme.len()),
            None if text.contains("://") => Err(UriError::Syntax),
            None => Self::split_pairs(text),
        }
    }

    fn split_uri(text: &str, scheme_bytes: usize) -> Result<Self, UriError> {
        // As libpq: a password may hold a '?', so the query starts behind it.
        let rest = text.get(scheme_bytes..).unwrap_or_default();
        let host_at = match rest.find(['@', '/']) {
            Some(at) if rest[at..].starts_with('@') => scheme_bytes + at + 1,
            _ => scheme_bytes,
        };
        let Some(query_at) = text[host_at..].find('?').map(|at| host_at + at) else {
            return Ok(Self { passed: text.to_owned(), taken: Vec::new() });
        };
        let mut parameters = Self { passed: text[..query_at].to_owned(), taken: Vec::new() };
        let mut separator = '?';
        let pairs = text[query_at + 1..].split('&').filter(|pair| !pair.is_empty());
        for (index, pair) in pairs.enumerate() {
            let (key, value) = pair.split_once('=').ok_or(UriError::Syntax)?;
            let key = decode(key)?;
            if let Some(raw) = parameters.take(&key, &decode(value)?, index)? {
                parameters.passed.push(separator);
                // The crate would look for the user in front of an '@'.
                parameters.passed.push_str(&format!("{raw}={}", value.replace('@', "%40")));
                separator = '&';
            }
        }
        Ok(parameters)
    }

    fn split_pairs(text: &str) -> Result<Self, UriError> {
        let mut parameters = Self { passed: String::new(), taken: Vec::new() };
        let mut rest = text.trim_start();
        let mut index = 0;
        while !rest.is_empty() {
            let (key, tail) = rest.split_once('=').ok_or(UriError::Syntax)?;
            let (value, tail) = unquote(tail.trim_start()).ok_or(UriError::Syntax)?;
            if let Some(key) = parameters.take(key.trim_end(), &value, index)? {
                let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
                parameters.passed.push_str(&format!("{key}='{quoted}' "));
            }
            rest = tail.trim_start();
            index += 1;
        }
        Ok(parameters)
    }

    /// Keeps the pair when it is ours, gives back the key of one that is not.
    fn take(
        &mut self,
        key: &str,
        value: &str,
        index: usize,
    ) -> Result<Option<&'static str>, UriError> {
        if let Some(key) = TAKEN.iter().find(|known| **known == key) {
            self.taken.push((key, value.to_owned()));
            return Ok(None);
        }
        if is_moot(key, value) {
            return Ok(None);
        }
        if let Some(key) = REFUSED.iter().find(|known| **known == key) {
            return Err(UriError::Unsupported(key));
        }
        // A key that nobody knows may be part of a password, so it is counted
        // and not shown.
        let known = PASSED.iter().find(|known| **known == key);
        known.copied().map(Some).ok_or(UriError::Unknown(index + 1))
    }
}

/// True when a parameter asks for nothing but what is done in any case.
fn is_moot(key: &str, value: &str) -> bool {
    match key {
        "client_encoding" => {
            ["utf8", "utf-8", "unicode", "auto"].contains(&value.to_ascii_lowercase().as_str())
        }
        "sslcompression" | "requiressl" => value == "0",
        "sslsni" => value == "1",
        _ => false,
    }
}

/// Decodes `%XX`; as in libpq, a plus sign stands for itself.
fn decode(text: &str) -> Result<String, UriError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = digit().zip(digit()).ok_or(UriError::Syntax)?;
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| UriError::Syntax)?);
    }
    if bytes.contains(&0) {
        return Err(UriError::Syntax);
    }
    String::from_utf8(bytes).map_err(|_| UriError::Syntax)
}

/// The value at the start of `text` and what follows it; none when a quote
/// does not end.
fn unquote(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return Some((value, text.get(at + 1..)?)),
            _ if !quoted && character.is_whitespace() => return Some((value, text.get(at..)?)),
            _ => value.push(character),
        }
    }
    (!quoted).then_some((value, ""))
}
