//! What is logged and counted.

pub(crate) mod counts;
pub mod outage_log;
