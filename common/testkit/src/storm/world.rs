//! The services, the proxies, the sites and the programs of a storm.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::domain::{Domain, TOPIC_PREFIX};
use kafka_client::{BrokerAddress, KafkaClient, KafkaSettings, Security};

use super::faults::make_topic;
use super::plan::{BROKERS, DOMAINS, Plan, Who};
use super::programs::Running;
use super::sites::{Sites, host};
use crate::proxy::{KafkaProxy, PostgresProxy};
use crate::services::{OwnSet, Services, connect, fresh_database};
use crate::small_disk::SmallDisk;

/// The period in which each target is probed: some 46 results a second.
const PERIOD_S: u32 = 1;
/// Above the least bound of a spool, which is 16 MiB.
const DISK_MIB: u32 = 24;
/// A role whose password costs little to check, as it is checked at each cut.
const ROLE: &str = "storm";

/// All of it. Dropped in this order: programs before what they stand on.
pub(super) struct World {
    programs: Vec<(Who, Mutex<Running>)>,
    folder: PathBuf,
    /// The disk of the first tracker's spool.
    pub(super) disk: SmallDisk,
    /// What is probed.
    pub(super) sites: Sites,
    /// Before Kafka, for all programs.
    pub(super) kafka: KafkaProxy,
    /// Before PostgreSQL, for both recorders.
    pub(super) postgres: PostgresProxy,
    /// The database, reached without the proxy.
    pub(super) database: String,
    /// The domains, in the order of their indexes.
    pub(super) domains: Vec<Domain>,
    /// Held by who writes to topics, and by who deletes one: nobody else is to
    /// make it before it is gone.
    pub(super) writing: Mutex<()>,
    /// Kafka and PostgreSQL.
    pub(super) services: OwnSet,
}

impl World {
    /// Starts everything but the programs.
    ///
    /// # Errors
    /// When a part can't be started.
    pub(super) fn start(
        plan: &Plan,
        programs: &Path,
        folder: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let disk = SmallDisk::mount(&folder.join("disk"), DISK_MIB)?;
        log::info!("starting {BROKERS} brokers and a postgresql");
        let services = Services::start(BROKERS)?;
        let sites = Sites::start()?;
        let kafka = KafkaProxy::start(&services.kafka_plain)?;
        let server = format!("127.0.0.1:{}", services.postgres_port).parse()?;
        let postgres = PostgresProxy::start(server)?;
        let database = fresh_database(&services)?;
        let domains: Vec<Domain> =
            (0..DOMAINS).map(|index| Domain::parse(&host(index))).collect::<Result<_, _>>()?;
        let mut world = Self {
            programs: Vec::new(),
            folder: folder.to_path_buf(),
            disk,
            sites,
            kafka,
            postgres,
            database,
            domains,
            writing: Mutex::new(()),
            services,
        };
        world.prepare()?;
        for who in Who::ALL {
            let running = world.program(who, plan, programs, folder)?;
            world.programs.push((who, Mutex::new(running)));
        }
        Ok(world)
    }

    /// Makes the topics and the recorders' role.
    fn prepare(&mut self) -> Result<(), Box<dyn Error>> {
        let make = format!(
            "set scram_iterations = 1; create role {ROLE} superuser login password '{ROLE}'"
        );
        connect(&self.services, &self.database)?.batch_execute(&make)?;
        let mut client = KafkaClient::new(self.settings()?);
        for topic in self.topics()? {
            // Brokers that have just started may take longer than an answer is waited for.
            make_topic(&mut client, &topic)?;
        }
        Ok(())
    }

    /// The way to Kafka without the proxy.
    ///
    /// # Errors
    /// When the addresses are none.
    pub(super) fn settings(&self) -> Result<Arc<KafkaSettings>, Box<dyn Error>> {
        let brokers = BrokerAddress::parse_list(&self.services.kafka_plain)?;
        let mut settings = KafkaSettings::new(brokers, Security::Plain);
        // What is paused or killed is left alone soon.
        settings.connect_timeout_ms = 2_000;
        settings.request_timeout_ms = 4_000;
        Ok(Arc::new(settings))
    }

    /// The topics' names, in the order of the domains.
    ///
    /// # Errors
    /// When a name is too long.
    pub(super) fn topics(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let topics = self.domains.iter().map(|domain| domain.topic(TOPIC_PREFIX));
        Ok(topics.collect::<Result<_, _>>()?)
    }

    /// A program, for one who does something to it.
    ///
    /// # Errors
    /// When there is none such.
    pub(super) fn running(&self, who: Who) -> Result<MutexGuard<'_, Running>, Box<dyn Error>> {
        let found = self.programs.iter().find(|(it, _)| *it == who).ok_or("no such program")?;
        Ok(found.1.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The spool of a tracker, as it is seen from here.
    pub(super) fn spool(&self, tracker: usize) -> PathBuf {
        match tracker {
            0 => self.disk.from_here().join("spool"),
            _ => self.folder.join(format!("spool-{}", tracker + 1)),
        }
    }

    fn program(
        &self,
        who: Who,
        plan: &Plan,
        programs: &Path,
        folder: &Path,
    ) -> Result<Running, Box<dyn Error>> {
        let mut command = Vec::new();
        let mut variables = vec![("KAFKA", self.kafka.addresses())];
        let name = match who {
            Who::Tracker(index) => {
                let spool = match index {
                    0 => {
                        command = self.disk.entrance();
                        folder.join("disk/spool")
                    }
                    _ => folder.join(format!("spool-{}", index + 1)),
                };
                variables.extend([
                    ("LOCATION", who.name()),
                    ("WEBSITES", self.sites.targets(index).join(",")),
                    ("PERIOD", PERIOD_S.to_string()),
                    ("TIMEOUT", "5".to_owned()),
                    ("SPOOL", spool.display().to_string()),
                    ("SPOOL_MAX", "16".to_owned()),
                ]);
                "tracker"
            }
            Who::Recorder(_) => {
                let hosts: Vec<_> = self.domains.iter().map(Domain::as_str).collect();
                let domain = if plan.any_domain { "*".to_owned() } else { hosts.join(",") };
                variables.extend([
                    ("DOMAIN", domain),
                    ("POSTGRES", self.recorders_uri()),
                    ("SMART", plan.smart.to_string()),
                ]);
                "recorder"
            }
        };
        command.push(programs.join(name).display().to_string());
        let log = folder.join(format!("{}.log", who.name()));
        Ok(Running::new(who, command, variables, log))
    }

    fn recorders_uri(&self) -> String {
        let base = self.database.split('?').next().unwrap_or_default();
        let name = base.rsplit('/').next().unwrap_or_default();
        format!("postgres://{ROLE}:{ROLE}@{}/{name}?sslmode=disable", self.postgres.address())
    }
}
