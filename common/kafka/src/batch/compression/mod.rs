//! Decompression of batches by decoders in Rust, with a limit on the decompressed size.
//!
//! The producer does not compress: its records are few and small, and the broker would have to
//! decompress each batch to validate it.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;

/// The maximum number of decompressed bytes of one batch. A compressed batch has at most 1 MiB by
/// default, but a decompression bomb of that size would become a gigabyte.
pub(crate) const UNPACKED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The compression of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
    None,
    /// gzip.
    Gzip,
    /// snappy, as a raw block or in the framing of the Java library xerial.
    Snappy,
    /// lz4 frames.
    Lz4,
    /// zstd.
    Zstd,
    /// A codec number that Kafka 4.4 does not define.
    Other(u8),
}

impl Codec {
    pub(crate) fn from_attributes(attributes: i16) -> Self {
        match attributes & 7 {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            other => Self::Other(other.unsigned_abs() as u8),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip => f.write_str("gzip"),
            Self::Snappy => f.write_str("snappy"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd => f.write_str("zstd"),
            Self::Other(number) => write!(f, "number {number}"),
        }
    }
}

/// The reason why a batch can't be decompressed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UnpackError {
    TooLarge,
    Unsupported,
    Invalid(String),
}

/// Decompresses the records of a batch into at most `bytes_max` bytes.
pub(crate) fn unpack(codec: Codec, packed: Bytes, bytes_max: usize) -> Result<Bytes, UnpackError> {
    match codec {
        Codec::None => Ok(packed),
        Codec::Gzip => read_all(flate2::read::MultiGzDecoder::new(&*packed), bytes_max),
        Codec::Snappy => snappy(&packed, bytes_max),
        Codec::Lz4 => read_all(lz4_flex::frame::FrameDecoder::new(&*packed), bytes_max),
        Codec::Zstd => zstd(&packed, bytes_max),
        Codec::Other(_) => Err(UnpackError::Unsupported),
    }
}

fn invalid(cause: impl fmt::Display) -> UnpackError {
    UnpackError::Invalid(cause.to_string())
}

fn read_all(reader: impl Read, bytes_max: usize) -> Result<Bytes, UnpackError> {
    let mut unpacked = Vec::new();
    append(reader, &mut unpacked, bytes_max)?;
    Ok(unpacked.into())
}

fn append(reader: impl Read, unpacked: &mut Vec<u8>, bytes_max: usize) -> Result<(), UnpackError> {
    let remaining = bytes_max - unpacked.len();
    reader
        .take(remaining as u64 + 1)
        .read_to_end(unpacked)
        .map_err(|cause: io::Error| invalid(cause))?;
    if unpacked.len() > bytes_max { Err(UnpackError::TooLarge) } else { Ok(()) }
}

/// Several zstd frames can follow each other, like gzip members.
fn zstd(packed: &[u8], bytes_max: usize) -> Result<Bytes, UnpackError> {
    let mut rest = packed;
    let mut unpacked = Vec::new();
    while !rest.is_empty() {
        let decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest).map_err(invalid)?;
        append(decoder, &mut unpacked, bytes_max)?;
    }
    Ok(unpacked.into())
}

/// The header that Kafka's Java clients write before snappy blocks: magic, version, and the lowest
/// compatible version.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_LEN: usize = XERIAL_MAGIC.len() + 8;

fn snappy(packed: &[u8], bytes_max: usize) -> Result<Bytes, UnpackError> {
    let mut unpacked = Vec::new();
    if !packed.starts_with(XERIAL_MAGIC) {
        snappy_block(packed, &mut unpacked, bytes_max)?;
        return Ok(unpacked.into());
    }
    let cut = || invalid("a snappy block is cut");
    let mut rest = packed.get(XERIAL_HEADER_LEN..).ok_or_else(cut)?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let block = after.get(..length).ok_or_else(cut)?;
        snappy_block(block, &mut unpacked, bytes_max)?;
        rest = &after[length..];
    }
    if rest.is_empty() { Ok(unpacked.into()) } else { Err(cut()) }
}

fn snappy_block(block: &[u8], unpacked: &mut Vec<u8>, bytes_max: usize) -> Result<(), UnpackError> {
    let length = snap::raw::decompress_len(block).map_err(invalid)?;
    let start = unpacked.len();
    if length > bytes_max - start {
        return Err(UnpackError::TooLarge);
    }
    unpacked.resize(start + length, 0);
    let written =
        snap::raw::Decoder::new().decompress(block, &mut unpacked[start..]).map_err(invalid)?;
    unpacked.truncate(start + written);
    Ok(())
}

#[cfg(test)]
mod tests;
