//! The program `tracker`: parses the command line, runs it, returns an exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use common::logger;
use common::settings::Environment;
use tracker::settings::{self, Action};

fn main() -> ExitCode {
    let is_terminal = std::io::stdout().is_terminal();
    let arguments = std::env::args_os().skip(1);
    let action = settings::parse(arguments, &Environment::from_process(), is_terminal);
    logger::start();
    match action {
        Ok(Action::Run(settings)) => tracker::run(*settings),
        Ok(Action::Print(text)) => logger::print(&text),
        Err(error) => logger::usage(env!("CARGO_PKG_NAME"), &error),
    }
}
