//! The measurements behind `scripts/bench`.
//!
//! ```text
//! usage: bench PROGRAMS_DIR [--quick] [NAME]...
//! ```

use std::io::Write;
use std::process::ExitCode;

use testkit::bench;

fn main() -> ExitCode {
    common::logger::start();
    let mut arguments = std::env::args().skip(1);
    let programs = arguments.next().unwrap_or_default();
    let (quick, names): (Vec<_>, Vec<_>) = arguments.partition(|argument| argument == "--quick");
    let unknown = names.iter().find(|name| !bench::names().any(|known| known == *name));
    if programs.is_empty() || unknown.is_some() {
        let known = bench::names().collect::<Vec<_>>().join(", ");
        log::error!("usage: bench PROGRAMS_DIR [--quick] [NAME]...; names: {known}");
        return ExitCode::from(2);
    }
    match bench::run(programs.as_ref(), &names, !quick.is_empty()) {
        Ok((report, all_met)) => {
            // Nobody is left to tell when standard output is gone.
            let _ = writeln!(std::io::stdout().lock(), "{report}");
            if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
