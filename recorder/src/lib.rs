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
pub(crate) mod domain;
pub(crate) mod lease;
pub mod postgres;
pub mod replay;
pub mod report;
pub mod schema;
pub mod settings;
pub(crate) mod supervisor;
pub mod timings;
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

use crate::domain::group_offset::DashboardOffset;
use crate::domain::prefetch::Semaphore;
use crate::domain::shared::Shared;
use crate::lease::kafka_health::Reach;
use crate::lease::store::LeaseStore;
use crate::lease::validity::LeaseClock;
use crate::postgres::pool::Database;
use crate::report::metrics::Metrics;
use crate::report::outage_log::SharedOutage;
use crate::settings::Settings;
use crate::supervisor::{END_WITHIN, Keeper};
use crate::timings::Timings;

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
    let timings = Timings::default();
    let shared = Arc::new(Shared {
        database: Database::new(settings.postgres, connections, Arc::clone(&outage)),
        postgres_outage: outage,
        kafka: settings.kafka,
        kafka_outage: SharedOutage::new("kafka"),
        postgres_refusals: SharedOutage::new("postgresql"),
        kafka_health: Reach::default(),
        lease: LeaseClock::default(),
        fetch_wait_ms: AtomicU32::new(0),
        fetch_bytes: AtomicU32::new(0),
        // As many as can write at the same time.
        prefetch_permits: Semaphore::new(connections),
        topic_prefix: settings.topic_prefix,
        group_offset: DashboardOffset::new(settings.group, &timings),
        smart: settings.smart,
        index_warned: AtomicBool::new(false),
        metrics: Metrics::default(),
        timings,
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
    let keeper = Keeper::new(store, Arc::clone(&shared), settings.wanted, topics);
    let keep = {
        let stop = stop.clone();
        move || {
            // There is room for it, and nobody may listen any more.
            keeper.run(&stop);
            let _ = ended.try_send(());
        }
    };
    threads.push(thread::Builder::new().name("leases".to_owned()).spawn(keep)?);
    // The channel ends at a stop.
    let _ = stop.channel().recv();
    end(threads, &ends, &shared.metrics);
    signals.join();
    Ok(())
}

/// Waits for the threads, but not for ever.
fn end(threads: Vec<JoinHandle<()>>, ends: &Receiver<()>, metrics: &Metrics) {
    match ends.recv_timeout(END_WITHIN + Duration::from_millis(500)) {
        Ok(()) => log::info!(
            "recorded {} rows, {} merged records, {} in quarantine, {} duplicates dropped",
            metrics.rows_inserted.get(),
            metrics.records_merged.get(),
            metrics.records_quarantined.get(),
            metrics.duplicates_dropped.get()
        ),
        Err(_) => log::warn!("postgresql does not answer: leases were not released, they run out"),
    }
    // One that still waits for a server is left: it has nothing to lose.
    for thread in threads.into_iter().filter(JoinHandle::is_finished) {
        // A panic of that thread was printed by it; there is nothing to add here.
        let _ = thread.join();
    }
}
