//! From the bytes of records to rows, without a database and without a clock.

pub mod batch;
pub mod row;
