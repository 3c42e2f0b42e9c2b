//! `recorder`: see the library of this crate.

use std::process::ExitCode;

use common::settings::Environment;
use common::settings::command_line::Command;
use recorder::settings::{self, Action};
use recorder::{replay, schema};

fn main() -> ExitCode {
    common::logger::start();
    let arguments = std::env::args_os().skip(1);
    match settings::parse(arguments, &Environment::of_process()) {
        Ok(Command::Run(Action::Record(settings))) => recorder::run(*settings),
        Ok(Command::Run(Action::PrintSchema { domains, smart })) => {
            common::logger::print(&schema::script(&domains, smart))
        }
        Ok(Command::Run(Action::Replay(settings))) => replay::run(*settings),
        Ok(Command::Print(text)) => common::logger::print(&text),
        Err(error) => common::logger::usage(env!("CARGO_PKG_NAME"), &error),
    }
}
