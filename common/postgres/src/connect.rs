//! Connecting: each address in turn, with and without TLS as the mode says.

use std::fmt;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::config::{SslMode as CrateSslMode, SslNegotiation};

use super::error::PostgresError;
use super::stream::{Deadline, Negotiation, Negotiator};
use super::tls::{self, Roots, TlsError, Verification};
use super::uri::{Address, PostgresUri, SslMode, UriError};
use common::pem::Pem;

/// How long closing a connection may take: its farewell is a courtesy.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where PostgreSQL is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// The URI.
    pub uri: PostgresUri,
    /// The CA of the server's certificate (PGCA); goes before `sslrootcert`.
    pub ca: Option<Pem>,
    /// What the server's list of sessions shows, unless the URI names it.
    pub application_name: String,
}

impl PostgresSettings {
    /// What a connection by these settings is sure to prove of the server.
    pub fn verification(&self) -> Verification {
        match self.uri.ssl_mode() {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => Verification::None,
            _ => tls::policy(&self.uri.tls, self.ca.as_ref()).0,
        }
    }

    /// A line to log once at start when the server, which is not on this
    /// machine, is not verified: whoever is in between could be it.
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
                "postgresql {uri}: the server is not verified and encryption is up to it (sslmode={mode})"
            ),
        })
    }

    /// Reads the certificates once, so that a wrong path stops the program at
    /// start.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn check(&self) -> Result<(), TlsError> {
        self.negotiation(true).map(drop)
    }

    /// Connects: files are read, names resolved and addresses tried anew.
    ///
    /// Takes at most the URI's `connect_timeout` (10 s by default) for TCP and
    /// as long again for all that follows, at each address.
    ///
    /// # Errors
    /// [`ConnectError`], with one line for each address and way that failed.
    pub fn connect(&self) -> Result<Connection, ConnectError> {
        let uri = self.uri.renewed().map_err(ConnectError::Uri)?;
        Self { uri, ..self.clone() }.connect_as_read()
    }

    fn connect_as_read(&self) -> Result<Connection, ConnectError> {
        let mode = self.uri.ssl_mode();
        let ways: &[bool] = match mode {
            SslMode::Disable => &[false],
            SslMode::Allow => &[false, true],
            SslMode::Prefer => &[true, false],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[true],
        };
        let mut addresses = self.uri.addresses.clone();
        if self.uri.in_random_order {
            fastrand::shuffle(&mut addresses);
        }
        let mut attempts = Vec::new();
        for address in &addresses {
            for &encrypted in ways {
                match self.connect_to(address, encrypted) {
                    Ok(connection) => return Ok(connection),
                    Err(Failure::Tls(cause)) => return Err(ConnectError::Tls(cause)),
                    Err(Failure::Server { cause, other_way_helps }) => {
                        let address = address.to_string();
                        attempts.push(Attempt { address, encrypted, cause });
                        if !other_way_helps {
                            break;
                        }
                    }
                }
            }
        }
        Err(ConnectError::Server(attempts))
    }

    fn connect_to(&self, address: &Address, encrypted: bool) -> Result<Connection, Failure> {
        let deadline = Deadline::default();
        let mut config = self.uri.session.clone();
        if config.get_application_name().is_none() {
            config.application_name(&self.application_name);
        }
        config.notice_callback(|notice| log::debug!("postgresql: {}", notice.message()));
        let negotiation = match address {
            // libpq has no TLS over sockets of this machine, nor need of it.
            Address::Unix { folder, port } => {
                config.host_path(folder).port(*port).ssl_mode(CrateSslMode::Disable);
                Negotiation::Plain
            }
            Address::Tcp { host, address, port } => {
                config.host(host).port(*port);
                if let Some(address) = address {
                    config.hostaddr(*address);
                }
                // "TLS at once" leads to our own stream, which negotiates.
                config.ssl_mode(CrateSslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                self.negotiation(encrypted).map_err(Failure::Tls)?
            }
        };
        let timeout = config.get_connect_timeout().copied().unwrap_or(CLOSE_TIMEOUT);
        deadline.set(timeout * 2);
        let started = Instant::now();
        match config.connect(Negotiator { negotiation, deadline: deadline.clone() }) {
            Ok(client) => {
                log::debug!("postgresql {address}: connected in {:?}", started.elapsed());
                Ok(Connection { deadline, client })
            }
            Err(cause) => {
                let other_way_helps = other_way_helps(address, encrypted, &cause);
                Err(Failure::Server { cause: cause.into(), other_way_helps })
            }
        }
    }

    fn negotiation(&self, encrypted: bool) -> Result<Negotiation, TlsError> {
        let mode = self.uri.ssl_mode();
        if !encrypted || mode == SslMode::Disable {
            return Ok(Negotiation::Plain);
        }
        let (verification, roots): (_, Roots) = tls::policy(&self.uri.tls, self.ca.as_ref());
        let connector = tls::connector(&self.uri.tls, verification, &roots)?;
        let verify_host = verification == Verification::ChainAndHost;
        if self.uri.tls.direct {
            return Ok(Negotiation::Direct { connector, verify_host });
        }
        Ok(Negotiation::Ask { connector, verify_host, or_plain: mode == SslMode::Prefer })
    }
}

