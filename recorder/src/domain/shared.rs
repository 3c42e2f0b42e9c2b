//! What the workers of all domains share.

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

/// What the workers of all domains share.
#[derive(Debug)]
pub(crate) struct SharedState {
    /// The connections to PostgreSQL.
    pub(crate) database: Database,
    /// The outage of PostgreSQL, if there is one.
    pub(crate) postgres_outage: Arc<SharedOutage>,
    /// Statements that PostgreSQL refuses: a missing right, a lock that is not free.
    pub(crate) postgres_refusals: SharedRefusals,
    /// How to connect to Kafka.
    pub(crate) kafka: Arc<kafka_client::KafkaSettings>,
    /// The outage of Kafka, if there is one.
    pub(crate) kafka_outage: SharedOutage,
    /// Requests that Kafka refuses because of a missing right.
    pub(crate) kafka_refusals: SharedOutage,
    /// Which domains may connect to Kafka.
    pub(crate) turns: Arc<ConnectionTurns>,
    /// Whether Kafka answers the discovery thread.
    pub(crate) kafka_health: KafkaHealth,
    /// Which leaders this recorder reaches.
    pub(crate) reach: LeaderReach,
    /// Until when the leases of this recorder are valid.
    pub(crate) lease: LeaseValidity,
    /// How long a fetch waits at the broker for a record, in milliseconds.
    pub(crate) fetch_wait_ms: AtomicU32,
    /// The most bytes that one fetch of a domain returns.
    pub(crate) fetch_bytes: AtomicU32,
    /// The bound on prefetching.
    pub(crate) prefetch_permits: Semaphore,
    /// The prefix of the names of topics.
    pub(crate) topic_prefix: String,
    /// The offsets of the consumer group, for dashboards.
    pub(crate) group_offset: DashboardOffset,
    /// Whether healthy records are merged.
    pub(crate) smart: bool,
    /// Whether it was logged that the schema lacks what an upgrade adds.
    pub(crate) schema_warned: AtomicBool,
    /// Whether a missing index of smart mode was logged.
    pub(crate) index_warned: AtomicBool,
    /// The counters.
    pub(crate) metrics: Metrics,
    /// Intervals and time-outs.
    pub(crate) timings: Timings,
}
