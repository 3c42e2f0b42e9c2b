//! The log: lines on standard error, with their level settable by RUST_LOG.

use env_logger::Env;

/// What is logged unless RUST_LOG says otherwise: our own news, and of the
/// libraries only what is wrong.
const DEFAULT_FILTER: &str = "warn,common=info,recorder=info,tracker=info,testkit=info";

/// Sets up the log of the process; a second call changes nothing.
pub fn start() {
    let environment = Env::default().default_filter_or(DEFAULT_FILTER);
    let _ = env_logger::Builder::from_env(environment).format_timestamp_millis().try_init();
}
