//! Converts the command line as users write it into the form that argh reads.
//!
//! argh knows neither `--flag=value` nor `-lsydney`, exits with 1, and repeats
//! values, passwords among them, in its errors. So arguments are checked against
//! the [`FlagSpec`]s and normalised here, and argh never sees an argument that it
//! would refuse.

use std::ffi::OsString;

use argh::EarlyExit;

use super::UsageError;
use super::flags::{CommandFlags, CommandSpec, FlagKind, FlagSpec};

/// The width of `--help`, in characters.
const HELP_WIDTH: usize = 80;
/// The column at which texts begin in the lists of `--help`.
const HELP_INDENT: usize = 20;

/// The request of a command line: `M` is the program itself, `S` its subcommands.
#[derive(Debug)]
pub enum Command<M, S = NoSubcommands> {
    /// Run the program with these flags.
    Run(M),
    /// Run a subcommand.
    Subcommand(S),
    /// Print this text, the help or the version, and exit with 0.
    Print(String),
}

/// An enum of subcommands, which derives `argh::FromArgs` with `#[argh(subcommand)]`.
pub trait Subcommands: argh::SubCommands {
    /// The subcommands in the order of `--help`.
    const SPECS: &'static [CommandSpec];
}

/// The subcommands of a program that has none.
#[derive(Debug)]
pub enum NoSubcommands {}

impl argh::FromArgs for NoSubcommands {
    fn from_args(_: &[&str], _: &[&str]) -> Result<Self, EarlyExit> {
        Err(EarlyExit { output: "no subcommands".to_owned(), status: Err(()) })
    }
}

impl argh::SubCommands for NoSubcommands {
    const COMMANDS: &'static [&'static argh::CommandInfo] = &[];
}

impl Subcommands for NoSubcommands {
    const SPECS: &'static [CommandSpec] = &[];
}

