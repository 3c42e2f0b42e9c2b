//! The Java virtual machine that runs Kafka.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command_error::CommandError;

/// Half a gigabyte of heap, and options for a quick start rather than speed
/// later. With Java's default for the young generation, a start collects
/// garbage a dozen times.
const OPTIONS: &str = "-Xms128m -Xmn80m -Xmx512m -XX:MetaspaceSize=96m -XX:+UseSerialGC \
                       -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError";
/// Replaces [`OPTIONS`] for measurements. Without the second compiler, which
/// uses the AES instructions of the processor, a measurement would mostly
/// measure the broker's TLS.
const OPTIONS_VARIABLE: &str = "AVAILABILITY_KAFKA_JVM";

/// Java with the options for Kafka's classes.
pub(crate) struct Java {
    program: Option<PathBuf>,
    options: String,
    classpath: String,
    /// The path of the archive of classes. `None` for the user's own
    /// distribution: nothing is written into its folders.
    archive: Option<PathBuf>,
    logging: Vec<String>,
}

impl Java {
    pub(super) fn new(
        program: Option<&Path>,
        jars: &Path,
        kafka_home: Option<&Path>,
        logs: &Path,
    ) -> Self {
        let options = std::env::var(OPTIONS_VARIABLE).ok().filter(|text| !text.is_empty());
        // Java expands the wildcard.
        let classpath = match kafka_home {
            Some(home) => home.join("libs/*"),
            None => jars.join("kafka/*"),
        };
        // The jars from Maven log to standard error, the user's own
        // distribution logs by Log4j.
        let mut logging = vec![
            "-Dorg.slf4j.simpleLogger.showDateTime=true".to_owned(),
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".to_owned(),
        ];
        let log4j = kafka_home.map(|home| home.join("config/log4j2.yaml"));
        if let Some(file) = log4j.filter(|file| file.is_file()) {
            logging.push(format!("-Dkafka.logs.dir={}", logs.display()));
            logging.push(format!("-Dlog4j2.configurationFile={}", file.display()));
        }
        let archive = match (kafka_home, program) {
            (None, Some(program)) => archive_path(program, jars),
            _ => None,
        };
        Self {
            program: program.map(Path::to_owned),
            options: options.unwrap_or_else(|| OPTIONS.to_owned()),
            classpath: classpath.display().to_string(),
            archive,
            logging,
        }
    }

    pub(super) fn program(&self) -> Result<&Path, CommandError> {
        let missing = || {
            CommandError::Refused(
                "found no Java 17 or newer, which Apache Kafka needs: install one, or set \
                 JAVA_HOME"
                    .to_owned(),
            )
        };
        self.program.as_deref().ok_or_else(missing)
    }

    /// Adds the options to a command that runs Java.
    pub(super) fn command(&self, mut command: Command) -> Command {
        command.args(self.options.split_whitespace());
        command.arg("-cp").arg(&self.classpath).args(&self.logging);
        if let Some(archive) = self.archive.as_ref().filter(|archive| archive.is_file()) {
            command.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
        }
        command
    }

    /// Where to write the archive of classes, if it does not exist yet.
    pub(super) fn missing_archive(&self) -> Result<Option<PathBuf>, CommandError> {
        self.program()?;
        Ok(self.archive.clone().filter(|archive| !archive.is_file()))
    }
}

/// An archive is valid for one Java and one set of jars.
fn archive_path(program: &Path, jars: &Path) -> Option<PathBuf> {
    let program = program.canonicalize().ok()?;
    let mut key = DefaultHasher::new();
    (&program, fs::metadata(&program).ok()?.mtime()).hash(&mut key);
    Some(jars.join(format!("classes-{:016x}.jsa", key.finish())))
}
