//! Encryption and authentication of connections.

pub(crate) mod sasl;
pub(crate) mod tls;
