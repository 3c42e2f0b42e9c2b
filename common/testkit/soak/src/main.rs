//! Command line of `scripts/soak`.
//!
//! ```text
//! usage: soak PROGRAMS_DIR FOLDER SECONDS
//! ```

use std::process::ExitCode;
use std::time::Duration;

use common::stop::SignalThread;
use soak::{self, SoakSettings};

fn main() -> ExitCode {
    common::logger::start();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let settings = match arguments.as_slice() {
        [programs, folder, seconds] => seconds.parse().ok().map(|seconds| SoakSettings {
            programs: programs.into(),
            folder: folder.into(),
            time: Duration::from_secs(seconds),
        }),
        _ => None,
    };
    let Some(settings) = settings else {
        log::error!("usage: soak PROGRAMS_DIR FOLDER SECONDS");
        return ExitCode::from(2);
    };
    let ended = SignalThread::start().map_err(Into::into).and_then(|(signals, stop)| {
        let ended = soak::run(&settings, &stop);
        signals.join();
        ended
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