/// Parses the arguments that follow the program's name.
///
/// Flags may precede or follow a subcommand. If a flag occurs more than once, the last
/// value counts, as in 1.1.0.
///
/// # Errors
/// A [`UsageError`] that names the flag and never its value.
pub fn parse<M: CommandFlags, S: Subcommands>(
    program: &str,
    version: &str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Command<M, S>, UsageError> {
    let commands: Vec<CommandSpec> =
        [M::SPEC].into_iter().chain(S::SPECS.iter().copied()).collect();
    let mut normal = Normalizer::new(commands.iter().flat_map(CommandSpec::flags));
    let request = normal.read(arguments)?;
    let subcommand = find_subcommand(program, &normal.positionals, S::SPECS);
    match request {
        Request::Help => {
            let command = subcommand.ok().flatten().unwrap_or(M::SPEC);
            return Ok(Command::Print(help(program, &command, S::SPECS)));
        }
        Request::Version => return Ok(Command::Print(format!("{program} {version}\n"))),
        Request::Run => {}
    }
    let subcommand = subcommand?;
    let command = subcommand.unwrap_or(M::SPEC);
    for (flag, _) in &normal.flags {
        if !command.flags().any(|spec| spec.long == *flag) {
            let command = [program, command.name].join(" ");
            let command = command.trim_end();
            return Err(UsageError::new(format!(
                "{flag}: {command} has no such flag: see {command} --help"
            )));
        }
    }
    let arguments: Vec<&str> = normal
        .flags
        .iter()
        // A switch has a value as well, so that groups of flags can distinguish flags from
        // values.
        .flat_map(|(flag, value)| [*flag, value.as_deref().unwrap_or("true")])
        .collect();
    let parsed = match subcommand {
        None => M::from_args(&[program], &arguments).map(Command::Run),
        Some(command) => {
            S::from_args(&[program, command.name], &arguments).map(Command::Subcommand)
        }
    };
    // argh's own text is dropped: it may repeat a value.
    parsed.map_err(|_| {
        UsageError::new(format!("the arguments cannot be parsed: see {program} --help"))
    })
}

/// The subcommand that the positional arguments name. `None`: there are none.
fn find_subcommand(
    program: &str,
    positionals: &[String],
    subcommands: &[CommandSpec],
) -> Result<Option<CommandSpec>, UsageError> {
    // The arguments are not repeated: one may be a password that lost its flag.
    match (positionals, subcommands) {
        ([], _) => Ok(None),
        ([_], []) => {
            Err(UsageError::new(format!("1 argument belongs to no flag: see {program} --help")))
        }
        (_, []) => Err(UsageError::new(format!(
            "{} arguments belong to no flag: see {program} --help",
            positionals.len()
        ))),
        ([name], _) => {
            let subcommand = subcommands.iter().find(|command| command.name == name);
            subcommand.copied().map(Some).ok_or_else(|| {
                let names: Vec<&str> = subcommands.iter().map(|command| command.name).collect();
                UsageError::new(format!(
                    "unknown subcommand: expected {} or none",
                    names.join(", ")
                ))
            })
        }
        _ => Err(UsageError::new(format!(
            "{} arguments belong to no flag, expected at most 1, a subcommand: see {program} --help",
            positionals.len()
        ))),
    }
}

/// The text of `--help` for one command.
fn help(program: &str, command: &CommandSpec, subcommands: &[CommandSpec]) -> String {
    let is_program = command.name.is_empty();
    let mut help = format!("Usage: {program}");
    match (is_program, subcommands) {
        (false, _) => help.push_str(&format!(" {}", command.name)),
        (true, []) => {}
        (true, _) => help.push_str(" [<subcommand>]"),
    }
    help.push_str(" [<flags>]\n\n");
    wrap(&mut help, command.about(), 0);
    help.push_str("\nFlags:\n");
    for flag in command.flags() {
        let mut names = String::from("  ");
        if let Some(short) = flag.short {
            names.push_str(&format!("-{short}, "));
        }
        names.push_str(flag.long);
        if flag.kind != FlagKind::Switch {
            names.push_str(&format!(" <{}>", &flag.long[2..]));
        }
        let mut text = flag.documentation().to_owned();
        if let Some(default) = flag.default {
            text.push_str(&format!("; default: {default}"));
        }
        let variables = flag.all_variables();
        if !variables.is_empty() {
            text.push_str(&format!(" ({})", variables.join(" or ")));
        }
        list_item(&mut help, &names, &text);
    }
    list_item(&mut help, "  -h, --help", "print this help");
    list_item(&mut help, "  -V, --version", "print the version");
    if is_program && !subcommands.is_empty() {
        help.push_str(&format!("\nSubcommands ({program} <subcommand> --help lists the flags):\n"));
        for subcommand in subcommands {
            list_item(&mut help, &format!("  {}", subcommand.name), subcommand.about());
        }
    }
    help
}

/// Appends a name and its text. If the name is too long, the text starts on its own line.
fn list_item(help: &mut String, name: &str, text: &str) {
    help.push_str(name);
    match HELP_INDENT.checked_sub(name.chars().count()) {
        Some(room @ 1..) => help.push_str(&" ".repeat(room)),
        _ => help.push_str(&format!("\n{}", " ".repeat(HELP_INDENT))),
    }
    wrap(help, text, HELP_INDENT);
}

/// Appends a text in lines of at most [`HELP_WIDTH`] characters. The first line continues
/// at the column `indent`, where the following lines begin.
fn wrap(help: &mut String, text: &str, indent: usize) {
    let mut column = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > HELP_WIDTH {
            help.push_str(&format!("\n{}", " ".repeat(indent)));
            column = indent;
        } else if column > indent {
            help.push(' ');
            column += 1;
        }
        help.push_str(word);
        column += length;
    }
    help.push('\n');
}

enum Request {
    Run,
    Help,
    Version,
}

/// The properties of a flag that normalising needs.
struct KnownFlag<'a> {
    long: &'a str,
    short: Option<char>,
    takes_value: bool,
}

/// Brings arguments into the form `--flag` or `--flag value`.
struct Normalizer<'a> {
    known: Vec<KnownFlag<'a>>,
    flags: Vec<(&'a str, Option<String>)>,
    positionals: Vec<String>,
}

impl<'a> Normalizer<'a> {
    fn new(specs: impl IntoIterator<Item = &'static FlagSpec>) -> Self {
        let known = specs.into_iter().map(|spec| KnownFlag {
            long: spec.long,
            short: spec.short,
            takes_value: spec.kind != FlagKind::Switch,
        });
        Self { known: known.collect(), flags: Vec::new(), positionals: Vec::new() }
    }

