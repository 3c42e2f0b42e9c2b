//! Reads results from Apache Kafka and writes each to PostgreSQL exactly once.
//!
//! One thread keeps a lease for each domain ([`supervisor`], [`lease`]), so that
//! several recorders share them, and one looks for brokers and topics
//! ([`discovery`]). One thread per domain ([`domain`]): it fetches records,
//! turns them into rows ([`decode`]) and writes them in one transaction with the new
//! position ([`transaction`]), less what is recorded already; smart
//! mode merges healthy rows on the way. What went to
//! quarantine is put through again by [`replay`], when somebody asks for it.

pub mod decode;
pub(crate) mod discovery;
pub mod domain;
pub(crate) mod lease;
pub mod postgres;
pub mod replay;
pub mod report;
pub mod schema;
pub mod settings;
pub(crate) mod shared;
pub(crate) mod supervisor;
pub mod transaction;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::settings::values;
use common::stop::SignalThread;
use crossbeam_channel::{Receiver, bounded};

use crate::domain::group_offset::GroupOffset;
use crate::domain::prefetch::Permits;
use crate::lease::kafka_health::Reach;
use crate::lease::store::LeaseStore;
use crate::lease::validity::LeaseClock;
use crate::postgres::pool::Database;
use crate::report::counts::Counts;
use crate::report::outage_log::SharedOutage;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::supervisor::{END_WITHIN, Keeper};

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
    let Settings { postgres, wanted, smart, .. } = &settings;
    let mode = if *smart { ", smart mode" } else { "" };
    log::info!("recording {wanted} to postgresql {}{mode}", postgres.uri);
    let connections = if wanted.has_patterns() {
        settings.postgres_connections
    } else {
        settings.postgres_connections.min(wanted.domains().len())
    };
    let outage = Arc::new(SharedOutage::new("postgresql"));
    let for_leases = Database::for_leases(postgres.clone(), Arc::clone(&outage));
    let store = LeaseStore::new(for_leases, stop.clone(), values::host());
    let shared = Arc::new(Shared {
        database: Database::new(settings.postgres, connections, outage),
        kafka: settings.kafka,
        kafka_outage: SharedOutage::new("kafka"),
        refusals: SharedOutage::new("postgresql"),
        reach: Reach::default(),
        lease: LeaseClock::default(),
        fetch_wait_ms: AtomicU32::new(0),
        fetch_bytes: AtomicU32::new(0),
        // As many as can write at the same time.
        ahead: Permits::new(connections),
        topic_prefix: settings.topic_prefix,
        group: GroupOffset::new(settings.group),
        smart: settings.smart,
        index_said: AtomicBool::new(false),
    });
    let (found, topics) = bounded(1);
    let (ended, ends) = bounded(1);
    let mut threads = Vec::new();
    let look = {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        let for_topics = settings.wanted.has_patterns();
        move || discovery::run(&shared, &stop, for_topics, &found)
    };
    threads.push(thread::Builder::new().name("discovery".to_owned()).spawn(look)?);
    let keeper = Keeper::new(store, shared, settings.wanted, topics);
    let keep = {
        let stop = stop.clone();
        move || {
            // There is room for it, and nobody may listen any more.
            let _ = ended.try_send(keeper.run(&stop));
        }
    };
    threads.push(thread::Builder::new().name("leases".to_owned()).spawn(keep)?);
    // The channel ends at a stop.
    let _ = stop.channel().recv();
    end(threads, &ends);
    signals.join();
    Ok(())
}

/// Waits for the threads, but not for ever.
fn end(threads: Vec<JoinHandle<()>>, ends: &Receiver<Counts>) {
    match ends.recv_timeout(END_WITHIN + Duration::from_millis(500)) {
        Ok(Counts { inserted, merged, quarantined, duplicates }) => log::info!(
            "recorded {inserted} rows, {merged} merged records, {quarantined} in quarantine, {duplicates} duplicates dropped"
        ),
        Err(_) => log::warn!("postgresql does not answer: leases were not released, they run out"),
    }
    // One that still waits for a server is left: it has nothing to lose.
    for thread in threads.into_iter().filter(JoinHandle::is_finished) {
        // A panic of that thread was printed by it; there is nothing to add here.
        let _ = thread.join();
    }
}
