//! Connecting: the addresses in turn, with and without TLS according to the mode.

use std::fmt;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::config::{SslMode as CrateSslMode, SslNegotiation};

use super::error::PostgresError;
use super::stream::{ConnectionDeadline, Negotiation, Negotiator};
use super::tls::{self, TlsError, TrustedRoots, Verification};
use super::uri::{PostgresUri, ServerAddress, SslMode, UriError};
use common::pem::Pem;

/// The time-out for closing a connection. It is short, because the Terminate message is optional.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The settings for a connection to PostgreSQL.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// The server's addresses, user, password, database and options.
    pub uri: PostgresUri,
    /// The CA of the server's certificate (PGCA). Overrides `sslrootcert`.
    pub ca: Option<Pem>,
    /// `application_name` in `pg_stat_activity`, unless the URI has one.
    pub application_name: String,
}

impl PostgresSettings {
    /// Returns how every connection with these settings verifies the server.
    pub fn verification(&self) -> Verification {
        match self.uri.ssl_mode() {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => Verification::None,
            _ => tls::policy(&self.uri.tls, self.ca.as_ref()).0,
        }
    }

    /// Returns a warning for the log if the server is on another machine and is not verified. An
    /// attacker in the network could then pretend to be the server.
    pub fn warning(&self) -> Option<String> {
        if self.uri.is_local() || self.verification() != Verification::None {
            return None;
        }
        let mode = self.uri.ssl_mode().as_str();
        let uri = &self.uri;
        Some(match self.uri.ssl_mode() {
            SslMode::Disable => format!("postgresql {uri}: not encrypted (sslmode={mode})"),
            SslMode::Require => format!(
                "postgresql {uri}: encrypted, but the server is not verified (sslmode={mode} without PGCA)"
            ),
            _ => format!(
                "postgresql {uri}: the server is not verified and can choose not to encrypt (sslmode={mode})"
            ),
        })
    }

    /// The name of the sessions in `pg_stat_activity`.
    pub fn application_name(&self) -> &str {
        self.uri.session.get_application_name().unwrap_or(&self.application_name)
    }

    /// Reads certificates and key without connecting, so that a program can refuse wrong settings
    /// at start.
    ///
    /// # Errors
    /// [`TlsError`] if a certificate or key can't be used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.negotiation(true).map(drop)
    }

    /// Connects. Files are read and names are resolved again each time.
    ///
    /// For each address it takes at most the URI's `connect_timeout` (default: 10 s) for TCP, and
    /// as long again for TLS and authentication.
    ///
    /// # Errors
    /// [`ConnectError`] with the error of each attempt.
    pub fn connect(&self) -> Result<PostgresConnection, ConnectError> {
        let uri = self.uri.reread().map_err(ConnectError::Uri)?;
        Self { uri, ..self.clone() }.connect_once()
    }

    fn connect_once(&self) -> Result<PostgresConnection, ConnectError> {
        let mode = self.uri.ssl_mode();
        let tls_choices: &[bool] = match mode {
            SslMode::Disable => &[false],
            SslMode::Allow => &[false, true],
            SslMode::Prefer => &[true, false],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[true],
        };
        let mut addresses = self.uri.addresses.clone();
        if self.uri.has_random_order {
            fastrand::shuffle(&mut addresses);
        }
        let mut attempts = Vec::new();
        for address in &addresses {
            for &encrypted in tls_choices {
                match self.connect_to(address, encrypted) {
                    Ok(connection) => return Ok(connection),
                    Err(AttemptFailure::Tls(cause)) => return Err(ConnectError::Tls(cause)),
                    Err(AttemptFailure::Server { cause, should_try_other }) => {
                        let address = address.to_string();
                        attempts.push(ConnectAttempt { address, encrypted, cause });
                        if !should_try_other {
                            break;
                        }
                    }
                }
            }
        }
        Err(ConnectError::Server(attempts))
    }

    fn connect_to(
        &self,
        address: &ServerAddress,
        encrypted: bool,
    ) -> Result<PostgresConnection, AttemptFailure> {
        let deadline = ConnectionDeadline::default();
        let mut config = self.uri.session.clone();
        if config.get_application_name().is_none() {
            config.application_name(&self.application_name);
        }
        config.notice_callback(|notice| log::debug!("postgresql: {}", notice.message()));
        let negotiation = match address {
            // libpq does not use TLS over Unix sockets.
            ServerAddress::Unix { folder, port } => {
                config.host_path(folder).port(*port).ssl_mode(CrateSslMode::Disable);
                Negotiation::Plain
            }
            ServerAddress::Tcp { host, address, port } => {
                config.host(host).port(*port);
                if let Some(address) = address {
                    config.hostaddr(*address);
                }
                // Direct TLS gives the socket to this crate's stream, which negotiates TLS itself.
                config.ssl_mode(CrateSslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                self.negotiation(encrypted).map_err(AttemptFailure::Tls)?
            }
        };
        let timeout = config.get_connect_timeout().copied().unwrap_or(CLOSE_TIMEOUT);
        deadline.set(timeout * 2);
        let started = Instant::now();
        match config.connect(Negotiator { negotiation, deadline: deadline.clone() }) {
            Ok(client) => {
                log::debug!("postgresql {address}: connected in {:?}", started.elapsed());
                Ok(PostgresConnection { deadline, client })
            }
            Err(cause) => {
                let should_try_other = should_try_other(address, encrypted, &cause);
                Err(AttemptFailure::Server { cause: cause.into(), should_try_other })
            }
        }
    }

    fn negotiation(&self, encrypted: bool) -> Result<Negotiation, TlsError> {
        let mode = self.uri.ssl_mode();
        if !encrypted || mode == SslMode::Disable {
            return Ok(Negotiation::Plain);
        }
        let (verification, roots): (_, TrustedRoots) = tls::policy(&self.uri.tls, self.ca.as_ref());
        let connector = tls::connector(&self.uri.tls, verification, &roots)?;
        let verify_host = verification == Verification::ChainAndHost;
        if self.uri.tls.is_direct {
            return Ok(Negotiation::Direct { connector, verify_host });
        }
        Ok(Negotiation::Request { connector, verify_host, allow_plain: mode == SslMode::Prefer })
    }
}

