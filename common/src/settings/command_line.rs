//! The command line as people write it, brought into the form that argh reads.
//!
//! argh knows neither `-h`, `--flag=value` nor `-lsydney`, ends with 1 and
//! repeats values, a password among them, in its errors. So the arguments are
//! checked and brought into one form here, from argh's own table of flags, and
//! what argh could complain of never reaches it.

use std::ffi::OsString;

use argh::{ArgsInfo, EarlyExit, FlagInfo, FlagInfoKind, FromArgs};

use super::UsageError;

/// What a command line asks for.
#[derive(Debug)]
pub enum Command<T> {
    /// To run with these options.
    Run(T),
    /// To print this text, help or version, and to end well.
    Print(String),
}

/// Reads the arguments that follow the program's name.
///
/// A flag that is given twice counts as given last, as in 1.1.0.
///
/// # Errors
/// A [`UsageError`] that names the flag and never its value.
pub fn parse<T: FromArgs + ArgsInfo>(
    program: &str,
    version: &str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Command<T>, UsageError> {
    let info = T::get_args_info();
    let positionals = info.positionals.len();
    let mut normal = Normal { flags: info.flags, given: Vec::new(), rest: Vec::new() };
    match normal.read(arguments)? {
        Asked::Help => return Ok(Command::Print(help::<T>(program))),
        Asked::Version => return Ok(Command::Print(format!("{program} {version}\n"))),
        Asked::Run => {}
    }
    if normal.rest.len() > positionals {
        let count = normal.rest.len();
        return Err(UsageError::new(match positionals {
            0 => format!("{count} arguments belong to no flag: see {program} --help"),
            _ => format!(
                "{count} arguments belong to no flag, expected {positionals}: see {program} --help"
            ),
        }));
    }
    let arguments: Vec<&str> = normal
        .given
        .iter()
        .flat_map(|(flag, value)| [Some(flag.as_str()), value.as_deref()])
        .flatten()
        .chain(normal.rest.iter().map(String::as_str))
        .collect();
    T::from_args(&[program], &arguments).map(Command::Run).map_err(|_| {
        // Not argh's own text: it may hold a value.
        UsageError::new(format!("the arguments can't be read: see {program} --help"))
    })
}

fn help<T: FromArgs>(program: &str) -> String {
    match T::from_args(&[program], &["--help"]) {
        Err(EarlyExit { output, .. }) => output,
        Ok(_) => String::new(),
    }
}

enum Asked {
    Run,
    Help,
    Version,
}

struct Normal<'a> {
    flags: &'a [FlagInfo<'a>],
    given: Vec<(String, Option<String>)>,
    rest: Vec<String>,
}

impl Normal<'_> {
    fn read(&mut self, arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, UsageError> {
        let mut arguments = arguments.into_iter().enumerate().map(|(index, argument)| {
            argument
                .into_string()
                .map_err(|_| UsageError::new(format!("argument {} is not utf-8", index + 1)))
        });
        while let Some(argument) = arguments.next() {
            let argument = argument?;
            if matches!(argument.as_str(), "-h" | "--help" | "help") {
                return Ok(Asked::Help);
            }
            if matches!(argument.as_str(), "-V" | "--version") {
                return Ok(Asked::Version);
            }
            if argument == "--" {
                self.rest.extend(arguments.by_ref().collect::<Result<Vec<_>, _>>()?);
            } else if let Some(long) = argument.strip_prefix("--") {
                self.long(long, &mut arguments)?;
            } else if argument.len() > 1 && argument.starts_with('-') {
                self.short(&argument[1..], &mut arguments)?;
            } else {
                self.rest.push(argument);
            }
        }
        Ok(Asked::Run)
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
        let Some(flag) = self.flags.iter().find(|flag| flag.long == name) else {
            return Err(self.unknown(&name));
        };
        match (takes_value(flag), value) {
            (false, Some(_)) => Err(UsageError::new(format!("{name}: takes no value"))),
            (false, None) => self.push(flag.long, None),
            (true, Some(value)) => self.push(flag.long, Some(value)),
            (true, None) => self.push(flag.long, Some(next(&name, arguments)?)),
        }
    }

    /// `-s`, `-l sydney`, `-lsydney`, `-l=sydney`, and switches in front of
    /// any of these in one word.
    fn short(
        &mut self,
        letters: &str,
        arguments: &mut impl Iterator<Item = Result<String, UsageError>>,
    ) -> Result<(), UsageError> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            let name = format!("-{letter}");
            let Some(flag) = self.flags.iter().find(|flag| flag.short == Some(letter)) else {
                return Err(self.unknown(&name));
            };
            if !takes_value(flag) {
                self.push(flag.long, None)?;
                continue;
            }
            let value = match rest.as_str() {
                "" => next(&name, arguments)?,
                value => value.strip_prefix('=').unwrap_or(value).to_owned(),
            };
            return self.push(flag.long, Some(value));
        }
        Ok(())
    }

    fn push(&mut self, long: &str, value: Option<String>) -> Result<(), UsageError> {
        self.given.retain(|(name, _)| name != long);
        self.given.push((long.to_owned(), value));
        Ok(())
    }

    fn unknown(&self, name: &str) -> UsageError {
        let long = self.flags.iter().map(|flag| &flag.long[2..]);
        UsageError::new(match nearest(name.trim_start_matches('-'), long) {
            Some(nearest) => format!("there is no flag {name}: expected --{nearest}?"),
            None => format!("there is no flag {name}: see --help"),
        })
    }
}

