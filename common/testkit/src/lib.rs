//! What the tests and the demonstration need: real services, sites and name
//! servers that fail on purpose, and the certificates for them.

pub mod certificates;
pub mod demo;
pub mod dns;
pub mod forward;
pub mod program;
pub mod services;
pub mod sites;
