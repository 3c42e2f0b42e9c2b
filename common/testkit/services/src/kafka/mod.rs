//! Apache Kafka in KRaft mode. Every node is broker and controller in one JVM.

mod java;
mod properties;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::pem::Pem;
use kafka_client::{BrokerAddress, KafkaClient, KafkaSettings, Security};
use rustix::process::Signal;

use crate::certificates::write;
use crate::command_error::CommandError;
use crate::daily::DailyCache;
use crate::interrupt::Interrupt;
use crate::log_excerpt::log_excerpt;
use crate::process::{PidFile, detached, wait_until};
use crate::report;

use java::Java;
pub(crate) use properties::{BrokerPorts, SASL_USER};
use properties::{meta_properties, random_id, server_properties};

/// Time-out for the start of a broker.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Interval between two requests to a broker that starts.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Time-out for a response of a running broker.
const ANSWER_TIMEOUT_MS: u64 = 1_000;
/// The first handshake of a broker on a busy machine: it loads and compiles the classes of TLS.
const TLS_TIMEOUT_MS: u64 = 60_000;
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// The brokers of a set.
pub(crate) struct Kafka<'a> {
    /// The folder with one folder for each broker.
    pub(crate) home: PathBuf,
    pub(crate) certs: PathBuf,
    pub(crate) ports: &'a [BrokerPorts],
    pub(crate) sasl_password: &'a str,
    pub(crate) java: Java,
}

impl<'a> Kafka<'a> {
    pub(crate) fn new(
        set: &Path,
        jars: &Path,
        java: Option<&Path>,
        kafka_home: Option<&Path>,
        ports: &'a [BrokerPorts],
        sasl_password: &'a str,
    ) -> Self {
        let home = set.join("kafka");
        let java = Java::new(java, jars, kafka_home, &home);
        Self { home, certs: set.join("certs"), ports, sasl_password, java }
    }

    fn broker_home(&self, id: usize) -> PathBuf {
        self.home.join(id.to_string())
    }

    pub(crate) fn log(&self, id: usize) -> PathBuf {
        self.broker_home(id).join("log")
    }

    pub(crate) fn pid_file(&self, id: usize) -> PidFile {
        PidFile::new(self.broker_home(id).join("pid"))
    }

    fn ids(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.ports.len()
    }

    /// Writes the settings and a formatted log directory of each broker.
    pub(crate) fn set_up(&self, daily: &DailyCache) -> Result<(), CommandError> {
        // The settings hold a password.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.home)
            .map_err(CommandError::at(&self.home))?;
        for id in self.ids() {
            let home = self.broker_home(id);
            fs::create_dir(&home).map_err(CommandError::at(&home))?;
            let text = server_properties(id, self.ports, &home, &self.certs, self.sasl_password);
            write(&home.join("server.properties"), &text, 0o600)?;
        }
        let cluster = random_id();
        for id in self.ids() {
            let data = self.broker_home(id).join("data");
            // Only the log directory of the first broker can be missing.
            daily.copy_or_make("kafka", &data, |data| self.format(data))?;
            let file = data.join("meta.properties");
            let original = fs::read_to_string(&file).map_err(CommandError::at(&file))?;
            let text = meta_properties(&original, id, &cluster, &random_id());
            fs::write(&file, text).map_err(CommandError::at(&file))?;
        }
        Ok(())
    }

