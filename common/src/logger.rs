//! The log: lines on standard error, with levels set by RUST_LOG. Also prints help, version and
//! wrong settings.

use std::io::{self, Write};
use std::process::ExitCode;

use env_logger::Env;
use log::LevelFilter;

use crate::settings::UsageError;

/// The levels if RUST_LOG is not set: `info` of the project's crates, `warn` of other crates.
const DEFAULT_FILTER: &str = "warn,common=info,recorder=info,tracker=info,testkit=info";

/// A module that traces the bytes of requests, which can contain a site's password.
const NEVER_TRACED: &str = "ureq_proto::util";

/// Installs the logger of the process. A second call does nothing.
pub fn start() {
    let environment = Env::default().default_filter_or(DEFAULT_FILTER);
    let _ = env_logger::Builder::from_env(environment)
        // The most specific module wins, and of equal ones the last.
        .filter_module(NEVER_TRACED, LevelFilter::Debug)
        .format_timestamp_millis()
        .try_init();
}

/// Prints help or version to standard output. Returns exit code 0.
pub fn print(text: &str) -> ExitCode {
    // Writing fails only if the reader has closed the pipe.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Prints a wrong setting as one line to standard error. Returns exit code 2.
pub fn usage(program: &str, error: &UsageError) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{program}: {error}");
    ExitCode::from(2)
}
