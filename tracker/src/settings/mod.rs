//! The settings of the tracker: flags and environment variables, parsed and checked.

mod flags;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use common::settings::command_line::{self, Command, NoSubcommands};
use common::settings::{Environment, SettingValue, UsageError, values};
use kafka_client::TopicSpec;

use crate::delivery::spool::SpoolFolder;
use crate::probe::Roots;
use crate::probe::net::resolver::NameServers;
use crate::targets::{SHARES_MAX, Selection, Share, Target, TargetDefaults, TargetSource};
use crate::workers::network::Sentinel;
use crate::workers::retry::RETRY_PAUSE;
pub use flags::COMMAND;
use flags::{TargetFlags, TrackerCommand};

/// The settings of the tracker.
#[derive(Debug)]
pub struct TrackerSettings {
    /// In lower case, at most 32 characters.
    pub(crate) location: String,
    /// True if the location is the host's name, cut to 32 characters.
    pub(crate) location_cut: bool,
    /// Where SIGHUP reads the targets again.
    pub(crate) source: TargetSource,
    /// No two have the same URL and name. Empty only if the list is shared.
    pub(crate) targets: Vec<Arc<Target>>,
    /// Number of targets, including the targets of other trackers that share the list.
    pub(crate) targets_total: usize,
    /// Trust anchors for HTTPS.
    pub(crate) roots: Roots,
    /// Servers that show whether the network works. May be empty.
    pub(crate) sentinels: Vec<Sentinel>,
    /// Limit on workers. `None`: calculated from the targets.
    pub(crate) workers: Option<usize>,
    /// Name servers to use instead of the servers of resolv.conf.
    pub(crate) resolver: Option<NameServers>,
    /// Whether answers of name servers are cached for their TTL.
    pub(crate) dns_cache: bool,
    /// Where results are written.
    pub(crate) destination: Destination,
    /// Whether each target is probed once.
    pub(crate) once: bool,
    /// Whether to check the settings and print a report instead of probing.
    pub(crate) check: bool,
    /// Durations without a flag.
    pub(crate) timings: RunTimings,
}

/// Durations that no flag sets. They are values so that a test can shorten them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunTimings {
    /// Longest time from a stop to the end. Docker kills a container 10 s after the stop.
    pub(crate) stop_grace: Duration,
    /// Longest time from a stop to the end of running probes; part of `stop_grace`.
    pub(crate) probe_stop_grace: Duration,
    /// Time after `stop_grace` in which threads notice that it is over.
    pub(crate) join_grace: Duration,
    /// Longest time to connect to a broker, TLS and SASL included. Shorter than `stop_grace`,
    /// because a stop can't interrupt a connect.
    pub(crate) kafka_connect_timeout: Duration,
    /// Pause before an attempt at an address that has failed.
    pub(crate) retry_pause: Duration,
}

impl Default for RunTimings {
    fn default() -> Self {
        Self {
            stop_grace: Duration::from_secs(7),
            probe_stop_grace: Duration::from_secs(3),
            join_grace: Duration::from_millis(500),
            kafka_connect_timeout: Duration::from_secs(5),
            retry_pause: RETRY_PAUSE,
        }
    }
}

/// Where results are written.
#[derive(Debug)]
pub(crate) enum Destination {
    StandardOutput {
        style: OutputStyle,
    },
    Kafka {
        settings: Box<kafka_client::KafkaSettings>,
        /// How missing topics are created.
        topics: TopicSpec,
        topic_prefix: String,
        /// The folder of the spool, and the most bytes in it. `None`: results wait in memory.
        spool: Option<(SpoolFolder, u64)>,
    },
}

/// The style of results on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputStyle {
    /// One line per result.
    Lines,
    /// One line per result, and below it bars that show the duration of each phase.
    Bars { in_colour: bool },
    /// One JSON object per result.
    Json,
}

