//! The reasons why a batch can't be read.

use crate::batch::compression::{Codec, UNPACKED_BYTES_MAX};

/// The reason why a batch in the log can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchFailure {
    /// The checksum does not match. If `found` is the same at each fetch, the log is damaged. If
    /// `found` differs, the network damages the data.
    #[error("the checksum is wrong: {found:08x} instead of {written:08x}")]
    Checksum {
        /// The checksum in the batch.
        written: u32,
        /// The checksum of the bytes that were read.
        found: u32,
    },
    /// The compression is not supported.
    #[error("compression {0} is not supported")]
    UnsupportedCodec(Codec),
    /// The message format is not supported. Formats 0 and 1 are written by clients older than
    /// Kafka 0.11.
    #[error("message format {0} is not supported (only 2, of Kafka 0.11 and newer)")]
    UnsupportedFormat(i8),
    /// The decompressed records exceed the limit.
    #[error("more than {UNPACKED_BYTES_MAX} bytes when unpacked from {0}")]
    TooLarge(Codec),
    /// The checksum matches, but the content is not a valid batch.
    #[error("{0}")]
    Invalid(String),
    /// The decoder panicked, because of a bug or because of bytes that the network changed.
    #[error("the decoder panicked")]
    Panicked,
    /// The batch is larger than the requested bytes.
    #[error("larger than the requested bytes")]
    Cut,
}

impl BatchFailure {
    /// Whether another fetch can succeed: a checksum can be wrong because of the network, a
    /// decoder can panic because of other bytes in memory, and a cut batch can fit a larger fetch.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Checksum { .. } | Self::Panicked | Self::Cut)
    }

    pub(super) fn invalid(reason: &str) -> Self {
        Self::Invalid(reason.to_owned())
    }
}
