use std::time::Duration;

use super::*;
use crate::settings::{Environment, values};

crate::flags! {
    /// Where from, and how.
    struct WatchFlags {
        /// where from, at most 32 characters
        option location('l') [LOCATION], unset "the host's name";
        /// merge
        switch smart('s') [SMART];
    }
}

crate::flags! {
    /// Where to.
    struct ServerFlags {
        /// the server
        option postgres('p') [POSTGRES] secret;
        /// connections to the server
        option postgres_connections [POSTGRES_CONNECTIONS, CONNECTIONS]: u64 =
            |setting| values::whole_number(setting, "connections", 1..=100), default "8";
        /// seconds between two connections
        option pause []: Duration =
            |setting| values::seconds(setting, Duration::ZERO..=Duration::from_secs(9));
    }
}

crate::command! {
    /// Watches things.
    struct WatchCommand {
        watch: WatchFlags,
        server: ServerFlags,
    }
}

crate::command! {
    /// Prints things.
    struct PrintCommand = "print" {
        watch: WatchFlags,
    }
}

#[derive(argh::FromArgs)]
#[argh(subcommand)]
enum Subcommand {
    Print(PrintCommand),
}

impl Subcommands for Subcommand {
    const SPECS: &'static [CommandSpec] = &[PrintCommand::SPEC];
}

/// The values of all flags.
#[derive(Debug, Default, PartialEq)]
struct Options {
    is_print: bool,
    location: Option<String>,
    postgres: Option<String>,
    smart: bool,
}

fn parse_words(arguments: &[&str]) -> Result<Command<WatchCommand, Subcommand>, UsageError> {
    parse("watch", "1.0", arguments.iter().map(OsString::from))
}

