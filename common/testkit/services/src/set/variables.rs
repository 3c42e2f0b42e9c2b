//! The variables that `env` prints.

use std::fmt::Write;
use std::path::Path;

use crate::kafka::{BrokerPorts, SASL_USER};
use crate::postgres::{CERTIFICATE, PLAIN_ONLY, Passwords, TLS_ONLY};

use super::composition::Composition;

/// The prefix of the name of each variable.
const PREFIX: &str = "AVAILABILITY_";

/// Lines of `NAME=value`, quoted for a shell if necessary.
#[derive(Default)]
struct VariableLines(String);

impl VariableLines {
    /// Adds a line, unless the value is empty. Values are quoted only if
    /// necessary, so that other readers of such lines understand them too.
    fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            // Writing to a String can't fail.
            let _ = writeln!(self.0, "{PREFIX}{name}={}", quoted(value));
        }
    }
}

/// The value in the syntax of a shell.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./?-".contains(c);
    if value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// The variables of a set. `environment` returns the value of a variable of
/// this program. Variables about the user's own servers are passed on from
/// there.
pub(super) fn variables(
    dir: &Path,
    set: &Composition,
    environment: impl Fn(&str) -> String,
) -> String {
    let mut lines = VariableLines::default();
    lines.add("SERVICES_DIR", &dir.display().to_string());
    lines.add("CERTS", &dir.join("certs").display().to_string());
    if set.has_kafka() {
        add_started_kafka(&mut lines, dir, set);
    } else {
        add_own_kafka(&mut lines, set, &environment);
    }
    if set.has_postgres() {
        add_started_postgres(&mut lines, dir, set);
    } else {
        lines.add("POSTGRES", &set.own_postgres);
        lines.add("PGCA", &environment("PGCA"));
        let names = "POSTGRES_HOST POSTGRES_OTHER_HOST POSTGRES_PORT POSTGRES_PASSWORD \
                     POSTGRES_TLS_ONLY_USER POSTGRES_TLS_ONLY_PASSWORD POSTGRES_PLAIN_ONLY_USER \
                     POSTGRES_PLAIN_ONLY_PASSWORD POSTGRES_CERT_USER";
        pass_on(&mut lines, names, &environment);
    }
    lines.0
}

fn add_started_kafka(lines: &mut VariableLines, dir: &Path, set: &Composition) {
    let addresses = |host: &str, port: fn(&BrokerPorts) -> u16| {
        let list = set.brokers.iter().map(|ports| format!("{host}:{}", port(ports)));
        list.collect::<Vec<_>>().join(",")
    };
    let certificate = |name: &str| dir.join("certs").join(name).display().to_string();
    lines.add("KAFKA_BROKERS", &set.brokers.len().to_string());
    lines.add("KAFKA_PLAIN", &addresses("127.0.0.1", |ports| ports.plain));
    lines.add("KAFKA_TLS", &addresses("localhost", |ports| ports.tls));
    lines.add("KAFKA_SASL_PLAINTEXT", &addresses("127.0.0.1", |ports| ports.sasl));
    lines.add("KAFKA_SASL_TLS", &addresses("localhost", |ports| ports.sasl_tls));
    lines.add("KAFKA_CA", &certificate("ca.crt"));
    lines.add("KAFKA_CERT", &certificate("client.crt"));
    lines.add("KAFKA_KEY", &certificate("client.key"));
    lines.add("SASL_USERNAME", SASL_USER);
    lines.add("SASL_PASSWORD", &set.passwords.sasl);
}

fn add_own_kafka(
    lines: &mut VariableLines,
    set: &Composition,
    environment: &impl Fn(&str) -> String,
) {
    if environment("CA").is_empty() {
        lines.add("KAFKA_PLAIN", &set.own_kafka);
        pass_on(lines, "KAFKA_TLS KAFKA_CA KAFKA_CERT KAFKA_KEY", environment);
    } else {
        lines.add("KAFKA_TLS", &set.own_kafka);
        for name in ["CA", "CERT", "KEY"] {
            lines.add(&format!("KAFKA_{name}"), &environment(name));
        }
        pass_on(lines, "KAFKA_PLAIN", environment);
    }
    let names = "KAFKA_BROKERS KAFKA_SASL_PLAINTEXT KAFKA_SASL_TLS SASL_USERNAME SASL_PASSWORD";
    pass_on(lines, names, environment);
}

