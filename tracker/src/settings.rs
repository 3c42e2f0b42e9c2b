//! The tracker's flags and variables, and what they come to.

use std::ffi::OsString;
use std::sync::Arc;

use argh::{ArgsInfo, FromArgs};
use common::domain;
use common::settings::command_line::{self, Command};
use common::settings::{Environment, Given, Name, UsageError, values};
use kafka_client::TopicSpec;
use kafka_client::flags::{self, KafkaFlags};

use crate::delivery::spool::SpoolFolder;
use crate::probe::Roots;
use crate::probe::net::resolver::Servers;
use crate::targets::{
    Defaults, Listed, Listing, PERIODS, RETRIES, SHARES_MAX, Share, TIMEOUTS, Target,
};
use crate::workers::network::Sentinel;
use crate::workers::sizing::WORKERS_MAX;

/// Probes websites on a fixed schedule and writes every result to Apache Kafka, or, with no Kafka server given, to standard output. Each flag can be given by the environment variable in brackets as well, and the variable wins.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(help_triggers("-h", "--help"), note = "-V, --version prints the version.")]
struct Options {
    /// where this tracker runs, 1 to 32 characters; default: the host's name (LOCATION)
    #[argh(option, short = 'l')]
    location: Option<String>,
    /// what to watch: URLs separated by commas, each with an optional regexp for its page behind a space, like 'https://aiven.io <svg\s+,https://www.google.com'; a comma inside a regexp is written \\, (WEBSITES)
    #[argh(option, short = 'w')]
    websites: Option<String>,
    /// file in TOML that lists targets with all that there is to say of each, see scripts/targets.example.toml; beside --websites or in its place (TARGETS)
    #[argh(option)]
    targets: Option<String>,
    /// the part K of N of all targets that this tracker probes, like 1/3, where N trackers of one location share a list; default: all (SHARE)
    #[argh(option)]
    share: Option<String>,
    /// seconds in which a probe must end, 0.1 to 300; default 10 (TIMEOUT)
    #[argh(option, short = 't')]
    timeout: Option<String>,
    /// seconds in which every website is probed once, 1 to 86400; default 300 (PERIOD)
    #[argh(option, short = 'p')]
    period: Option<String>,
    /// further attempts before a failure is told, 0 to 10, each with a time-out of its own: at once by another address where there is one, else after a second; default 1 (RETRIES)
    #[argh(option)]
    retries: Option<String>,
    /// what can be reached when this tracker's network can, host:port separated by commas, at most 8: connected to when a probe fails, and when none answers the record is marked no_network (SENTINEL)
    #[argh(option)]
    sentinel: Option<String>,
    /// most probes at once, 1 to 2048; each takes a thread, started when first needed; default: what it takes when every website hangs, the sum of ((retries + 1) * timeout + pauses) / period of each, 1 at most, but at least 64, and never more than there are websites (WORKERS)
    #[argh(option)]
    workers: Option<String>,
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
    /// password for Kafka (SASL_PASSWORD or SASL_PASSWORD_FILE, which unlike this flag no process list shows)
    #[argh(option)]
    sasl_password: Option<String>,
    /// what topics' names begin with; default webactivity-, version 1.1.0 used webactiviity- (TOPIC_PREFIX)
    #[argh(option)]
    topic_prefix: Option<String>,
    /// copies of a topic that this tracker makes, 1 to 100; default 3, or as many as there are brokers (TOPIC_REPLICATION)
    #[argh(option)]
    topic_replication: Option<String>,
    /// hours that a topic that this tracker makes keeps records, 1 to 876000; default: the broker's own (TOPIC_RETENTION)
    #[argh(option)]
    topic_retention: Option<String>,
    /// folder in which results wait for kafka, for one tracker alone; default: they wait in memory (SPOOL)
    #[argh(option)]
    spool: Option<String>,
    /// most MiB that wait in it, 16 to 1048576; default 1024 (SPOOL_MAX)
    #[argh(option)]
    spool_max: Option<String>,
    /// most KiB of a page, decoded, that are read for its regexp, 1 to 65536; default 1024 (BODY_MAX)
    #[argh(option)]
    body_max: Option<String>,
    /// whom to trust of https sites: system, mozilla (as of this version), or CA certificates, a path or PEM text; default: the system's roots, or mozilla's where it has none (ROOTS)
    #[argh(option)]
    roots: Option<String>,
    /// name servers to ask in place of resolv.conf's, up to three, ip or ip:port separated by commas (RESOLVER)
    #[argh(option)]
    resolver: Option<String>,
    /// keep answers of name servers for as long as they say, at most a day, in place of asking at each probe (DNS_CACHE)
    #[argh(switch)]
    dns_cache: bool,
    /// read all settings, files and certificates, print what would be done, and end: 0, or 2 with what can't be used
    #[argh(switch)]
    check: bool,
    /// probe every website once and end: 0 when all are healthy, else 1
    #[argh(switch)]
    once: bool,
    /// write results to standard output as one JSON object a line
    #[argh(switch)]
    json: bool,
}

