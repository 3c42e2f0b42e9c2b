//! Connections to PostgreSQL as libpq means them.
//!
//! The crate `postgres` knows three of libpq's six `sslmode`s and waits for
//! ever for a server that has stopped answering. So the URI is taken apart
//! here (`uri`), TLS is negotiated here (`stream`, `tls`), and every use
//! of a connection names how long it may take ([`Connection::within`]).

mod connect;
mod error;
mod parameters;
mod stream;
mod tls;
mod uri;

pub use connect::{Attempt, ConnectError, Connection, PostgresSettings};
pub use error::PostgresError;
pub use stream::Deadline;
pub use tls::{TlsError, Verification};
pub use uri::{PostgresUri, SslMode, UriError};