fn add_started_postgres(lines: &mut VariableLines, dir: &Path, set: &Composition) {
    let Passwords { superuser, tls_only, plain_only, .. } = &set.passwords;
    let port = set.postgres_port;
    let uri =
        format!("postgres://postgres:{superuser}@localhost:{port}/postgres?sslmode=verify-full");
    lines.add("POSTGRES", &uri);
    lines.add("PGCA", &dir.join("certs/ca.crt").display().to_string());
    lines.add("POSTGRES_HOST", "localhost");
    lines.add("POSTGRES_OTHER_HOST", "127.0.0.2");
    lines.add("POSTGRES_PORT", &port.to_string());
    lines.add("POSTGRES_PASSWORD", superuser);
    lines.add("POSTGRES_TLS_ONLY_USER", TLS_ONLY);
    lines.add("POSTGRES_TLS_ONLY_PASSWORD", tls_only);
    lines.add("POSTGRES_PLAIN_ONLY_USER", PLAIN_ONLY);
    lines.add("POSTGRES_PLAIN_ONLY_PASSWORD", plain_only);
    lines.add("POSTGRES_CERT_USER", CERTIFICATE);
}

fn pass_on(lines: &mut VariableLines, names: &str, environment: &impl Fn(&str) -> String) {
    for name in names.split_whitespace() {
        let value = environment(&format!("{PREFIX}{name}"));
        lines.add(name, &value);
    }
}

