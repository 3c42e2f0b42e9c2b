//! Decodes the bytes of records into rows. Pure: no database, no clock.

pub mod batch;
pub mod identities;
pub mod labels;
pub mod rejected;
pub mod row;
