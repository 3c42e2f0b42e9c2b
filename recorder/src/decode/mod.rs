//! Decodes the bytes of records into rows, without a database and without a clock.

pub mod batch;
pub mod identities;
pub mod labels;
pub mod rejected;
pub mod row;
