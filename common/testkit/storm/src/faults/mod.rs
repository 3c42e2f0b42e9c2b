//! Faults: their plan, their injection, and the log of injected faults.

pub(crate) mod log;
pub(crate) mod plan;
pub(crate) mod record_injector;
pub(crate) mod recreate_topic;
pub(crate) mod runner;

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use testkit::proxy::Direction;

use crate::testbed::managed_program::ProgramId;

/// Any error of a fault.
type StormError = Box<dyn Error>;

/// A kind of Kafka request that the proxy can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Produce,
    Fetch,
    Metadata,
    ListOffsets,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and a restart after this many milliseconds.
    Kill(ProgramId, u64),
    /// SIGSTOP, and SIGCONT after this many milliseconds.
    Pause(ProgramId, u64),
    /// SIGKILL of a broker (counted from 1), and a restart.
    KillBroker(usize, u64),
    /// SIGSTOP of a broker, and SIGCONT.
    PauseBroker(usize, u64),
    /// Immediate shutdown of PostgreSQL, and a restart.
    CrashPostgres(u64),
    /// Cuts a connection to a broker after this many bytes of a frame.
    CutKafka(RequestKind, Direction, usize),
    /// Holds a frame for this many milliseconds.
    StallKafka(RequestKind, Direction, u64),
    /// Discards a frame.
    DiscardKafka(RequestKind, Direction),
    /// Cuts a connection to PostgreSQL after this many bytes, counted from the start of a
    /// transaction or from its COMMIT.
    CutPostgres {
        /// Count from the COMMIT, not from the start of the transaction.
        commit: bool,
        /// The direction to cut.
        direction: Direction,
        /// Bytes that are forwarded before the cut.
        bytes: usize,
    },
    /// Holds a message of a transaction for this many milliseconds.
    StallPostgres {
        /// Hold the COMMIT, not the start of the transaction.
        commit: bool,
        /// The direction to hold.
        direction: Direction,
        /// Milliseconds.
        ms: u64,
    },
    /// Fills the disk of the first tracker's spool for this many milliseconds.
    FillDisk(u64),
    /// Deletes the topic of a domain and recreates it. The recorders are paused for `lag_ms`
    /// milliseconds before the deletion (0: not paused).
    RecreateTopic {
        /// Index of the domain.
        domain: usize,
        /// Time for which the recorders are paused, so that they lag behind.
        lag_ms: u64,
        /// The storm recreates the topic, instead of a tracker.
        recreated_by_storm: bool,
    },
}

fn wait_ms(ms: u64) {
    let until = Instant::now() + Duration::from_millis(ms);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        thread::park_timeout(left);
    }
}
