//! Command line of `scripts/quickstart`: local sites that fail on purpose, both programs with
//! real services, and the rows as they arrive.
//!
//! ```text
//! usage: demo PROGRAMS_DIR LOGS_DIR [--once] ['URL [REGEXP]']...
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    common::logger::start();
    let mut arguments = std::env::args().skip(1);
    let (Some(programs), Some(logs)) = (arguments.next(), arguments.next()) else {
        log::error!("usage: demo PROGRAMS_DIR LOGS_DIR [--once] ['URL [REGEXP]']...");
        return ExitCode::from(2);
    };
    let (once, websites): (Vec<_>, Vec<_>) = arguments.partition(|argument| argument == "--once");
    match demo::run(programs.as_ref(), logs.as_ref(), !once.is_empty(), &websites) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
