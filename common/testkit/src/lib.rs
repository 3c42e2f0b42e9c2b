//! What the tests and the demonstration need.

pub mod services;
