//! Record batches of message format 2: encoding, decoding and decompression.

pub(crate) mod compression;
pub(crate) mod decode;
pub(crate) mod encode;
