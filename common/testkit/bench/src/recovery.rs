//! Interruption of recording after a crash.

use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use kafka_client::{KafkaProducer, TopicBatch};
use testkit::program::Program;

use crate::record_generator::RecordGenerator;
use crate::report::Report;
use crate::testbed::{BenchDatabase, BenchTestbed, POSITION, deliver, new_domains, topic};
use crate::{Bench, BenchError};

/// Pause before each crash.
const SETTLE: Duration = Duration::from_secs(4);
/// Maximum time until another recorder continues.
const TAKEOVER_S_MAX: f64 = 10.0;

/// Kills a recorder, then the leader of the topic's partition, then PostgreSQL.
pub(crate) fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), BenchError> {
    let testbed = bench.testbed(3)?;
    let domain = new_domains(1)?.remove(0);
    let mut database = testbed.database()?;
    let mut stream = RecordStream {
        topic: topic(&domain)?,
        records: RecordGenerator::new(&domain)?,
        producer: testbed.producer(),
    };
    stream.send()?;
    let holder = testbed.recorder(&database, domain.as_str(), &[])?;
    stream.until_recorded(&mut database, Instant::now())?;
    let other = testbed.recorder(&database, domain.as_str(), &[])?;
    thread::park_timeout(SETTLE);

    let killed_at = Instant::now();
    kill(holder)?;
    let seconds = stream.until_recorded(&mut database, killed_at)?;
    report.add_target(
        "recorder killed: time until the first row of another recorder",
        format!("{seconds:.1} s"),
        format!("≤ {TAKEOVER_S_MAX} s"),
        seconds <= TAKEOVER_S_MAX,
    );

    let leader = leader(&testbed, &domain)?;
    let killed_at = Instant::now();
    testbed.services.kill_broker(leader)?;
    let seconds = stream.until_recorded(&mut database, killed_at)?;
    report.add_figure(
        "leader of 3 brokers killed: time until the next row",
        format!("{seconds:.1} s"),
    );
    testbed.services.start_broker(leader)?;
    thread::park_timeout(SETTLE);

    let killed_at = Instant::now();
    testbed.services.kill_postgres()?;
    testbed.services.start_postgres()?;
    let down_s = killed_at.elapsed().as_secs_f64();
    database.reconnect(&testbed)?;
    let seconds = stream.until_recorded(&mut database, killed_at)?;
    report.add_figure(
        "PostgreSQL killed and restarted: time until the next row",
        format!("{seconds:.1} s, with PostgreSQL down for {down_s:.1} s"),
    );
    other.stop(crate::testbed::TIMEOUT)?;
    Ok(())
}

/// Kills the lease holder.
fn kill(holder: Program) -> Result<(), BenchError> {
    holder.signal("KILL");
    holder.wait(crate::testbed::TIMEOUT)?;
    Ok(())
}

/// The id of the broker that leads the domain's topic.
fn leader(testbed: &BenchTestbed<'_>, domain: &Domain) -> Result<usize, BenchError> {
    let metadata = testbed.client().topics(&[topic(domain)?])?;
    let partition = metadata.first().and_then(|topic| topic.partitions.first());
    let leader = partition.and_then(|partition| partition.leader).ok_or("no leader")?;
    Ok(usize::try_from(leader)?)
}

/// A stream of new records.
struct RecordStream {
    topic: String,
    records: RecordGenerator,
    producer: KafkaProducer,
}

impl RecordStream {
    /// Writes a record and returns its offset.
    fn send(&mut self) -> Result<i64, BenchError> {
        let records = vec![self.records.next_with_current_time()];
        deliver(&mut self.producer, TopicBatch { topic: self.topic.clone(), records })
    }

    /// Writes a record and waits for its row. Returns the seconds since `since`.
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
    fn reconnect(&mut self, testbed: &BenchTestbed<'_>) -> Result<(), BenchError> {
        self.client = testkit::services::connect(&testbed.services, &self.uri)?;
        Ok(())
    }
}
