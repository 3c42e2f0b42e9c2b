//! Reads results from Apache Kafka and writes each to PostgreSQL exactly once.

pub mod merge;
pub mod rows;
