//! The command line.

use std::path::{Path, PathBuf};

use crate::command_error::CommandError;

/// The most brokers of a set.
const BROKERS_MAX: usize = 9;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The folder with all sets, the cache and the reserved ports.
    pub(crate) root: PathBuf,
    /// The folder with `kafka/` (jars) and `postgres/` (programs).
    pub(crate) jars: PathBuf,
    /// The Java program that runs Kafka. `None`: the script found none.
    pub(crate) java: Option<PathBuf>,
    /// The folder of the set.
    pub(crate) dir: PathBuf,
    pub(crate) command: ServicesCommand,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ServicesCommand {
    Up { brokers: Option<usize> },
    Down { all: bool },
    Status,
    Env { programs: bool },
    Broker { action: BrokerAction, broker: String },
    Postgres(PostgresAction),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerAction {
    Kill,
    Stop,
    Pause,
    Resume,
    Start,
}

impl BrokerAction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Start => "start",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostgresAction {
    Kill,
    Stop,
    Start,
    Restart,
}

impl Arguments {
    /// Options can precede or follow the command.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, CommandError> {
        let usage = |text: String| Err(CommandError::Usage(text));
        let (mut root, mut jars, mut java, mut dir) = (None, None, None, None);
        let (mut brokers, mut all, mut programs) = (None, false, false);
        let mut words = Vec::new();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let (name, attached) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let slot = match name {
                "--root" => &mut root,
                "--jars" => &mut jars,
                "--java" => &mut java,
                "--dir" => &mut dir,
                "--brokers" => &mut brokers,
                "--all" if attached.is_none() => {
                    all = true;
                    continue;
                }
                "--programs" if attached.is_none() => {
                    programs = true;
                    continue;
                }
                _ if argument.starts_with('-') => {
                    return usage(format!("unknown option: {argument}"));
                }
                _ => {
                    words.push(argument);
                    continue;
                }
            };
            match attached.or_else(|| arguments.next()) {
                Some(value) => *slot = Some(value),
                None => return usage(format!("{name}: expected a value")),
            }
        }
        let brokers = brokers.filter(|text: &String| !text.is_empty());
        let brokers = brokers.map(|text| parse_brokers(&text)).transpose()?;
        let mut words = words.into_iter();
        let Some(word) = words.next() else {
            return usage("no command: expected up, down, status or env".to_owned());
        };
        let broker = if word.ends_with("-broker") { words.next() } else { None };
        if let Some(extra) = words.next() {
            return usage(format!("unexpected argument: {extra}"));
        }
        let command = parse_command(&word, broker.unwrap_or_default(), brokers, all, programs)?;
        let root = absolute(root.as_deref().unwrap_or(".services"))?;
        let dir = match dir.as_deref() {
            Some("") => return usage("--dir: expected a folder".to_owned()),
            Some(dir) => absolute(dir)?,
            None => root.join("default"),
        };
        let jars = jars.map_or_else(|| root.join("jars"), PathBuf::from);
        let java = java.filter(|java| !java.is_empty()).map(PathBuf::from);
        Ok(Self { root, jars, java, dir, command })
    }
}

fn parse_brokers(text: &str) -> Result<usize, CommandError> {
    match text.parse() {
        Ok(brokers) if (1..=BROKERS_MAX).contains(&brokers) => Ok(brokers),
        _ => Err(CommandError::Usage(format!(
            "--brokers: expected 1 to {BROKERS_MAX}, found '{text}'"
        ))),
    }
}

fn parse_command(
    word: &str,
    broker: String,
    brokers: Option<usize>,
    all: bool,
    programs: bool,
) -> Result<ServicesCommand, CommandError> {
    let broker_action = |action| ServicesCommand::Broker { action, broker };
    Ok(match word {
        "up" => ServicesCommand::Up { brokers },
        "down" => ServicesCommand::Down { all },
        "status" => ServicesCommand::Status,
        "env" => ServicesCommand::Env { programs },
        "kill-broker" => broker_action(BrokerAction::Kill),
        "stop-broker" => broker_action(BrokerAction::Stop),
        "pause-broker" => broker_action(BrokerAction::Pause),
        "resume-broker" => broker_action(BrokerAction::Resume),
        "start-broker" => broker_action(BrokerAction::Start),
        "kill-postgres" => ServicesCommand::Postgres(PostgresAction::Kill),
        "stop-postgres" => ServicesCommand::Postgres(PostgresAction::Stop),
        "start-postgres" => ServicesCommand::Postgres(PostgresAction::Start),
        "restart-postgres" => ServicesCommand::Postgres(PostgresAction::Restart),
        _ => return Err(CommandError::Usage(format!("unknown command: {word}"))),
    })
}

/// The absolute path, without `.` and `..`. Links in its existing part are
/// resolved, so that each set has only one path.
fn absolute(path: &str) -> Result<PathBuf, CommandError> {
    let mut resolved = PathBuf::new();
    let path = std::path::absolute(path).map_err(CommandError::at(Path::new(path)))?;
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            resolved.pop();
        } else {
            resolved.push(part);
        }
        if let Ok(real) = resolved.canonicalize() {
            resolved = real;
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned)).map_err(|e| e.to_string())
    }

    #[test]
    fn options_stand_before_and_after_the_command() {
        let arguments = parse("--root=/r --dir /tmp/../x/./s up --brokers 3").unwrap();
        assert_eq!(arguments.root, Path::new("/r"));
        assert_eq!(arguments.dir, Path::new("/x/s"));
        assert_eq!(arguments.command, ServicesCommand::Up { brokers: Some(3) });
        assert_eq!(parse("--root /r status").unwrap().dir, Path::new("/r/default"));
        let command = parse("pause-broker --dir /x 2").unwrap().command;
        assert_eq!(
            command,
            ServicesCommand::Broker { action: BrokerAction::Pause, broker: "2".to_owned() }
        );
        assert_eq!(
            parse("env --programs").unwrap().command,
            ServicesCommand::Env { programs: true }
        );
    }

    #[test]
    fn a_wrong_command_line_is_refused_with_its_reason() {
        for (line, text) in [
            ("", "no command: expected up, down, status or env"),
            ("up --brokers 10", "--brokers: expected 1 to 9, found '10'"),
            ("up --brokers", "--brokers: expected a value"),
            ("up --dir=", "--dir: expected a folder"),
            ("up down", "unexpected argument: down"),
            ("hop", "unknown command: hop"),
            ("hop-broker 1", "unknown command: hop-broker"),
            ("up --fast", "unknown option: --fast"),
            ("up --all=yes", "unknown option: --all=yes"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error, format!("{text} (services --help describes the commands)"));
        }
    }
}
