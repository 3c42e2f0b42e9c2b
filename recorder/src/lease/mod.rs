//! Leases: which recorder records which domain.

pub(crate) mod kafka_health;
pub(crate) mod plan;
pub(crate) mod sql;
pub(crate) mod store;
pub(crate) mod validity;
