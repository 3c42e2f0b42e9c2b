//! The program `recorder`: parses the command line, runs it, returns an exit code.

use std::process::ExitCode;

use common::logger;
use common::settings::Environment;
use recorder::settings::{self, Action};
use recorder::{replay, schema};

fn main() -> ExitCode {
    let action = settings::parse(std::env::args_os().skip(1), &Environment::from_process());
    logger::start();
    match action {
        Ok(Action::Record(settings)) => recorder::run(*settings),
        Ok(Action::PrintSchema(settings)) => {
            logger::print(&schema::script(&settings.domains, settings.smart))
        }
        Ok(Action::Replay(settings)) => replay::run(*settings),
        Ok(Action::Print(text)) => logger::print(&text),
        Err(error) => logger::usage(env!("CARGO_PKG_NAME"), &error),
    }
}
