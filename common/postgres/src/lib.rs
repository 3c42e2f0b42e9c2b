//! Blocking connections to PostgreSQL with libpq's TLS modes and a time-out for every wait.
//!
//! The crate `postgres` supports three of libpq's six `sslmode`s and waits forever for a server
//! that has stopped answering. This crate adds the missing modes, client certificates, and a
//! deadline for each use of a connection.
//!
//! - [`PostgresUri`] parses a URI or `key=value` string. TLS options are parsed here, all others by
//!   the crate `postgres`.
//! - [`PostgresSettings::connect`] opens a [`PostgresConnection`].
//! - [`PostgresConnection::within`] returns a [`postgres::Client`] with a time limit.
//! - [`PostgresError`] classifies the server's errors by their remedy.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use postgres_client::{PostgresSettings, PostgresUri};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = PostgresSettings {
//!     uri: PostgresUri::parse("postgres://user:password@db.example/app?sslmode=verify-full")?,
//!     ca: None,
//!     application_name: "example".to_owned(),
//! };
//! settings.check()?;
//! let mut connection = settings.connect()?;
//! let row = connection.within(Duration::from_secs(5)).query_one("select 1", &[])?;
//! println!("{}", row.get::<_, i32>(0));
//! # Ok(())
//! # }
//! ```

mod connect;
mod error;
mod stream;
mod tls;
mod uri;

pub use connect::{ConnectAttempt, ConnectError, PostgresConnection, PostgresSettings};
pub use error::PostgresError;
pub use tls::{TlsError, Verification};
pub use uri::{PostgresUri, SslMode, UriError};
