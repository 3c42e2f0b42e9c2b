//! The real services that `scripts/services` starts, for tests.
//!
//! Most tests share one set: `scripts/test` starts it and describes it in the
//! environment, where [`shared`] reads it. Each test uses names of its own
//! ([`fresh_name`], [`fresh_database`]), so that tests can run side by side. A
//! test that stops a broker or the database starts a set of its own with
//! [`Services::start`].

use std::collections::HashMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fmt, process};

mod database;

pub use database::{connect, fresh_database};

/// The prefix of each variable; the head of `scripts/services` lists the variables.
const PREFIX: &str = "AVAILABILITY_";

/// A set of services: addresses, certificates and passwords.
///
/// Addresses of Kafka are comma lists of `host:port`, one for each broker.
#[derive(Clone)]
pub struct Services {
    /// The folder of the set.
    pub dir: PathBuf,
    /// The folder of the certificates; [`Services::cert`] names one.
    pub certs: PathBuf,
    /// The number of brokers.
    pub brokers: usize,
    /// Plain listeners.
    pub kafka_plain: String,
    /// TLS listeners that require a client certificate.
    pub kafka_tls: String,
    /// SASL without TLS.
    pub kafka_sasl_plaintext: String,
    /// SASL over TLS without a client certificate.
    pub kafka_sasl_tls: String,
    /// The CA of the brokers' certificates.
    pub kafka_ca: PathBuf,
    /// A client certificate that the TLS listeners accept.
    pub kafka_cert: PathBuf,
    /// Its key, as PKCS#8.
    pub kafka_key: PathBuf,
    /// The user of SASL PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    pub sasl_username: String,
    /// Its password.
    pub sasl_password: String,
    /// The superuser's URI: `sslmode=verify-full`, host `localhost`.
    pub postgres_uri: String,
    /// The CA of PostgreSQL's certificate.
    pub postgres_ca: PathBuf,
    /// A host that PostgreSQL's certificate names.
    pub postgres_host: String,
    /// Another address of PostgreSQL, which its certificate does not name.
    pub postgres_other_host: String,
    /// Its port.
    pub postgres_port: u16,
    /// The superuser's password.
    pub postgres_password: String,
    /// A role that has to use TLS, with a database of the same name.
    pub tls_only: Role,
    /// A role that must not use TLS, with a database of the same name.
    pub plain_only: Role,
    /// A role without a password, with a database of the same name. It logs in
    /// with the certificate `client.crt` and its key.
    pub cert_user: String,
}

/// A role of PostgreSQL that owns the database of the same name.
#[derive(Clone)]
pub struct Role {
    /// The role's and the database's name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl Services {
    /// The path of a certificate or a key, such as `foreign-client.crt`;
    /// `common/testkit/services/src/certificates.rs` lists them.
    pub fn cert(&self, name: &str) -> PathBuf {
        self.certs.join(name)
    }

    /// The plain listener of a broker. Brokers are numbered from 1.
    pub fn plain_listener(&self, broker: usize) -> Option<&str> {
        self.kafka_plain.split(',').nth(broker.checked_sub(1)?)
    }

    /// The URI of `role` in its database, with `parameters` such as
    /// `sslmode=require`.
    pub fn role_uri(&self, role: &Role, parameters: &str) -> String {
        let Role { user, password } = role;
        let (host, port) = (&self.postgres_host, self.postgres_port);
        format!("postgres://{user}:{password}@{host}:{port}/{user}?{parameters}")
    }

