//! The settings of the recorder: flags and environment variables, parsed and checked.

pub mod domains;
mod flags;

use std::ffi::OsString;
use std::sync::Arc;

use common::domain::Domain;
use common::pem::Pem;
use common::settings::command_line::{self, Command};
use common::settings::{Environment, SettingValue, UsageError};
use postgres_client::{PostgresSettings, PostgresUri, TlsError};

use domains::DomainSelection;
use flags::{
    DomainFlags, DomainList, PostgresFlags, RecordCommand, ReplayCommand, SchemaCommand,
    Subcommand, TopicFlags,
};

pub use flags::COMMANDS;

/// The time-outs in milliseconds for connecting to a broker and for the answer to a request. Both
/// are shorter than the defaults of the client, because a domain that waits for a broker can't
/// stop. (Kafka's `cutoff` could end such a wait, but each of a thousand threads would have to
/// check it several times a second. Instead, these threads are abandoned at a stop.)
const KAFKA_CONNECT_TIMEOUT_MS: u64 = 5_000;
const KAFKA_REQUEST_TIMEOUT_MS: u64 = 10_000;

/// The command on the command line, with checked settings.
#[derive(Debug)]
pub enum Action {
    /// Record results.
    Record(Box<Settings>),
    /// Print the SQL of the tables.
    PrintSchema(SchemaSettings),
    /// Try the records in quarantine again.
    Replay(Box<ReplaySettings>),
    /// Print this text: the help or the version.
    Print(String),
}

/// The settings of `recorder schema`.
#[derive(Debug)]
pub struct SchemaSettings {
    /// The domains whose tables are printed.
    pub domains: Vec<Domain>,
    /// Whether the index of smart mode is printed too.
    pub smart: bool,
}

/// The settings of `recorder replay`.
#[derive(Debug)]
pub struct ReplaySettings {
    /// The domains whose records are replayed.
    pub selection: DomainSelection,
    /// The prefix of the names of topics.
    pub topic_prefix: String,
    /// The connection to PostgreSQL.
    pub postgres: PostgresSettings,
}

/// The settings of the recorder.
#[derive(Debug)]
pub struct Settings {
    /// The domains to record, and the patterns for more domains. No two domains share a table.
    pub selection: DomainSelection,
    /// The prefix of the names of topics.
    pub topic_prefix: String,
    /// The connection to Kafka.
    pub kafka: Arc<kafka_client::KafkaSettings>,
    /// The consumer group. Dashboards show its offsets.
    pub group: String,
    /// The connection to PostgreSQL.
    pub postgres: PostgresSettings,
    /// The maximum number of connections to PostgreSQL, without the connection for leases.
    pub postgres_connections: usize,
    /// Whether healthy records are merged.
    pub smart: bool,
}

/// Parses the command line and the environment.
///
/// Variables that the chosen subcommand does not use are ignored, so that programs can share an
/// environment file. Flags that the subcommand does not have are errors.
///
/// # Errors
/// A [`UsageError`] for the first invalid setting.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment<'_>,
) -> Result<Action, UsageError> {
    let program = env!("CARGO_PKG_NAME");
    let version = env!("CARGO_PKG_VERSION");
    Ok(match command_line::parse::<RecordCommand, Subcommand>(program, version, arguments)? {
        Command::Run(flags) => Action::Record(Box::new(record(&flags, environment)?)),
        Command::Subcommand(Subcommand::Schema(flags)) => {
            Action::PrintSchema(schema(&flags, environment)?)
        }
        Command::Subcommand(Subcommand::Replay(flags)) => {
            Action::Replay(Box::new(replay(&flags, environment)?))
        }
        Command::Print(text) => Action::Print(text),
    })
}