/// Parses the command line and the environment. `is_terminal` is true if standard output is a
/// terminal.
///
/// # Errors
/// A [`UsageError`] for the first setting that is not valid.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment<'_>,
    is_terminal: bool,
) -> Result<Command<TrackerSettings>, UsageError> {
    let (program, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    match command_line::parse::<TrackerCommand, NoSubcommands>(program, version, arguments)? {
        Command::Run(flags) => check_settings(&flags, environment, is_terminal).map(Command::Run),
        Command::Print(text) => Ok(Command::Print(text)),
        Command::Subcommand(none) => match none {},
    }
}

fn check_settings(
    flags: &TrackerCommand,
    environment: &Environment<'_>,
    is_terminal: bool,
) -> Result<TrackerSettings, UsageError> {
    let target_flags = &flags.targets;
    let location = target_flags.location(environment)?;
    let has_location = location.is_some();
    let (location, location_cut) = values::location(location)?;
    let topic_prefix = flags.delivery.topic_prefix(environment)?;
    let source = TargetSource {
        websites: target_flags.websites(environment)?,
        file: target_flags.targets(environment)?,
        share: target_flags
            .share(environment)?
            .map(|setting| parse_share(&setting, has_location))
            .transpose()?,
        defaults: target_defaults(target_flags, environment)?,
        topic_prefix: topic_prefix.clone(),
        location: location.clone(),
    };
    let sentinels = target_flags.sentinel(environment)?.unwrap_or_default();
    let workers = target_flags.workers(environment)?.and_then(|count| usize::try_from(count).ok());
    let roots = target_flags.roots(environment)?.unwrap_or_default();
    let resolver = target_flags.resolver(environment)?;
    let dns_cache = target_flags.dns_cache(environment)?;
    let Selection { targets, total } = source.read(environment)?;
    Ok(TrackerSettings {
        location,
        location_cut,
        source,
        targets,
        targets_total: total,
        roots,
        sentinels,
        workers,
        resolver,
        dns_cache,
        destination: destination(flags, environment, is_terminal, topic_prefix)?,
        once: flags.mode.once(environment)?,
        check: flags.mode.check(environment)?,
        timings: RunTimings::default(),
    })
}

fn target_defaults(
    flags: &TargetFlags,
    environment: &Environment<'_>,
) -> Result<TargetDefaults, UsageError> {
    Ok(TargetDefaults {
        timeout: flags.timeout(environment)?,
        period: flags.period(environment)?,
        retries: u32::try_from(flags.retries(environment)?).unwrap_or(u32::MAX),
        body_bytes_max: flags.body_max(environment)? * 1024,
    })
}

/// A share needs a location that the user chose: host names differ, and trackers with different
/// locations assign the targets to shares differently.
fn parse_share(setting: &SettingValue, has_location: bool) -> Result<Share, UsageError> {
    let expected = format!("K/N, with K from 1 to N, and N at most {SHARES_MAX}");
    let share = setting.parse(&expected, Share::parse)?;
    match has_location {
        true => Ok(share),
        false => Err(setting.error(
            "shares depend on the location: expected LOCATION too, the same for all trackers that share the list",
        )),
    }
}

fn destination(
    flags: &TrackerCommand,
    environment: &Environment<'_>,
    is_terminal: bool,
    topic_prefix: String,
) -> Result<Destination, UsageError> {
    let (once, check) = (flags.mode.once(environment)?, flags.mode.check(environment)?);
    let json = flags.mode.json(environment)?;
    let replication = flags.delivery.topic_replication(environment)?;
    let retention_h = flags.delivery.topic_retention(environment)?;
    let kafka = kafka_client::flags::settings(environment, program_id(), &flags.kafka)?;
    let spool = flags.delivery.spool(environment)?;
    let spool_mib_max = flags.delivery.spool_max(environment)?;
    let Some(kafka) = kafka else {
        if let Some(spool) = &spool {
            return Err(spool.error("no kafka server is set: expected KAFKA too"));
        }
        if !(is_terminal || once || json || check) {
            return Err(UsageError::new(
                "KAFKA: not set: expected host:port, or --once or --json to print results",
            ));
        }
        let style = match (json, once && is_terminal) {
            (true, _) => OutputStyle::Json,
            // The convention of https://no-color.org.
            (false, true) => {
                OutputStyle::Bars { in_colour: environment.variable("NO_COLOR")?.is_none() }
            }
            (false, false) => OutputStyle::Lines,
        };
        return Ok(Destination::StandardOutput { style });
    };
    if json {
        return Err(UsageError::new("--json: a kafka server is set too: expected one of the two"));
    }
    // The folder is opened last, because opening creates and locks it.
    let folder = spool
        .filter(|_| !check)
        .map(|setting| setting.parse("a folder for this tracker alone", SpoolFolder::open))
        .transpose()?;
    Ok(Destination::Kafka {
        settings: Box::new(kafka),
        topics: TopicSpec {
            replication_factor: replication.and_then(|copies| i16::try_from(copies).ok()),
            retention_ms: retention_h.and_then(|hours| i64::try_from(hours * 3_600_000).ok()),
        },
        topic_prefix,
        spool: folder.map(|folder| (folder, spool_mib_max * 1024 * 1024)),
    })
}

/// The client id that brokers see.
fn program_id() -> &'static str {
    concat!("websites-availability-", env!("CARGO_PKG_NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_settings(arguments: &[&str], variables: &[(&str, &str)]) -> TrackerSettings {
        let arguments = arguments.iter().map(OsString::from);
        match parse(arguments, &Environment::from_variables(variables), false).unwrap() {
            Command::Run(settings) => settings,
            Command::Print(text) => panic!("{text}"),
            Command::Subcommand(none) => match none {},
        }
    }

    #[test]
    fn defaults_are_those_of_a_target() {
        let settings = parse_settings(&["--once", "-w", "http://a.io"], &[]);
        let [defaults, expected] = [settings.source.defaults, TargetDefaults::default()]
            .map(|it| (it.period, it.timeout, it.retries, it.body_bytes_max));
        assert_eq!(defaults, expected);
        assert!(settings.workers.is_none() && settings.sentinels.is_empty());
    }

    #[test]
    fn a_variable_wins_over_its_flag() {
        let settings = parse_settings(
            &["--once", "-w", "http://a.io", "-p", "60", "--workers", "3"],
            &[("PERIOD", "30"), ("BODY_MAX", "2"), ("DNS_CACHE", "yes")],
        );
        let TargetDefaults { period, body_bytes_max, .. } = settings.source.defaults;
        assert_eq!((period, body_bytes_max), (Duration::from_secs(30), 2048));
        assert_eq!((settings.workers, settings.dns_cache), (Some(3), true));
    }

    #[test]
    fn timings_leave_time_for_each_step_of_a_stop() {
        let timings = RunTimings::default();
        assert!(timings.probe_stop_grace < timings.stop_grace);
        assert!(timings.kafka_connect_timeout < timings.stop_grace);
        // Docker kills after 10 s.
        assert!(timings.stop_grace + timings.join_grace < Duration::from_secs(10));
    }
}
