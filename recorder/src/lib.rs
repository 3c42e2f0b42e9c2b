//! Reads results from Apache Kafka and writes each to PostgreSQL exactly once.
//!
//! # Data flow
//!
//! ```text
//! discovery --topics--> supervisor --one worker per lease--> domain worker
//!                         |    ^                               |
//!                     renew, change                   fetch -> decode -> transaction
//!                         v    |                        |                    |
//!                     PostgreSQL (leases)             Kafka       PostgreSQL (rows, position)
//! ```
//!
//! - `discovery` asks the brokers for topics and records which leaders are reachable.
//! - `supervisor` renews the leases in PostgreSQL (`lease`), which distribute the domains over
//!   several recorders. It starts a worker for each lease that it acquires, and stops the worker
//!   of each lease that it hands over.
//! - A worker (`domain`) fetches records and decodes them into rows ([`decode`]). It writes the
//!   rows and the new position in one transaction ([`transaction`]), without results that are
//!   already recorded. Smart mode merges healthy rows in that transaction.
//! - [`replay`] and [`schema`] are the subcommands.
//!
//! [`run`] starts the threads of discovery and supervisor, and owns their channels.

pub mod decode;
mod discovery;
mod domain;
mod lease;
mod open_files;
pub mod postgres;
pub mod replay;
pub mod report;
pub mod schema;
pub mod settings;
mod supervisor;
pub mod timings;
pub mod transaction;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::panics;
use common::settings::values;
use common::stop::{self, SignalThread, Stop};
use crossbeam_channel::{Receiver, bounded, select};
use kafka_client::flags::plain_text_warning;
use kafka_client::{GroupOffset, KafkaClient, KafkaError};

use crate::discovery::Discovery;
use crate::domain::group_offset::{DashboardOffset, OffsetCommitter};
use crate::domain::prefetch::Semaphore;
use crate::domain::shared::SharedState;
use crate::domain::turns::ConnectionTurns;
use crate::lease::kafka_health::KafkaHealth;
use crate::lease::reach::LeaderReach;
use crate::lease::store::LeaseStore;
use crate::lease::validity::LeaseValidity;
use crate::postgres::pool::Database;
use crate::report::metrics::Metrics;
use crate::report::outage_log::{SharedOutage, SharedRefusals};
use crate::settings::Settings;
use crate::supervisor::Supervisor;
use crate::timings::Timings;

/// The time that the supervisor may take to end, in addition to the shutdown time-out.
const SHUTDOWN_MARGIN: Duration = Duration::from_millis(500);