fn takes_value(flag: &FlagInfo<'_>) -> bool {
    matches!(flag.kind, FlagInfoKind::Option { .. })
}

fn next(
    name: &str,
    arguments: &mut impl Iterator<Item = Result<String, UsageError>>,
) -> Result<String, UsageError> {
    arguments.next().unwrap_or_else(|| Err(UsageError::new(format!("{name}: expected a value"))))
}

/// The one of the known words that was most likely meant: it differs by two
/// letters at most, or goes on where the word ends. None for a word of less
/// than three letters, which is near to too many.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = |known: &str| match distance(word, known) {
        near @ 0..=2 => Some(near),
        _ => known.starts_with(word).then_some(usize::MAX),
    };
    let known = known.into_iter().filter_map(|known| Some((far(known)?, known)));
    known.min().map(|(_, known)| known).filter(|_| word.len() > 2)
}

/// How many letters must be changed, put in or left out (Levenshtein).
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
mod tests {
    use super::*;

    /// Watches things.
    #[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
    struct Options {
        /// where from, at most 32 characters (LOCATION)
        #[argh(option, short = 'l')]
        location: Option<String>,
        /// the server (POSTGRES)
        #[argh(option, short = 'p')]
        postgres: Option<String>,
        /// merge (SMART)
        #[argh(switch, short = 's')]
        smart: bool,
    }

