//! `tracker`: see the library of this crate.

use std::io::IsTerminal;
use std::process::ExitCode;

use common::settings::Environment;
use common::settings::command_line::Command;

fn main() -> ExitCode {
    common::logger::start();
    let terminal = std::io::stdout().is_terminal();
    let arguments = std::env::args_os().skip(1);
    match tracker::settings::parse(arguments, &Environment::from_process(), terminal) {
        Ok(Command::Run(settings)) => tracker::run(settings),
        Ok(Command::Print(text)) => common::logger::print(&text),
        Err(error) => common::logger::usage(env!("CARGO_PKG_NAME"), &error),
    }
}
