//! Reads results from Apache Kafka and writes each to PostgreSQL exactly once.
//!
//! One thread per domain ([`domain_thread`]): it fetches records, turns them
//! into rows ([`rows`]) and writes them in one transaction with the new
//! position ([`mod@write`]), less what is recorded already ([`marks`]); smart
//! mode merges healthy rows on the way ([`smart`], [`merge`]). All SQL is in
//! [`sql`]. Where reading starts is decided in [`position`].

pub mod counts;
pub mod database;
pub mod domain_thread;
pub mod failure;
pub mod group;
pub mod marks;
pub mod merge;
pub mod offsets;
pub mod outage;
pub mod position;
pub mod rows;
pub mod schema;
pub mod settings;
pub mod smart;
pub mod sql;
pub mod write;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::stop::{SignalThread, Stop};
use crossbeam_channel::{Receiver, bounded};

use crate::counts::Counts;
use crate::database::Database;
use crate::domain_thread::{DomainThread, Shared};
use crate::group::GroupOffset;
use crate::outage::SharedOutage;
use crate::settings::Settings;

/// The stack of a domain's thread: a thousand of them must fit.
const STACK_BYTES: usize = 512 * 1024;
/// The longest that threads may take to end. A container is killed after 10 s,
/// and a domain that waits for a server that does not answer loses nothing by
/// being left: its transaction takes place as a whole or not at all.
const END_WITHIN: Duration = Duration::from_secs(7);

/// Records until SIGTERM or SIGINT; then 0, or 1 when it can't even start.
pub fn run(settings: Settings) -> ExitCode {
    match record(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("can't start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn record(settings: Settings) -> io::Result<()> {
    let (signals, stop) = SignalThread::start()?;
    if let Some(warning) = settings.postgres.warning() {
        log::warn!("{warning}");
    }
    log::info!(
        "recording {} domains to postgresql {}{}",
        settings.domains.len(),
        settings.postgres.uri,
        if settings.smart { ", smart mode" } else { "" }
    );
    let connections = settings.postgres_connections.min(settings.domains.len());
    let shared = Arc::new(Shared {
        database: Database::new(settings.postgres, connections),
        kafka: settings.kafka,
        kafka_outage: SharedOutage::new("kafka"),
        topic_prefix: settings.topic_prefix,
        group: GroupOffset::new(settings.group),
        smart: settings.smart,
    });
    let (ended, ends) = bounded(settings.domains.len());
    let mut threads = Vec::with_capacity(settings.domains.len());
    for (domain, topic) in settings.domains {
        let name = domain.to_string();
        let thread = DomainThread::new(domain, topic, Arc::clone(&shared), stop.clone());
        let ended = ended.clone();
        let run = move || {
            let counts = thread.run();
            // There is room for every thread's, and nobody may listen any more.
            let _ = ended.try_send(counts);
        };
        threads.push(thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(run)?);
    }
    drop(ended);
    join(threads, &ends, &stop);
    signals.join();
    Ok(())
}

/// Waits for the stop, then for the threads, but not for ever.
fn join(threads: Vec<JoinHandle<()>>, ends: &Receiver<Counts>, stop: &Stop) {
    // The channel ends when all threads have, which they do at a stop alone.
    let _ = stop.channel().recv();
    let deadline = Instant::now() + END_WITHIN;
    let mut all = Counts::default();
    let mut open = threads.len();
    while open > 0
        && let Ok(counts) = ends.recv_deadline(deadline)
    {
        all += counts;
        open -= 1;
    }
    if open == 0 {
        for thread in threads {
            // A panic of that thread was printed by it; there is nothing to add here.
            let _ = thread.join();
        }
    } else {
        let names: Vec<_> = threads
            .iter()
            .filter(|thread| !thread.is_finished())
            .filter_map(|thread| thread.thread().name())
            .take(5)
            .collect();
        log::warn!(
            "{open} domains did not end within {} s (such as {}); nothing is lost, they go on from their stored position",
            END_WITHIN.as_secs(),
            names.join(", ")
        );
    }
    let Counts { inserted, merged, quarantined, duplicates } = all;
    log::info!(
        "recorded {inserted} rows, {merged} merged records, {quarantined} in quarantine, {duplicates} duplicates dropped"
    );
}
