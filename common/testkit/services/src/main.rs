//! Starts and stops the services that tests and the quickstart use: Apache
//! Kafka and PostgreSQL. `scripts/services` builds and calls this program; the
//! head of that script documents its commands.
//!
//! A set of services is one folder (`set`): brokers (`kafka`), one PostgreSQL
//! (`postgres`), certificates (`certificates`) and the ports they listen on
//! (`ports`). The processes outlive this program; pid files find them again
//! (`process`). What takes long to make is made once a day and copied
//! (`daily`).

mod arguments;
mod certificates;
mod daily;
mod failure;
mod interrupt;
mod kafka;
mod log_excerpt;
mod ports;
mod postgres;
mod process;
mod set;

use std::io::Write;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use failure::Failure;
use set::Set;

/// Exit code of `status` when a part of the set does not answer.
const NOT_HEALTHY: u8 = 3;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(code) => code,
        Err(failure) => {
            if !matches!(failure, Failure::Interrupted(_)) {
                report(&format!("services: {failure}"));
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let set = Set::new(arguments);
    match &arguments.command {
        Command::Up { brokers } => set.up(*brokers)?,
        Command::Down { all: false } => set.down()?,
        Command::Down { all: true } => set.down_all()?,
        Command::Status => {
            let (text, healthy) = set.status()?;
            print(&text)?;
            return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(NOT_HEALTHY) });
        }
        Command::Env { programs: false } => print(&set.variables()?)?,
        Command::Env { programs: true } => print(&set.program_variables()?)?,
        Command::Broker { action, broker } => set.run_broker_action(*action, broker)?,
        Command::Postgres(action) => set.run_postgres_action(*action)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|cause| Failure::io("standard output", cause))
}

/// Writes a line to standard error, so that the output of `env` and `status`
/// stays alone on standard output.
fn report(text: &str) {
    // An error here can't be reported anywhere else.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