    /// Starts a set of `brokers` brokers and one PostgreSQL for one test alone;
    /// dropping the set stops it. It takes seconds, and half a gigabyte for each
    /// broker.
    ///
    /// # Errors
    /// [`ServicesError::Script`] with the script's message.
    pub fn start(brokers: usize) -> Result<OwnSet, ServicesError> {
        // Beside the shared set, where scripts/test finds the sets of tests that were killed.
        let folder = match env::var_os("AVAILABILITY_SERVICES_DIR") {
            Some(dir) => PathBuf::from(dir).with_file_name(fresh_name("own")),
            None => repository().join(".services").join(fresh_name("own")),
        };
        let folder = folder.to_string_lossy().into_owned();
        script(&["up", "--dir", &folder, "--brokers", &brokers.to_string()])?;
        // From here on dropping it stops the set.
        let stop = StopOnDrop(folder);
        let printed = script(&["env", "--dir", &stop.0])?;
        let variables = parse_variables(&printed);
        let services = Services::from_variables(|name| variables.get(name).cloned())?;
        Ok(OwnSet { services, stop })
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, ServicesError> {
        let text = |name: &str| {
            let name = format!("{PREFIX}{name}");
            let value = get(&name).filter(|value| !value.is_empty());
            value.ok_or(ServicesError::NotSet { name })
        };
        let path = |name: &str| text(name).map(PathBuf::from);
        let role = |which: &str| {
            Ok::<_, ServicesError>(Role {
                user: text(&format!("POSTGRES_{which}_USER"))?,
                password: text(&format!("POSTGRES_{which}_PASSWORD"))?,
            })
        };
        Ok(Services {
            dir: path("SERVICES_DIR")?,
            certs: path("CERTS")?,
            brokers: number("KAFKA_BROKERS", text("KAFKA_BROKERS")?)?,
            kafka_plain: text("KAFKA_PLAIN")?,
            kafka_tls: text("KAFKA_TLS")?,
            kafka_sasl_plaintext: text("KAFKA_SASL_PLAINTEXT")?,
            kafka_sasl_tls: text("KAFKA_SASL_TLS")?,
            kafka_ca: path("KAFKA_CA")?,
            kafka_cert: path("KAFKA_CERT")?,
            kafka_key: path("KAFKA_KEY")?,
            sasl_username: text("SASL_USERNAME")?,
            sasl_password: text("SASL_PASSWORD")?,
            postgres_uri: text("POSTGRES")?,
            postgres_ca: path("PGCA")?,
            postgres_host: text("POSTGRES_HOST")?,
            postgres_other_host: text("POSTGRES_OTHER_HOST")?,
            postgres_port: number("POSTGRES_PORT", text("POSTGRES_PORT")?)?,
            postgres_password: text("POSTGRES_PASSWORD")?,
            tls_only: role("TLS_ONLY")?,
            plain_only: role("PLAIN_ONLY")?,
            cert_user: text("POSTGRES_CERT_USER")?,
        })
    }
}

/// The set that `scripts/test` started for all tests, from the environment.
///
/// # Errors
/// [`ServicesError::NotSet`]; its text explains how to start services. A test
/// that needs services unwraps the result, so that it fails without them and
/// is never skipped.
pub fn shared() -> Result<Services, ServicesError> {
    Services::from_variables(|name| env::var(name).ok())
}

/// A name that no other test, process or run uses: `prefix`, then letters,
/// digits and hyphens. It is a valid topic, group and host name.
pub fn fresh_name(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // With a clock before 1970 names still differ between processes.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{prefix}-{:x}-{:x}-{count:x}", now.as_millis(), process::id())
}

/// A set of services of one test; see [`Services::start`].
pub struct OwnSet {
    services: Services,
    stop: StopOnDrop,
}

/// The commands of `scripts/services` that stop and start processes. Each
/// returns when the process has ended, or when it responds again. Brokers are
/// numbered from 1.
///
/// # Errors
/// [`ServicesError::Script`] with the script's message.
impl OwnSet {
    /// Ends a broker by KILL.
    pub fn kill_broker(&self, broker: usize) -> Result<(), ServicesError> {
        self.command("kill-broker", Some(broker))
    }

    /// Shuts a broker down in order: first it hands its partitions over.
    pub fn stop_broker(&self, broker: usize) -> Result<(), ServicesError> {
        self.command("stop-broker", Some(broker))
    }

    /// Suspends a broker: it accepts connections and answers nothing.
    pub fn pause_broker(&self, broker: usize) -> Result<(), ServicesError> {
        self.command("pause-broker", Some(broker))
    }

