//! Command line of `scripts/storm`.
//!
//! ```text
//! usage: storm PROGRAMS_DIR LOGS_DIR SECONDS SEED
//! ```

use std::process::ExitCode;

use common::stop::SignalThread;
use storm::{self, StormSettings};

fn main() -> ExitCode {
    common::logger::start();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let settings = match arguments.as_slice() {
        [programs, folder, seconds, seed] => {
            seconds.parse().ok().zip(seed.parse().ok()).map(|(seconds, seed)| StormSettings {
                programs: programs.into(),
                folder: folder.into(),
                seconds,
                seed,
            })
        }
        _ => None,
    };
    let Some(settings) = settings else {
        log::error!("usage: storm PROGRAMS_DIR LOGS_DIR SECONDS SEED");
        return ExitCode::from(2);
    };
    let ended = SignalThread::start().map_err(Into::into).and_then(|(signals, stop)| {
        let ended = storm::run(&settings, &stop);
        signals.join();
        ended
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("seed {}: {error}", settings.seed);
            ExitCode::FAILURE
        }
    }
}
