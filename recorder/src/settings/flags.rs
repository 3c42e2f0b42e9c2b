//! The flags of the recorder and its subcommands.

use argh::FromArgs;
use common::domain::{self, Domain, TOPIC_PREFIX};
use common::settings::command_line::Subcommands;
use common::settings::flags::{CommandFlags, CommandSpec};
use common::settings::{SettingValue, UsageError, values};
use kafka_client::flags::KafkaFlags;

use super::domains::Pattern;

/// The default of `--group`.
const GROUP: &str = "websites-availability";
/// The most characters of a consumer group.
const GROUP_CHARS_MAX: usize = 249;

common::flags! {
    /// The domains.
    pub(super) struct DomainFlags {
        /// domains to record, separated by commas, like 'aiven.io,google.com'; '*' means
        /// all topics, '*.example.com' all topics of domains below example.com
        option domain('d') [DOMAIN]: DomainList = parse_domains;
    }
}

common::flags! {
    /// The names of topics.
    pub(super) struct TopicFlags {
        /// prefix of the names of topics; version 1.1.0 used webactiviity-
        option topic_prefix [TOPIC_PREFIX]: String =
            |given| given.parse("a prefix like webactivity-", domain::parse_topic_prefix),
            default TOPIC_PREFIX;
    }
}

common::flags! {
    /// The connection to PostgreSQL.
    pub(super) struct PostgresFlags {
        /// PostgreSQL URI, like
        /// postgres://user:password@host:5432/database?sslmode=verify-full; a password in
        /// this flag is visible in the list of processes
        option postgres('p') [POSTGRES] secret;
        /// CA certificates that sign the certificate of the PostgreSQL server, a path or
        /// PEM text
        option pgca('g') [PGCA, GPCA];
    }
}

common::flags! {
    /// The mode in which rows are written.
    pub(super) struct SmartFlags {
        /// merge consecutive healthy records into one row
        switch smart('s') [SMART];
    }
}

common::flags! {
    /// What only recording needs.
    pub(super) struct RecordFlags {
        /// the most connections to PostgreSQL for rows, 1 to 100; not more than there are
        /// domains are used, and one more for leases
        option postgres_connections [POSTGRES_CONNECTIONS]: u64 =
            |given| values::whole_number(given, "connections", 1..=100), default "8";
        /// consumer group whose offsets dashboards show; the recorder itself never
        /// reads them
        option group [GROUP]: String =
            |given| given.parse("1 to 249 characters", parse_group), default GROUP;
    }
}

common::command! {
    /// Reads results of the tracker from Apache Kafka and writes each to PostgreSQL
    /// exactly once. Each flag can also be given by the environment variable in
    /// brackets; the variable wins over the flag.
    pub(super) struct RecordCommand {
        domains: DomainFlags,
        postgres: PostgresFlags,
        smart: SmartFlags,
        record: RecordFlags,
        topics: TopicFlags,
        kafka: KafkaFlags,
    }
}

common::command! {
    /// Prints the SQL of the types and tables for the domains given.
    pub(super) struct SchemaCommand = "schema" {
        domains: DomainFlags,
        smart: SmartFlags,
    }
}

common::command! {
    /// Tries the records in quarantine again and prints the result of each. Exits with 0 if
    /// no record is left in quarantine, else with 1.
    pub(super) struct ReplayCommand = "replay" {
        domains: DomainFlags,
        postgres: PostgresFlags,
        topics: TopicFlags,
    }
}

/// The subcommands.
#[derive(FromArgs)]
#[argh(subcommand)]
pub(super) enum Subcommand {
    Schema(SchemaCommand),
    Replay(ReplayCommand),
}

impl Subcommands for Subcommand {
    const SPECS: &'static [CommandSpec] = &[SchemaCommand::SPEC, ReplayCommand::SPEC];
}

/// The recorder and its subcommands with their flags, for tests of the documentation.
pub const COMMANDS: [CommandSpec; 3] =
    [RecordCommand::SPEC, SchemaCommand::SPEC, ReplayCommand::SPEC];

/// The value of `--domain`.
#[derive(Debug)]
pub(super) struct DomainList {
    pub(super) names: Vec<Domain>,
    pub(super) patterns: Vec<Pattern>,
}

fn parse_domains(given: &SettingValue) -> Result<DomainList, UsageError> {
    given.parse("domain,domain,...", |text| {
        let mut list = DomainList { names: Vec::new(), patterns: Vec::new() };
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if let Some(pattern) = Pattern::parse(name) {
                list.patterns.push(pattern.map_err(|error| error.to_string())?);
                continue;
            }
            let domain = Domain::parse(name).map_err(|error| error.to_string())?;
            // A domain that is listed twice is recorded once.
            if !list.names.contains(&domain) {
                list.names.push(domain);
            }
        }
        if list.names.is_empty() && list.patterns.is_empty() {
            return Err("no domain in the list".to_owned());
        }
        domain::check_shared_names(&list.names).map_err(|error| error.to_string())?;
        Ok(list)
    })
}

fn parse_group(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=GROUP_CHARS_MAX => Ok(text.to_owned()),
        count => Err(format!("has {count} characters")),
    }
}
