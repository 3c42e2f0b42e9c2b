//! The recorder's flags and variables, and what they come to.

pub mod domains;

use std::ffi::OsString;
use std::sync::Arc;

use argh::{ArgsInfo, FromArgs};
use common::domain::{self, Domain};
use common::pem::Pem;
use common::settings::command_line::{self, Command};
use common::settings::{Environment, Given, Name, UsageError, values};
use kafka_client::flags::{self, KafkaFlags};
use postgres_client::{PostgresSettings, PostgresUri, TlsError};

use crate::settings::domains::{Pattern, Wanted};

/// The consumer group unless a setting names another.
const GROUP: &str = "websites-availability";
/// Connections to PostgreSQL unless a setting says otherwise.
const CONNECTIONS: u64 = 8;
/// The longest that a connection to a broker may take to be made, and a
/// request to be answered, in milliseconds: shorter than the client's own
/// bounds, because a domain that waits can't stop. (Kafka's `cutoff` would end
/// such a wait, at the price of looking for it several times a second in each
/// of a thousand threads; they are left behind at a stop instead.)
const KAFKA_CONNECT_TIMEOUT_MS: u64 = 5_000;
const KAFKA_REQUEST_TIMEOUT_MS: u64 = 10_000;

/// Reads results of the tracker from Apache Kafka and writes each to PostgreSQL exactly once. Each flag can be given by the environment variable in brackets as well, and the variable wins. `recorder schema` prints the SQL of the tables for the domains given and ends; `recorder replay` puts their records in quarantine through again, says what became of each and ends: 0 when none is left there, else 1.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(help_triggers("-h", "--help"), note = "-V, --version prints the version.")]
struct Options {
    /// domains to record, separated by commas, like 'aiven.io,google.com'; '*' and '*.example.com' stand for all topics there are (DOMAIN)
    #[argh(option, short = 'd')]
    domain: Option<String>,
    /// postgreSQL URI, like postgres://user:password@host:5432/database?sslmode=verify-full (POSTGRES or POSTGRES_FILE, which unlike this flag no process list shows)
    #[argh(option, short = 'p')]
    postgres: Option<String>,
    /// CA certificates that sign the PostgreSQL server's, a path or PEM text (PGCA or GPCA)
    #[argh(option, short = 'g')]
    pgca: Option<String>,
    /// most connections to PostgreSQL, 1 to 100, beside one for leases; default 8, or as many as there are domains (POSTGRES_CONNECTIONS)
    #[argh(option)]
    postgres_connections: Option<String>,
    /// kafka bootstrap servers, host:port separated by commas (KAFKA)
    #[argh(option, short = 'k')]
    kafka: Option<String>,
    /// CA certificates that sign the Kafka servers', a path or PEM text (CA)
    #[argh(option, short = 'c')]
    ca: Option<String>,
    /// certificate of this client for Kafka, a path or PEM text (CERT)
    #[argh(option, short = 'e')]
    cert: Option<String>,
    /// private key of this client for Kafka, a path or PEM text (KEY)
    #[argh(option, short = 'y')]
    key: Option<String>,
    /// speak TLS to Kafka though no CA, CERT or KEY is given, and trust the system's roots (KAFKA_TLS)
    #[argh(switch)]
    kafka_tls: bool,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 (SASL_MECHANISM)
    #[argh(option)]
    sasl_mechanism: Option<String>,
    /// user for Kafka (SASL_USERNAME or SASL_USERNAME_FILE)
    #[argh(option)]
    sasl_username: Option<String>,
    /// password for Kafka (SASL_PASSWORD or SASL_PASSWORD_FILE)
    #[argh(option)]
    sasl_password: Option<String>,
    /// what topics' names begin with; default webactivity-, version 1.1.0 used webactiviity- (TOPIC_PREFIX)
    #[argh(option)]
    topic_prefix: Option<String>,
    /// consumer group whose offsets dashboards show; the recorder itself never reads them; default websites-availability (GROUP)
    #[argh(option)]
    group: Option<String>,
    /// merge continuous healthy records into one row (SMART, true or false)
    #[argh(switch, short = 's')]
    smart: bool,
    /// what to do instead of recording: schema or replay
    #[argh(positional)]
    action: Option<String>,
}

