//! The composition of a set. It is written to `services.set` before anything
//! starts, which marks the folder as one that may be removed.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::command_error::CommandError;
use crate::kafka::BrokerPorts;
use crate::postgres::Passwords;

/// Number of ports of a broker.
pub(super) const PORTS_PER_BROKER: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Composition {
    /// The user's own Kafka distribution, instead of the jars.
    pub(super) kafka_home: Option<PathBuf>,
    /// The address of the user's own Kafka. Empty: brokers are started.
    pub(super) own_kafka: String,
    /// The URI of the user's own PostgreSQL. Empty: PostgreSQL is started.
    pub(super) own_postgres: String,
    pub(super) brokers: Vec<BrokerPorts>,
    pub(super) postgres_port: u16,
    pub(super) passwords: Passwords,
}

impl Composition {
    /// Assigns the ports: five to each broker, and one to PostgreSQL.
    pub(super) fn assign_ports(&mut self, ports: &[u16]) {
        let chunks = ports.chunks_exact(PORTS_PER_BROKER);
        self.postgres_port = chunks.remainder().first().copied().unwrap_or_default();
        self.brokers = chunks.map(broker_ports).collect();
    }

    /// Whether brokers are started for this set.
    pub(super) fn has_kafka(&self) -> bool {
        self.own_kafka.is_empty()
    }

    /// Whether a PostgreSQL is started for this set.
    pub(super) fn has_postgres(&self) -> bool {
        self.own_postgres.is_empty()
    }

    /// Returns lines of `NAME=value`. A value holds no line break: values come from
    /// environment variables, which the caller has checked.
    pub(super) fn to_text(&self) -> String {
        let home = self.kafka_home.as_deref().unwrap_or(Path::new(""));
        let Passwords { sasl, superuser, tls_only, plain_only } = &self.passwords;
        let mut text = format!(
            "kafka_home={}\nkafka={}\npostgres={}\npostgres_port={}\npasswords={sasl} {superuser} \
             {tls_only} {plain_only}\n",
            home.display(),
            self.own_kafka,
            self.own_postgres,
            self.postgres_port,
        );
        for BrokerPorts { plain, tls, sasl, sasl_tls, controller } in &self.brokers {
            // Writing to a String can't fail.
            let _ = writeln!(text, "broker={plain} {tls} {sasl} {sasl_tls} {controller}");
        }
        text
    }

    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        let mut composition = Self::default();
        for line in text.lines() {
            let wrong = || {
                let line = line.split('=').next().unwrap_or_default();
                CommandError::Refused(format!(
                    "services.set has a line {line:?} that this version can't read: take the set \
                     down first"
                ))
            };
            let (name, value) = line.split_once('=').ok_or_else(wrong)?;
            match name {
                "kafka_home" => {
                    composition.kafka_home = (!value.is_empty()).then(|| PathBuf::from(value));
                }
                "kafka" => value.clone_into(&mut composition.own_kafka),
                "postgres" => value.clone_into(&mut composition.own_postgres),
                "postgres_port" => {
                    composition.postgres_port = value.parse().map_err(|_| wrong())?;
                }
                "passwords" => {
                    let words: Vec<&str> = value.split(' ').collect();
                    composition.passwords = parse_passwords(&words).ok_or_else(wrong)?;
                }
                "broker" => {
                    let ports = value.split(' ').map(str::parse).collect::<Result<Vec<u16>, _>>();
                    let ports = ports.ok().filter(|ports| ports.len() == PORTS_PER_BROKER);
                    composition.brokers.push(broker_ports(&ports.ok_or_else(wrong)?));
                }
                _ => return Err(wrong()),
            }
        }
        Ok(composition)
    }
}

/// Reads the passwords, separated by white space, in the order in which they
/// are written.
pub(super) fn parse_passwords(words: &[&str]) -> Option<Passwords> {
    let [sasl, superuser, tls_only, plain_only] = words else { return None };
    Some(Passwords {
        sasl: (*sasl).to_owned(),
        superuser: (*superuser).to_owned(),
        tls_only: (*tls_only).to_owned(),
        plain_only: (*plain_only).to_owned(),
    })
}

/// Assigns five ports to the listeners of a broker.
fn broker_ports(ports: &[u16]) -> BrokerPorts {
    BrokerPorts {
        plain: ports[0],
        tls: ports[1],
        sasl: ports[2],
        sasl_tls: ports[3],
        controller: ports[4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composition_is_read_as_it_was_written() {
        let mut composition = Composition {
            kafka_home: Some(PathBuf::from("/opt/kafka 4")),
            own_postgres: "postgres://u:p=1@h/d?sslmode=require".to_owned(),
            passwords: parse_passwords(&["a", "b", "c", "d"]).unwrap(),
            ..Composition::default()
        };
        composition.assign_ports(&(10_001..=10_011).collect::<Vec<_>>());
        assert_eq!(composition.brokers.len(), 2);
        assert_eq!(composition.brokers[1].plain, 10_006);
        assert_eq!(composition.postgres_port, 10_011);
        assert_eq!(Composition::parse(&composition.to_text()).unwrap(), composition);
    }

    #[test]
    fn a_line_that_is_not_understood_is_named_without_its_value() {
        for line in ["plain_ports=(0 1)", "broker=1 2 3 4", "passwords=secret", "secret"] {
            let error = Composition::parse(line).unwrap_err().to_string();
            assert!(error.contains("take the set down first"), "{error}");
            assert!(line == "secret" || !error.contains("secret"), "{error}");
        }
    }
}
