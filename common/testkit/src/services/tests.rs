use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::database::with_database;
use super::*;

fn accepts(addresses: &str, broker: usize) -> bool {
    let address: SocketAddr = addresses.split(',').nth(broker - 1).unwrap().parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
}

fn one_row(services: &Services, uri: &str) -> Result<(String, bool), String> {
    let query = "select current_user::text, ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let mut client = connect(services, uri).map_err(|error| match error {
        ServicesError::Postgres(error) => {
            format!("{:?}", error.as_db_error().map(|e| e.code().code().to_owned()))
        }
        other => other.to_string(),
    })?;
    let row = client.query_one(query, &[]).map_err(|error| error.to_string())?;
    Ok((row.get(0), row.get(1)))
}

#[test]
fn a_missing_variable_is_reported_with_the_way_to_start_the_services() {
    let error = Services::from_variables(|_| None).err().unwrap().to_string();
    assert!(error.starts_with("AVAILABILITY_SERVICES_DIR is not set"), "{error}");
    assert!(error.contains("run scripts/test"), "{error}");
}

#[test]
fn an_invalid_number_is_named() {
    let error = number::<u16>("POSTGRES_PORT", "70000".to_owned()).unwrap_err().to_string();
    assert_eq!(error, "AVAILABILITY_POSTGRES_PORT: expected a number, found \"70000\"");
}

#[test]
fn variables_are_read_with_and_without_quotes() {
    let variables = parse_variables("A=a:1?b=c\nB='it'\\''s & more'\n");
    assert_eq!(variables["A"], "a:1?b=c");
    assert_eq!(variables["B"], "it's & more");
}

#[test]
fn the_database_of_a_uri_is_replaced() {
    assert_eq!(
        with_database("postgres://u:p@h:5/old?sslmode=require", "new"),
        "postgres://u:p@h:5/new?sslmode=require"
    );
    assert_eq!(with_database("postgres://h", "new"), "postgres://h/new");
}

#[test]
fn no_two_names_are_the_same() {
    let names: std::collections::HashSet<_> = (0..1000).map(|_| fresh_name("topic")).collect();
    assert_eq!(names.len(), 1000);
}

#[test]
fn the_shared_set_exists_and_only_its_owner_can_read_its_keys() {
    let services = shared().expect("services");
    for broker in 1..=services.brokers {
        assert!(accepts(&services.kafka_plain, broker));
        assert!(accepts(&services.kafka_sasl_plaintext, broker));
    }
    for name in ["ca.crt", "foreign-ca.crt", "site-expired.crt", "sites-ca.crt"] {
        assert!(services.cert(name).is_file(), "{name}");
    }
    for name in ["client.key", "client.pkcs1.key", "client-ec.key", "postgres.key"] {
        let mode = services.cert(name).metadata().expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn each_role_can_log_in_by_one_way_only() {
    let services = shared().expect("services");
    let try_role = |role: &Role, mode: &str| one_row(&services, &services.role_uri(role, mode));
    let refused = Err("Some(\"28000\")".to_owned());

    assert_eq!(
        try_role(&services.tls_only, "sslmode=verify-full"),
        Ok(("tls_only".to_owned(), true))
    );
    assert_eq!(try_role(&services.tls_only, "sslmode=disable"), refused);
    assert_eq!(
        try_role(&services.plain_only, "sslmode=disable"),
        Ok(("plain_only".to_owned(), false))
    );
    assert_eq!(try_role(&services.plain_only, "sslmode=require"), refused);
}

#[test]
fn the_certificate_does_not_name_the_other_host() {
    let services = shared().expect("services");
    let uri = |mode: &str| {
        let Services {
            postgres_password: password,
            postgres_other_host: host,
            postgres_port: port,
            ..
        } = &services;
        format!("postgres://postgres:{password}@{host}:{port}/postgres?sslmode={mode}")
    };
    assert_eq!(one_row(&services, &uri("verify-ca")), Ok(("postgres".to_owned(), true)));
    let error = connect(&services, &uri("verify-full")).err().unwrap();
    assert!(format!("{error:?}").contains("mismatch"), "{error:?}");
}

#[test]
fn fresh_databases_are_empty_and_separate() {
    let services = shared().expect("services");
    for _ in 0..2 {
        let uri = fresh_database(&services).expect("database");
        connect(&services, &uri)
            .expect("connection")
            .batch_execute("create table t (n int)")
            .expect("no table yet");
    }
}

#[test]
fn an_own_set_is_broken_repaired_and_removed() {
    let set = Services::start(1).expect("services");
    assert_eq!(set.brokers, 1);
    assert_ne!(set.kafka_plain, shared().expect("services").kafka_plain);

    set.kill_broker(1).expect("kill-broker");
    assert!(!accepts(&set.kafka_plain, 1));
    set.start_broker(1).expect("start-broker");
    assert!(accepts(&set.kafka_plain, 1));
    let error = set.start_broker(1).unwrap_err().to_string();
    assert!(error.ends_with("broker 1 is already running"), "{error}");

    let uri = set.postgres_uri.clone();
    let mut client = connect(&set, &uri).expect("connection");
    client.batch_execute("create table kept (n int)").expect("table");
    set.kill_postgres().expect("kill-postgres");
    assert!(client.simple_query("select 1").is_err());
    assert!(connect(&set, &uri).is_err());
    set.start_postgres().expect("start-postgres");
    connect(&set, &uri).expect("connection").batch_execute("table kept").expect("kept");

    let (dir, plain) = (set.dir.clone(), set.kafka_plain.clone());
    drop(set);
    assert!(!dir.exists());
    assert!(!accepts(&plain, 1));
}
