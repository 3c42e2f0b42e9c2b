//! Classification of PostgreSQL's errors. Only this file decides which errors are retryable.

use std::error::Error as _;
use std::fmt;
use std::io;

/// An error of the server or of the connection, classified by its remedy.
#[derive(Debug)]
pub enum PostgresError {
    /// The connection failed, or the server is starting, stopping, full or read-only. A new
    /// connection can succeed later.
    Connection(postgres::Error),
    /// A conflict with another session. The same transaction can succeed when it is repeated.
    Contention(postgres::Error),
    /// The statement exceeded the time-out of the server or of this client. Less work in one
    /// transaction can succeed.
    Timeout(postgres::Error),
    /// The database refuses a row. The same statement fails again, but other rows can succeed.
    Data(postgres::Error),
    /// A password, right, table, type or statement is wrong. After an operator has changed it, a
    /// retry succeeds.
    Setup(postgres::Error),
}

impl PostgresError {
    /// Whether the same operation can succeed later without a change by an operator.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Contention(_) | Self::Timeout(_))
    }

    /// Whether the connection can't be used any more.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            // The server reports its own time-out. Without a report, the time-out of this client
            // has ended the wait.
            Self::Timeout(cause) => cause.code().is_none(),
            Self::Contention(_) | Self::Data(_) | Self::Setup(_) => false,
        }
    }

    /// Whether the role lacks a right (SQLSTATE 42501).
    pub fn is_denied(&self) -> bool {
        self.code() == Some("42501")
    }

    /// The SQLSTATE. `None`: the server sent none.
    pub fn code(&self) -> Option<&str> {
        self.cause().code().map(|state| state.code())
    }

    /// The table that the server reports. It reports the table for violated constraints.
    pub fn table(&self) -> Option<&str> {
        self.cause().as_db_error()?.table()
    }

    /// The schema of [`PostgresError::table`].
    pub fn schema(&self) -> Option<&str> {
        self.cause().as_db_error()?.schema()
    }

    /// The violated constraint that the server reports.
    pub fn constraint(&self) -> Option<&str> {
        self.cause().as_db_error()?.constraint()
    }

    fn cause(&self) -> &postgres::Error {
        match self {
            Self::Connection(cause)
            | Self::Contention(cause)
            | Self::Timeout(cause)
            | Self::Data(cause)
            | Self::Setup(cause) => cause,
        }
    }
}

impl From<postgres::Error> for PostgresError {
    /// Classifies by SQLSTATE (PostgreSQL documentation, appendix A).
    fn from(cause: postgres::Error) -> Self {
        let class = match cause.as_db_error() {
            // Only partitioned tables report 23514 with a table and without a constraint. No
            // partition accepts the row until an operator adds a partition.
            Some(server)
                if server.code().code() == "23514"
                    && server.constraint().is_none()
                    && server.table().is_some() =>
            {
                SqlStateClass::Setup
            }
            Some(server) => classify(server.code().code()),
            None if is_timeout(&cause) => SqlStateClass::Timeout,
            None => SqlStateClass::Connection,
        };
        match class {
            SqlStateClass::Connection => Self::Connection(cause),
            SqlStateClass::Contention => Self::Contention(cause),
            SqlStateClass::Timeout => Self::Timeout(cause),
            SqlStateClass::Data => Self::Data(cause),
            SqlStateClass::Setup => Self::Setup(cause),
        }
    }
}

