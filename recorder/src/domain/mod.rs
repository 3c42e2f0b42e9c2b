//! Records one domain. A worker takes turns: it fetches from all partitions of the topic, decodes
//! the records into batches, writes each batch in one transaction, and publishes offsets of the
//! consumer group for dashboards.
//!
//! - [`worker`]: the loop of turns; [`session`]: the state that a worker keeps between turns and
//!   drops after any error;
//! - [`fetch`], [`prefetch`], [`writer`]: from Kafka to the transaction;
//! - [`topic`], [`resume`], [`legacy`], [`unreadable`]: where reading starts, and which records are
//!   skipped;
//! - [`turns`]: which domains may connect to Kafka, if a limit allows too few connections;
//! - [`retry`], [`error`]: the errors of a session, and the delay before the next attempt;
//! - [`services`]: the traits for Kafka, PostgreSQL and the clock; [`store`]: PostgreSQL.

mod error;
mod fetch;
pub(crate) mod group_offset;
mod legacy;
pub(crate) mod prefetch;
mod resume;
mod retry;
mod services;
mod session;
pub(crate) mod shared;
mod store;
mod topic;
pub(crate) mod turns;
mod unreadable;
pub(crate) mod worker;
mod writer;