/// libpq tries the other way when TLS itself failed, or when the server sent
/// an error in its place. Only one about who may connect how can end
/// differently; a database that is not there would be asked for twice.
fn other_way_helps(address: &Address, encrypted: bool, cause: &postgres::Error) -> bool {
    if matches!(address, Address::Unix { .. }) {
        return false;
    }
    match cause.code().map(|state| state.code()) {
        Some(code) => code.starts_with("28"),
        // A server that can't be reached can't be reached the other way.
        None => encrypted && !is_unreachable(cause),
    }
}

fn is_unreachable(error: &postgres::Error) -> bool {
    error.to_string().starts_with("error connecting to server")
}

enum Failure {
    Tls(TlsError),
    Server { cause: PostgresError, other_way_helps: bool },
}

/// A connection each of whose uses has a bound.
pub struct Connection {
    deadline: Deadline,
    client: Client,
}

impl Connection {
    /// The connection, to be used for at most this time from now: an answer
    /// that comes later is an error, and the connection then lost. (Only a
    /// socket of this machine has no such bound.)
    pub fn within(&mut self, time: Duration) -> &mut Client {
        self.deadline.set(time);
        &mut self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.deadline.set(CLOSE_TIMEOUT);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// One try that failed.
#[derive(Debug)]
pub struct Attempt {
    /// Host and port.
    pub address: String,
    /// With TLS or without.
    pub encrypted: bool,
    /// Why.
    pub cause: PostgresError,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The URI came from a file, which holds none any more.
    Uri(UriError),
    /// TLS could not even be tried.
    Tls(TlsError),
    /// Each try, in order; never empty.
    Server(Vec<Attempt>),
}

impl ConnectError {
    /// True when time alone may help. False for a wrong password or a foreign
    /// certificate, which somebody must change; they may do so while the
    /// program runs, so it is worth trying again either way.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Uri(_) | Self::Tls(_) => false,
            Self::Server(attempts) => {
                attempts.last().is_some_and(|attempt| attempt.cause.is_retryable())
            }
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(cause) => write!(f, "{cause}"),
            Self::Tls(cause) => write!(f, "postgresql: {cause}"),
            Self::Server(attempts) => {
                f.write_str("postgresql ")?;
                for (index, Attempt { address, encrypted, cause }) in attempts.iter().enumerate() {
                    let separator = if index > 0 { "; " } else { "" };
                    let way = if *encrypted { "" } else { " without TLS" };
                    write!(f, "{separator}{address}{way}: {cause}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Uri(cause) => Some(cause),
            Self::Tls(cause) => Some(cause),
            Self::Server(attempts) => attempts.last().map(|attempt| &attempt.cause as _),
        }
    }
}
