//! The state that the workers of all domains share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use super::group_offset::DashboardOffset;
use super::prefetch::Semaphore;
use super::turns::ConnectionTurns;
use crate::lease::kafka_health::KafkaHealth;
use crate::lease::reach::LeaderReach;
use crate::lease::validity::LeaseValidity;
use crate::postgres::pool::Database;
use crate::report::metrics::Metrics;
use crate::report::outage_log::{SharedOutage, SharedRefusals};
use crate::timings::Timings;

/// The state that the workers of all domains share.
#[derive(Debug)]
pub(crate) struct SharedState {
    /// The connections to PostgreSQL.
    pub(crate) database: Database,
    /// The log of the outage of PostgreSQL.
    pub(crate) postgres_outage: Arc<SharedOutage>,
    /// Statements that PostgreSQL refuses, because of a missing right or a busy lock.
    pub(crate) postgres_refusals: SharedRefusals,
    /// The settings of the connection to Kafka.
    pub(crate) kafka: Arc<kafka_client::KafkaSettings>,
    /// The log of the outage of Kafka.
    pub(crate) kafka_outage: SharedOutage,
    /// Requests that Kafka refuses because of a missing right.
    pub(crate) kafka_refusals: SharedOutage,
    /// Which domains may connect to Kafka.
    pub(crate) turns: Arc<ConnectionTurns>,
    /// Whether Kafka answers the discovery thread.
    pub(crate) kafka_health: KafkaHealth,
    /// The leaders that this recorder reaches.
    pub(crate) reach: LeaderReach,
    /// The time until which the leases of this recorder are valid.
    pub(crate) lease: LeaseValidity,
    /// The time in milliseconds for which a fetch waits at the broker for a record.
    pub(crate) fetch_wait_ms: AtomicU32,
    /// The maximum size in bytes of one fetch of a domain.
    pub(crate) fetch_bytes: AtomicU32,
    /// The limit on prefetches.
    pub(crate) prefetch_permits: Semaphore,
    /// The prefix of the names of topics.
    pub(crate) topic_prefix: String,
    /// The offsets of the consumer group, for dashboards.
    pub(crate) group_offset: DashboardOffset,
    /// Whether healthy records are merged.
    pub(crate) smart: bool,
    /// Whether the log already says that the schema lacks parts of an upgrade.
    pub(crate) schema_warned: AtomicBool,
    /// Whether the log already says that the index of smart mode is missing.
    pub(crate) index_warned: AtomicBool,
    /// The counters.
    pub(crate) metrics: Metrics,
    /// Intervals and time-outs.
    pub(crate) timings: Timings,
}
