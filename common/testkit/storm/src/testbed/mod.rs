//! Everything that a storm runs on: services, proxies, sites and programs.

pub(crate) mod managed_program;
pub(crate) mod storm_site;
pub(crate) mod topics;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::domain::{Domain, TOPIC_PREFIX};
use kafka_client::{BrokerAddress, KafkaClient, KafkaSettings, Security};
use testkit::proxy::{KafkaProxy, PostgresProxy};
use testkit::services::{OwnSet, Services, connect, fresh_database};
use testkit::small_disk::SmallDisk;

use self::managed_program::{ManagedProgram, ProgramId};
use self::storm_site::{DOMAINS, StormSite, host};
use self::topics::create_topic;

/// Number of brokers.
pub(crate) const BROKERS: usize = 3;
/// Probe period: together about 46 results per second.
const PERIOD_S: u32 = 1;
/// Larger than the minimum limit of a spool, which is 16 MiB.
const DISK_MIB: u32 = 24;
/// A role with a cheap password hash, because each cut connection authenticates again.
const ROLE: &str = "storm";

/// How the recorders run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecorderMode {
    /// Smart mode, which merges healthy results.
    pub(crate) smart: bool,
    /// Recorders discover topics themselves, instead of a list of domains.
    pub(crate) any_domain: bool,
}

/// All parts. They are dropped in this order: programs before the services that they use.
pub(crate) struct StormTestbed {
    programs: Vec<(ProgramId, Mutex<ManagedProgram>)>,
    folder: PathBuf,
    /// The small file system that holds the first tracker's spool.
    pub(crate) disk: SmallDisk,
    /// The sites that the trackers probe.
    pub(crate) sites: StormSite,
    /// The proxy in front of Kafka, used by all programs.
    pub(crate) kafka: KafkaProxy,
    /// The proxy in front of PostgreSQL, used by both recorders.
    pub(crate) postgres: PostgresProxy,
    /// URI of the database, without the proxy.
    pub(crate) database: String,
    /// The domains, in the order of their indexes.
    pub(crate) domains: Vec<Domain>,
    /// Held while records are written to a topic, and while a topic is deleted: otherwise a write
    /// could recreate the topic before the deletion is complete.
    pub(crate) writing: Mutex<()>,
    pub(crate) services: OwnSet,
}

impl StormTestbed {
    /// Starts everything except the programs.
    ///
    /// # Errors
    /// Fails if a part can't be started.
    pub(crate) fn start(
        mode: RecorderMode,
        programs: &Path,
        folder: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let disk = SmallDisk::mount(&folder.join("disk"), DISK_MIB)?;
        log::info!("starting {BROKERS} brokers and a postgresql");
        let services = Services::start(BROKERS)?;
        let sites = StormSite::start()?;
        let kafka = KafkaProxy::start(&services.kafka_plain)?;
        let server = format!("127.0.0.1:{}", services.postgres_port).parse()?;
        let postgres = PostgresProxy::start(server)?;
        let database = fresh_database(&services)?;
        let domains: Vec<Domain> =
            (0..DOMAINS).map(|index| Domain::parse(&host(index))).collect::<Result<_, _>>()?;
        let mut testbed = Self {
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
        testbed.prepare()?;
        for id in ProgramId::ALL {
            let running = testbed.new_program(id, mode, programs, folder)?;
            testbed.programs.push((id, Mutex::new(running)));
        }
        Ok(testbed)
    }

    /// Creates the topics and the recorders' role.
    fn prepare(&mut self) -> Result<(), Box<dyn Error>> {
        let create_role = format!(
            "set scram_iterations = 1; create role {ROLE} superuser login password '{ROLE}'"
        );
        connect(&self.services, &self.database)?.batch_execute(&create_role)?;
        let mut client = KafkaClient::new(self.settings()?);
        for topic in self.topics()? {
            // Brokers that have just started may need longer than one request time-out.
            create_topic(&mut client, &topic)?;
        }
        Ok(())
    }

    /// Settings to reach Kafka without the proxy.
    ///
    /// # Errors
    /// Fails if an address does not parse.
    pub(crate) fn settings(&self) -> Result<Arc<KafkaSettings>, Box<dyn Error>> {
        let brokers = BrokerAddress::parse_list(&self.services.kafka_plain)?;
        let mut settings = KafkaSettings::new(brokers, Security::Plain);
        // Paused or killed brokers time out soon.
        settings.connect_timeout_ms = 2_000;
        settings.request_timeout_ms = 4_000;
        Ok(Arc::new(settings))
    }

    /// The names of the topics, in the order of the domains.
    ///
    /// # Errors
    /// Fails if a name is too long.
    pub(crate) fn topics(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let topics = self.domains.iter().map(|domain| domain.topic(TOPIC_PREFIX));
        Ok(topics.collect::<Result<_, _>>()?)
    }

    /// Locks a program for one fault.
    ///
    /// # Errors
    /// Fails if there is no such program.
    pub(crate) fn lock_program(
        &self,
        id: ProgramId,
    ) -> Result<MutexGuard<'_, ManagedProgram>, Box<dyn Error>> {
        let found = self.programs.iter().find(|(it, _)| *it == id).ok_or("no such program")?;
        Ok(found.1.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The spool folder of a tracker, as this process can reach it.
    pub(crate) fn spool(&self, tracker: usize) -> PathBuf {
        match tracker {
            0 => self.disk.path_from_host().join("spool"),
            _ => self.folder.join(format!("spool-{}", tracker + 1)),
        }
    }

    fn new_program(
        &self,
        id: ProgramId,
        mode: RecorderMode,
        programs: &Path,
        folder: &Path,
    ) -> Result<ManagedProgram, Box<dyn Error>> {
        let mut command = Vec::new();
        let mut variables = vec![("KAFKA", self.kafka.addresses())];
        let name = match id {
            ProgramId::Tracker(index) => {
                let spool = match index {
                    0 => {
                        command = self.disk.command_prefix();
                        folder.join("disk/spool")
                    }
                    _ => folder.join(format!("spool-{}", index + 1)),
                };
                variables.extend([
                    ("LOCATION", id.name()),
                    ("WEBSITES", self.sites.targets(index).join(",")),
                    ("PERIOD", PERIOD_S.to_string()),
                    ("TIMEOUT", "5".to_owned()),
                    ("SPOOL", spool.display().to_string()),
                    ("SPOOL_MAX", "16".to_owned()),
                ]);
                "tracker"
            }
            ProgramId::Recorder(_) => {
                let hosts: Vec<_> = self.domains.iter().map(Domain::as_str).collect();
                let domain = if mode.any_domain { "*".to_owned() } else { hosts.join(",") };
                variables.extend([
                    ("DOMAIN", domain),
                    ("POSTGRES", self.recorder_uri()),
                    ("SMART", mode.smart.to_string()),
                ]);
                "recorder"
            }
        };
        command.push(programs.join(name).display().to_string());
        let log = folder.join(format!("{}.log", id.name()));
        Ok(ManagedProgram::new(id, command, variables, log))
    }

    fn recorder_uri(&self) -> String {
        let base = self.database.split('?').next().unwrap_or_default();
        let name = base.rsplit('/').next().unwrap_or_default();
        format!("postgres://{ROLE}:{ROLE}@{}/{name}?sslmode=disable", self.postgres.address())
    }
}
