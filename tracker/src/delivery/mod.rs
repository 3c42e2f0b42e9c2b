//! From a result to Kafka. The saver assigns a sequence number to each result
//! and writes the result to the spool. The producer sends the results in the
//! spool to Kafka.

pub(crate) mod loss_log;
pub(crate) mod producer;
mod run_totals;
pub(crate) mod saver;
pub(crate) mod shared_spool;
pub(crate) mod spool;

pub(crate) use run_totals::RunTotals;
