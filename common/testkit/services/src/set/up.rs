//! `up`: creates a set, or starts the parts of it that are not running.

use std::fmt::Display;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use common::counted::counted;

use crate::certificates::{make_certificates, write};
use crate::command_error::CommandError;
use crate::daily::DailyCache;
use crate::interrupt::Interrupt;
use crate::log_excerpt::reports_port_in_use;
use crate::ports::PortReservations;
use crate::report;

use super::composition::{Composition, PORTS_PER_BROKER, parse_passwords};
use super::{ServiceSet, variable, variables};

/// Number of attempts with other ports, if another program uses one of the
/// chosen ports before the start.
const ATTEMPTS: usize = 3;
const PASSWORD_BYTES: usize = 12;

impl ServiceSet {
    /// Returns when all services respond. After an error or a signal, the
    /// started processes are stopped.
    pub(crate) fn up(&self, brokers: Option<usize>) -> Result<(), CommandError> {
        let _lock = self.lock()?;
        let (own_kafka, own_postgres) = (variable("KAFKA"), variable("POSTGRES"));
        if self.variables_file().is_file() {
            let composition = self.load()?;
            self.check_unchanged(&composition, brokers, &own_kafka, &own_postgres)?;
            return self.start_stopped(&composition);
        }
        if own_kafka.contains('\n') || own_postgres.contains('\n') {
            return Err(CommandError::Refused(
                "KAFKA and POSTGRES: expected values without line breaks".to_owned(),
            ));
        }
        let composition = Composition {
            kafka_home: kafka_home()?,
            own_kafka,
            own_postgres,
            ..Default::default()
        };
        let interrupt = Interrupt::catch()?;
        let mut attempt = 1;
        loop {
            // Removes the files of an earlier attempt.
            self.clear()?;
            let Err(error) = self.make(composition.clone(), brokers.unwrap_or(1), &interrupt)
            else {
                report(&format!("the services are up in {}", self.dir.display()));
                return Ok(());
            };
            self.stop()?;
            let can_retry = attempt < ATTEMPTS && self.is_port_taken();
            // A signal may have ended a program that this program waited for.
            let interrupted = interrupt.check();
            if interrupted.is_err() || !can_retry {
                report(&format!(
                    "the services did not start; their logs stay in {} until the next up or down",
                    self.dir.display()
                ));
                return interrupted.and(Err(error));
            }
            report("another program took a port in the meantime; trying other ports");
            attempt += 1;
        }
    }

    fn check_unchanged(
        &self,
        composition: &Composition,
        brokers: Option<usize>,
        own_kafka: &str,
        own_postgres: &str,
    ) -> Result<(), CommandError> {
        let refused =
            |text: String| Err(CommandError::Refused(format!("{text}: take the set down first")));
        let dir = self.dir.display();
        let running = composition.brokers.len();
        if let Some(brokers) = brokers.filter(|n| composition.has_kafka() && *n != running) {
            return refused(format!(
                "the set in {dir} has {}, not {brokers}",
                counted(running, "broker")
            ));
        }
        if composition.own_kafka != own_kafka || composition.own_postgres != own_postgres {
            return refused(format!("the set in {dir} was created with another KAFKA or POSTGRES"));
        }
        let data = self.postgres(composition).data();
        if composition.has_postgres() && !data.is_dir() {
            return refused(format!("PostgreSQL's data is missing in {}", data.display()));
        }
        Ok(())
    }

    /// Starts the parts of a complete set that are not running.
    fn start_stopped(&self, composition: &Composition) -> Result<(), CommandError> {
        let interrupt = Interrupt::uncaught();
        let postgres = self.postgres(composition);
        if composition.has_postgres() && !postgres.answers() {
            if postgres.pid_file().running().is_none() {
                postgres.launch()?;
            }
            postgres.wait_for_answer(&interrupt)?;
        }
        if composition.has_kafka() { self.kafka(composition).start(&interrupt) } else { Ok(()) }
    }

