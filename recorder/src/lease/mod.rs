//! Leases: each domain is recorded by at most one recorder at a time.
//!
//! A lease is a row in PostgreSQL. [`plan`] decides which leases to acquire, request
//! and hand over; [`store`] reads and changes the rows; [`validity`] tells workers how
//! long they may rely on their leases; [`kafka_health`] tells whether this recorder
//! should hold leases at all.
//!
//! Leases only save useless work. What guarantees that a record is written once is the
//! compare-and-set on the position in each transaction.

pub(crate) mod kafka_health;
pub(crate) mod plan;
pub(crate) mod store;
pub(crate) mod validity;

pub(crate) use store::TABLES;
