//! The program `tracker`: parses the command line, runs it, returns an exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use common::logger;
use common::settings::Environment;
use common::settings::command_line::Command;

fn main() -> ExitCode {
    let is_terminal = std::io::stdout().is_terminal();
    let arguments = std::env::args_os().skip(1);
    let command = tracker::settings::parse(arguments, &Environment::from_process(), is_terminal);
    logger::start();
    match command {
        Ok(Command::Run(settings)) => tracker::run(settings),
        Ok(Command::Print(text)) => logger::print(&text),
        Ok(Command::Subcommand(none)) => match none {},
        Err(error) => logger::usage(env!("CARGO_PKG_NAME"), &error),
    }
}
