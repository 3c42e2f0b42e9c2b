//! How long recording stands still when something dies.

use std::thread;
use std::time::{Duration, Instant};

use common::domain::Domain;
use kafka_client::{KafkaProducer, TopicBatch};

use super::load::Load;
use super::report::Report;
use super::world::{Database, POSITION, World, deliver, domains, topic};
use super::{Bench, Failed};
use crate::program::Program;

/// How long recorders run before something dies.
const SETTLE: Duration = Duration::from_secs(4);
/// How long others may take to go on when a holder dies.
const TAKEN_OVER_WITHIN_S: f64 = 10.0;

/// Kills, one after the other, a recorder, the broker that leads, PostgreSQL.
pub(super) fn recovery(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failed> {
    let world = bench.world(3)?;
    let domain = domains(1)?.remove(0);
    let mut database = world.database()?;
    let mut flow =
        Flow { topic: topic(&domain)?, load: Load::new(&domain)?, producer: world.producer() };
    flow.send()?;
    let holder = world.recorder(&database, domain.as_str(), &[])?;
    flow.until_recorded(&mut database, Instant::now())?;
    let other = world.recorder(&database, domain.as_str(), &[])?;
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

    let leader = leader(&world, &domain)?;
    let died = Instant::now();
    world.services.kill_broker(leader)?;
    let seconds = flow.until_recorded(&mut database, died)?;
    report.figure("leader of 3 brokers killed: first new row", format!("{seconds:.1} s"));
    world.services.start_broker(leader)?;
    thread::park_timeout(SETTLE);

    let died = Instant::now();
    world.services.kill_postgres()?;
    world.services.start_postgres()?;
    let away = died.elapsed().as_secs_f64();
    database.connect_again(&world)?;
    let seconds = flow.until_recorded(&mut database, died)?;
    report.figure(
        "PostgreSQL killed and started again: first new row",
        format!("{seconds:.1} s, of which it was away for {away:.1} s"),
    );
    other.stop(super::world::PATIENCE)?;
    Ok(())
}

/// Ends `holder`, by KILL.
fn kill(holder: Program, other: Program) -> Result<Program, Failed> {
    holder.signal("KILL");
    holder.wait(super::world::PATIENCE)?;
    Ok(other)
}

/// The number of the broker that leads the domain's topic.
fn leader(world: &World<'_>, domain: &Domain) -> Result<usize, Failed> {
    let found = world.client().topics(&[topic(domain)?])?;
    let partition = found.first().and_then(|topic| topic.partitions.first());
    let leader = partition.and_then(|partition| partition.leader).ok_or("no leader")?;
    Ok(usize::try_from(leader)?)
}

/// One fresh record after the other.
struct Flow {
    topic: String,
    load: Load,
    producer: KafkaProducer,
}

impl Flow {
    /// Writes one: its offset.
    fn send(&mut self) -> Result<i64, Failed> {
        let records = vec![self.load.fresh()];
        deliver(&mut self.producer, TopicBatch { topic: self.topic.clone(), records })
    }

    /// Writes one and waits for its row: seconds since `since`.
    fn until_recorded(&mut self, database: &mut Database, since: Instant) -> Result<f64, Failed> {
        let offset = self.send()?;
        let recorded = database.wait_for(POSITION, offset + 1)?;
        Ok(recorded.duration_since(since).as_secs_f64())
    }
}

impl Database {
    fn connect_again(&mut self, world: &World<'_>) -> Result<(), Failed> {
        self.client = crate::services::connect(&world.services, &self.uri)?;
        Ok(())
    }
}
