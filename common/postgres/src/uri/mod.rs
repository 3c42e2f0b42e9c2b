//! A PostgreSQL URI or `key=value` string, with the meaning of libpq.

mod address;
mod error;
mod parameters;
mod tls_options;

use std::fmt;
use std::time::Duration;

use postgres::config::{LoadBalanceHosts, SslNegotiation};

use common::secret::Secret;
use parameters::ConnectionString;

pub(crate) use address::ServerAddress;
pub use error::UriError;
pub use tls_options::SslMode;
pub(crate) use tls_options::{RootCertificate, TlsOptions};

/// The default of `connect_timeout`. libpq's default is to wait forever, but the programs must be
/// able to stop within seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The default of `tcp_user_timeout`.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// The default of `keepalives_idle` and `keepalives_interval`.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The default of `keepalives_count`.
const KEEPALIVE_RETRIES: u32 = 2;

/// A PostgreSQL URI. `Display` and `Debug` show neither user nor password.
#[derive(Clone)]
pub struct PostgresUri {
    pub(crate) tls: TlsOptions,
    pub(crate) addresses: Vec<ServerAddress>,
    pub(crate) has_random_order: bool,
    /// All options except addresses and TLS.
    pub(crate) session: postgres::Config,
    /// The setting to read the URI from again, if any.
    source: Option<Secret>,
}

impl PostgresUri {
    /// Parses a URI or a `key=value` string.
    ///
    /// # Errors
    /// [`UriError`]. No value is shown in it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let split = ConnectionString::split(text.trim())?;
        let parsed = split.parse_rest()?;
        let mut session = session_config(&parsed);
        set_session_options(&split.own, &mut session)?;
        let is_direct = parsed.get_ssl_negotiation() == SslNegotiation::Direct;
        let tls = TlsOptions::read(&split.own, is_direct)?;
        let addresses = ServerAddress::from_config(&parsed)?;
        let has_random_order = parsed.get_load_balance_hosts() == LoadBalanceHosts::Random;
        Ok(Self { tls, addresses, has_random_order, session, source: None })
    }

    /// Parses a setting's value. [`PostgresUri::reread`] reads it again if it came from a file.
    ///
    /// # Errors
    /// See [`PostgresUri::parse`].
    pub fn from_secret(secret: Secret) -> Result<Self, UriError> {
        Ok(Self { source: Some(secret.clone()), ..Self::parse(secret.expose())? })
    }

    /// Reads the URI again if it came from a file, because it may have a new password.
    ///
    /// # Errors
    /// [`UriError::Read`] if the file can't be read, or as [`PostgresUri::parse`].
    pub fn reread(&self) -> Result<Self, UriError> {
        match &self.source {
            None => Ok(self.clone()),
            Some(source) => {
                let secret = source.reread().map_err(|cause| UriError::Read(cause.to_string()))?;
                Self::from_secret(secret)
            }
        }
    }

    /// The TLS mode.
    pub fn ssl_mode(&self) -> SslMode {
        self.tls.mode
    }

    /// Whether all addresses are on this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.addresses.iter().all(ServerAddress::is_local)
    }
}

/// The addresses and the database, without user and password.
impl fmt::Display for PostgresUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if index > 0 { "," } else { "" })?;
        }
        match self.session.get_dbname() {
            Some(database) => write!(f, "/{database}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for PostgresUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUri({self}, sslmode={})", self.tls.mode.as_str())
    }
}

/// Copies all options except addresses and TLS, with the defaults of this crate.
fn session_config(parsed: &postgres::Config) -> postgres::Config {
    let mut session = postgres::Config::new();
    if let Some(user) = parsed.get_user() {
        session.user(user);
    }
    if let Some(password) = parsed.get_password() {
        session.password(password);
    }
    if let Some(database) = parsed.get_dbname() {
        session.dbname(database);
    }
    if let Some(options) = parsed.get_options() {
        session.options(options);
    }
    if let Some(name) = parsed.get_application_name() {
        session.application_name(name);
    }
    session
        .connect_timeout(parsed.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT))
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .keepalives(parsed.get_keepalives())
        // The crate's default of two hours means that the URI has no value.
        .keepalives_idle(parsed.get_keepalives_idle().min(KEEPALIVE))
        .keepalives_interval(parsed.get_keepalives_interval().unwrap_or(KEEPALIVE))
        .keepalives_retries(parsed.get_keepalives_retries().unwrap_or(KEEPALIVE_RETRIES))
        .target_session_attrs(parsed.get_target_session_attrs())
        .channel_binding(parsed.get_channel_binding());
    session
}

/// Sets the options that have another name or unit in libpq than in the crate `postgres`.
fn set_session_options(
    parameters: &[(&'static str, String)],
    session: &mut postgres::Config,
) -> Result<(), UriError> {
    for (option, value) in parameters {
        let number = || value.parse::<u32>().map_err(|_| UriError::value(option, "a whole number"));
        match *option {
            // Milliseconds in libpq, seconds in the crate. 0 keeps the default.
            "tcp_user_timeout" => match number()? {
                0 => {}
                ms => drop(session.tcp_user_timeout(Duration::from_millis(ms.into()))),
            },
            "keepalives_count" => drop(session.keepalives_retries(number()?)),
            "fallback_application_name" if session.get_application_name().is_none() => {
                session.application_name(value.as_str());
            }
            "gssencmode" if !["disable", "prefer"].contains(&value.as_str()) => {
                return Err(UriError::value(option, "disable or prefer"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
