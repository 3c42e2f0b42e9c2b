//! The network below HTTP: name resolution, connections, proxies and TLS.

pub(crate) mod connect;
pub mod deadline;
pub mod proxy;
pub mod resolver;
pub mod socket;
pub(crate) mod stream;
pub mod tls;