    /// Formats the log directory of broker 1, with the user of SASL in it.
    fn format(&self, data: &Path) -> Result<(), CommandError> {
        let home = self.broker_home(1);
        let mut command = self.java.command(Command::new(self.java.program()?));
        command.args(["kafka.tools.StorageTool", "format", "-t"]).arg(random_id()).arg("-c");
        command.arg(home.join("server.properties"));
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let password = self.sasl_password;
            command.arg("--add-scram");
            command.arg(format!("{mechanism}=[name={SASL_USER},password={password}]"));
        }
        let output = command.output().map_err(|cause| CommandError::io("java", cause))?;
        if output.status.success() && data.is_dir() {
            return Ok(());
        }
        let log = home.join("format.log");
        fs::write(&log, [output.stdout, output.stderr].concat()).map_err(CommandError::at(&log))?;
        Err(CommandError::NotStarted(format!(
            "formatting a log directory of Kafka failed:{}",
            log_excerpt(&log)
        )))
    }

    /// Runs broker 1, the only broker, once to archive the classes that a broker
    /// loads. The archive halves the time and the work of a start. Java writes
    /// it when the broker shuts down. A broker that fails here fails again, and
    /// is reported, at the real start.
    pub(crate) fn archive_classes(&self, interrupt: &Interrupt) -> Result<(), CommandError> {
        let Some(archive) = self.java.missing_archive()? else { return Ok(()) };
        if self.ports.len() != 1 {
            return Ok(());
        }
        report("preparing a quicker start of Apache Kafka, once");
        let part = archive.with_extension(std::process::id().to_string());
        let option = format!("-XX:ArchiveClassesAtExit={}", part.display());
        if !self.launch_with(1, &[option])? {
            return Ok(());
        }
        let pid_file = self.pid_file(1);
        let deadline = Instant::now() + START_TIMEOUT;
        while pid_file.running().is_some() && !self.knows_brokers(1, 1) && Instant::now() < deadline
        {
            interrupt.check()?;
            std::thread::sleep(POLL_INTERVAL);
        }
        pid_file.signal(Signal::TERM);
        // A broker that has to be killed may leave an incomplete archive.
        if wait_until(SHUTDOWN_TIMEOUT, || pid_file.running().is_none()) && part.is_file() {
            fs::rename(&part, &archive).map_err(CommandError::at(&archive))?;
        }
        let _ = fs::remove_file(&part);
        pid_file.stop(&[], KILL_TIMEOUT)
    }

    /// Starts a broker without waiting for it.
    pub(crate) fn launch(&self, id: usize) -> Result<(), CommandError> {
        if self.launch_with(id, &[])? { Ok(()) } else { Err(self.not_started(id)) }
    }

    fn launch_with(&self, id: usize, options: &[String]) -> Result<bool, CommandError> {
        let home = self.broker_home(id);
        let log = self.log(id);
        fs::write(&log, "").map_err(CommandError::at(&log))?;
        let mut command = self.java.command(detached(None, self.java.program()?));
        command.args(options).arg("kafka.Kafka").arg(home.join("server.properties"));
        self.pid_file(id).launch(command, &log)
    }

    /// Starts every broker that is not running. Returns when each broker knows
    /// all brokers.
    pub(crate) fn start(&self, interrupt: &Interrupt) -> Result<(), CommandError> {
        for id in self.ids().filter(|id| self.pid_file(*id).running().is_none()) {
            self.launch(id)?;
        }
        self.ids().try_for_each(|id| self.wait_for(id, self.ports.len(), interrupt))
    }

    /// Waits until the broker reports itself and `count` brokers in total.
    /// Listening is not enough: a broker listens before it is part of the
    /// cluster.
    pub(crate) fn wait_for(
        &self,
        id: usize,
        count: usize,
        interrupt: &Interrupt,
    ) -> Result<(), CommandError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.knows_brokers(id, count) {
            interrupt.check()?;
            if self.pid_file(id).running().is_none() || Instant::now() >= deadline {
                return Err(self.not_started(id));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn not_started(&self, id: usize) -> CommandError {
        let excerpt = log_excerpt(&self.log(id));
        CommandError::NotStarted(format!("broker {id} did not start:{excerpt}"))
    }

    /// Whether the broker reports itself and `count` brokers in total.
    pub(crate) fn knows_brokers(&self, id: usize, count: usize) -> bool {
        let address = address("127.0.0.1", self.ports[id - 1].plain);
        let known =
            broker_ids(KafkaSettings::new(vec![address], Security::Plain), ANSWER_TIMEOUT_MS);
        let is_itself = |known: &i32| usize::try_from(*known) == Ok(id);
        known.is_ok_and(|known| known.len() >= count && known.iter().any(is_itself))
    }

    /// Fails unless every broker accepts the client's certificate, with a
    /// certificate for `localhost` that the CA signed.
    pub(crate) fn check_tls(&self) -> Result<(), CommandError> {
        let file = |name: &str| Pem::from_setting(&self.certs.join(name).to_string_lossy());
        let security = Security::Tls {
            roots: Some(file("ca.crt")),
            identity: Some((file("client.crt"), file("client.key"))),
        };
        for (id, ports) in self.ids().zip(self.ports) {
            let settings =
                KafkaSettings::new(vec![address("localhost", ports.tls)], security.clone());
            if let Err(cause) = broker_ids(settings, TLS_TIMEOUT_MS) {
                let port = ports.tls;
                return Err(CommandError::NotStarted(format!(
                    "broker {id} does not accept the client's certificate on port {port}: {cause}"
                )));
            }
        }
        Ok(())
    }
}

fn address(host: &str, port: u16) -> BrokerAddress {
    BrokerAddress { host: host.to_owned(), port }
}

fn broker_ids(
    mut settings: KafkaSettings,
    timeout_ms: u64,
) -> Result<Vec<i32>, kafka_client::KafkaError> {
    settings.connect_timeout_ms = timeout_ms;
    settings.request_timeout_ms = timeout_ms;
    KafkaClient::new(Arc::new(settings)).broker_ids()
}

/// The pid files of every broker below `set`, whether or not its composition
/// can be read.
pub(crate) fn pid_files(set: &Path) -> Vec<PidFile> {
    let brokers = fs::read_dir(set.join("kafka")).into_iter().flatten().flatten();
    brokers.map(|broker| PidFile::new(broker.path().join("pid"))).collect()
}
