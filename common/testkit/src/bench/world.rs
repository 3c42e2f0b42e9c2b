//! Services, programs that run on them, and topics that are filled.

use std::collections::VecDeque;
use std::fs::read_to_string;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::domain::{Domain, TOPIC_PREFIX};
use kafka_client::{
    BATCH_BYTES_MAX, BrokerAddress, KafkaClient, KafkaProducer, KafkaSettings, ProduceOutcome,
    ProduceRecord, ProducerOptions, Security, TopicBatch, batch_len,
};

use super::Failed;
use super::load::Load;
use super::machine::processor_s;
use crate::program::Program;
use crate::services::{OwnSet, Services, connect, fresh_database, fresh_name};

/// How long anything may take that is not measured, or has no end by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked how far a recorder is.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How many records are recorded, in all topics.
pub(super) const POSITION: &str =
    "select coalesce(sum(next_offset), 0)::bigint from availability_offset";

/// Services of its own.
pub(super) struct World<'a> {
    pub(super) services: OwnSet,
    programs: &'a Path,
    kafka: Arc<KafkaSettings>,
}

impl<'a> World<'a> {
    /// Starts the services. PostgreSQL is safe against power cuts, as it is by
    /// default, and notes when each transaction was committed.
    pub(super) fn start(programs: &'a Path, brokers: usize) -> Result<Self, Failed> {
        let services = Services::start(brokers)?;
        let mut postgres = connect(&services, &services.postgres_uri)?;
        postgres.batch_execute("alter system set track_commit_timestamp = on")?;
        // What a server of production has, so that writing is what is measured.
        postgres.batch_execute("alter system set shared_buffers = '256MB'")?;
        postgres.batch_execute("alter system set max_wal_size = '4GB'")?;
        drop(postgres);
        services.restart_postgres()?;
        let addresses = BrokerAddress::parse_list(&services.kafka_plain)?;
        let kafka = Arc::new(KafkaSettings::new(addresses, Security::Plain));
        Ok(Self { services, programs, kafka })
    }

    /// Which Kafka and which PostgreSQL they are.
    pub(super) fn versions(&self) -> Result<String, Failed> {
        // What answers requests does not say its version, but its log does.
        let log = read_to_string(self.services.dir.join("kafka/1/log")).unwrap_or_default();
        let kafka = log.lines().find_map(|line| line.split_once("Kafka version: "));
        let kafka = kafka.map_or("of unknown version", |(_, version)| version.trim());
        let mut postgres = connect(&self.services, &self.services.postgres_uri)?;
        let postgres: String = postgres.query_one("show server_version", &[])?.get(0);
        Ok(format!("Kafka {kafka}, PostgreSQL {postgres}"))
    }

    /// An empty database.
    pub(super) fn database(&self) -> Result<Database, Failed> {
        let uri = fresh_database(&self.services)?;
        let client = connect(&self.services, &uri)?;
        Ok(Database { uri, client })
    }

    /// A recorder on a database, over TLS on both sides.
    pub(super) fn recorder(
        &self,
        database: &Database,
        domains: &str,
        more: &[(&str, &str)],
    ) -> Result<Program, Failed> {
        let ca = self.services.postgres_ca.display().to_string();
        let own = [("DOMAIN", domains), ("POSTGRES", &database.uri), ("PGCA", &ca)];
        self.program("recorder", &[&own, more].concat())
    }

    /// One of the programs, with the way to Kafka and these variables.
    pub(super) fn program(
        &self,
        name: &str,
        variables: &[(&str, &str)],
    ) -> Result<Program, Failed> {
        let path = |path: &Path| path.display().to_string();
        let Services { kafka_tls, kafka_ca, kafka_cert, kafka_key, .. } = &*self.services;
        let (ca, cert, key) = (path(kafka_ca), path(kafka_cert), path(kafka_key));
        let kafka = [
            ("KAFKA", kafka_tls.as_str()),
            ("CA", &ca),
            ("CERT", &cert),
            ("KEY", &key),
            ("RUST_LOG", "info"),
        ];
        Ok(Program::start(self.programs.join(name), &[], &[&kafka, variables].concat())?)
    }

    /// A client to look with.
    pub(super) fn client(&self) -> KafkaClient {
        KafkaClient::new(Arc::clone(&self.kafka))
    }

    /// A producer to fill topics with.
    pub(super) fn producer(&self) -> KafkaProducer {
        KafkaProducer::new(Arc::clone(&self.kafka), ProducerOptions::default())
    }

