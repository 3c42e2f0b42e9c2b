//! The network below HTTP: names, connections, proxies and TLS.

pub(crate) mod connect;
pub mod proxy;
pub mod resolver;
pub mod socket;
pub(crate) mod stream;
pub mod tls;