/// Whether the deadline of the connection ended the wait for the server.
fn is_timeout(cause: &postgres::Error) -> bool {
    let mut next = cause.source();
    while let Some(inner) = next {
        let io_error = inner.downcast_ref::<io::Error>();
        if io_error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        next = inner.source();
    }
    false
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SqlStateClass {
    Connection,
    Contention,
    Timeout,
    Data,
    Setup,
}

/// The codes of [`SqlStateClass::Setup`] that PostgreSQL defines: the table, the statement or the
/// rights are wrong. Other codes of these classes are defined by triggers.
const SETUP_CODES: &str = "\
    0A000 0B000 0L000 0LP01 0P000 2200H \
    25000 25001 25002 25003 25004 25005 25007 25008 25P01 25P02 26000 28000 28P01 \
    2B000 2BP01 2D000 3B000 3B001 3D000 3F000 \
    42000 42501 42601 42602 42611 42622 42701 42702 42703 42704 42710 42712 42723 42725 42803 \
    42804 42809 42830 42846 42883 428C9 42939 42P01 42P02 42P03 42P04 42P05 42P06 42P07 42P08 \
    42P09 42P10 42P11 42P12 42P13 42P14 42P15 42P16 42P17 42P18 42P19 42P20 42P21 42P22 \
    F0000 F0001 \
    HV000 HV001 HV002 HV004 HV005 HV006 HV007 HV008 HV009 HV00A HV00B HV00C HV00D HV00J HV00K \
    HV00L HV00M HV00N HV00P HV00Q HV00R HV010 HV014 HV021 HV024 HV090 HV091";

/// The class of an SQLSTATE.
///
/// All codes that are not listed are caused by the row: data exceptions and violated constraints
/// (09, 21, 22, 23, 27, 2F, 38, 39, 44, 54, P0), and codes that PostgreSQL does not define, which
/// come from triggers.
fn classify(code: &str) -> SqlStateClass {
    match (code.get(..2).unwrap_or_default(), code) {
        // A standby or a demoted primary. Another connection may reach the new primary.
        (_, "25006") => SqlStateClass::Connection,
        // The server ended the session because of a time-out.
        (_, "25P03" | "25P04") => SqlStateClass::Connection,
        // The time-out of a statement.
        (_, "57014") => SqlStateClass::Timeout,
        // Connection exceptions, resources (disk, memory, connections), operator interventions,
        // system errors and internal errors.
        ("08" | "53" | "57" | "58" | "XX", _) => SqlStateClass::Connection,
        // Transaction rollback (deadlock, serialization), locks that are not available, and
        // "snapshot too old".
        ("40" | "55" | "72", _) => SqlStateClass::Contention,
        _ if SETUP_CODES.split_ascii_whitespace().any(|setup| setup == code) => {
            SqlStateClass::Setup
        }
        _ => SqlStateClass::Data,
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

    /// Every code of appendix A of PostgreSQL 18, and some codes that it does not define.
    #[test]
    fn every_code_is_classified() {
        use SqlStateClass::{Connection, Contention, Data, Setup, Timeout};
        let codes = [
            (
                Connection,
                "08000 08001 08003 08004 08006 08007 08P01 25006 25P03 25P04 53000 53100 53200 \
                 53300 53400 57000 57P01 57P02 57P03 57P04 57P05 58000 58030 58P01 58P02 58P03 \
                 XX000 XX001 XX002",
            ),
            (Contention, "40000 40001 40002 40003 40P01 55000 55006 55P02 55P03 55P04 72000"),
            (Timeout, "57014"),
            (
                Setup,
                "0A000 0B000 0L000 0LP01 0P000 2200H 25000 25001 25002 25008 25003 25004 25005 \
                 25007 25P01 25P02 26000 28000 28P01 2B000 2BP01 2D000 3B000 3B001 3D000 3F000 \
                 42000 42601 42501 42846 42803 42P20 42P19 42830 42602 42622 42939 42804 42P18 \
                 42P21 42P22 42809 428C9 42703 42883 42P01 42P02 42704 42701 42P03 42P04 42723 \
                 42P05 42P06 42P07 42712 42710 42702 42725 42P08 42P09 42P10 42611 42P11 42P12 \
                 42P13 42P14 42P15 42P16 42P17 F0000 F0001 HV000 HV005 HV002 HV010 HV021 HV024 \
                 HV007 HV008 HV004 HV006 HV091 HV00B HV00C HV00D HV090 HV00A HV009 HV014 HV001 \
                 HV00P HV00J HV00K HV00Q HV00R HV00L HV00M HV00N",
            ),
            (
                Data,
                "03000 09000 0F000 0F001 0Z000 0Z002 10608 20000 21000 22000 2202E 22021 22008 \
                 22012 22005 2200B 22022 22015 2201E 22014 22016 2201F 2201G 22018 22007 22019 \
                 2200D 22025 22P06 22010 22023 22013 2201B 2201W 2201X 2202H 2202G 22009 2200C \
                 2200G 22004 22002 22003 22026 22001 22011 22027 22024 2200F 22P01 22P02 22P03 \
                 22P04 22P05 2200L 2200M 2200N 2200S 2200T 22030 22031 22032 22033 22034 22035 \
                 22036 22037 22038 22039 2203A 2203B 2203C 2203D 2203E 2203F 2203G 23000 23001 \
                 23502 23503 23505 23514 23P01 24000 27000 2F000 2F005 2F002 2F003 2F004 34000 \
                 38000 38001 38002 38003 38004 39000 39001 39004 39P01 39P02 39P03 44000 54000 \
                 54001 54011 54023 P0000 P0001 P0002 P0003 P0004",
            ),
            // Codes that triggers define.
            (Data, "45000 U0001 ZZ999 99001 42999 0A001 25999 HV999 28001 00000 01000 02000"),
        ];
        for (expected, codes) in codes {
            for code in codes.split_ascii_whitespace() {
                assert_eq!(classify(code), expected, "{code}");
            }
        }
    }
}
