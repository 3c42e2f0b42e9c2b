//! The logs and the counters of the recorder.

pub mod anomalies;
pub mod metrics;
pub mod outage_log;
pub mod quarantine_log;
