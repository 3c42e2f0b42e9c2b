//! Tests each cell of the documented table of sslmode, CA and server, on a real server.

#![cfg(test)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::pem::Pem;
use postgres_client::{PostgresSettings, PostgresUri};
use testkit::services::{Services, shared};
use testkit::sites::RefusingPort;

use crate::own_services::with_own_services;
use crate::support::eventually;

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The outcome of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Tls,
    Plain,
    Refused(&'static str),
}
use Cell::{Plain, Refused, Tls};

const FOREIGN: Cell = Refused("certificate verify failed");
const RIGHTS: Cell = Refused("(28000)");
const NO_TLS: Cell = Refused("the server has no TLS");

/// One row for each mode. Columns: no CA, the CA of the server, another CA.
type Table = [[Cell; 3]; 6];

fn settings(uri: &str, ca: Option<&std::path::Path>) -> PostgresSettings {
    PostgresSettings {
        uri: PostgresUri::parse(uri).unwrap(),
        ca: ca.map(|path| Pem::File(path.to_owned())),
        application_name: "test".into(),
    }
}

fn outcome(uri: &str, ca: Option<&std::path::Path>) -> Result<bool, String> {
    let mut connection = settings(uri, ca).connect().map_err(|error| error.to_string())?;
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let row = connection.within(Duration::from_secs(10)).query_one(encrypted, &[]).unwrap();
    Ok(row.get(0))
}

fn check(services: &Services, name: &str, uri_for: impl Fn(&str) -> String, table: Table) {
    let cas = [None, Some(services.postgres_ca.clone()), Some(services.cert("foreign-ca.crt"))];
    for (mode, row) in MODES.iter().zip(table) {
        for (ca, expected) in cas.iter().zip(row) {
            let uri = uri_for(&format!("sslmode={mode}"));
            let found = outcome(&uri, ca.as_deref());
            let fits = match (&found, expected) {
                (Ok(encrypted), Tls) => *encrypted,
                (Ok(encrypted), Plain) => !*encrypted,
                (Err(text), Refused(part)) => text.contains(part),
                _ => false,
            };
            assert!(fits, "{name}, {mode}, {ca:?}: expected {expected:?}, found {found:?}");
        }
    }
}

fn superuser(services: &Services, host: &str, parameters: &str) -> String {
    let Services { postgres_password: password, postgres_port: port, .. } = services;
    format!("postgres://postgres:{password}@{host}:{port}/postgres?{parameters}")
}

#[test]
fn a_server_that_accepts_both() {
    let services = shared().unwrap();
    let table = [
        [Plain, Plain, Plain],
        [Plain, Plain, Plain],
        [Tls, Tls, Plain],
        [Tls, Tls, FOREIGN],
        [FOREIGN, Tls, FOREIGN],
        [FOREIGN, Tls, FOREIGN],
    ];
    check(&services, "both", |mode| superuser(&services, &services.postgres_host, mode), table);
}

#[test]
fn a_server_whose_certificate_is_for_another_host() {
    let services = shared().unwrap();
    let table = [
        [Plain, Plain, Plain],
        [Plain, Plain, Plain],
        [Tls, Tls, Plain],
        [Tls, Tls, FOREIGN],
        [FOREIGN, Tls, FOREIGN],
        [FOREIGN, Refused("IP address mismatch"), FOREIGN],
    ];
    let host = services.postgres_other_host.clone();
    check(&services, "wrong host", |mode| superuser(&services, &host, mode), table);
}

#[test]
fn a_role_that_requires_tls() {
    let services = shared().unwrap();
    let table = [
        [RIGHTS, RIGHTS, RIGHTS],
        [Tls, Tls, FOREIGN],
        [Tls, Tls, FOREIGN],
        [Tls, Tls, FOREIGN],
        [FOREIGN, Tls, FOREIGN],
        [FOREIGN, Tls, FOREIGN],
    ];
    check(&services, "TLS only", |mode| services.role_uri(&services.tls_only, mode), table);
}

