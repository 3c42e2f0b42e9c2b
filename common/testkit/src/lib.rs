//! Parts for tests and test programs: real services, HTTP sites and DNS servers with scripted
//! failures, proxies that break connections, certificates, child processes, and mutated inputs for
//! decoders.

pub mod acls;
pub mod certificates;
pub mod dns;
pub mod forwarder;
pub mod fuzz;
pub mod process_usage;
pub mod program;
pub mod proxy;
pub mod raw_request;
pub mod services;
pub mod sites;
pub mod small_disk;
pub mod spool_counts;