fn record(flags: &RecordCommand, environment: &Environment<'_>) -> Result<Settings, UsageError> {
    let (selection, topic_prefix) = selection(&flags.domains, &flags.topics, environment)?;
    let postgres = postgres(&flags.postgres, environment)?;
    let connections = flags.record.postgres_connections(environment)?;
    let kafka_connections = flags.record.kafka_connections(environment)?;
    let group = flags.record.group(environment)?;
    let smart = flags.smart.smart(environment)?;
    let mut kafka = kafka_client::flags::settings(environment, program_id(), &flags.kafka)?
        .ok_or_else(|| UsageError::new("KAFKA: not given: expected host:port, by --kafka too"))?;
    kafka.connections_max = kafka_connections.and_then(|count| usize::try_from(count).ok());
    kafka.connect_timeout_ms = KAFKA_CONNECT_TIMEOUT_MS;
    kafka.request_timeout_ms = KAFKA_REQUEST_TIMEOUT_MS;
    Ok(Settings {
        selection,
        topic_prefix,
        kafka: Arc::new(kafka),
        group,
        postgres,
        postgres_connections: usize::try_from(connections).unwrap_or(1),
        smart,
    })
}

fn schema(
    flags: &SchemaCommand,
    environment: &Environment<'_>,
) -> Result<SchemaSettings, UsageError> {
    let DomainList { names, patterns } = domains(&flags.domains, environment)?;
    if !patterns.is_empty() {
        return Err(UsageError::new(
            "DOMAIN: contains a pattern: expected the domains whose tables are to be printed",
        ));
    }
    Ok(SchemaSettings { domains: names, smart: flags.smart.smart(environment)? })
}

fn replay(
    flags: &ReplayCommand,
    environment: &Environment<'_>,
) -> Result<ReplaySettings, UsageError> {
    let (selection, topic_prefix) = selection(&flags.domains, &flags.topics, environment)?;
    let postgres = postgres(&flags.postgres, environment)?;
    Ok(ReplaySettings { selection, topic_prefix, postgres })
}

fn selection(
    domain_flags: &DomainFlags,
    topic_flags: &TopicFlags,
    environment: &Environment<'_>,
) -> Result<(DomainSelection, String), UsageError> {
    let DomainList { names, patterns } = domains(domain_flags, environment)?;
    let topic_prefix = topic_flags.topic_prefix(environment)?;
    let selection = DomainSelection::new(&topic_prefix, names, patterns)
        .map_err(|error| UsageError::new(format!("DOMAIN: {error}")))?;
    Ok((selection, topic_prefix))
}

fn domains(flags: &DomainFlags, environment: &Environment<'_>) -> Result<DomainList, UsageError> {
    flags
        .domain(environment)?
        .ok_or_else(|| UsageError::new("DOMAIN: not given: expected domains, by --domain too"))
}

/// The name of this program, as servers see it.
fn program_id() -> &'static str {
    concat!(env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION"))
}

fn postgres(
    flags: &PostgresFlags,
    environment: &Environment<'_>,
) -> Result<PostgresSettings, UsageError> {
    let uri = flags.postgres(environment)?.ok_or_else(|| {
        UsageError::new(
            "POSTGRES: not given: expected postgres://user:password@host:port/database, \
             by --postgres too",
        )
    })?;
    let ca = flags.pgca(environment)?;
    let settings = PostgresSettings {
        // `SettingValue::parse` is not used, because errors of the URI also state the expected
        // value.
        uri: PostgresUri::from_secret(uri.clone().into()).map_err(|error| uri.error(error))?,
        ca: ca.as_ref().map(|given| Pem::from_setting(&given.value)),
        application_name: program_id().to_owned(),
    };
    settings.check().map_err(|error| tls_setting(&error, ca.as_ref(), &uri).error(error))?;
    Ok(settings)
}

/// The setting of an invalid certificate: PGCA, or the URI with its `sslrootcert`, `sslcert` and
/// `sslkey`.
fn tls_setting<'a>(
    error: &TlsError,
    ca: Option<&'a SettingValue>,
    uri: &'a SettingValue,
) -> &'a SettingValue {
    let text = error.to_string();
    match ca {
        Some(ca) if text.starts_with(&Pem::from_setting(&ca.value).to_string()) => ca,
        _ => uri,
    }
}

#[cfg(test)]
mod tests;
