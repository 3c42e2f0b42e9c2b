//! The reasons why a transaction failed.

use postgres_client::PostgresError;

/// The reason why a transaction was not committed, or may not have been committed.
///
/// After a [`TransactionError::Postgres`] of the commit itself it is unknown whether the
/// transaction was committed.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The process or the worker was asked to stop.
    #[error("stopping")]
    Stopped,
    /// The server refused a statement, or the connection failed.
    #[error("postgresql: {0}")]
    Postgres(#[from] PostgresError),
    /// The server refused a statement because of the recorder's own schema.
    #[error("postgresql: {cause}: {remedy}")]
    OwnSchema {
        /// The error of the server.
        #[source]
        cause: PostgresError,
        /// The action that an operator must take.
        remedy: String,
    },
    /// The stored position is not the expected position: another recorder moved it.
    #[error("another recorder moved the position")]
    Fenced,
    /// A row that was to be updated or deleted no longer exists.
    #[error("a row that was to be changed no longer exists")]
    MergeTargetMissing,
}

impl TransactionError {
    /// Whether the database user lacks a right that the statement needs.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.is_denied())
    }
}

impl From<postgres::Error> for TransactionError {
    fn from(cause: postgres::Error) -> Self {
        Self::Postgres(cause.into())
    }
}