    fn options(arguments: &[&str]) -> Result<Options, String> {
        match parse("watch", "1.0", arguments.iter().map(OsString::from)) {
            Ok(Command::Run(options)) => Ok(options),
            Ok(Command::Print(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_way_to_give_a_value_means_the_same() {
        let expected = Ok(Options { location: Some("sydney".into()), postgres: None, smart: true });
        for arguments in [
            &["-l", "sydney", "-s"][..],
            &["-lsydney", "--smart"],
            &["-l=sydney", "-s"],
            &["-slsydney"],
            &["-sl", "sydney"],
            &["--location=sydney", "-s"],
            &["--location", "oslo", "-s", "--location", "sydney", "--smart"],
        ] {
            assert_eq!(options(arguments), expected, "{arguments:?}");
        }
        let value = options(&["--postgres=a=b --c", "-l", "--smart"]).unwrap();
        assert_eq!(value.postgres.as_deref(), Some("a=b --c"));
        assert_eq!(value.location.as_deref(), Some("--smart"));
    }

    #[test]
    fn errors_name_the_flag_and_never_a_value() {
        for (arguments, expected) in [
            (&["--postgress=s3cret"][..], "there is no flag --postgress: expected --postgres?"),
            (&["--pw=s3cret"], "there is no flag --pw: see --help"),
            (&["-xs3cret"], "there is no flag -x: see --help"),
            (&["--postgres"], "--postgres: expected a value"),
            (&["-p"], "-p: expected a value"),
            (&["--smart=s3cret"], "--smart: takes no value"),
            (&["s3cret"], "1 arguments belong to no flag: see watch --help"),
            (&["--", "-p", "s3cret"], "2 arguments belong to no flag: see watch --help"),
        ] {
            assert_eq!(options(arguments).unwrap_err(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn help_and_version_are_printed() {
        for arguments in [&["-h"][..], &["--help"], &["-s", "--help"], &["help"]] {
            let text = options(arguments).unwrap_err();
            assert!(text.contains("Usage: watch") && text.contains("(LOCATION)"), "{text}");
        }
        assert_eq!(options(&["--version"]).unwrap_err(), "watch 1.0\n");
    }

    /// Any options, written in any of the ways that there are, in any order.
    ///
    /// Goes red when `short` takes the `=` for a part of the value, or `push`
    /// keeps what was given first.
    #[test]
    fn however_options_are_written_they_are_the_same() {
        let values = ["sydney", "", "-s", "--smart", "a=b", "=", "ü ,", "-", "--"];
        for seed in 0..5_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut expected = Options { location: None, postgres: None, smart: false };
            let mut arguments: Vec<String> = Vec::new();
            for _ in 0..random.usize(0..6) {
                let value = random.choice(values).unwrap();
                let (long, short, slot) = match random.u8(0..3) {
                    0 => ("--location", "-l", &mut expected.location),
                    1 => ("--postgres", "-p", &mut expected.postgres),
                    _ => {
                        expected.smart = true;
                        arguments.push(if random.bool() { "-s" } else { "--smart" }.to_owned());
                        continue;
                    }
                };
                *slot = Some(value.to_owned());
                let switches = if random.bool() { "" } else { "s" };
                expected.smart |= !switches.is_empty();
                let bundle = format!("-{switches}{}", &short[1..]);
                match random.u8(0..5) {
                    0 => {
                        expected.smart |= switches == "s";
                        arguments.extend([bundle, value.to_owned()]);
                    }
                    // What would be taken for something else is written with a `=`.
                    1 if !value.is_empty() && !value.starts_with('=') => {
                        arguments.push(format!("{bundle}{value}"));
                    }
                    2 => arguments.extend([bundle, value.to_owned()]),
                    3 if !value.is_empty() => arguments.push(format!("{bundle}={value}")),
                    _ => {
                        arguments.extend((!switches.is_empty()).then(|| "--smart".to_owned()));
                        if random.bool() {
                            arguments.push(format!("{long}={value}"));
                        } else {
                            arguments.extend([long.to_owned(), value.to_owned()]);
                        }
                    }
                }
            }
            let given: Vec<&str> = arguments.iter().map(String::as_str).collect();
            assert_eq!(options(&given), Ok(expected), "seed {seed}: {arguments:?}");
        }
    }

    /// Goes red when `unknown` repeats all of a word: a value may stand in it.
    #[test]
    fn fuzzed_command_lines_are_read_or_refused_and_repeat_no_value() {
        let samples = [
            b"-l\0sydney\0--postgres=s3cret\0-s".to_vec(),
            b"-sls3cret\0--\0s3cret\0help".to_vec(),
            b"--postgress=s3cret\0-xs3cret\0--smart=s3cret".to_vec(),
        ];
        let tried = testkit::fuzz::run(&samples, |bytes| {
            use std::os::unix::ffi::OsStringExt;
            let words: Vec<_> = bytes.split(|byte| *byte == 0).collect();
            let arguments = words.iter().map(|word| OsString::from_vec(word.to_vec()));
            // The name of a long flag is repeated, be it what it may, and nothing else.
            let is_name = words.iter().any(|word| {
                let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
                name.starts_with(b"--") && name.windows(6).any(|part| part == b"s3cret")
            });
            if let Err(error) = parse::<Options>("watch", "1.0", arguments) {
                assert!(is_name || !error.to_string().contains("s3cret"), "{error}");
            }
        });
        println!("command line: {tried} inputs");
    }
}