/// Whether to retry with TLS instead of plain text or the reverse, as libpq does after a failed
/// handshake or an error from the server. Only authorization errors of the server (class 28)
/// depend on TLS.
fn should_try_other(address: &ServerAddress, encrypted: bool, cause: &postgres::Error) -> bool {
    if matches!(address, ServerAddress::Unix { .. }) {
        return false;
    }
    match cause.code().map(|state| state.code()) {
        Some(code) => code.starts_with("28"),
        // A server that can't be reached with TLS can't be reached in plain text either.
        None => encrypted && !is_unreachable(cause),
    }
}

fn is_unreachable(error: &postgres::Error) -> bool {
    error.to_string().starts_with("error connecting to server")
}

enum AttemptFailure {
    Tls(TlsError),
    Server { cause: PostgresError, should_try_other: bool },
}

/// A connection with a time limit for each use.
pub struct PostgresConnection {
    deadline: ConnectionDeadline,
    client: Client,
}

impl PostgresConnection {
    /// Returns the client. Its waits for the server end after `timeout` from now. A later answer is
    /// an error, and the connection is lost. Unix sockets have no time limit.
    pub fn within(&mut self, timeout: Duration) -> &mut Client {
        self.deadline.set(timeout);
        &mut self.client
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        self.deadline.set(CLOSE_TIMEOUT);
    }
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresConnection")
    }
}

/// A failed attempt to connect.
#[derive(Debug)]
pub struct ConnectAttempt {
    /// Host and port.
    pub address: String,
    /// Whether the attempt used TLS.
    pub encrypted: bool,
    /// The reason of the failure.
    pub cause: PostgresError,
}

/// The reason why connecting failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file with the URI does not contain a valid URI any more.
    #[error(transparent)]
    Uri(UriError),
    /// A certificate or key can't be used.
    #[error("postgresql: {0}")]
    Tls(#[source] TlsError),
    /// All attempts in their order; never empty.
    #[error("postgresql {}", Attempts(.0))]
    Server(Vec<ConnectAttempt>),
}

impl ConnectError {
    /// Whether connecting can succeed later without a change of a setting. `false` for a wrong
    /// password or certificate. They can be corrected while the program runs, so a retry can be
    /// useful for them, too.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Uri(_) | Self::Tls(_) => false,
            Self::Server(attempts) => {
                attempts.last().is_some_and(|attempt| attempt.cause.is_retryable())
            }
        }
    }
}

/// `address: cause; address without TLS: cause`.
struct Attempts<'a>(&'a [ConnectAttempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConnectAttempt { address, encrypted, cause }) in self.0.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            let suffix = if *encrypted { "" } else { " without TLS" };
            write!(f, "{separator}{address}{suffix}: {cause}")?;
        }
        Ok(())
    }
}