fn options(arguments: &[&str]) -> Result<Options, String> {
    let nothing = Environment::from_variables(&[]);
    // Blank values are none to a setting, and values to the command line.
    let of_watch = |is_print, watch: WatchFlags| Options {
        is_print,
        smart: watch.smart(&nothing).unwrap(),
        location: watch.location,
        postgres: None,
    };
    match parse_words(arguments) {
        Ok(Command::Run(command)) => {
            Ok(Options { postgres: command.server.postgres, ..of_watch(false, command.watch) })
        }
        Ok(Command::Subcommand(Subcommand::Print(command))) => Ok(of_watch(true, command.watch)),
        Ok(Command::Print(text)) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_flag_is_read_from_its_variables_the_command_line_and_its_default() {
    let Ok(Command::Run(WatchCommand { server, watch })) =
        parse_words(&["--postgres=p", "--postgres-connections", "9"])
    else {
        panic!("expected flags")
    };
    let nothing = Environment::from_variables(&[]);
    assert_eq!(watch.location(&nothing), Ok(None));
    assert_eq!(server.postgres_connections(&nothing), Ok(9));
    assert_eq!(
        server.postgres_connections(&Environment::from_variables(&[("CONNECTIONS", "7")])),
        Ok(7)
    );
    let error =
        server.postgres_connections(&Environment::from_variables(&[("POSTGRES_CONNECTIONS", "0")]));
    let expected = "POSTGRES_CONNECTIONS: 0 is out of range: expected 1 to 100 connections";
    assert_eq!(error.unwrap_err().to_string(), expected);
    assert_eq!(server.postgres(&nothing).unwrap().unwrap().value, "p");
    assert_eq!(server.pause(&nothing), Ok(None));
    let Ok(Command::Run(WatchCommand { server, .. })) = parse_words(&["--pause", "2"]) else {
        panic!("expected flags")
    };
    assert_eq!(server.pause(&nothing), Ok(Some(Duration::from_secs(2))));
    assert_eq!(server.postgres_connections(&nothing), Ok(8));
}

#[test]
fn the_table_of_flags_states_what_the_list_states() {
    let flags: Vec<_> = WatchCommand::SPEC.flags().collect();
    let longs: Vec<_> = flags.iter().map(|flag| flag.long).collect();
    let expected = ["--location", "--smart", "--postgres", "--postgres-connections", "--pause"];
    assert_eq!(longs, expected);
    assert_eq!((flags[0].short, flags[0].default), (Some('l'), Some("the host's name")));
    assert_eq!((flags[1].kind, flags[1].short), (FlagKind::Switch, Some('s')));
    assert_eq!(flags[2].all_variables(), ["POSTGRES", "POSTGRES_FILE"]);
    assert_eq!(flags[3].variables, ["POSTGRES_CONNECTIONS", "CONNECTIONS"]);
    assert_eq!(
        (flags[3].default, flags[3].documentation()),
        (Some("8"), "connections to the server")
    );
}

#[test]
fn flags_may_precede_or_follow_a_subcommand() {
    let expected = Ok(Options { is_print: true, location: Some("a".into()), ..Options::default() });
    assert_eq!(options(&["print", "-l", "a"]), expected);
    assert_eq!(options(&["-l", "a", "print"]), expected);
    for (arguments, expected) in [
        (
            &["print", "--postgres=s3cret"][..],
            "--postgres: watch print has no such flag: see watch print --help",
        ),
        (&["s3cret"], "unknown subcommand: expected print or none"),
        (
            &["print", "s3cret"],
            "2 arguments belong to no flag, expected at most 1, a subcommand: see watch --help",
        ),
    ] {
        assert_eq!(options(arguments).unwrap_err(), expected, "{arguments:?}");
    }
    let help = options(&["print", "--help"]).unwrap_err();
    assert!(help.starts_with("Usage: watch print [<flags>]\n\nPrints things.\n"), "{help}");
    assert!(!help.contains("--postgres"), "{help}");
}

#[test]
fn every_spelling_of_a_value_means_the_same() {
    let location = Some("sydney".to_owned());
    let expected = Ok(Options { location, smart: true, ..Options::default() });
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
        (&["--postgress=s3cret"][..], "unknown flag --postgress: did you mean --postgres?"),
        (&["--pw=s3cret"], "unknown flag --pw: see --help"),
        (&["-xs3cret"], "unknown flag -x: see --help"),
        (&["--postgres"], "--postgres: expected a value"),
        (&["-p"], "-p: expected a value"),
        (&["--smart=s3cret"], "--smart: takes no value"),
        (
            &["--", "-p", "s3cret"],
            "2 arguments belong to no flag, expected at most 1, a subcommand: see watch --help",
        ),
    ] {
        assert_eq!(options(arguments).unwrap_err(), expected, "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_printed() {
    for arguments in [&["-h"][..], &["--help"], &["-s", "--help"], &["help"]] {
        let text = options(arguments).unwrap_err();
        assert!(text.starts_with("Usage: watch [<subcommand>] [<flags>]\n"), "{text}");
        let location = "  -l, --location <location>\n                    where from, at most 32 \
                        characters; default: the host's name\n                    (LOCATION)\n";
        assert!(text.contains(location), "{text}");
        assert!(text.contains("\n  print             Prints things.\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
    assert_eq!(options(&["nonsense", "-h"]), options(&["-h"]));
    assert_eq!(options(&["--version"]).unwrap_err(), "watch 1.0\n");
}

/// Flags mean the same in every spelling and in every order.
#[test]
fn random_flags_parse_to_the_same_values_in_every_spelling() {
    let values = ["sydney", "", "-s", "--smart", "a=b", "=", "ü ,", "-", "--"];
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut expected = Options::default();
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
                // A value that would be read as something else is written with a `=`.
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
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(options(&words), Ok(expected), "seed {seed}: {arguments:?}");
    }
}

/// No input panics, and no error repeats a value.
#[test]
fn fuzzed_command_lines_are_parsed_or_refused_without_a_value() {
    let samples = [
        b"-l\0sydney\0--postgres=s3cret\0-s".to_vec(),
        b"-sls3cret\0--\0s3cret\0help".to_vec(),
        b"--postgress=s3cret\0-xs3cret\0--smart=s3cret".to_vec(),
    ];
    let tried = testkit::fuzz::run(&samples, |bytes| {
        use std::os::unix::ffi::OsStringExt;
        let words: Vec<_> = bytes.split(|byte| *byte == 0).collect();
        let arguments = words.iter().map(|word| OsString::from_vec(word.to_vec()));
        // An error repeats the name of an unknown long flag and nothing else.
        let is_name = words.iter().any(|word| {
            let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
            name.starts_with(b"--") && name.windows(6).any(|part| part == b"s3cret")
        });
        if let Err(error) = parse::<WatchCommand, Subcommand>("watch", "1.0", arguments) {
            assert!(is_name || !error.to_string().contains("s3cret"), "{error}");
        }
    });
    println!("command line: {tried} inputs");
}
