//! Services, programs that use them, and topics with records.

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
use testkit::program::Program;
use testkit::services::{OwnSet, Services, connect, fresh_database, fresh_name};

use crate::BenchError;
use crate::machine::processor_s;
use crate::record_generator::RecordGenerator;

/// Time-out for everything that is not measured.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(600);
/// Interval of polling the progress of a recorder.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Number of recorded records of all topics.
pub(crate) const POSITION: &str =
    "select coalesce(sum(next_offset), 0)::bigint from availability_offset";

/// The services of one measurement.
pub(crate) struct BenchTestbed<'a> {
    pub(crate) services: OwnSet,
    programs: &'a Path,
    kafka: Arc<KafkaSettings>,
}

impl<'a> BenchTestbed<'a> {
    /// Starts the services. PostgreSQL runs with fsync, as by default, and stores the commit time
    /// of each transaction.
    pub(crate) fn start(programs: &'a Path, brokers: usize) -> Result<Self, BenchError> {
        let services = Services::start(brokers)?;
        let mut postgres = connect(&services, &services.postgres_uri)?;
        postgres.batch_execute("alter system set track_commit_timestamp = on")?;
        // Typical values of a production server, so that checkpoints do not dominate.
        postgres.batch_execute("alter system set shared_buffers = '256MB'")?;
        postgres.batch_execute("alter system set max_wal_size = '4GB'")?;
        drop(postgres);
        services.restart_postgres()?;
        let addresses = BrokerAddress::parse_list(&services.kafka_plain)?;
        let kafka = Arc::new(KafkaSettings::new(addresses, Security::Plain));
        Ok(Self { services, programs, kafka })
    }

    /// The versions of Kafka and PostgreSQL.
    pub(crate) fn versions(&self) -> Result<String, BenchError> {
        // The broker's responses do not have its version, but its log does.
        let log = read_to_string(self.services.dir.join("kafka/1/log")).unwrap_or_default();
        let kafka = log.lines().find_map(|line| line.split_once("Kafka version: "));
        let kafka = kafka.map_or("of unknown version", |(_, version)| version.trim());
        let mut postgres = connect(&self.services, &self.services.postgres_uri)?;
        let postgres: String = postgres.query_one("show server_version", &[])?.get(0);
        Ok(format!("Kafka {kafka}, PostgreSQL {postgres}"))
    }

    /// Creates an empty database.
    pub(crate) fn database(&self) -> Result<BenchDatabase, BenchError> {
        let uri = fresh_database(&self.services)?;
        let client = connect(&self.services, &uri)?;
        Ok(BenchDatabase { uri, client })
    }

    /// Starts a recorder, with TLS to both services.
    pub(crate) fn recorder(
        &self,
        database: &BenchDatabase,
        domains: &str,
        more: &[(&str, &str)],
    ) -> Result<Program, BenchError> {
        let ca = self.services.postgres_ca.display().to_string();
        let own = [("DOMAIN", domains), ("POSTGRES", &database.uri), ("PGCA", &ca)];
        self.program("recorder", &[&own, more].concat())
    }

