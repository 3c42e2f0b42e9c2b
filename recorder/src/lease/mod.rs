//! Leases: each domain is recorded by at most one recorder at a time.
//!
//! A lease is a row in PostgreSQL. [`plan`] decides which leases to acquire, request
//! and hand over; [`store`] reads and changes the rows; [`validity`] tells workers how
//! long they may rely on their leases.
//!
//! A recorder takes leases only of topics whose leader it reaches ([`reach`]). It offers
//! the leases whose workers do not get on ([`progress`], [`offers`]) to recorders that may
//! be able to record them. [`kafka_health`] tells whether it should register at all.
//!
//! Leases only save useless work. What guarantees that a record is written once is the
//! compare-and-set on the position in each transaction.

pub(crate) mod kafka_health;
pub(crate) mod offers;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod reach;
pub(crate) mod store;
pub(crate) mod validity;

pub(crate) use store::TABLES;
