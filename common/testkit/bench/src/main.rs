//! Command line of `scripts/bench`.
//!
//! ```text
//! usage: bench PROGRAMS_DIR [--quick] [NAME]...
//! ```

use std::io::Write;
use std::process::ExitCode;

use bench::BARE_PROBES_ARGUMENT;

fn main() -> ExitCode {
    common::logger::start();
    let mut arguments = std::env::args().skip(1);
    let programs = arguments.next().unwrap_or_default();
    if programs == BARE_PROBES_ARGUMENT {
        return bare_probes(arguments);
    }
    let (quick, names): (Vec<_>, Vec<_>) = arguments.partition(|argument| argument == "--quick");
    let unknown = names.iter().find(|name| !bench::names().any(|known| known == *name));
    if programs.is_empty() || unknown.is_some() {
        let known = bench::names().collect::<Vec<_>>().join(", ");
        log::error!("usage: bench PROGRAMS_DIR [--quick] [NAME]...; names: {known}");
        return ExitCode::from(2);
    }
    match bench::run(programs.as_ref(), &names, !quick.is_empty()) {
        Ok((report, all_met)) => {
            // There is nothing to do if standard output is closed.
            let _ = writeln!(std::io::stdout().lock(), "{report}");
            if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the child process of a measurement: see [`bench::bare_probes`].
fn bare_probes(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let address = arguments.next().and_then(|address| address.parse().ok());
    let (Some(address), Some(ca)) = (address, arguments.next()) else { return ExitCode::from(2) };
    match bench::bare_probes(address, ca.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
