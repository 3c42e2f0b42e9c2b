//! A PostgreSQL URI, or `key=value` string, as libpq reads it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use openssl::ssl::SslVersion;
use postgres::config::{Host, LoadBalanceHosts};

use super::parameters::Parameters;
use common::pem::Pem;
use common::secret::Secret;

/// libpq's six ways to use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only when the server refuses a plain connection.
    Allow,
    /// Unless the server has none or it fails; libpq's default.
    Prefer,
    /// Always; the server is verified only when a CA is given.
    Require,
    /// Always, and the server's certificate must come from a trusted CA.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate must be that of the host.
    VerifyFull,
}

impl SslMode {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// As in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RootCertificate {
    /// The word `system`: the roots of the machine.
    System,
    /// A file.
    Pem(Pem),
}

/// What a URI says of TLS.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) mode: SslMode,
    pub(super) root: Option<RootCertificate>,
    pub(super) certificate: Option<Pem>,
    pub(super) key: Option<Pem>,
    pub(super) key_password: Option<String>,
    pub(super) version_min: SslVersion,
    /// Start with the handshake, without asking (PostgreSQL 17 and newer).
    pub(super) direct: bool,
}

/// One place where the server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A name for certificates, and where to connect when that differs.
    Tcp { host: String, address: Option<IpAddr>, port: u16 },
    /// The folder of a socket.
    Unix { folder: PathBuf, port: u16 },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

/// A PostgreSQL URI. Its password is shown nowhere.
#[derive(Clone)]
pub struct PostgresUri {
    pub(super) tls: Tls,
    pub(super) addresses: Vec<Address>,
    pub(super) in_random_order: bool,
    /// All the rest, without an address.
    pub(super) session: postgres::Config,
    /// Where it can be read again.
    source: Option<Secret>,
}

/// How long a connection may take that a URI sets no `connect_timeout` for.
/// libpq would wait for ever; a program that is to stop within seconds can't.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sent data may stay unacknowledged unless a URI says otherwise.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Quiet connections are probed after this time, and twice more at this
/// distance, unless a URI says otherwise.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl PostgresUri {
    /// Reads a URI or a `key=value` string.
    ///
    /// # Errors
    /// [`UriError`], never with a value in it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let parameters = Parameters::split(text.trim())?;
        let parsed: postgres::Config = parameters.passed.parse().map_err(UriError::from_crate)?;
        let mut session = session_of(&parsed);
        let tls = read_taken(&parameters.taken, &mut session)?;
        let addresses = addresses_of(&parsed)?;
        let in_random_order = parsed.get_load_balance_hosts() == LoadBalanceHosts::Random;
        Ok(Self { tls, addresses, in_random_order, session, source: None })
    }

    /// Reads a setting's value, which [`PostgresUri::renewed`] reads again when
    /// it came from a file.
    ///
    /// # Errors
    /// As [`PostgresUri::parse`].
    pub fn from_secret(secret: Secret) -> Result<Self, UriError> {
        Ok(Self { source: Some(secret.clone()), ..Self::parse(secret.expose())? })
    }

    /// The URI as it is now: one that came from a file may have a new password.
    ///
    /// # Errors
    /// [`UriError::Read`], or that of a URI that is none any more.
    pub fn renewed(&self) -> Result<Self, UriError> {
        match &self.source {
            None => Ok(self.clone()),
            Some(source) => {
                let renewed =
                    source.renewed().map_err(|cause| UriError::Read(cause.to_string()))?;
                Self::from_secret(renewed)
            }
        }
    }

    /// How TLS is used.
    pub fn ssl_mode(&self) -> SslMode {
        self.tls.mode
    }

    /// True when the server is on this machine, whatever its certificate says.
    pub(super) fn is_local(&self) -> bool {
        self.addresses.iter().all(|address| match address {
            Address::Unix { .. } => true,
            Address::Tcp { host, address, .. } => match address.or_else(|| host.parse().ok()) {
                Some(address) => address.is_loopback(),
                None => host.eq_ignore_ascii_case("localhost"),
            },
        })
    }
}

/// The addresses and the database; neither user nor password.
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

fn session_of(parsed: &postgres::Config) -> postgres::Config {
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
        // The crate's two hours stand for "not given", as they do in the kernel.
        .keepalives_idle(parsed.get_keepalives_idle().min(KEEPALIVE))
        .keepalives_interval(parsed.get_keepalives_interval().unwrap_or(KEEPALIVE))
        .keepalives_retries(parsed.get_keepalives_retries().unwrap_or(2))
        .target_session_attrs(parsed.get_target_session_attrs())
        .channel_binding(parsed.get_channel_binding());
    session
}

