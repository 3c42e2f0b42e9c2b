//! The services, the proxies, the sites and the programs of a storm.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::domain::{Domain, TOPIC_PREFIX};
use kafka_client::{Address, Client, Security, Settings};

use crate::fault_plan::{BROKERS, DOMAINS, FaultPlan, ProgramId};
use crate::fault_runner::make_topic;
use crate::managed_program::ManagedProgram;
use crate::storm_site::{StormSite, host};
use testkit::proxy::{KafkaProxy, PostgresProxy};
use testkit::services::{OwnSet, Services, connect, fresh_database};
use testkit::small_disk::SmallDisk;

/// The period in which each target is probed: some 46 results a second.
const PERIOD_S: u32 = 1;
/// Above the least bound of a spool, which is 16 MiB.
const DISK_MIB: u32 = 24;
/// A role whose password costs little to check, as it is checked at each cut.
const ROLE: &str = "storm";

/// All of it. Dropped in this order: programs before what they stand on.
pub(crate) struct StormTestbed {
    programs: Vec<(ProgramId, Mutex<ManagedProgram>)>,
    folder: PathBuf,
    /// The disk of the first tracker's spool.
    pub(crate) disk: SmallDisk,
    /// What is probed.
    pub(crate) sites: StormSite,
    /// Before Kafka, for all programs.
    pub(crate) kafka: KafkaProxy,
    /// Before PostgreSQL, for both recorders.
    pub(crate) postgres: PostgresProxy,
    /// The database, reached without the proxy.
    pub(crate) database: String,
    /// The domains, in the order of their indexes.
    pub(crate) domains: Vec<Domain>,
    /// Held by who writes to topics, and by who deletes one: nobody else is to
    /// make it before it is gone.
    pub(crate) writing: Mutex<()>,
    /// Kafka and PostgreSQL.
    pub(crate) services: OwnSet,
}

impl StormTestbed {
    /// Starts everything but the programs.
    ///
    /// # Errors
    /// When a part can't be started.
    pub(crate) fn start(
        plan: &FaultPlan,
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
        for who in ProgramId::ALL {
            let running = testbed.program(who, plan, programs, folder)?;
            testbed.programs.push((who, Mutex::new(running)));
        }
        Ok(testbed)
    }

    /// Makes the topics and the recorders' role.
    fn prepare(&mut self) -> Result<(), Box<dyn Error>> {
        let make = format!(
            "set scram_iterations = 1; create role {ROLE} superuser login password '{ROLE}'"
        );
        connect(&self.services, &self.database)?.batch_execute(&make)?;
        let mut client = Client::new(self.settings()?);
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
    pub(crate) fn settings(&self) -> Result<Arc<Settings>, Box<dyn Error>> {
        let brokers = Address::parse_list(&self.services.kafka_plain)?;
        let mut settings = Settings::new(brokers, Security::Plain);
        // What is paused or killed is left alone soon.
        settings.connect_timeout_ms = 2_000;
        settings.request_timeout_ms = 4_000;
        Ok(Arc::new(settings))
    }

    /// The topics' names, in the order of the domains.
    ///
    /// # Errors
    /// When a name is too long.
    pub(crate) fn topics(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let topics = self.domains.iter().map(|domain| domain.topic(TOPIC_PREFIX));
        Ok(topics.collect::<Result<_, _>>()?)
    }

    /// A program, for one who does something to it.
    ///
    /// # Errors
    /// When there is none such.
    pub(crate) fn running(
        &self,
        who: ProgramId,
    ) -> Result<MutexGuard<'_, ManagedProgram>, Box<dyn Error>> {
        let found = self.programs.iter().find(|(it, _)| *it == who).ok_or("no such program")?;
        Ok(found.1.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The spool of a tracker, as it is seen from here.
    pub(crate) fn spool(&self, tracker: usize) -> PathBuf {
        match tracker {
            0 => self.disk.path_from_host().join("spool"),
            _ => self.folder.join(format!("spool-{}", tracker + 1)),
        }
    }

    fn program(
        &self,
        who: ProgramId,
        plan: &FaultPlan,
        programs: &Path,
        folder: &Path,
    ) -> Result<ManagedProgram, Box<dyn Error>> {
        let mut command = Vec::new();
        let mut variables = vec![("KAFKA", self.kafka.addresses())];
        let name = match who {
            ProgramId::Tracker(index) => {
                let spool = match index {
                    0 => {
                        command = self.disk.command_prefix();
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
            ProgramId::Recorder(_) => {
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
        Ok(ManagedProgram::new(who, command, variables, log))
    }

    fn recorders_uri(&self) -> String {
        let base = self.database.split('?').next().unwrap_or_default();
        let name = base.rsplit('/').next().unwrap_or_default();
        format!("postgres://{ROLE}:{ROLE}@{}/{name}?sslmode=disable", self.postgres.address())
    }
}