    /// Lets a paused broker continue.
    pub fn resume_broker(&self, broker: usize) -> Result<(), ServicesError> {
        self.command("resume-broker", Some(broker))
    }

    /// Starts a broker again, on its data and ports.
    pub fn start_broker(&self, broker: usize) -> Result<(), ServicesError> {
        self.command("start-broker", Some(broker))
    }

    /// Ends PostgreSQL at once, as a crash would.
    pub fn kill_postgres(&self) -> Result<(), ServicesError> {
        self.command("kill-postgres", None)
    }

    /// Shuts PostgreSQL down in order: sessions are closed, data is written.
    pub fn stop_postgres(&self) -> Result<(), ServicesError> {
        self.command("stop-postgres", None)
    }

    /// Starts PostgreSQL again, on its data and port.
    pub fn start_postgres(&self) -> Result<(), ServicesError> {
        self.command("start-postgres", None)
    }

    /// Shuts PostgreSQL down in order and starts it again.
    pub fn restart_postgres(&self) -> Result<(), ServicesError> {
        self.command("restart-postgres", None)
    }

    fn command(&self, verb: &str, broker: Option<usize>) -> Result<(), ServicesError> {
        let broker = broker.map(|broker| broker.to_string());
        let mut arguments = vec![verb, "--dir", &self.stop.0];
        arguments.extend(broker.as_deref());
        script(&arguments).map(drop)
    }
}

impl Deref for OwnSet {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

/// The folder of a set that is taken down when this is dropped.
struct StopOnDrop(String);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        // An error can't be returned from here; scripts/test takes down the sets that are left.
        let _ = script(&["down", "--dir", &self.0]);
    }
}

/// Runs `scripts/services` and returns its output.
fn script(arguments: &[&str]) -> Result<String, ServicesError> {
    let failed = |message: String| ServicesError::Script { command: arguments.join(" "), message };
    let output = Command::new(repository().join("scripts/services"))
        .args(arguments)
        // The user's own servers must not be broken.
        .env_remove("KAFKA")
        .env_remove("POSTGRES")
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Reads the lines that `scripts/services env` prints.
fn parse_variables(printed: &str) -> HashMap<String, String> {
    let pairs = printed.lines().filter_map(|line| line.split_once('='));
    let unquoted = |value: &str| match value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
        Some(inner) => inner.replace(r"'\''", "'"),
        None => value.to_owned(),
    };
    pairs.map(|(name, value)| (name.to_owned(), unquoted(value))).collect()
}

fn number<T: std::str::FromStr>(name: &str, value: String) -> Result<T, ServicesError> {
    value.parse().map_err(|_| ServicesError::NoNumber { name: format!("{PREFIX}{name}"), value })
}

/// Why a test has no services.
#[derive(Debug)]
pub enum ServicesError {
    /// The environment does not describe the services.
    NotSet {
        /// The missing variable.
        name: String,
    },
    /// A variable that has to be a number is not.
    NoNumber {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// `scripts/services` failed.
    Script {
        /// Its arguments.
        command: String,
        /// Its standard error, or why it could not be run.
        message: String,
    },
    /// The CA of PostgreSQL's certificate can't be read.
    Ca(openssl::error::ErrorStack),
    /// The URI is not valid, or PostgreSQL can't be reached or refused a request.
    Postgres(postgres::Error),
}

impl fmt::Display for ServicesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSet { name } => write!(
                f,
                "{name} is not set, so there are no services to test on: run scripts/test, or \
                 `scripts/services up` and then `set -a; eval \"$(scripts/services env)\"; set +a`"
            ),
            Self::NoNumber { name, value } => {
                write!(f, "{name}: expected a number, found {value:?}")
            }
            Self::Script { command, message } => write!(f, "scripts/services {command}: {message}"),
            Self::Ca(error) => write!(f, "the CA of PostgreSQL: {error}"),
            Self::Postgres(error) => write!(f, "postgresql: {error}"),
        }
    }
}

impl std::error::Error for ServicesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ca(error) => Some(error),
            Self::Postgres(error) => Some(error),
            Self::NotSet { .. } | Self::NoNumber { .. } | Self::Script { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
