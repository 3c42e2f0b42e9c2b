//! Connections to PostgreSQL, and the tables in it.

pub mod domain_table;
pub mod pool;
pub mod sql;