    /// Writes so many records to the topic of each domain.
    pub(super) fn fill(&self, domains: &[Domain], each: usize) -> Result<(), Failed> {
        let mut producer = self.producer();
        for domain in domains {
            let mut queue: VecDeque<ProduceRecord> = VecDeque::new();
            let mut load = Load::new(domain)?.take(each);
            let topic = topic(domain)?;
            loop {
                queue.extend(load.by_ref().take(20_000 - queue.len()));
                let count = batch_len(&queue, BATCH_BYTES_MAX, usize::MAX);
                if count == 0 {
                    break;
                }
                let records = queue.drain(..count).collect();
                deliver(&mut producer, TopicBatch { topic: topic.clone(), records })?;
            }
        }
        Ok(())
    }
}

/// Sends a batch until it is delivered: the offset of its first record.
pub(super) fn deliver(producer: &mut KafkaProducer, batch: TopicBatch) -> Result<i64, Failed> {
    let deadline = Instant::now() + PATIENCE;
    let mut batches = vec![batch];
    while Instant::now() < deadline {
        for (_, outcome) in producer.send(std::mem::take(&mut batches), None) {
            match outcome {
                ProduceOutcome::Delivered { base_offset, .. } => {
                    return Ok(base_offset.unwrap_or(0));
                }
                ProduceOutcome::Pending { .. } => thread::park_timeout(LOOK_EVERY),
                other => return Err(format!("not delivered: {other:?}").into()),
            }
        }
    }
    Err("a batch was not delivered".into())
}

/// Domains that no other run has.
pub(super) fn domains(count: usize) -> Result<Vec<Domain>, Failed> {
    let suffix = fresh_name("bench");
    (0..count).map(|index| Ok(Domain::parse(&format!("d{index}.{suffix}.example"))?)).collect()
}

/// As a list for DOMAIN.
pub(super) fn list(domains: &[Domain]) -> String {
    domains.iter().map(Domain::as_str).collect::<Vec<_>>().join(",")
}

/// The topic of a domain.
pub(super) fn topic(domain: &Domain) -> Result<String, Failed> {
    Ok(domain.topic(TOPIC_PREFIX)?)
}

/// A database and a connection to look into it.
pub(super) struct Database {
    pub(super) uri: String,
    pub(super) client: postgres::Client,
}

impl Database {
    /// A number that a query returns; 0 while what it asks for is not there.
    pub(super) fn number(&mut self, sql: &str) -> i64 {
        let row = self.client.query_one(sql, &[]);
        row.ok().and_then(|row| row.try_get(0).ok()).unwrap_or(0)
    }

    /// Waits until a number is at least so large: when.
    pub(super) fn wait_for(&mut self, sql: &str, least: i64) -> Result<Instant, Failed> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.number(sql) >= least {
                return Ok(Instant::now());
            }
            thread::park_timeout(LOOK_EVERY);
        }
        Err(format!("{sql}: not {least} within {PATIENCE:?}").into())
    }

    /// The processor time of this connection's backend, in seconds.
    pub(super) fn own_backend_s(&mut self) -> Result<f64, Failed> {
        self.backends_s("pid = pg_backend_pid()")
    }

    /// That of all others of this database.
    pub(super) fn other_backends_s(&mut self) -> Result<f64, Failed> {
        self.backends_s("pid <> pg_backend_pid()")
    }

    fn backends_s(&mut self, which: &str) -> Result<f64, Failed> {
        let sql = format!(
            "select pid from pg_stat_activity where datname = current_database() \
             and backend_type = 'client backend' and {which}"
        );
        let found = self.client.query(&sql, &[])?;
        let of = |row: &postgres::Row| processor_s(u32::try_from(row.get::<_, i32>(0))?);
        found.iter().map(of).sum()
    }

    /// Records a second, from the first that are seen to be recorded to the
    /// last of `total`: how a program starts is not part of it.
    pub(super) fn rate_until(&mut self, total: usize) -> Result<f64, Failed> {
        self.wait_for(POSITION, 1)?;
        let (started, before) = (Instant::now(), self.number(POSITION));
        let ended = self.wait_for(POSITION, total as i64)?;
        if before >= total as i64 || self.number("select count(*) from availability_gap") > 0 {
            return Err("there was nothing to be measured: too few records, or gaps".into());
        }
        Ok((total as i64 - before) as f64 / ended.duration_since(started).as_secs_f64())
    }
}
