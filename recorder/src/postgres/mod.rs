//! Access to PostgreSQL: a pool of connections, transactions, and descriptions of tables.

pub mod domain_table;
pub mod enums;
pub mod error;
pub mod pool;
pub(crate) mod quote;
pub mod tables;
pub mod value;