#[test]
fn a_role_that_requires_plain_text() {
    let services = shared().unwrap();
    let table = [
        [Plain, Plain, Plain],
        [Plain, Plain, Plain],
        [Plain, Plain, Plain],
        [RIGHTS, RIGHTS, FOREIGN],
        [FOREIGN, RIGHTS, FOREIGN],
        [FOREIGN, RIGHTS, FOREIGN],
    ];
    check(&services, "plain only", |mode| services.role_uri(&services.plain_only, mode), table);
}

/// The test turns off TLS in its services meanwhile.
mod broken_on_purpose {
    use super::*;

    #[test]
    fn a_server_without_tls() {
        with_own_services(1, |services| {
            let uri = superuser(services, &services.postgres_host, "sslmode=require");
            let mut admin = settings(&uri, None).connect().unwrap();
            let admin = admin.within(Duration::from_secs(60));
            let mut set_tls = |statement: &str, is_accepted: bool| {
                admin.batch_execute(statement).unwrap();
                admin.batch_execute("select pg_reload_conf()").unwrap();
                // PostgreSQL applies the setting after a short time.
                eventually(statement, || {
                    (outcome(&uri, None).is_ok() == is_accepted).then_some(())
                });
            };
            set_tls("alter system set ssl = off", false);
            check_without_tls(services);
            set_tls("alter system reset ssl", true);
        });
    }
}

fn check_without_tls(services: &Services) {
    let table = [
        [Plain, Plain, Plain],
        [Plain, Plain, Plain],
        [Plain, Plain, Plain],
        [NO_TLS, NO_TLS, NO_TLS],
        [NO_TLS, NO_TLS, NO_TLS],
        [NO_TLS, NO_TLS, NO_TLS],
    ];
    check(services, "no TLS", |mode| superuser(services, &services.postgres_host, mode), table);
}

/// `the_roots_of_the_system_are_used_without_a_ca` runs this test in a separate process, whose
/// system roots are the CA of the services.
#[test]
#[ignore = "run by another test with SSL_CERT_FILE set"]
fn with_the_services_ca_as_root() {
    let services = shared().unwrap();
    let (host, other) = (&services.postgres_host, &services.postgres_other_host);
    for mode in ["sslmode=verify-ca", "sslmode=verify-full", "sslrootcert=system"] {
        assert_eq!(outcome(&superuser(&services, host, mode), None), Ok(true), "{mode}");
        let wrong_host = outcome(&superuser(&services, other, mode), None).unwrap_err();
        assert!(wrong_host.contains("IP address mismatch"), "{mode}: {wrong_host}");
    }
}

#[test]
fn the_roots_of_the_system_are_used_without_a_ca() {
    let services = shared().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres_uri::with_the_services_ca_as_root", "--ignored"])
        .env("SSL_CERT_FILE", &services.postgres_ca)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn certificates_in_the_uri_are_used() {
    let services = shared().unwrap();
    let path = |name: &str| services.cert(name).display().to_string();
    let uri = |root: &str, certificate: &str, key: &str| {
        let (host, port, user) =
            (&services.postgres_host, services.postgres_port, &services.cert_user);
        format!(
            "postgres://{user}@{host}:{port}/{user}?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
            path(root),
            path(certificate),
            path(key)
        )
    };
    assert_eq!(outcome(&uri("ca.crt", "client.crt", "client.key"), None), Ok(true));
    let foreign = uri("ca.crt", "foreign-client.crt", "foreign-client.key");
    assert!(outcome(&foreign, None).is_err());
    let mixed = settings(&uri("ca.crt", "client.crt", "client-ec.key"), None).check().unwrap_err();
    assert!(mixed.to_string().ends_with("belongs to sslcert"), "{mixed}");
    // PGCA takes precedence over sslrootcert.
    let overruled = uri("foreign-ca.crt", "client.crt", "client.key");
    assert!(outcome(&overruled, None).is_err());
    assert_eq!(outcome(&overruled, Some(&services.postgres_ca)), Ok(true));
}

#[test]
fn a_renewed_ca_is_read_at_the_next_connection() {
    let services = shared().unwrap();
    let ca = std::env::temp_dir().join(testkit::services::fresh_name("ca"));
    std::fs::copy(services.cert("foreign-ca.crt"), &ca).unwrap();
    let uri = superuser(&services, &services.postgres_host, "sslmode=verify-full");
    let settings = settings(&uri, Some(&ca));
    assert!(settings.connect().is_err());
    std::fs::copy(&services.postgres_ca, &ca).unwrap();
    assert!(settings.connect().is_ok());
    std::fs::remove_file(&ca).unwrap();
}

#[test]
fn errors_name_the_server_and_no_password() {
    let services = shared().unwrap();
    let (host, port) = (&services.postgres_host, services.postgres_port);
    let wrong = format!("postgres://postgres:hunter2@{host}:{port}/postgres?sslmode=require");
    let error = settings(&wrong, None).connect().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "postgresql {host}:{port}: password authentication failed for user \"postgres\" (28P01)"
        )
    );
    assert!(!error.is_retryable() && !format!("{error:?}").contains("hunter2"));
    let closed = RefusingPort::new().unwrap();
    let closed_uri = format!("postgres://u:hunter2@127.0.0.1:{}/d", closed.port().unwrap());
    let error = settings(&closed_uri, None).connect().unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("Connection refused"), "{error}");
    assert_eq!(error.to_string().matches("refused").count(), 1, "{error}");
}

