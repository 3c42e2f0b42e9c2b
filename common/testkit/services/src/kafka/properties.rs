//! The settings of a broker.

use std::fmt::Write;
use std::path::Path;

/// The user of SASL PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
pub(crate) const SASL_USER: &str = "availability";

/// The ports of one broker, each a listener on 127.0.0.1. The TLS listeners are advertised as
/// `localhost`, the name in the broker's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BrokerPorts {
    pub(crate) plain: u16,
    /// TLS that requires a client certificate.
    pub(crate) tls: u16,
    pub(crate) sasl: u16,
    /// SASL over TLS, without a client certificate.
    pub(crate) sasl_tls: u16,
    pub(crate) controller: u16,
}

/// The text of `server.properties`. Every node is broker and controller.
pub(super) fn server_properties(
    id: usize,
    ports: &[BrokerPorts],
    home: &Path,
    certs: &Path,
    sasl_password: &str,
) -> String {
    let BrokerPorts { plain, tls, sasl, sasl_tls, controller } = ports[id - 1];
    let replicas = ports.len().min(3);
    let voters: Vec<String> = ports
        .iter()
        .zip(1..)
        .map(|(ports, id)| format!("{id}@127.0.0.1:{}", ports.controller))
        .collect();
    let voters = voters.join(",");
    let (data, certs) = (home.join("data"), certs.display());
    let data = data.display();
    let mut text = format!(
        "\
process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
log.dirs={data}

listeners=PLAIN://127.0.0.1:{plain},TLS://127.0.0.1:{tls},SASL://127.0.0.1:{sasl},\
SASLTLS://127.0.0.1:{sasl_tls},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},TLS://localhost:{tls},SASL://127.0.0.1:{sasl},\
SASLTLS://localhost:{sasl_tls}
listener.security.protocol.map=PLAIN:PLAINTEXT,TLS:SSL,SASL:SASL_PLAINTEXT,SASLTLS:SASL_SSL,\
CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
controller.listener.names=CONTROLLER

ssl.keystore.type=PEM
ssl.keystore.location={certs}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={certs}/ca.crt
listener.name.tls.ssl.client.auth=required
listener.name.sasltls.ssl.client.auth=none

# A test can deny access by an ACL on a name of its own; without an ACL everything is allowed.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:ANONYMOUS

# Clients have to create their topics.
auto.create.topics.enable=false
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4

# Seconds instead of minutes as in production.
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
# By default an idle broker spends half of its time on writing two empty records a second.
metadata.max.idle.interval.ms=10000
group.initial.rebalance.delay.ms=0
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
producer.id.expiration.check.interval.ms=1000
log.cleaner.dedupe.buffer.size=16777216

sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
"
    );
    for listener in ["sasl", "sasltls"] {
        let name = format!("listener.name.{listener}");
        let security = "org.apache.kafka.common.security";
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "{name}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required \
             user_{SASL_USER}=\"{sasl_password}\";"
        );
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            let _ = writeln!(
                text,
                "{name}.{mechanism}.sasl.jaas.config={security}.scram.ScramLoginModule required;"
            );
        }
    }
    text
}

/// The id of a cluster or of a log directory: 16 bytes as base64 for URLs. It begins with a
/// letter, because a tool of Kafka parses a hyphen as an option.
pub(super) fn random_id() -> String {
    let middle: String = (0..20).map(|_| fastrand::alphanumeric()).collect();
    format!("A{middle}A")
}

/// The `meta.properties` of a copied log directory, for another broker.
pub(super) fn meta_properties(original: &str, id: usize, cluster: &str, directory: &str) -> String {
    let replaced = original.lines().map(|line| match line.split_once('=') {
        Some(("node.id", _)) => format!("node.id={id}\n"),
        Some(("cluster.id", _)) => format!("cluster.id={cluster}\n"),
        Some(("directory.id", _)) => format!("directory.id={directory}\n"),
        _ => format!("{line}\n"),
    });
    replaced.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_knows_all_voters_and_has_its_own_ports() {
        let ports = |base| BrokerPorts {
            plain: base,
            tls: base + 1,
            sasl: base + 2,
            sasl_tls: base + 3,
            controller: base + 4,
        };
        let all = [ports(11_000), ports(12_000)];
        let text = server_properties(2, &all, Path::new("/s/2"), Path::new("/c"), "secret");
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:11004,2@127.0.0.1:12004",
            "log.dirs=/s/2/data",
            "listeners=PLAIN://127.0.0.1:12000,TLS://127.0.0.1:12001,SASL://127.0.0.1:12002,\
             SASLTLS://127.0.0.1:12003,CONTROLLER://127.0.0.1:12004",
            "offsets.topic.replication.factor=2",
            "ssl.keystore.location=/c/broker.pem",
            "listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.\
             PlainLoginModule required user_availability=\"secret\";",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_copied_log_directory_gets_ids_of_its_own() {
        let original = "#\ncluster.id=x\ndirectory.id=y\nnode.id=1\nversion=1\n";
        let expected = "#\ncluster.id=c\ndirectory.id=d\nnode.id=3\nversion=1\n";
        assert_eq!(meta_properties(original, 3, "c", "d"), expected);
        assert_eq!(random_id().len(), 22);
        assert_ne!(random_id(), random_id());
    }
}
