//! When each target is due, and which of its slots were missed.

pub(crate) mod clock;
pub(crate) mod grid;
pub(crate) mod slot_account;
