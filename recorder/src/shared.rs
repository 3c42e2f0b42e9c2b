//! What the threads of all domains share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use crate::domain::group_offset::GroupOffset;
use crate::domain::prefetch::Permits;
use crate::lease::kafka_health::Reach;
use crate::lease::validity::LeaseClock;
use crate::postgres::pool::Database;
use crate::report::outage_log::SharedOutage;

/// What all domains' threads share.
#[derive(Debug)]
pub struct Shared {
    /// Connections to PostgreSQL.
    pub database: Database,
    /// The way to Kafka.
    pub kafka: Arc<kafka_client::Settings>,
    /// Whether Kafka can be reached.
    pub kafka_outage: SharedOutage,
    /// Whether PostgreSQL refuses what domains ask of it: a right that is not
    /// granted, a lock that is not free.
    pub refusals: SharedOutage,
    /// Whether Kafka answers for long enough to have a share of the domains.
    pub reach: Reach,
    /// Until when this recorder may rely on its leases.
    pub lease: LeaseClock,
    /// How long a fetch waits at the broker for a record, in milliseconds.
    pub fetch_wait_ms: AtomicU32,
    /// The most bytes read for a domain at once.
    pub fetch_bytes: AtomicU32,
    /// Who may read ahead.
    pub ahead: Permits,
    /// What topics begin with.
    pub topic_prefix: String,
    /// The consumer group that dashboards look at, and how committing goes.
    pub group: GroupOffset,
    /// Whether healthy records are merged.
    pub smart: bool,
    /// Whether it was said that an index for that can't be made.
    pub index_said: AtomicBool,
}
