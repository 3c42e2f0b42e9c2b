//! x
pub mod probe;
pub mod targets;
