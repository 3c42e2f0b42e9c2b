//! Reads results from Apache Kafka and writes each to PostgreSQL exactly once.

pub mod database;
pub mod domain_thread;
pub mod failure;
pub mod group;
pub mod merge;
pub mod offsets;
pub mod outage;
pub mod position;
pub mod rows;
pub mod schema;
pub mod smart;
pub mod sql;
pub mod write;
