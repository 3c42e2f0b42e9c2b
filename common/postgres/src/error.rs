//! What PostgreSQL's errors mean for whoever retries: the one place.

use std::error::Error as _;
use std::fmt;

/// An error of the server, or of the way to it, by what helps against it.
#[derive(Debug)]
pub enum PostgresError {
    /// The connection could not be made or was lost, or the server is starting,
    /// stopping, full or read-only: a new connection, later, may do.
    Connection(postgres::Error),
    /// Another session was in the way: the same again may do.
    Contention(postgres::Error),
    /// A value that the database does not take: the same again never does.
    Data(postgres::Error),
    /// A password, a right, a table or a type is not as it must be: only
    /// somebody who changes it helps, and a retry sees that they did.
    Setup(postgres::Error),
}

impl PostgresError {
    /// True when time alone may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Contention(_))
    }

    /// True when the connection is of no more use.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Connection(_))
    }

    /// True when a right that is needed is not granted.
    pub fn is_denied(&self) -> bool {
        self.code() == Some("42501")
    }

    /// The SQLSTATE, when the server sent one.
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
    /// Classes and codes: PostgreSQL's manual, appendix A.
    fn from(cause: postgres::Error) -> Self {
        match cause.code().map(|state| state.code()) {
            None => Self::Connection(cause),
            Some(code) => match meaning(code) {
                Meaning::Connection => Self::Connection(cause),
                Meaning::Contention => Self::Contention(cause),
                Meaning::Data => Self::Data(cause),
                Meaning::Setup => Self::Setup(cause),
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Connection,
    Contention,
    Data,
    Setup,
}

fn meaning(code: &str) -> Meaning {
    match (code.get(..2).unwrap_or_default(), code) {
        // A standby, or a primary that was demoted: another connection may
        // lead to the new primary.
        (_, "25006") => Meaning::Connection,
        // The session was ended while it held a transaction open.
        (_, "25P03" | "25P04" | "57P05") => Meaning::Connection,
        // An `id` of 32 bits is spent: no fault of the row.
        (_, "2200H" | "22003") => Meaning::Setup,
        ("22" | "23", _) => Meaning::Data,
        // Connection exceptions, resources (disk, memory, connections) and
        // the operator's interventions, of which 57014 is a time-out alone.
        (_, "57014") => Meaning::Contention,
        ("08" | "53" | "57" | "58" | "XX", _) => Meaning::Connection,
        // Transaction rollbacks (deadlock, serialization), locks not free.
        ("40" | "55", _) => Meaning::Contention,
        _ => Meaning::Setup,
    }
}

/// The server's message and SQLSTATE. Its detail is left out, because that
/// may hold a whole row.
impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.cause();
        if let Some(server) = cause.as_db_error() {
            return write!(f, "{} ({})", server.message(), server.code().code());
        }
        // The crate's own words name the place and its causes the reason.
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
    fn each_code_is_met_by_what_helps_against_it() {
        for (code, expected) in [
            ("08006", Meaning::Connection),
            ("53300", Meaning::Connection),
            ("53100", Meaning::Connection),
            ("57P01", Meaning::Connection),
            ("57P03", Meaning::Connection),
            ("25006", Meaning::Connection),
            ("25P03", Meaning::Connection),
            ("40001", Meaning::Contention),
            ("40P01", Meaning::Contention),
            ("55P03", Meaning::Contention),
            ("57014", Meaning::Contention),
            ("22P02", Meaning::Data),
            ("22021", Meaning::Data),
            ("22P05", Meaning::Data),
            ("23514", Meaning::Data),
            ("22003", Meaning::Setup),
            ("2200H", Meaning::Setup),
            ("28P01", Meaning::Setup),
            ("28000", Meaning::Setup),
            ("3D000", Meaning::Setup),
            ("42501", Meaning::Setup),
            ("42P01", Meaning::Setup),
        ] {
            assert_eq!(meaning(code), expected, "{code}");
        }
    }
}