/// What to do, every part of it checked.
#[derive(Debug)]
pub enum Action {
    /// To record.
    Record(Box<Settings>),
    /// To print the schema.
    PrintSchema {
        /// For these domains.
        domains: Vec<Domain>,
        /// With the index of smart mode.
        smart: bool,
    },
    /// To put through again what is in quarantine.
    Replay(Box<ReplaySettings>),
}

/// What to put through again, and where.
#[derive(Debug)]
pub struct ReplaySettings {
    /// As [`Settings::wanted`].
    pub wanted: Wanted,
    /// What topics' names begin with.
    pub topic_prefix: String,
    /// The way to the database.
    pub postgres: PostgresSettings,
}

/// What to record, from where to where.
#[derive(Debug)]
pub struct Settings {
    /// The domains, of which no two share a table, and patterns for more.
    pub wanted: Wanted,
    /// What topics' names begin with.
    pub topic_prefix: String,
    /// The way to the brokers.
    pub kafka: Arc<kafka_client::Settings>,
    /// The consumer group.
    pub group: String,
    /// The way to the database.
    pub postgres: PostgresSettings,
    /// The most connections to it.
    pub postgres_connections: usize,
    /// Whether healthy records are merged.
    pub smart: bool,
}

/// Reads the command line and the environment.
///
/// # Errors
/// A [`UsageError`] for the first setting that can't be used.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment<'_>,
) -> Result<Command<Action>, UsageError> {
    let program = env!("CARGO_PKG_NAME");
    let command = command_line::parse::<Options>(program, env!("CARGO_PKG_VERSION"), arguments)?;
    let options = match command {
        Command::Print(text) => return Ok(Command::Print(text)),
        Command::Run(options) => options,
    };
    match options.action.as_deref() {
        None => settings(options, environment).map(Box::new).map(Action::Record),
        Some("schema") => match domains(options.domain, environment)? {
            (domains, patterns) if patterns.is_empty() => {
                let smart = smart(options.smart, environment)?;
                Ok(Action::PrintSchema { domains, smart })
            }
            _ => Err(UsageError::new(
                "DOMAIN: has a pattern: expected domains, whose tables are to be printed",
            )),
        },
        Some("replay") => replay(options, environment).map(Box::new).map(Action::Replay),
        // It is not repeated: it may be a password that lost its flag.
        Some(_) => Err(UsageError::new("unknown action: expected schema, replay or none")),
    }
    .map(Command::Run)
}

fn settings(options: Options, environment: &Environment<'_>) -> Result<Settings, UsageError> {
    let get = |flag, variables, value| environment.setting(Name { flag, variables }, value);
    let (wanted, topic_prefix) = wanted(options.domain, options.topic_prefix, environment)?;
    let postgres = postgres(options.postgres, options.pgca, environment)?;
    let connections = ("--postgres-connections", &["POSTGRES_CONNECTIONS"][..]);
    let connections = get(connections.0, connections.1, options.postgres_connections)?
        .map(|given| values::whole_number(&given, "connections", 1..=100))
        .transpose()?
        .unwrap_or(CONNECTIONS);
    let group = get("--group", &["GROUP"], options.group)?
        .map(|given| given.parse("1 to 249 characters", group))
        .transpose()?
        .unwrap_or_else(|| GROUP.to_owned());
    let smart = smart(options.smart, environment)?;
    let flags = KafkaFlags {
        kafka: options.kafka,
        ca: options.ca,
        cert: options.cert,
        key: options.key,
        kafka_tls: options.kafka_tls,
        sasl_mechanism: options.sasl_mechanism,
        sasl_username: options.sasl_username,
        sasl_password: options.sasl_password,
    };
    let mut kafka = flags::settings(environment, program_id(), flags)?
        .ok_or_else(|| UsageError::new("KAFKA: not given: expected host:port, by --kafka too"))?;
    kafka.connect_timeout_ms = KAFKA_CONNECT_TIMEOUT_MS;
    kafka.request_timeout_ms = KAFKA_REQUEST_TIMEOUT_MS;
    Ok(Settings {
        wanted,
        topic_prefix,
        kafka: Arc::new(kafka),
        group,
        postgres,
        postgres_connections: usize::try_from(connections).unwrap_or(1),
        smart,
    })
}

