//! Access to PostgreSQL: pooled connections, transactions, and tables as data.

pub mod domain_table;
pub mod enums;
pub mod error;
pub mod pool;
pub(crate) mod quote;
pub mod tables;
pub mod value;
