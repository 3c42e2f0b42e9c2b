//! What a client needs to know.

use super::address::Address;
use super::error::Error;
use super::sasl::Sasl;
use super::tls::{Security, TlsCache};
use common::stop::Cutoff;

/// The default of [`Settings::connect_timeout_ms`].
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// The default of [`Settings::request_timeout_ms`].
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// The default of [`Settings::metadata_max_age_ms`], that of Kafka's own clients.
pub const METADATA_MAX_AGE_MS: u64 = 300_000;

/// Where the brokers are and how they are spoken to; shared by all clients.
#[derive(Debug)]
pub struct Settings {
    /// The brokers to ask first, in turn; they tell of the others.
    pub bootstrap: Vec<Address>,
    /// Plain text or TLS.
    pub security: Security,
    /// User and password, where the brokers want them.
    pub sasl: Option<Sasl>,
    /// The name that the brokers see, in their logs and quotas.
    pub client_id: String,
    /// The most time for a connection with TLS and SASL, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The most time for a request from its first byte to the answer's last,
    /// in milliseconds, on top of what a fetch may wait for records.
    pub request_timeout_ms: u64,
    /// How long it is believed where a topic's leader is, in milliseconds, though
    /// no error says otherwise.
    pub metadata_max_age_ms: u64,
    /// When waits end early because the program stops.
    pub cutoff: Option<Cutoff>,
    pub(super) tls: TlsCache,
}

impl Settings {
    /// Settings with the default time-outs and the package's name.
    pub fn new(bootstrap: Vec<Address>, security: Security) -> Self {
        Self {
            bootstrap,
            security,
            sasl: None,
            client_id: "websites-availability".to_owned(),
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            request_timeout_ms: REQUEST_TIMEOUT_MS,
            metadata_max_age_ms: METADATA_MAX_AGE_MS,
            cutoff: None,
            tls: TlsCache::default(),
        }
    }

    /// Builds once what every connection will build, without I/O to a broker, so
    /// that a bad certificate, a key that is not its own, or a user name that
    /// SASL can't carry stops the program at its start.
    ///
    /// # Errors
    /// [`Error::Pem`] or [`Error::Request`] with what is wrong.
    pub fn check(&self) -> Result<(), Error> {
        if self.bootstrap.is_empty() {
            return Err(Error::Request { api: "bootstrap", what: "no broker given".to_owned() });
        }
        if let Security::Tls { roots, identity } = &self.security {
            self.tls.get(roots.as_ref(), identity.as_ref())?;
        }
        match &self.sasl {
            Some(sasl) => sasl.check(),
            None => Ok(()),
        }
    }
}
