//! HTTP: the request, the answer, and what is expected of it.

pub(crate) mod body;
mod buffers;
pub mod checks;
pub(crate) mod client;
mod json;
pub(crate) mod redirect;
pub mod request;
