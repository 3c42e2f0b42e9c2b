//! From a result to Kafka. The saver gives each result its sequence number and
//! writes it to the spool; the producer sends what is in the spool to Kafka.

pub(crate) mod loss_log;
pub(crate) mod producer;
mod run_totals;
pub(crate) mod saver;
pub(crate) mod shared_spool;
pub(crate) mod spool;

pub(crate) use run_totals::RunTotals;
