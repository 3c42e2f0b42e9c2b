//! A set of services: one folder, some brokers and one PostgreSQL.
//!
//! | file | holds |
//! | --- | --- |
//! | `services.set` | the composition: ports, passwords, the user's own servers |
//! | `env` | the output of `env`; written when all services respond |
//! | `certs/` | the certificates |
//! | `kafka/N/` | a broker: settings, data, log, pid file |
//! | `postgres/` | data, log, pid file; or a link to them |

mod composition;
mod up;
mod variables;

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::arguments::{Arguments, BrokerAction, PostgresAction};
use crate::command_error::CommandError;
use crate::interrupt::Interrupt;
use crate::kafka::{self, Kafka};
use crate::ports::PortReservations;
use crate::postgres::{self, Postgres};
use crate::process::PidFile;
use crate::report;

use composition::Composition;

const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A set, which may not exist yet.
pub(crate) struct ServiceSet {
    root: PathBuf,
    jars: PathBuf,
    java: Option<PathBuf>,
    dir: PathBuf,
}

impl ServiceSet {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let Arguments { root, jars, java, dir, .. } = arguments;
        Self { root: root.clone(), jars: jars.clone(), java: java.clone(), dir: dir.clone() }
    }

    fn composition_file(&self) -> PathBuf {
        self.dir.join("services.set")
    }

    fn variables_file(&self) -> PathBuf {
        self.dir.join("env")
    }

    /// Locks the set. The folder itself is locked, so no lock file remains. If
    /// the folder was removed while this process waited for the lock, locks the
    /// new folder.
    fn lock(&self) -> Result<File, CommandError> {
        loop {
            fs::create_dir_all(&self.dir).map_err(CommandError::at(&self.dir))?;
            let Ok(folder) = File::open(&self.dir) else { continue };
            folder.lock().map_err(CommandError::at(&self.dir))?;
            let locked = folder.metadata().map_err(CommandError::at(&self.dir))?;
            let is_same =
                |now: fs::Metadata| (now.dev(), now.ino()) == (locked.dev(), locked.ino());
            if fs::metadata(&self.dir).is_ok_and(is_same) {
                return Ok(folder);
            }
        }
    }

    fn load(&self) -> Result<Composition, CommandError> {
        let Ok(text) = fs::read_to_string(self.composition_file()) else {
            return Err(CommandError::Refused(format!(
                "no set of services in {}: run scripts/services up",
                self.dir.display()
            )));
        };
        Composition::parse(&text)
    }

    fn kafka<'a>(&self, composition: &'a Composition) -> Kafka<'a> {
        Kafka::new(
            &self.dir,
            &self.jars,
            self.java.as_deref(),
            composition.kafka_home.as_deref(),
            &composition.brokers,
            &composition.passwords.sasl,
        )
    }

    fn postgres<'a>(&'a self, composition: &'a Composition) -> Postgres<'a> {
        Postgres::new(&self.dir, &self.jars, composition.postgres_port, &composition.passwords)
    }

    /// The lines of `env`.
    pub(crate) fn variables(&self) -> Result<String, CommandError> {
        self.load()?;
        fs::read_to_string(self.variables_file()).map_err(|_| {
            CommandError::Refused(format!(
                "the services in {} did not start: run scripts/services up again",
                self.dir.display()
            ))
        })
    }

    /// The lines of `env --programs`.
    pub(crate) fn program_variables(&self) -> Result<String, CommandError> {
        let variables = self.variables()?;
        Ok(variables::program_variables(&self.load()?, &variables))
    }

    /// Stops all processes without regard for the data, and releases the ports.
    fn stop(&self) -> Result<(), CommandError> {
        let brokers = kafka::pid_files(&self.dir);
        // A broker that shuts down in order would wait for the others. The first
        // loop lets them end at the same time.
        for broker in &brokers {
            broker.signal(Signal::KILL);
        }
        for broker in &brokers {
            broker.stop(&[], KILL_TIMEOUT)?;
        }
        postgres::kill(&self.dir)?;
        PortReservations::new(&self.root).release(&self.dir);
        Ok(())
    }

    /// Stops the set and empties its folder, if it is a set. The folder stays,
    /// because it is the lock.
    fn clear(&self) -> Result<(), CommandError> {
        let entries = fs::read_dir(&self.dir).map_err(CommandError::at(&self.dir))?;
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        if paths.is_empty() {
            return Ok(());
        }
        if !self.composition_file().is_file() {
            return Err(CommandError::Refused(format!(
                "{} is not empty and holds no services: it is not removed",
                self.dir.display()
            )));
        }
        self.stop()?;
        postgres::remove_elsewhere(&self.dir)?;
        // The file that marks the folder as a set is the last, so that a command
        // that is interrupted here can be repeated.
        let (mark, others): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| *path == self.composition_file());
        for path in others.iter().chain(&mark) {
            let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.map_err(CommandError::at(path))?;
        }
        Ok(())
    }

    /// Stops the set and removes its folder.
    pub(crate) fn down(&self) -> Result<(), CommandError> {
        if !self.dir.is_dir() {
            report(&format!("no services in {}", self.dir.display()));
            return Ok(());
        }
        let _lock = self.lock()?;
        self.clear()?;
        fs::remove_dir(&self.dir).map_err(CommandError::at(&self.dir))
    }

    /// Takes down every set below the root. Sets of a test run are in a folder
    /// of the run.
    pub(crate) fn down_all(&self) -> Result<(), CommandError> {
        let folders = |path: &Path| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        let outer = folders(&self.root);
        let inner: Vec<PathBuf> = outer.iter().flat_map(|path| folders(path)).collect();
        for dir in outer.into_iter().chain(inner) {
            let set = Self {
                root: self.root.clone(),
                jars: self.jars.clone(),
                java: self.java.clone(),
                dir,
            };
            if set.composition_file().is_file() {
                report(&format!("stopping {}", set.dir.display()));
                set.down()?;
            }
        }
        Ok(())
    }

    /// The lines of `status`, and whether all services respond.
    pub(crate) fn status(&self) -> Result<(String, bool), CommandError> {
        if !self.composition_file().is_file() {
            return Ok((format!("no services in {}\n", self.dir.display()), false));
        }
        let composition = self.load()?;
        let mut text = format!("{}\n", self.dir.display());
        let mut healthy = true;
        if composition.has_kafka() {
            let kafka = self.kafka(&composition);
            for (id, ports) in (1..).zip(&composition.brokers) {
                let state = state(&kafka.pid_file(id), || kafka.knows_brokers(id, 1), &mut healthy);
                let (plain, tls) = (ports.plain, ports.tls);
                text += &format!("  broker {id}    plain {plain}, TLS {tls}    {state}\n");
            }
        }
        if composition.has_postgres() {
            let postgres = self.postgres(&composition);
            let state = state(&postgres.pid_file(), || postgres.answers(), &mut healthy);
            text += &format!("  PostgreSQL  port {}    {state}\n", composition.postgres_port);
        }
        if !composition.has_kafka() {
            text += &format!("  Kafka       your own, {}\n", composition.own_kafka);
        }
        if !composition.has_postgres() {
            text += "  PostgreSQL  your own\n";
        }
        Ok((text, healthy))
    }

    pub(crate) fn run_broker_action(
        &self,
        action: BrokerAction,
        broker: &str,
    ) -> Result<(), CommandError> {
        let composition = self.load()?;
        let _lock = self.lock()?;
        if !composition.has_kafka() {
            return Err(CommandError::Refused(
                "Kafka is your own server: stop and start it yourself".to_owned(),
            ));
        }
        let brokers = composition.brokers.len();
        let id = broker.parse().ok().filter(|id| (1..=brokers).contains(id)).ok_or_else(|| {
            let verb = action.name();
            CommandError::Usage(format!(
                "{verb}-broker: expected a broker from 1 to {brokers}, found '{broker}'"
            ))
        })?;
        let kafka = self.kafka(&composition);
        let pid_file = kafka.pid_file(id);
        let signal = |signal| {
            let sent = pid_file.signal(signal);
            let stopped = || CommandError::Refused(format!("broker {id} is not running"));
            if sent { Ok(()) } else { Err(stopped()) }
        };
        match action {
            BrokerAction::Kill => pid_file.stop(&[], KILL_TIMEOUT),
            BrokerAction::Stop => pid_file.stop(&[Signal::TERM], STOP_TIMEOUT),
            BrokerAction::Pause => signal(Signal::STOP),
            BrokerAction::Resume => signal(Signal::CONT),
            BrokerAction::Start if pid_file.running().is_some() => {
                Err(CommandError::Refused(format!("broker {id} is already running")))
            }
            BrokerAction::Start => {
                kafka.launch(id)?;
                kafka.wait_for(id, 1, &Interrupt::uncaught())
            }
        }
    }

    pub(crate) fn run_postgres_action(&self, action: PostgresAction) -> Result<(), CommandError> {
        let composition = self.load()?;
        let _lock = self.lock()?;
        if !composition.has_postgres() {
            return Err(CommandError::Refused(
                "PostgreSQL is your own server: stop and start it yourself".to_owned(),
            ));
        }
        let server = self.postgres(&composition);
        match action {
            PostgresAction::Kill => return postgres::kill(&self.dir),
            PostgresAction::Stop => return server.stop(),
            PostgresAction::Restart => server.stop()?,
            PostgresAction::Start => {}
        }
        if server.pid_file().running().is_some() {
            return Err(CommandError::Refused("PostgreSQL is already running".to_owned()));
        }
        server.launch()?;
        server.wait_for_answer(&Interrupt::uncaught())
    }
}

fn state(pid_file: &PidFile, answers: impl FnOnce() -> bool, healthy: &mut bool) -> String {
    let pid = pid_file.running();
    let is_healthy = pid.is_some() && answers();
    *healthy &= is_healthy;
    match pid {
        None => "stopped".to_owned(),
        Some(pid) if is_healthy => format!("responds, pid {pid}"),
        Some(pid) => format!("does not respond, pid {pid}"),
    }
}

/// An environment variable of this program. Empty: the variable is not set.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
