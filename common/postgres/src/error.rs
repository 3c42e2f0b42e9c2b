//! Classification of PostgreSQL's errors. Only this file decides which errors are retryable.

use std::error::Error as _;
use std::fmt;

/// An error of the server or of the connection, classified by its remedy.
#[derive(Debug)]
pub enum PostgresError {
    /// The connection failed, or the server is starting, stopping, full or read-only. A new
    /// connection can succeed later.
    Connection(postgres::Error),
    /// A conflict with another session. The same transaction can succeed when it is repeated.
    Contention(postgres::Error),
    /// The database refuses a value. The same statement fails again.
    Data(postgres::Error),
    /// A password, right, table or type is wrong. A person must change it; a later retry then
    /// succeeds.
    Setup(postgres::Error),
}

impl PostgresError {
    /// Whether the same operation can succeed later although nobody changed anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Contention(_))
    }

    /// Whether the connection can't be used any more.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Connection(_))
    }

    /// Whether the role lacks a right (SQLSTATE 42501).
    pub fn is_denied(&self) -> bool {
        self.code() == Some("42501")
    }

    /// The SQLSTATE. `None`: the server sent none.
    pub fn code(&self) -> Option<&str> {
        self.cause().code().map(|state| state.code())
    }

    fn cause(&self) -> &postgres::Error {
        match self {
            Self::Connection(cause)
            | Self::Contention(cause)
            | Self::Data(cause)
            | Self::Setup(cause) => cause,
        }
    }
}

impl From<postgres::Error> for PostgresError {
    /// Classifies by SQLSTATE (PostgreSQL documentation, appendix A).
    fn from(cause: postgres::Error) -> Self {
        match cause.code().map(|state| state.code()) {
            None => Self::Connection(cause),
            Some(code) => match classify(code) {
                SqlStateClass::Connection => Self::Connection(cause),
                SqlStateClass::Contention => Self::Contention(cause),
                SqlStateClass::Data => Self::Data(cause),
                SqlStateClass::Setup => Self::Setup(cause),
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SqlStateClass {
    Connection,
    Contention,
    Data,
    Setup,
}

fn classify(code: &str) -> SqlStateClass {
    match (code.get(..2).unwrap_or_default(), code) {
        // A standby or a demoted primary. Another connection may reach the new primary.
        (_, "25006") => SqlStateClass::Connection,
        // The server ended the session because of a time-out.
        (_, "25P03" | "25P04" | "57P05") => SqlStateClass::Connection,
        // The 32-bit `id` sequence is exhausted, which is not the row's fault.
        (_, "2200H" | "22003") => SqlStateClass::Setup,
        ("22" | "23", _) => SqlStateClass::Data,
        // Connection exceptions, resources (disk, memory, connections) and operator interventions.
        // 57014 is a statement time-out.
        (_, "57014") => SqlStateClass::Contention,
        ("08" | "53" | "57" | "58" | "XX", _) => SqlStateClass::Connection,
        // Transaction rollback (deadlock, serialization) and locks that are not available.
        ("40" | "55", _) => SqlStateClass::Contention,
        _ => SqlStateClass::Setup,
    }
}

/// The server's message and SQLSTATE, without the detail, which can contain a whole row.
impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.cause();
        if let Some(server) = cause.as_db_error() {
            return write!(f, "{} ({})", server.message(), server.code().code());
        }
        // The crate's text names the operation, its sources the reason.
        write!(f, "{cause}")?;
        let mut next = cause.source();
        while let Some(inner) = next {
            write!(f, ": {inner}")?;
            next = inner.source();
        }
        Ok(())
    }
}

impl std::error::Error for PostgresError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.cause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classified() {
        for (code, expected) in [
            ("08006", SqlStateClass::Connection),
            ("53300", SqlStateClass::Connection),
            ("53100", SqlStateClass::Connection),
            ("57P01", SqlStateClass::Connection),
            ("57P03", SqlStateClass::Connection),
            ("25006", SqlStateClass::Connection),
            ("25P03", SqlStateClass::Connection),
            ("40001", SqlStateClass::Contention),
            ("40P01", SqlStateClass::Contention),
            ("55P03", SqlStateClass::Contention),
            ("57014", SqlStateClass::Contention),
            ("22P02", SqlStateClass::Data),
            ("22021", SqlStateClass::Data),
            ("22P05", SqlStateClass::Data),
            ("23514", SqlStateClass::Data),
            ("22003", SqlStateClass::Setup),
            ("2200H", SqlStateClass::Setup),
            ("28P01", SqlStateClass::Setup),
            ("28000", SqlStateClass::Setup),
            ("3D000", SqlStateClass::Setup),
            ("42501", SqlStateClass::Setup),
            ("42P01", SqlStateClass::Setup),
        ] {
            assert_eq!(classify(code), expected, "{code}");
        }
    }
}
