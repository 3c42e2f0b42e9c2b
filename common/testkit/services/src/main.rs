//! Starts and stops the services that tests and the quickstart use: Apache
//! Kafka and PostgreSQL. `scripts/services` builds and calls this program; the
//! head of that script documents its commands.
//!
//! A set of services is one folder (`set`): brokers (`kafka`), one PostgreSQL
//! (`postgres`), certificates (`certificates`) and the ports they listen on
//! (`ports`). The processes outlive this program; pid files find them again
//! (`process`). The parts that take long to create are created once a day and
//! copied (`daily`).

mod arguments;
mod certificates;
mod command_error;
mod daily;
mod interrupt;
mod kafka;
mod log_excerpt;
mod ports;
mod postgres;
mod process;
mod set;

use std::io::Write;
use std::process::ExitCode;

use arguments::{Arguments, ServicesCommand};
use command_error::CommandError;
use set::ServiceSet;

/// Exit code of `status` when a part of the set does not respond.
const NOT_HEALTHY: u8 = 3;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(code) => code,
        Err(error) => {
            if !matches!(error, CommandError::Interrupted(_)) {
                report(&format!("services: {error}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, CommandError> {
    let set = ServiceSet::new(arguments);
    match &arguments.command {
        ServicesCommand::Up { brokers } => set.up(*brokers)?,
        ServicesCommand::Down { all: false } => set.down()?,
        ServicesCommand::Down { all: true } => set.down_all()?,
        ServicesCommand::Status => {
            let (text, healthy) = set.status()?;
            print(&text)?;
            return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(NOT_HEALTHY) });
        }
        ServicesCommand::Env { programs: false } => print(&set.variables()?)?,
        ServicesCommand::Env { programs: true } => print(&set.program_variables()?)?,
        ServicesCommand::Broker { action, broker } => set.run_broker_action(*action, broker)?,
        ServicesCommand::Postgres(action) => set.run_postgres_action(*action)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<(), CommandError> {
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|cause| CommandError::io("standard output", cause))
}

/// Writes a line to standard error, so that the output of `env` and `status`
/// stays alone on standard output.
fn report(text: &str) {
    // An error here can't be reported anywhere else.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