/// The variables that the tracker and the recorder read, derived from the
/// variables of a set. If the user's own Kafka has no TLS address, there is no
/// CA.
pub(super) fn program_variables(set: &Composition, variables: &str) -> String {
    let value = |name: &str| {
        let line = variables
            .lines()
            .find_map(|line| line.strip_prefix(PREFIX)?.strip_prefix(name)?.strip_prefix('='));
        // Quotes of the value stay.
        line.unwrap_or_default().to_owned()
    };
    let has_tls = set.has_kafka() || quoted(&set.own_kafka) == value("KAFKA_TLS");
    let kafka = if has_tls { "KAFKA_TLS" } else { "KAFKA_PLAIN" };
    let mut lines = vec![("KAFKA", value(kafka))];
    if has_tls {
        lines.extend([
            ("CA", value("KAFKA_CA")),
            ("CERT", value("KAFKA_CERT")),
            ("KEY", value("KAFKA_KEY")),
        ]);
    }
    lines.extend([("POSTGRES", value("POSTGRES")), ("PGCA", value("PGCA"))]);
    let lines = lines.into_iter().filter(|(_, value)| !value.is_empty());
    lines.map(|(name, value)| format!("{name}={value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::composition::parse_passwords;
    use super::*;

    fn set() -> Composition {
        let mut set = Composition {
            passwords: parse_passwords(&["s3", "pg", "t", "p"]).unwrap(),
            ..Composition::default()
        };
        set.assign_ports(&(10_001..=10_011).collect::<Vec<_>>());
        set
    }

    const NOTHING: fn(&str) -> String = |_| String::new();

    #[test]
    fn a_set_with_two_brokers_names_all_that_a_test_reads() {
        let text = variables(Path::new("/s"), &set(), NOTHING);
        let expected = "\
AVAILABILITY_SERVICES_DIR=/s
AVAILABILITY_CERTS=/s/certs
AVAILABILITY_KAFKA_BROKERS=2
AVAILABILITY_KAFKA_PLAIN=127.0.0.1:10001,127.0.0.1:10006
AVAILABILITY_KAFKA_TLS=localhost:10002,localhost:10007
AVAILABILITY_KAFKA_SASL_PLAINTEXT=127.0.0.1:10003,127.0.0.1:10008
AVAILABILITY_KAFKA_SASL_TLS=localhost:10004,localhost:10009
AVAILABILITY_KAFKA_CA=/s/certs/ca.crt
AVAILABILITY_KAFKA_CERT=/s/certs/client.crt
AVAILABILITY_KAFKA_KEY=/s/certs/client.key
AVAILABILITY_SASL_USERNAME=availability
AVAILABILITY_SASL_PASSWORD=s3
AVAILABILITY_POSTGRES=postgres://postgres:pg@localhost:10011/postgres?sslmode=verify-full
AVAILABILITY_PGCA=/s/certs/ca.crt
AVAILABILITY_POSTGRES_HOST=localhost
AVAILABILITY_POSTGRES_OTHER_HOST=127.0.0.2
AVAILABILITY_POSTGRES_PORT=10011
AVAILABILITY_POSTGRES_PASSWORD=pg
AVAILABILITY_POSTGRES_TLS_ONLY_USER=tls_only
AVAILABILITY_POSTGRES_TLS_ONLY_PASSWORD=t
AVAILABILITY_POSTGRES_PLAIN_ONLY_USER=plain_only
AVAILABILITY_POSTGRES_PLAIN_ONLY_PASSWORD=p
AVAILABILITY_POSTGRES_CERT_USER=client
";
        assert_eq!(text, expected);
        assert_eq!(
            program_variables(&set(), &text),
            "KAFKA=localhost:10002,localhost:10007\nCA=/s/certs/ca.crt\nCERT=/s/certs/client.crt\n\
             KEY=/s/certs/client.key\n\
             POSTGRES=postgres://postgres:pg@localhost:10011/postgres?sslmode=verify-full\n\
             PGCA=/s/certs/ca.crt\n"
        );
    }

    #[test]
    fn values_are_quoted_for_a_shell_where_they_have_to_be() {
        let text = variables(Path::new("/a b/it's"), &set(), NOTHING);
        assert!(text.starts_with("AVAILABILITY_SERVICES_DIR='/a b/it'\\''s'\n"), "{text}");
        assert!(program_variables(&set(), &text).contains("CA='/a b/it'\\''s/certs/ca.crt'\n"));
    }

    #[test]
    fn servers_of_the_users_are_passed_on() {
        let set = Composition {
            own_kafka: "k:9092".to_owned(),
            own_postgres: "postgres://u:p@h/d?a&b".to_owned(),
            ..Composition::default()
        };
        let environment = |with_ca: bool| {
            move |name: &str| match name {
                "CA" if with_ca => "/ca".to_owned(),
                "CERT" => "/cert".to_owned(),
                "PGCA" => "/pgca".to_owned(),
                "AVAILABILITY_KAFKA_BROKERS" => "3".to_owned(),
                _ => String::new(),
            }
        };
        let plain = variables(Path::new("/s"), &set, environment(false));
        let expected = "AVAILABILITY_SERVICES_DIR=/s\nAVAILABILITY_CERTS=/s/certs\n\
                        AVAILABILITY_KAFKA_PLAIN=k:9092\nAVAILABILITY_KAFKA_BROKERS=3\n\
                        AVAILABILITY_POSTGRES='postgres://u:p@h/d?a&b'\nAVAILABILITY_PGCA=/pgca\n";
        assert_eq!(plain, expected);
        let programs = "KAFKA=k:9092\nPOSTGRES='postgres://u:p@h/d?a&b'\nPGCA=/pgca\n";
        assert_eq!(program_variables(&set, &plain), programs);

        let tls = variables(Path::new("/s"), &set, environment(true));
        assert!(
            tls.contains("AVAILABILITY_KAFKA_TLS=k:9092\nAVAILABILITY_KAFKA_CA=/ca\n"),
            "{tls}"
        );
        let programs = program_variables(&set, &tls);
        assert!(programs.starts_with("KAFKA=k:9092\nCA=/ca\nCERT=/cert\nPOSTGRES="), "{programs}");
    }
}