fn read_taken(
    taken: &[(&'static str, String)],
    session: &mut postgres::Config,
) -> Result<Tls, UriError> {
    let mut tls = Tls {
        mode: SslMode::Prefer,
        root: None,
        certificate: None,
        key: None,
        key_password: None,
        version_min: SslVersion::TLS1_2,
        direct: false,
    };
    let mut mode = None;
    for (option, value) in taken {
        let number = || value.parse::<u32>().map_err(|_| bad(option, "a whole number"));
        let file = || Some(Pem::from_setting(value));
        match *option {
            "sslmode" => {
                let modes = "disable, allow, prefer, require, verify-ca or verify-full";
                mode = Some(SslMode::parse(value).ok_or(bad(option, modes))?);
            }
            // libpq takes this word of JDBC's in a URI.
            "ssl" if value == "true" => mode = Some(SslMode::Require),
            "ssl" => return Err(bad(option, "true, or sslmode in its place")),
            "sslrootcert" if value == "system" => tls.root = Some(RootCertificate::System),
            "sslrootcert" => tls.root = Some(RootCertificate::Pem(Pem::from_setting(value))),
            "sslcert" => tls.certificate = file(),
            "sslkey" => tls.key = file(),
            "sslpassword" => tls.key_password = Some(value.clone()),
            "sslnegotiation" => {
                tls.direct = match value.as_str() {
                    "direct" => true,
                    "postgres" => false,
                    _ => return Err(bad(option, "postgres or direct")),
                }
            }
            "ssl_min_protocol_version" => {
                tls.version_min = match value.as_str() {
                    "TLSv1.2" => SslVersion::TLS1_2,
                    "TLSv1.3" => SslVersion::TLS1_3,
                    _ => return Err(bad(option, "TLSv1.2 or TLSv1.3")),
                }
            }
            // Milliseconds in libpq, seconds in the crate; 0 is the kernel's own.
            "tcp_user_timeout" => match number()? {
                0 => {}
                ms => {
                    session.tcp_user_timeout(Duration::from_millis(ms.into()));
                }
            },
            "keepalives_count" => {
                session.keepalives_retries(number()?);
            }
            "fallback_application_name" if session.get_application_name().is_none() => {
                session.application_name(value.as_str());
            }
            "gssencmode" if !["disable", "prefer"].contains(&value.as_str()) => {
                return Err(bad(option, "disable or prefer"));
            }
            _ => {}
        }
    }
    tls.mode = mode.unwrap_or(match tls.root {
        // As libpq: the roots of the machine say nothing without the host.
        Some(RootCertificate::System) => SslMode::VerifyFull,
        _ => SslMode::Prefer,
    });
    if tls.root == Some(RootCertificate::System) && tls.mode != SslMode::VerifyFull {
        return Err(bad("sslmode", "verify-full with sslrootcert=system"));
    }
    let is_weak = matches!(tls.mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
    if tls.direct && is_weak {
        return Err(bad("sslmode", "require or stronger with sslnegotiation=direct"));
    }
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err(bad("sslcert", "both of sslcert and sslkey, or none"));
    }
    Ok(tls)
}

fn addresses_of(parsed: &postgres::Config) -> Result<Vec<Address>, UriError> {
    let (hosts, numeric, ports) = (parsed.get_hosts(), parsed.get_hostaddrs(), parsed.get_ports());
    let count = hosts.len().max(numeric.len());
    if count == 0 || hosts.contains(&Host::Tcp(String::new())) {
        return Err(UriError::NoHost);
    }
    let fits = |len: usize| len == 0 || len == count;
    if !fits(hosts.len()) || !fits(numeric.len()) || !(fits(ports.len()) || ports.len() == 1) {
        return Err(bad("port", "as many hosts, hostaddrs and ports"));
    }
    let address_of = |index: usize| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let address = numeric.get(index).copied();
        match (hosts.get(index), address) {
            (Some(Host::Unix(folder)), None) => Address::Unix { folder: folder.clone(), port },
            (Some(Host::Tcp(host)), _) => Address::Tcp { host: host.clone(), address, port },
            (_, Some(ip)) => Address::Tcp { host: ip.to_string(), address, port },
            // Not reached: one of the two lists has `count` entries.
            (None, None) => Address::Unix { folder: PathBuf::new(), port },
        }
    };
    Ok((0..count).map(address_of).collect())
}

fn bad(option: &'static str, expected: &'static str) -> UriError {
    UriError::Value { option, expected }
}

/// Why a text is no PostgreSQL URI. Permanent at start; no value is shown, as a
/// slip may have put the password anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UriError {
    /// Neither of the two forms.
    Syntax,
    /// No host is named.
    NoHost,
    /// A parameter of libpq that is not honoured here, and so not ignored.
    Unsupported(&'static str),
    /// The parameter with this number, counted from 1, is none of libpq's.
    Unknown(usize),
    /// A parameter's value is none that it can have.
    Value {
        /// The parameter.
        option: &'static str,
        /// What it can be.
        expected: &'static str,
    },
    /// As [`UriError::Value`], said by the crate.
    ValueOf(String),
    /// The file that it came from can't be read again.
    Read(String),
}

impl UriError {
    fn from_crate(error: postgres::Error) -> Self {
        // The crate's other messages show characters of the string.
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        match cause.strip_prefix("invalid value for option `") {
            Some(option) => Self::ValueOf(option.trim_end_matches('`').to_owned()),
            None => Self::Syntax,
        }
    }
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str(
                "not a postgresql uri: expected postgres://user:password@host:port/database?sslmode=…",
            ),
            Self::NoHost => f.write_str(
                "postgresql uri: no host: expected a name, or host=/folder for a socket",
            ),
            Self::Unsupported(option) => {
                write!(f, "postgresql uri: {option} is not supported: expected none")
            }
            Self::Unknown(number) => write!(
                f,
                "postgresql uri: parameter {number} is unknown: expected one of libpq's names"
            ),
            Self::Value { option, expected } => {
                write!(f, "postgresql uri: {option}: expected {expected}")
            }
            Self::Read(cause) => write!(f, "postgresql uri: its file: {cause}"),
            Self::ValueOf(option) => write!(f, "postgresql uri: {option}: value not understood"),
        }
    }
}

impl std::error::Error for UriError {}

#[cfg(test)]
mod tests;
