//! Splits a connection string into the parameters that are parsed here and the rest, which the
//! crate `postgres` parses.
//!
//! Both forms of libpq are supported: `postgres://…?key=value` and `key=value key='v v'`.

use super::error::UriError;

/// Parameters that are parsed here, because the crate does not know them or interprets them
/// differently.
const OWN: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "ssl_min_protocol_version",
    "ssl",
    "tcp_user_timeout",
    "keepalives_count",
    "fallback_application_name",
    "gssencmode",
];

/// Parameters of libpq that are refused. If they were ignored, the connection would not be as the
/// URI requires.
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

/// A connection string in two parts.
pub(super) struct ConnectionString {
    /// The string without [`OWN`] parameters, in its original form.
    rest: String,
    /// The [`OWN`] parameters in their order.
    pub(super) own: Vec<(&'static str, String)>,
    /// The names of all parameters in their order.
    names: Vec<String>,
}

impl ConnectionString {
    /// Splits a connection string.
    ///
    /// # Errors
    /// [`UriError::Syntax`] or [`UriError::Unsupported`].
    pub(super) fn split(text: &str) -> Result<Self, UriError> {
        let scheme = ["postgres://", "postgresql://"].iter().find(|s| text.starts_with(**s));
        match scheme {
            Some(scheme) => Self::split_uri(text, scheme.len()),
            None if text.contains("://") => Err(UriError::Syntax),
            None => Self::split_pairs(text),
        }
    }

    /// Parses the rest of the string by the crate `postgres`.
    ///
    /// # Errors
    /// [`UriError::InvalidValue`], [`UriError::Unknown`] or [`UriError::Syntax`].
    pub(super) fn parse_rest(&self) -> Result<postgres::Config, UriError> {
        self.rest.parse().map_err(|error: postgres::Error| {
            // Other messages of the crate can contain parts of the string.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.as_deref().unwrap_or_default();
            let option = |prefix| cause.strip_prefix(prefix)?.strip_suffix('`');
            if let Some(option) = option("invalid value for option `") {
                return UriError::InvalidValue(option.to_owned());
            }
            let unknown = option("unknown option `");
            match self.names.iter().position(|name| unknown == Some(name)) {
                Some(index) => UriError::Unknown(index + 1),
                None => UriError::Syntax,
            }
        })
    }

    fn split_uri(text: &str, scheme_bytes: usize) -> Result<Self, UriError> {
        // As in libpq, a password can contain a '?', so the query starts after the host.
        let rest = text.get(scheme_bytes..).unwrap_or_default();
        let host_at = match rest.find(['@', '/']) {
            Some(at) if rest[at..].starts_with('@') => scheme_bytes + at + 1,
            _ => scheme_bytes,
        };
        let Some(query_at) = text[host_at..].find('?').map(|at| host_at + at) else {
            return Ok(Self { rest: text.to_owned(), own: Vec::new(), names: Vec::new() });
        };
        let mut split =
            Self { rest: text[..query_at].to_owned(), own: Vec::new(), names: Vec::new() };
        let mut separator = '?';
        for pair in text[query_at + 1..].split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(UriError::Syntax)?;
            let name = percent_decode(name)?;
            if split.belongs_to_rest(&name, percent_decode(value)?)? {
                split.rest.push(separator);
                // The crate parses text before an '@' as the user.
                let value = value.replace('@', "%40");
                split.rest.push_str(&format!("{}={value}", percent_encode(&name)));
                separator = '&';
            }
        }
        Ok(split)
    }

    fn split_pairs(text: &str) -> Result<Self, UriError> {
        let mut split = Self { rest: String::new(), own: Vec::new(), names: Vec::new() };
        let mut remaining = text.trim_start();
        while !remaining.is_empty() {
            let (name, tail) = remaining.split_once('=').ok_or(UriError::Syntax)?;
            let (value, tail) = unquote(tail.trim_start()).ok_or(UriError::Syntax)?;
            let name = name.trim_end();
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            if split.belongs_to_rest(name, value)? {
                split.rest.push_str(&format!("{name}='{quoted}' "));
            }
            remaining = tail.trim_start();
        }
        Ok(split)
    }

    /// Stores an [`OWN`] parameter. Returns `true` for a parameter that the crate must parse.
    fn belongs_to_rest(&mut self, name: &str, value: String) -> Result<bool, UriError> {
        self.names.push(name.to_owned());
        if let Some(name) = OWN.iter().find(|own| **own == name) {
            self.own.push((name, value));
            return Ok(false);
        }
        if is_default(name, &value) {
            return Ok(false);
        }
        match REFUSED.iter().find(|refused| **refused == name) {
            Some(name) => Err(UriError::Unsupported(name)),
            None => Ok(true),
        }
    }
}

/// Whether the parameter has the value that this crate uses anyway.
fn is_default(name: &str, value: &str) -> bool {
    match name {
        "client_encoding" => {
            ["utf8", "utf-8", "unicode", "auto"].contains(&value.to_ascii_lowercase().as_str())
        }
        "sslcompression" | "requiressl" => value == "0",
        "sslsni" => value == "1",
        _ => false,
    }
}

/// Decodes `%XX`. As in libpq, a plus sign is not a blank.
fn percent_decode(text: &str) -> Result<String, UriError> {
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

/// Encodes all but letters, digits and underscores, so that an unknown name changes nothing else in
/// the URI.
fn percent_encode(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'_' => "_".to_owned(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// Returns the value at the start of `text` and the text after it. `None`: a quote is not closed.
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