/// What to do, every part of it checked.
#[derive(Debug)]
pub struct Settings {
    /// In lower case, at most 32 characters.
    pub location: String,
    /// True when the location is the host's name, cut.
    pub location_cut: bool,
    /// Where the list of targets can be read again.
    pub listing: Listing,
    /// No two the same; none only when the list is shared.
    pub targets: Vec<Arc<Target>>,
    /// How many there are with those of the trackers that share the list.
    pub targets_of: usize,
    /// Whom to trust of HTTPS sites.
    pub roots: Roots,
    /// What is looked for when a probe fails; none when not given.
    pub sentinels: Vec<Sentinel>,
    /// The most probes at once, if that was given.
    pub workers: Option<usize>,
    /// Servers in place of resolv.conf's.
    pub resolver: Option<Servers>,
    /// Whether answers of name servers are kept for as long as they say.
    pub dns_cache: bool,
    /// Where results go.
    pub sink: Sink,
    /// Whether to probe once and end.
    pub once: bool,
    /// Whether to print the plan and end.
    pub check: bool,
}

/// Where results go.
#[derive(Debug)]
pub enum Sink {
    /// To standard output.
    Print {
        /// As what.
        look: Look,
    },
    /// To Kafka.
    Kafka {
        /// The way to the brokers.
        settings: Box<kafka_client::KafkaSettings>,
        /// How topics are made.
        topics: TopicSpec,
        /// What topics' names begin with.
        topic_prefix: String,
        /// The folder that results wait in, and the most bytes there.
        spool: Option<(SpoolFolder, u64)>,
    },
}

/// How results look on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A line each.
    Lines,
    /// A line each, and below it where the time went.
    Picture {
        /// Whether in colours.
        in_colour: bool,
    },
    /// A JSON object each.
    Json,
}

/// Reads the command line and the environment; `terminal` is whether standard
/// output is one.
///
/// # Errors
/// A [`UsageError`] for the first setting that can't be used.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment<'_>,
    terminal: bool,
) -> Result<Command<Settings>, UsageError> {
    let program = env!("CARGO_PKG_NAME");
    match command_line::parse_struct::<Options>(program, env!("CARGO_PKG_VERSION"), arguments)? {
        Command::Print(text) => Ok(Command::Print(text)),
        Command::Run(options) => settings(options, environment, terminal).map(Command::Run),
    }
}

fn settings(
    mut options: Options,
    environment: &Environment<'_>,
    terminal: bool,
) -> Result<Settings, UsageError> {
    let get = |flag, variables, value| environment.setting(Name { flag, variables }, value);
    let location = get("--location", &["LOCATION"], options.location.take())?;
    let has_location = location.is_some();
    let (location, location_cut) = values::location(location)?;
    let timeout = get("--timeout", &["TIMEOUT"], options.timeout.take())?
        .map(|given| values::seconds(&given, TIMEOUTS))
        .transpose()?
        .unwrap_or(Defaults::default().timeout);
    let period = get("--period", &["PERIOD"], options.period.take())?
        .map(|given| values::seconds(&given, PERIODS))
        .transpose()?
        .unwrap_or(Defaults::default().period);
    let retries = get("--retries", &["RETRIES"], options.retries.take())?
        .map(|given| values::whole_number(&given, "retries", RETRIES))
        .transpose()?
        .and_then(|retries| u32::try_from(retries).ok())
        .unwrap_or(Defaults::default().retries);
    let sentinels = get("--sentinel", &["SENTINEL"], options.sentinel.take())?
        .map(|given| given.parse("1 to 8 of host:port,host:port,...", Sentinel::parse_list))
        .transpose()?
        .unwrap_or_default();
    let workers = get("--workers", &["WORKERS"], options.workers.take())?
        .map(|given| values::whole_number(&given, "workers", 1..=WORKERS_MAX as u64))
        .transpose()?
        .and_then(|workers| usize::try_from(workers).ok());
    let body_kib_max = get("--body-max", &["BODY_MAX"], options.body_max.take())?
        .map(|given| values::whole_number(&given, "KiB", 1..=65_536))
        .transpose()?
        .unwrap_or(1_024);
    let roots = get("--roots", &["ROOTS"], options.roots.take())?
        .map(|given| given.parse("system, mozilla, or CA certificates in PEM", Roots::parse))
        .transpose()?
        .unwrap_or_default();
    let resolver = get("--resolver", &["RESOLVER"], options.resolver.take())?
        .map(|given| given.parse("up to three of ip, ip:port or [ip]:port", Servers::parse))
        .transpose()?;
    let dns_cache = values::switch(
        environment,
        Name { flag: "--dns-cache", variables: &["DNS_CACHE"] },
        options.dns_cache,
    )?;
    let topic_prefix = get("--topic-prefix", &["TOPIC_PREFIX"], options.topic_prefix.take())?
        .map(|given| given.parse("a prefix like webactivity-", domain::parse_topic_prefix))
        .transpose()?
        .unwrap_or_else(|| domain::TOPIC_PREFIX.to_owned());
    let body_bytes_max = body_kib_max * 1024;
    let defaults = Defaults { period, timeout, retries, body_bytes_max };
    let listing = Listing {
        websites: get("--websites", &["WEBSITES"], options.websites.take())?,
        file: get("--targets", &["TARGETS"], options.targets.take())?,
        share: get("--share", &["SHARE"], options.share.take())?
            .map(|given| share(&given, has_location))
            .transpose()?,
        defaults,
        topic_prefix: topic_prefix.clone(),
        location: location.clone(),
    };
    let Listed { targets, of: targets_of } = listing.read(environment)?;
    let (once, check) = (options.once, options.check);
    let sink = sink(options, environment, terminal, topic_prefix)?;
    Ok(Settings {
        location,
        location_cut,
        listing,
        targets,
        targets_of,
        roots,
        sentinels,
        workers,
        resolver,
        dns_cache,
        sink,
        once,
        check,
    })
}

