//! Leases: each domain is recorded by at most one recorder at a time.
//!
//! A lease is a row in PostgreSQL. [`plan`] decides which leases to acquire, request and hand over.
//! [`store`] reads and changes the rows. [`validity`] records how long workers may rely on their
//! leases.
//!
//! A recorder acquires only leases of topics whose leader it reaches ([`reach`]). If a worker makes
//! no progress ([`progress`]), the recorder offers the lease ([`offers`]) to recorders that may be
//! able to record the domain. A recorder registers only while Kafka answers ([`kafka_health`]).
//!
//! Leases only avoid useless work. The compare-and-set on the position in each transaction
//! guarantees that each record is written once.

pub(crate) mod kafka_health;
pub(crate) mod offers;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod reach;
pub(crate) mod store;
pub(crate) mod validity;

pub(crate) use store::TABLES;
