//! How a connection is protected and how the client proves its identity.

pub(crate) mod sasl;
pub(crate) mod tls;
