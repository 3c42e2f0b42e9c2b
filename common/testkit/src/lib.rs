//! What the tests and the demonstration need: real services, sites and name
//! servers that fail on purpose, proxies that break connections, bytes that no
//! decoder should trip over, the certificates for all of it, and measurements.

pub mod ask;
pub mod bench;
pub mod certificates;
pub mod demo;
pub mod dns;
pub mod forward;
pub mod fuzz;
pub mod given;
pub mod program;
pub mod proxy;
pub mod services;
pub mod sites;
pub mod small_disk;
pub mod soak;
pub mod storm;
pub mod usage;
