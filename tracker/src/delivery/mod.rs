//! From a result to Kafka: the saver numbers results and makes them safe in the
//! spool; the producer writes them.

mod account;
pub mod loss_log;
pub mod producer;
pub mod saver;
pub mod shared_spool;
pub mod spool;

pub use account::Account;