fn smart(flag: bool, environment: &Environment<'_>) -> Result<bool, UsageError> {
    values::switch(environment, Name { flag: "--smart", variables: &["SMART"] }, flag)
}

/// Kafka is not needed, and what is set for it alone is not looked at.
fn replay(options: Options, environment: &Environment<'_>) -> Result<ReplaySettings, UsageError> {
    let (wanted, topic_prefix) = wanted(options.domain, options.topic_prefix, environment)?;
    let postgres = postgres(options.postgres, options.pgca, environment)?;
    Ok(ReplaySettings { wanted, topic_prefix, postgres })
}

fn wanted(
    domain: Option<String>,
    topic_prefix: Option<String>,
    environment: &Environment<'_>,
) -> Result<(Wanted, String), UsageError> {
    let (names, patterns) = domains(domain, environment)?;
    let name = Name { flag: "--topic-prefix", variables: &["TOPIC_PREFIX"] };
    let topic_prefix = environment
        .setting(name, topic_prefix)?
        .map(|given| given.parse("a prefix like webactivity-", domain::parse_topic_prefix))
        .transpose()?
        .unwrap_or_else(|| domain::TOPIC_PREFIX.to_owned());
    let wanted = Wanted::new(&topic_prefix, names, patterns)
        .map_err(|error| UsageError::new(format!("DOMAIN: {error}")))?;
    Ok((wanted, topic_prefix))
}

/// What servers see of this program.
fn program_id() -> &'static str {
    concat!(env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION"))
}

fn domains(
    flag: Option<String>,
    environment: &Environment<'_>,
) -> Result<(Vec<Domain>, Vec<Pattern>), UsageError> {
    let given = environment
        .setting(Name { flag: "--domain", variables: &["DOMAIN"] }, flag)?
        .ok_or_else(|| UsageError::new("DOMAIN: not given: expected domains, by --domain too"))?;
    given.parse("domain,domain,...", |text| {
        let (mut domains, mut patterns) = (Vec::new(), Vec::new());
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        for name in names {
            if let Some(pattern) = Pattern::parse(name) {
                patterns.push(pattern.map_err(|error| error.to_string())?);
                continue;
            }
            let domain = Domain::parse(name).map_err(|error| error.to_string())?;
            // One that stands twice is recorded once.
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        if domains.is_empty() && patterns.is_empty() {
            return Err("no domain in it".to_owned());
        }
        domain::refuse_shared_names(&domains).map_err(|error| error.to_string())?;
        Ok((domains, patterns))
    })
}

fn postgres(
    uri: Option<String>,
    ca: Option<String>,
    environment: &Environment<'_>,
) -> Result<PostgresSettings, UsageError> {
    let uri = environment
        .secret(Name { flag: "--postgres", variables: &["POSTGRES"] }, uri)?
        .ok_or_else(|| {
            UsageError::new(
                "POSTGRES: not given: expected postgres://user:password@host:port/database, \
                 by --postgres too",
            )
        })?;
    let ca = environment.setting(Name { flag: "--pgca", variables: &["PGCA", "GPCA"] }, ca)?;
    let settings = PostgresSettings {
        // Not `Given::parse`: these errors say themselves what was expected.
        uri: PostgresUri::from_secret(uri.clone().into()).map_err(|error| uri.error(error))?,
        ca: ca.as_ref().map(|given| Pem::from_setting(&given.value)),
        application_name: program_id().to_owned(),
    };
    settings.check().map_err(|error| origin(&error, ca.as_ref(), &uri).error(error))?;
    Ok(settings)
}

/// Which setting a certificate that can't be used came from: the CA's own, or
/// the URI with its `sslrootcert`, `sslcert` and `sslkey`.
fn origin<'a>(error: &TlsError, ca: Option<&'a Given>, uri: &'a Given) -> &'a Given {
    let text = error.to_string();
    match ca {
        Some(ca) if text.starts_with(&Pem::from_setting(&ca.value).to_string()) => ca,
        _ => uri,
    }
}

fn group(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=249 => Ok(text.to_owned()),
        count => Err(format!("has {count} characters")),
    }
}

#[cfg(test)]
mod tests;