    fn make(
        &self,
        mut composition: Composition,
        brokers: usize,
        interrupt: &Interrupt,
    ) -> Result<(), CommandError> {
        let brokers = if composition.has_kafka() { brokers } else { 0 };
        // From now on the folder is marked as a set.
        self.save(&composition)?;
        let cache = self.root.join("cache");
        let daily = DailyCache::open(&cache, &self.jars, composition.kafka_home.as_deref())?;
        let passwords = self.dir.join("passwords");
        daily.copy_or_make("passwords", &passwords, make_passwords)?;
        let text = fs::read_to_string(&passwords).map_err(CommandError::at(&passwords))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        composition.passwords = parse_passwords(&words)
            .ok_or_else(|| CommandError::Refused(format!("{} is damaged", passwords.display())))?;
        let ports =
            PortReservations::new(&self.root).reserve(PORTS_PER_BROKER * brokers + 1, &self.dir)?;
        composition.assign_ports(&ports);
        self.save(&composition)?;
        daily.copy_or_make("certs", &self.dir.join("certs"), make_certificates)?;

        let kafka = self.kafka(&composition);
        let postgres = self.postgres(&composition);
        std::thread::scope(|scope| {
            let postgres = composition.has_postgres().then(|| {
                report(&format!("starting PostgreSQL on port {}", postgres.port));
                scope.spawn(|| postgres.set_up(&daily, interrupt))
            });
            let mut started = Ok(());
            if composition.has_kafka() {
                let ports = kafka.ports;
                report(&format!(
                    "starting Apache Kafka with {}, plain on {}, TLS on {}",
                    counted(brokers, "broker"),
                    list(ports.iter().map(|ports| ports.plain)),
                    list(ports.iter().map(|ports| ports.tls)),
                ));
                started = kafka.set_up(&daily);
                started = started.and_then(|()| kafka.archive_classes(interrupt));
                started = started.and_then(|()| kafka.start(interrupt));
                started = started.and_then(|()| kafka.check_tls());
            }
            let postgres = postgres.map_or(Ok(()), |thread| {
                let ended = thread.join();
                ended.unwrap_or_else(|_| {
                    Err(CommandError::Refused("starting PostgreSQL panicked".to_owned()))
                })
            });
            started.and(postgres)
        })?;
        interrupt.check()?;
        let text = variables::variables(&self.dir, &composition, variable);
        let part = self.dir.join("env.part");
        write(&part, &text, 0o600)?;
        fs::rename(&part, self.variables_file()).map_err(CommandError::at(&part))
    }

    fn save(&self, composition: &Composition) -> Result<(), CommandError> {
        write(&self.composition_file(), &composition.to_text(), 0o600)
    }

    fn is_port_taken(&self) -> bool {
        let brokers = fs::read_dir(self.dir.join("kafka")).into_iter().flatten().flatten();
        let logs = brokers.map(|broker| broker.path().join("log"));
        logs.chain([self.dir.join("postgres/log")]).any(|log| reports_port_in_use(&log))
    }
}

/// The user's distribution of Kafka, from KAFKA_HOME.
fn kafka_home() -> Result<Option<PathBuf>, CommandError> {
    let home = variable("KAFKA_HOME");
    if home.is_empty() {
        return Ok(None);
    }
    let home = Path::new(&home).canonicalize().map_err(CommandError::at(Path::new(&home)))?;
    let libs = home.join("libs");
    let mut jars = fs::read_dir(&libs).into_iter().flatten().flatten();
    let is_server = |name: &str| name.starts_with("kafka-server-") && name.ends_with(".jar");
    if jars.any(|jar| jar.file_name().to_str().is_some_and(is_server)) {
        return Ok(Some(home));
    }
    Err(CommandError::Refused(format!(
        "KAFKA_HOME is not an unpacked Kafka distribution: no kafka-server jar in {}",
        libs.display()
    )))
}

/// Writes four random passwords, one a line.
fn make_passwords(file: &Path) -> Result<(), CommandError> {
    let mut bytes = [0; 4 * PASSWORD_BYTES];
    let random = Path::new("/dev/urandom");
    let read = fs::File::open(random).and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(CommandError::at(random))?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: Vec<String> = bytes.chunks(PASSWORD_BYTES).map(hex).collect();
    write(file, &format!("{}\n", lines.join("\n")), 0o600)
}

fn list(items: impl Iterator<Item = impl Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
