//! When each target is due, and the account of the slots that were missed.

pub mod clock;
pub mod grid;
pub mod slot_account;
