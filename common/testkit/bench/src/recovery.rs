//! How long recording stands still when something dies.

use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use kafka_client::{Producer, TopicBatch};

use crate::record_generator::RecordGenerator;
use crate::report::Report;
use crate::testbed::{BenchDatabase, BenchTestbed, POSITION, deliver, domains, topic};
use crate::{Bench, BenchError};
use testkit::program::Program;

/// How long recorders run before something dies.
const SETTLE: Duration = Duration::from_secs(4);
/// How long others may take to go on when a holder dies.
const TAKEN_OVER_WITHIN_S: f64 = 10.0;

/// Kills, one after the other, a recorder, the broker that leads, PostgreSQL.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(3)?;
    let domain = domains(1)?.remove(0);
    let mut database = testbed.database()?;
    let mut flow = RecordStream {
        topic: topic(&domain)?,
        load: RecordGenerator::new(&domain)?,
        producer: testbed.producer(),
    };
    flow.send()?;
    let holder = testbed.recorder(&database, domain.as_str(), &[])?;
    flow.until_recorded(&mut database, Instant::now())?;
    let other = testbed.recorder(&database, domain.as_str(), &[])?;
    thread::park_timeout(SETTLE);

    let died = Instant::now();
    let other = kill(holder, other)?;
    let seconds = flow.until_recorded(&mut database, died)?;
    report.target(
        "recorder killed: first row by another",
        format!("{seconds:.1} s"),
        format!("≤ {TAKEN_OVER_WITHIN_S} s"),
        seconds <= TAKEN_OVER_WITHIN_S,
    );

    let leader = leader(&testbed, &domain)?;
    let died = Instant::now();
    testbed.services.kill_broker(leader)?;
    let seconds = flow.until_recorded(&mut database, died)?;
    report.figure("leader of 3 brokers killed: first new row", format!("{seconds:.1} s"));
    testbed.services.start_broker(leader)?;
    thread::park_timeout(SETTLE);

    let died = Instant::now();
    testbed.services.kill_postgres()?;
    testbed.services.start_postgres()?;
    let away = died.elapsed().as_secs_f64();
    database.connect_again(&testbed)?;
    let seconds = flow.until_recorded(&mut database, died)?;
    report.figure(
        "PostgreSQL killed and started again: first new row",
        format!("{seconds:.1} s, of which it was away for {away:.1} s"),
    );
    other.stop(crate::testbed::TIMEOUT)?;
    Ok(())
}

/// Ends `holder`, by KILL.
fn kill(holder: Program, other: Program) -> Result<Program, BenchError> {
    holder.signal("KILL");
    holder.wait(crate::testbed::TIMEOUT)?;
    Ok(other)
}

/// The number of the broker that leads the domain's topic.
fn leader(testbed: &BenchTestbed<'_>, domain: &Domain) -> Result<usize, BenchError> {
    let found = testbed.client().topics(&[topic(domain)?])?;
    let partition = found.first().and_then(|topic| topic.partitions.first());
    let leader = partition.and_then(|partition| partition.leader).ok_or("no leader")?;
    Ok(usize::try_from(leader)?)
}

/// One fresh record after the other.
struct RecordStream {
    topic: String,
    load: RecordGenerator,
    producer: Producer,
}

impl RecordStream {
    /// Writes one: its offset.
    fn send(&mut self) -> Result<i64, BenchError> {
        let records = vec![self.load.fresh()];
        deliver(&mut self.producer, TopicBatch { topic: self.topic.clone(), records })
    }

    /// Writes one and waits for its row: seconds since `since`.
    fn until_recorded(
        &mut self,
        database: &mut BenchDatabase,
        since: Instant,
    ) -> Result<f64, BenchError> {
        let offset = self.send()?;
        let recorded = database.wait_for(POSITION, offset + 1)?;
        Ok(recorded.duration_since(since).as_secs_f64())
    }
}

impl BenchDatabase {
    fn connect_again(&mut self, testbed: &BenchTestbed<'_>) -> Result<(), BenchError> {
        self.client = testkit::services::connect(&testbed.services, &self.uri)?;
        Ok(())
    }
}