    /// Starts a program with the settings for Kafka and these variables.
    pub(crate) fn program(
        &self,
        name: &str,
        variables: &[(&str, &str)],
    ) -> Result<Program, BenchError> {
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

    /// A Kafka client for the measurement itself.
    pub(crate) fn client(&self) -> KafkaClient {
        KafkaClient::new(Arc::clone(&self.kafka))
    }

    /// A producer for the measurement itself.
    pub(crate) fn producer(&self) -> KafkaProducer {
        KafkaProducer::new(Arc::clone(&self.kafka), ProducerOptions::default())
    }

    /// Writes this many records to the topic of each domain.
    pub(crate) fn fill(&self, domains: &[Domain], each: usize) -> Result<(), BenchError> {
        let mut producer = self.producer();
        for domain in domains {
            let mut queue: VecDeque<ProduceRecord> = VecDeque::new();
            let mut load = RecordGenerator::new(domain)?.take(each);
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

/// Sends a batch until it is delivered. Returns the offset of its first record.
pub(crate) fn deliver(producer: &mut KafkaProducer, batch: TopicBatch) -> Result<i64, BenchError> {
    let deadline = Instant::now() + TIMEOUT;
    let mut batches = vec![batch];
    while Instant::now() < deadline {
        for (_, outcome) in producer.send(std::mem::take(&mut batches), None) {
            match outcome {
                ProduceOutcome::Delivered { base_offset, .. } => {
                    return Ok(base_offset.unwrap_or(0));
                }
                ProduceOutcome::Pending { .. } => thread::park_timeout(POLL_INTERVAL),
                other => return Err(format!("not delivered: {other:?}").into()),
            }
        }
    }
    Err("a batch was not delivered in time".into())
}

/// Creates domains with unique names.
pub(crate) fn new_domains(count: usize) -> Result<Vec<Domain>, BenchError> {
    let suffix = fresh_name("bench");
    (0..count).map(|index| Ok(Domain::parse(&format!("d{index}.{suffix}.example"))?)).collect()
}

/// The value of DOMAIN for these domains.
pub(crate) fn domain_list(domains: &[Domain]) -> String {
    domains.iter().map(Domain::as_str).collect::<Vec<_>>().join(",")
}

/// The topic of a domain.
pub(crate) fn topic(domain: &Domain) -> Result<String, BenchError> {
    Ok(domain.topic(TOPIC_PREFIX)?)
}

/// A database and a connection to it.
pub(crate) struct BenchDatabase {
    pub(crate) uri: String,
    pub(crate) client: postgres::Client,
}

impl BenchDatabase {
    /// Returns a number from a query. 0 while the queried table does not exist.
    pub(crate) fn number(&mut self, sql: &str) -> i64 {
        let row = self.client.query_one(sql, &[]);
        row.ok().and_then(|row| row.try_get(0).ok()).unwrap_or(0)
    }

    /// Waits until a query returns at least `least`. Returns the time.
    pub(crate) fn wait_for(&mut self, sql: &str, least: i64) -> Result<Instant, BenchError> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if self.number(sql) >= least {
                return Ok(Instant::now());
            }
            thread::park_timeout(POLL_INTERVAL);
        }
        Err(format!("{sql}: not {least} within {TIMEOUT:?}").into())
    }

    /// Processor time of this connection's backend, in seconds.
    pub(crate) fn own_backend_s(&mut self) -> Result<f64, BenchError> {
        self.backends_s("pid = pg_backend_pid()")
    }

    /// Processor time of all other backends of this database, in seconds.
    pub(crate) fn other_backends_s(&mut self) -> Result<f64, BenchError> {
        self.backends_s("pid <> pg_backend_pid()")
    }

    fn backends_s(&mut self, which: &str) -> Result<f64, BenchError> {
        let sql = format!(
            "select pid from pg_stat_activity where datname = current_database() \
             and backend_type = 'client backend' and {which}"
        );
        let rows = self.client.query(&sql, &[])?;
        let backend_s = |row: &postgres::Row| processor_s(u32::try_from(row.get::<_, i32>(0))?);
        rows.iter().map(backend_s).sum()
    }

    /// Returns records per second, from the first recorded records to the last of `total`. The
    /// start of the program is not included.
    pub(crate) fn rate_until(&mut self, total: usize) -> Result<f64, BenchError> {
        self.wait_for(POSITION, 1)?;
        let (started, before) = (Instant::now(), self.number(POSITION));
        let ended = self.wait_for(POSITION, total as i64)?;
        if before >= total as i64 || self.number("select count(*) from availability_gap") > 0 {
            return Err("nothing to measure: too few records, or gaps".into());
        }
        Ok((total as i64 - before) as f64 / ended.duration_since(started).as_secs_f64())
    }
}
