//! The program `tracker`: parses the command line, runs it, returns an exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use common::logger;
use common::settings::Environment;
use common::settings::command_line::Command;

fn main() -> ExitCode {
    end_on_panic();
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

/// Ends the program after a panic of any thread, so that the service manager starts it again.
/// A tracker without one of its threads would run on and deliver nothing.
fn end_on_panic() {
    let log_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        std::process::abort();
    }));
}
