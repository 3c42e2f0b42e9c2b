//! The log: lines on standard error, with their level settable by RUST_LOG.

use std::io::{self, Write};
use std::process::ExitCode;

use env_logger::Env;
use log::LevelFilter;

use crate::settings::UsageError;

/// What is logged unless RUST_LOG says otherwise: our own news, and of the
/// libraries only what is wrong.
const DEFAULT_FILTER: &str = "warn,common=info,recorder=info,tracker=info,testkit=info";

/// Where bytes of requests are traced, a site's password among them.
const NEVER_TRACED: &str = "ureq_proto::util";

/// Sets up the log of the process; a second call changes nothing.
pub fn start() {
    let environment = Env::default().default_filter_or(DEFAULT_FILTER);
    let _ = env_logger::Builder::from_env(environment)
        // The longest name counts, and of one name the last word.
        .filter_module(NEVER_TRACED, LevelFilter::Debug)
        .format_timestamp_millis()
        .try_init();
}

/// Ends well after help or a version was asked for: its text goes to standard
/// output.
pub fn print(text: &str) -> ExitCode {
    // Whoever asked has gone away when this fails.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Ends with 2 and one line on standard error: a setting can't be used.
pub fn usage(program: &str, error: &UsageError) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{program}: {error}");
    ExitCode::from(2)
}
