//! The reasons why a text is not a PostgreSQL URI.

/// The reason why a text is not a PostgreSQL URI. Permanent at start. Values are never shown,
/// because a typing error can put the password anywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Neither a URI nor a `key=value` string.
    #[error("not a postgresql uri: expected postgres://user:password@host:port/database?sslmode=…")]
    Syntax,
    /// The URI has no host.
    #[error("postgresql uri: no host: expected a name, or host=/folder for a socket")]
    NoHost,
    /// A parameter of libpq that is not supported. It is refused rather than ignored.
    #[error("postgresql uri: {0} is not supported: remove it")]
    Unsupported(&'static str),
    /// The parameter with this number, from 1, is not a parameter of libpq.
    #[error("postgresql uri: parameter {0} is unknown: expected one of libpq's names")]
    Unknown(usize),
    /// A parameter has a value that is not allowed.
    #[error("postgresql uri: {option}: expected {expected}")]
    Value {
        /// The parameter.
        option: &'static str,
        /// The allowed values.
        expected: &'static str,
    },
    /// A parameter has a value that the crate `postgres` refuses.
    #[error("postgresql uri: {0}: the value is not valid")]
    InvalidValue(String),
    /// The file with the URI can't be read again.
    #[error("postgresql uri: its file: {0}")]
    Read(String),
}

impl UriError {
    pub(super) fn value(option: &'static str, expected: &'static str) -> Self {
        Self::Value { option, expected }
    }
}