fn sink(
    options: Options,
    environment: &Environment<'_>,
    terminal: bool,
    topic_prefix: String,
) -> Result<Sink, UsageError> {
    let get = |flag, variables, value| environment.setting(Name { flag, variables }, value);
    let replication =
        get("--topic-replication", &["TOPIC_REPLICATION"], options.topic_replication)?
            .map(|given| values::whole_number(&given, "copies", 1..=100))
            .transpose()?;
    let retention_h = get("--topic-retention", &["TOPIC_RETENTION"], options.topic_retention)?
        .map(|given| values::whole_number(&given, "hours", 1..=876_000))
        .transpose()?;
    let kafka = flags::settings(
        environment,
        program_id(),
        &KafkaFlags {
            kafka: options.kafka,
            ca: options.ca,
            cert: options.cert,
            key: options.key,
            kafka_tls: options.kafka_tls.then(|| "true".to_owned()),
            sasl_mechanism: options.sasl_mechanism,
            sasl_username: options.sasl_username,
            sasl_password: options.sasl_password,
        },
    )?;
    let spool = get("--spool", &["SPOOL"], options.spool)?;
    let spool_mib_max = get("--spool-max", &["SPOOL_MAX"], options.spool_max)?
        .map(|given| values::whole_number(&given, "MiB", 16..=1_048_576))
        .transpose()?
        .unwrap_or(1_024);
    if let (None, Some(spool)) = (&kafka, &spool) {
        return Err(spool.error("results go to no kafka server: expected KAFKA too"));
    }
    match kafka {
        Some(_) if options.json => Err(UsageError::new(
            "--json: results go to the kafka server given: expected one of the two",
        )),
        Some(settings) => Ok(Sink::Kafka {
            settings: Box::new(settings),
            topics: TopicSpec {
                replication_factor: replication.and_then(|copies| i16::try_from(copies).ok()),
                retention_ms: retention_h.and_then(|hours| i64::try_from(hours * 3_600_000).ok()),
            },
            topic_prefix,
            // The last, as it makes the folder and locks it.
            spool: spool
                .filter(|_| !options.check)
                .map(|given| given.parse("a folder for this tracker alone", SpoolFolder::open))
                .transpose()?
                .map(|folder| (folder, spool_mib_max * 1024 * 1024)),
        }),
        None if terminal || options.once || options.json || options.check => {
            let look = match (options.json, options.once && terminal) {
                (true, _) => Look::Json,
                (false, true) => {
                    Look::Picture { in_colour: get("", &["NO_COLOR"], None)?.is_none() }
                }
                (false, false) => Look::Lines,
            };
            Ok(Sink::Print { look })
        }
        None => Err(UsageError::new(
            "KAFKA: no kafka server was given: expected host:port, or --once or --json to print results",
        )),
    }
}

/// A location that is the host's name is another one on each host, and by it
/// each would draw other shares.
fn share(given: &Given, has_location: bool) -> Result<Share, UsageError> {
    let share = given
        .parse(&format!("K/N, with K from 1 to N, and N at most {SHARES_MAX}"), Share::parse)?;
    match has_location {
        true => Ok(share),
        false => Err(given.error(
            "shares hang on the location: expected LOCATION too, the same for all who share",
        )),
    }
}

fn program_id() -> &'static str {
    concat!("websites-availability-", env!("CARGO_PKG_NAME"))
}
