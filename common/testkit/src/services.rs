//! The real services that `scripts/services` starts, as tests see them.
//!
//! Most tests share one set: `scripts/test` starts it and names it in the
//! environment, and [`shared`] reads it from there. Each test keeps to names of
//! its own ([`fresh_name`], [`fresh_database`]), so they run side by side. A
//! test that stops a broker or the database starts a set that is its own, by
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

/// What each variable's name begins with; the script's header lists them all.
const PREFIX: &str = "AVAILABILITY_";

/// A set of services: where each part listens, and what opens it.
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
    /// A client certificate that the TLS listeners take.
    pub kafka_cert: PathBuf,
    /// Its key, as PKCS#8.
    pub kafka_key: PathBuf,
    /// The one user of SASL PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    pub sasl_username: String,
    /// Its password.
    pub sasl_password: String,
    /// The superuser's URI: `sslmode=verify-full`, host `localhost`.
    pub postgres_uri: String,
    /// The CA of PostgreSQL's certificate.
    pub postgres_ca: PathBuf,
    /// A host that PostgreSQL's certificate names.
    pub postgres_host: String,
    /// An address at which it listens too, that its certificate does not name.
    pub postgres_other_host: String,
    /// Its port.
    pub postgres_port: u16,
    /// The superuser's password.
    pub postgres_password: String,
    /// A role, and the database of the same name, reached over TLS alone.
    pub tls_only: Role,
    /// A role, and the database of the same name, reached without TLS alone.
    pub plain_only: Role,
    /// A role without a password, and the database of the same name, opened by
    /// the certificate `client.crt` and its key.
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
    /// The path of one of the certificates or keys that
    /// `scripts/lib/certificates.sh` lists, such as `foreign-client.crt`.
    pub fn cert(&self, name: &str) -> PathBuf {
        self.certs.join(name)
    }

    /// The plain listener of a broker, which are counted from 1.
    pub fn plain_listener(&self, broker: usize) -> Option<&str> {
        self.kafka_plain.split(',').nth(broker.checked_sub(1)?)
    }

    /// The URI of `role` in its database, `parameters` (such as
    /// `sslmode=require`) after the question mark.
    pub fn role_uri(&self, role: &Role, parameters: &str) -> String {
        let Role { user, password } = role;
        let (host, port) = (&self.postgres_host, self.postgres_port);
        format!("postgres://{user}:{password}@{host}:{port}/{user}?{parameters}")
    }

    /// Starts a set of `brokers` brokers and one PostgreSQL that no other test
    /// uses; dropping it stops it. Takes some ten seconds and half a gigabyte
    /// for each broker.
    ///
    /// # Errors
    /// [`ServicesError::Script`] with what the script said.
    pub fn start(brokers: usize) -> Result<OwnSet, ServicesError> {
        // Beside the shared set, where scripts/test looks for what a killed test left behind.
        let folder = match env::var_os("AVAILABILITY_SERVICES_DIR") {
            Some(dir) => PathBuf::from(dir).with_file_name(fresh_name("own")),
            None => repository().join(".services").join(fresh_name("own")),
        };
        let folder = folder.to_string_lossy().into_owned();
        script(&["up", "--dir", &folder, "--brokers", &brokers.to_string()])?;
        // From here on dropping it stops what was started.
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
/// [`ServicesError::NotSet`], whose text says how to start them. A test expects
/// it, so that one which needs a service fails without and is never skipped.
pub fn shared() -> Result<Services, ServicesError> {
    Services::from_variables(|name| env::var(name).ok())
}

/// A name that no other test, process or run uses: `prefix`, then letters and
/// digits after hyphens. Good for topics, groups and host names.
pub fn fresh_name(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // A clock before 1970 loses the distance between runs, not that between processes.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{prefix}-{:x}-{:x}-{count:x}", now.as_millis(), process::id())
}

/// A set of services that one test has for itself; see [`Services::start`].
pub struct OwnSet {
    services: Services,
    stop: StopOnDrop,
}

/// The commands of `scripts/services` that break things. Each returns when the
/// process is gone, or when it answers again; brokers are counted from 1.
///
/// # Errors
/// All end with [`ServicesError::Script`] and what the script said.
impl OwnSet {
    /// Ends a broker by KILL.
    pub fn kill_broker(&self, broker: usize) -> Result<(), ServicesError> {
        self.command("kill-broker", Some(broker))
    }

    /// Ends a broker in good order: it hands its partitions over first.
    pub fn stop_broker(&self, broker: usize) -> Result<(), ServicesError> {
        self.command("stop-broker", Some(broker))
    }

    /// Stops a broker in its tracks: it takes connections and answers nothing.
    pub fn pause_broker(&self, broker: usize) -> Result<(), ServicesError> {
        self.command("pause-broker", Some(broker))
    }

    /// Lets a paused broker go on.
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

    /// Ends PostgreSQL in good order: sessions are closed, data is written.
    pub fn stop_postgres(&self) -> Result<(), ServicesError> {
        self.command("stop-postgres", None)
    }

    /// Starts PostgreSQL again, on its data and port.
    pub fn start_postgres(&self) -> Result<(), ServicesError> {
        self.command("start-postgres", None)
    }

    /// Stops PostgreSQL in good order and starts it again.
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

/// The folder of a set that is taken down.
struct StopOnDrop(String);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        // There is nobody to tell; scripts/test takes down what is left at its end.
        let _ = script(&["down", "--dir", &self.0]);
    }
}

/// Runs `scripts/services` and returns what it printed.
fn script(arguments: &[&str]) -> Result<String, ServicesError> {
    let failed = |said: String| ServicesError::Script { command: arguments.join(" "), said };
    let output = Command::new(repository().join("scripts/services"))
        .args(arguments)
        // A server of the user's is nothing to break.
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

/// Why there are no services for a test.
#[derive(Debug)]
pub enum ServicesError {
    /// The environment does not name the services.
    NotSet {
        /// The variable that is missing.
        name: String,
    },
    /// A variable that holds a number holds something else.
    NoNumber {
        /// The variable.
        name: String,
        /// What it holds.
        value: String,
    },
    /// `scripts/services` failed.
    Script {
        /// Its arguments.
        command: String,
        /// What it said on standard error, or why it could not be run.
        said: String,
    },
    /// The CA of PostgreSQL's certificate can't be read.
    Ca(openssl::error::ErrorStack),
    /// The URI is none, or PostgreSQL can't be reached or refused something.
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
            Self::Script { command, said } => write!(f, "scripts/services {command}: {said}"),
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