/// Records until SIGTERM or SIGINT, and then returns exit code 0. Returns exit code 1 if the
/// recorder cannot start, or can no longer renew its leases.
pub fn run(settings: Settings) -> ExitCode {
    let recorded = SignalThread::start().and_then(|(signals, stop)| {
        record(settings, Timings::default(), &stop)?;
        signals.join();
        Ok(())
    });
    match recorded {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Records until a stop is requested.
///
/// # Errors
/// The threads can't be started, or the supervisor panicked.
pub fn record(settings: Settings, timings: Timings, stop: &Stop) -> io::Result<()> {
    log_start(&settings);
    let lists_topics = settings.selection.has_patterns();
    let connections = if lists_topics {
        settings.postgres_connections
    } else {
        settings.postgres_connections.min(settings.selection.domains().len())
    };
    let postgres_outage = Arc::new(SharedOutage::new("postgresql"));
    let lease_database =
        Database::for_leases(settings.postgres.clone(), Arc::clone(&postgres_outage));
    let store = LeaseStore::new(lease_database, stop.clone(), values::host(), &timings);
    let shared = Arc::new(SharedState {
        database: Database::new(settings.postgres, connections, Arc::clone(&postgres_outage)),
        postgres_outage,
        postgres_refusals: SharedRefusals::new("postgresql"),
        kafka: settings.kafka,
        kafka_outage: SharedOutage::new("kafka"),
        kafka_refusals: SharedOutage::new("kafka"),
        turns: Arc::new(ConnectionTurns::new(&timings)),
        kafka_health: KafkaHealth::new(timings.kafka_unreachable_after),
        reach: LeaderReach::default(),
        lease: LeaseValidity::default(),
        fetch_wait_ms: AtomicU32::new(0),
        fetch_bytes: AtomicU32::new(0),
        // One permit for each domain that can write at the same time.
        prefetch_permits: Semaphore::new(connections),
        topic_prefix: settings.topic_prefix,
        group_offset: DashboardOffset::new(settings.group),
        smart: settings.smart,
        schema_warned: AtomicBool::new(false),
        index_warned: AtomicBool::new(false),
        metrics: Metrics::default(),
        timings,
    });

    let (discovered_sender, discovered) = bounded(1);
    let (selected_sender, selected) = bounded(1);
    let mut discovery = Discovery::new(
        Arc::clone(&shared),
        stop.clone(),
        lists_topics,
        selected,
        discovered_sender,
    );
    let selection = settings.selection;
    let supervisor =
        Supervisor::new(store, Arc::clone(&shared), selection, discovered, selected_sender);
    let discover = {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        move || {
            while panics::catch(|| discovery.run()).is_err()
                && !stop.wait(shared.timings.discovery_retry_delay)
            {
                shared.metrics.panics.add(1);
            }
        }
    };
    let discovery = thread::Builder::new().name("discovery".to_owned()).spawn(discover)?;

    let (committer_stopper, committer_stop) = stop::pair();
    // The channel is disconnected when the last commit has ended.
    let (committing_sender, committing) = bounded::<()>(0);
    let commit = {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        move || {
            let _committing = committing_sender;
            let mut client = KafkaClient::new(Arc::clone(&shared.kafka));
            let committer = OffsetCommitter::new(&shared.group_offset, &shared.timings);
            let commit = |group: &str, offsets: &[GroupOffset<'_>]| {
                let result = client.commit_offsets(group, offsets);
                if let Err(KafkaError::TooManyConnections { .. }) = &result {
                    shared.turns.make_room(Instant::now());
                }
                result
            };
            committer.run(commit, &stop, &committer_stop);
        }
    };
    let committer = thread::Builder::new().name("group offsets".to_owned()).spawn(commit)?;

    // No message is sent: the channel is disconnected when the supervisor ends.
    let (running_sender, running) = bounded::<()>(0);
    let supervise = {
        let stop = stop.clone();
        move || {
            let _running = running_sender;
            supervisor.run(&stop);
        }
    };
    let supervisor = thread::Builder::new().name("supervisor".to_owned()).spawn(supervise)?;

    select! {
        // A stop disconnects the channel.
        recv(stop.channel()) -> _ => {}
        recv(running) -> _ => {
            if !stop.is_requested() {
                return Err(io::Error::other("the thread that renews the leases panicked"));
            }
        }
    }
    wait_for_supervisor(&running, &shared.timings);
    drop(committer_stopper);
    let _ = committing
        .recv_timeout(shared.group_offset.final_timeout(shared.timings.group_commit_stop_timeout));
    shut_down([discovery, supervisor, committer], &shared);
    Ok(())
}

fn log_start(settings: &Settings) {
    let warnings = [settings.postgres.warning(), plain_text_warning(&settings.kafka)];
    for warning in warnings.into_iter().flatten() {
        log::warn!("{warning}");
    }
    let Settings { postgres, selection, smart, .. } = settings;
    let mode = if *smart { ", smart mode" } else { "" };
    log::info!("recording {selection} to postgresql {}{mode}", postgres.uri);
}

/// Waits until the supervisor has ended, at most for the shutdown time-out.
fn wait_for_supervisor(running: &Receiver<()>, timings: &Timings) {
    let timeout = timings.shutdown_timeout + SHUTDOWN_MARGIN;
    if running.recv_timeout(timeout).is_err_and(|error| error.is_timeout()) {
        log::warn!("postgresql does not answer: leases were not released, they will expire");
    }
}

/// Logs the totals.
fn shut_down(threads: [JoinHandle<()>; 3], shared: &SharedState) {
    let metrics = &shared.metrics;
    log::info!(
        "inserted rows: {}, merged records: {}, records in quarantine: {}, dropped duplicates: {}",
        metrics.rows_inserted.get(),
        metrics.records_merged.get(),
        metrics.records_quarantined.get(),
        metrics.duplicates_dropped.get()
    );
    let panics = metrics.panics.get();
    if panics > 0 {
        log::error!("caught panics: {panics}: please report the lines that contain \"panicked\"");
    }
    // A thread that still waits for a server is abandoned. It holds no data that could be lost.
    for thread in threads.into_iter().filter(JoinHandle::is_finished) {
        // The panic hook has logged a panic.
        let _ = thread.join();
    }
}