    fn read(
        &mut self,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Request, UsageError> {
        let mut arguments = arguments.into_iter().enumerate().map(|(index, argument)| {
            argument
                .into_string()
                .map_err(|_| UsageError::new(format!("argument {} is not utf-8", index + 1)))
        });
        while let Some(argument) = arguments.next() {
            let argument = argument?;
            if matches!(argument.as_str(), "-h" | "--help" | "help") {
                return Ok(Request::Help);
            }
            if matches!(argument.as_str(), "-V" | "--version") {
                return Ok(Request::Version);
            }
            if argument == "--" {
                self.positionals.extend(arguments.by_ref().collect::<Result<Vec<_>, _>>()?);
            } else if let Some(long) = argument.strip_prefix("--") {
                self.long(long, &mut arguments)?;
            } else if argument.len() > 1 && argument.starts_with('-') {
                self.short(&argument[1..], &mut arguments)?;
            } else {
                self.positionals.push(argument);
            }
        }
        Ok(Request::Run)
    }

    fn long(
        &mut self,
        text: &str,
        arguments: &mut impl Iterator<Item = Result<String, UsageError>>,
    ) -> Result<(), UsageError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (format!("--{name}"), Some(value.to_owned())),
            None => (format!("--{text}"), None),
        };
        let Some(flag) = self.known.iter().find(|flag| flag.long == name) else {
            return Err(self.unknown(&name));
        };
        let value = match (flag.takes_value, value) {
            (false, Some(_)) => return Err(UsageError::new(format!("{name}: takes no value"))),
            (true, None) => Some(next_value(&name, arguments)?),
            (_, value) => value,
        };
        self.set(flag.long, value);
        Ok(())
    }

    /// Reads `-s`, `-l sydney`, `-lsydney` or `-l=sydney`; switches may precede
    /// any of these in the same argument.
    fn short(
        &mut self,
        letters: &str,
        arguments: &mut impl Iterator<Item = Result<String, UsageError>>,
    ) -> Result<(), UsageError> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            let name = format!("-{letter}");
            let Some(flag) = self.known.iter().find(|flag| flag.short == Some(letter)) else {
                return Err(self.unknown(&name));
            };
            let long = flag.long;
            if !flag.takes_value {
                self.set(long, None);
                continue;
            }
            let value = match rest.as_str() {
                "" => next_value(&name, arguments)?,
                value => value.strip_prefix('=').unwrap_or(value).to_owned(),
            };
            self.set(long, Some(value));
            return Ok(());
        }
        Ok(())
    }

    /// Sets a flag, in place of an earlier value.
    fn set(&mut self, long: &'a str, value: Option<String>) {
        self.flags.retain(|(name, _)| *name != long);
        self.flags.push((long, value));
    }

    fn unknown(&self, name: &str) -> UsageError {
        let long = self.known.iter().map(|flag| &flag.long[2..]);
        UsageError::new(match nearest(name.trim_start_matches('-'), long) {
            Some(nearest) => format!("unknown flag {name}: did you mean --{nearest}?"),
            None => format!("unknown flag {name}: see --help"),
        })
    }
}

fn next_value(
    name: &str,
    arguments: &mut impl Iterator<Item = Result<String, UsageError>>,
) -> Result<String, UsageError> {
    arguments.next().unwrap_or_else(|| Err(UsageError::new(format!("{name}: expected a value"))))
}

/// The known word that was most likely meant: a word that differs by at most two letters,
/// or that begins with `word`. `None` for a word of fewer than three letters, because too
/// many words are similar.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance_to = |known: &str| match distance(word, known) {
        distance @ 0..=2 => Some(distance),
        _ => known.starts_with(word).then_some(usize::MAX),
    };
    let known = known.into_iter().filter_map(|known| Some((distance_to(known)?, known)));
    known.min().map(|(_, known)| known).filter(|_| word.len() > 2)
}

/// The number of letters to replace, insert or delete (Levenshtein distance).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for column in 0..other.len() {
            let changed = diagonal + usize::from(letter != other[column]);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests;