#[test]
fn hosts_are_tried_in_turn() {
    let services = shared().unwrap();
    let closed = RefusingPort::new().unwrap();
    let Services { postgres_password: password, postgres_port: port, .. } = &services;
    let uri = format!(
        "postgres://postgres:{password}@127.0.0.1:{},{}:{port}/postgres?sslmode=verify-full",
        closed.port().unwrap(),
        services.postgres_host
    );
    assert_eq!(outcome(&uri, Some(&services.postgres_ca)), Ok(true));
}

/// Forwards bytes between a client and the server until it holds the bytes back, like a suspended
/// server whose kernel keeps the connection open.
struct Relay {
    port: u16,
    held: Arc<AtomicBool>,
}

impl Relay {
    fn to(services: &Services) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Arc::new(AtomicBool::new(false));
        let server = (services.postgres_host.clone(), services.postgres_port);
        let hold = Arc::clone(&held);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect((server.0.as_str(), server.1)).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let hold = Arc::clone(&hold);
                    thread::spawn(move || pass(from, to, &hold));
                }
            }
        });
        Self { port, held }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, held: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while held.load(Ordering::Relaxed) {
            thread::park_timeout(Duration::from_millis(10));
        }
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// All waits for a server have a time-out.
#[test]
fn a_server_that_stops_answering_is_a_time_out() {
    let services = shared().unwrap();
    let relay = Relay::to(&services);
    let Services { postgres_password: password, .. } = &services;
    for mode in ["disable", "require"] {
        let uri = format!(
            "postgres://postgres:{password}@127.0.0.1:{}/postgres?sslmode={mode}",
            relay.port
        );
        relay.held.store(false, Ordering::Relaxed);
        let mut connection = settings(&uri, None).connect().unwrap();
        // A connection still works after it was idle for longer than its last time-out.
        connection.within(Duration::from_millis(1_000)).query_one("select 1", &[]).unwrap();
        thread::sleep(Duration::from_millis(1_100));
        connection.within(Duration::from_secs(20)).query_one("select 1", &[]).unwrap();

        relay.held.store(true, Ordering::Relaxed);
        let start = Instant::now();
        let query = connection.within(Duration::from_millis(300)).query_one("select 1", &[]);
        let error = postgres_client::PostgresError::from(query.unwrap_err());
        assert!(error.is_connection_lost(), "{error}");
        assert!(error.to_string().contains("did not answer in time"), "{error}");
        drop(connection);
        let impatient = format!("{uri}&connect_timeout=1");
        let error = settings(&impatient, None).connect().unwrap_err().to_string();
        assert!(error.contains("did not answer in time"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}
