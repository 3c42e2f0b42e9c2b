//! Why a command failed.

use std::io;
use std::path::Path;

/// Why a command failed, and with which exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The command line is wrong.
    #[error("{0} (services --help describes the commands)")]
    Usage(String),
    /// A signal stopped `up`. The number is the number of the signal.
    #[error("stopped by signal {0}")]
    Interrupted(u8),
    /// A file, a folder or a program can't be used.
    #[error("{subject}: {cause}")]
    Io { subject: String, cause: io::Error },
    /// A certificate or a key can't be created.
    #[error("{subject}: {cause}")]
    Certificate { subject: String, cause: Box<dyn std::error::Error + Send + Sync> },
    /// PostgreSQL refused a connection or a statement.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] ::postgres::Error),
    /// A service did not start; the text holds the end of its log.
    #[error("{0}")]
    NotStarted(String),
    /// The command can't be applied to this set.
    #[error("{0}")]
    Refused(String),
}

impl CommandError {
    pub(crate) fn io(subject: impl Into<String>, cause: io::Error) -> Self {
        Self::Io { subject: subject.into(), cause }
    }

    /// For `map_err`: names the file or folder that can't be used.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let subject = path.display().to_string();
        move |cause| Self::Io { subject, cause }
    }

    /// For `map_err`: names the certificate that can't be created.
    pub(crate) fn certificate<E>(name: &str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let subject = format!("certificate {name}");
        move |cause| Self::Certificate { subject, cause: Box::new(cause) }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            // As a shell reports a program that a signal ended.
            Self::Interrupted(signal) => 128 + signal,
            _ => 1,
        }
    }
}
