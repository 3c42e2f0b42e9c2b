//! What the recorder logs about itself and counts.

pub mod anomalies;
pub mod metrics;
pub mod outage_log;
pub mod quarantine_log;
