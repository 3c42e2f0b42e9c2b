//! HTTP/1.1 on an established connection: the request, the response, and the checks on
//! the response.

pub(crate) mod body;
mod buffers;
mod charset;
pub mod checks;
pub(crate) mod client;
pub(crate) mod encoding;
pub(crate) mod head;
mod json;
pub(crate) mod redirect;
pub mod request;
mod transport;
