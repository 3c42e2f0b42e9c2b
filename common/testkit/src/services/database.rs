//! Databases for tests, over a connection that shares no code with `postgres_client`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres::{Client, Config, NoTls};
use postgres_openssl::MakeTlsConnector;

use super::{Services, ServicesError, fresh_name};

/// Connects to `uri` according to its sslmode: `disable` without TLS, the
/// verify modes with the CA of the services, all others with TLS and without
/// verification.
///
/// # Errors
/// [`ServicesError::Postgres`] if the URI is not valid or the server refuses.
pub fn connect(services: &Services, uri: &str) -> Result<Client, ServicesError> {
    // The crate `postgres` refuses the verify modes, so it does not get the parameter.
    let (base, query) = uri.split_once('?').unwrap_or((uri, ""));
    let (modes, rest): (Vec<_>, Vec<_>) =
        query.split('&').filter(|p| !p.is_empty()).partition(|p| p.starts_with("sslmode="));
    let mode = modes.last().map_or("require", |parameter| &parameter["sslmode=".len()..]);
    let config: Config =
        format!("{base}?{}", rest.join("&")).parse().map_err(ServicesError::Postgres)?;
    let client = if mode == "disable" {
        config.connect(NoTls)
    } else {
        config.connect(connector(services, mode).map_err(ServicesError::Ca)?)
    };
    client.map_err(ServicesError::Postgres)
}

/// The connector that was built last, with its CA. OpenSSL reads all root
/// certificates of the machine for each connector, which takes longer than the
/// queries of a test.
static LAST_CONNECTOR: Mutex<Option<(Option<PathBuf>, SslConnector)>> = Mutex::new(None);

fn connector(
    services: &Services,
    mode: &str,
) -> Result<MakeTlsConnector, openssl::error::ErrorStack> {
    let ca = mode.starts_with("verify-").then(|| services.postgres_ca.clone());
    let mut last = LAST_CONNECTOR.lock().unwrap_or_else(PoisonError::into_inner);
    let connector = match last.as_ref() {
        Some((last_ca, connector)) if *last_ca == ca => connector.clone(),
        _ => {
            let mut builder = SslConnector::builder(SslMethod::tls_client())?;
            match &ca {
                Some(ca) => builder.set_ca_file(ca)?,
                None => builder.set_verify(SslVerifyMode::NONE),
            }
            let connector = builder.build();
            *last = Some((ca, connector.clone()));
            connector
        }
    };
    let mut connector = MakeTlsConnector::new(connector);
    let verify_hostname = mode == "verify-full";
    connector.set_callback(move |connection, _| {
        connection.set_verify_hostname(verify_hostname);
        Ok(())
    });
    Ok(connector)
}

/// Creates an empty database with a fresh name and returns its URI, for the
/// superuser.
///
/// # Errors
/// See [`connect`].
pub fn fresh_database(services: &Services) -> Result<String, ServicesError> {
    let name = fresh_name("test").replace('-', "_");
    let mut client = connect(services, &services.postgres_uri)?;
    client.batch_execute(&format!("create database {name}")).map_err(ServicesError::Postgres)?;
    Ok(with_database(&services.postgres_uri, &name))
}

/// Replaces the database in a URI.
pub(super) fn with_database(uri: &str, name: &str) -> String {
    let (base, query) = uri.split_once('?').unwrap_or((uri, ""));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{}/{name}{mark}{query}", &base[..end])
}
