//! Compressed batches, read by decoders in Rust and with a bound on what they
//! may become. We write none ourselves: our records are small and few, and the
//! broker would have to unpack them to check.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;

/// The most bytes that the records of one batch may have when unpacked. A batch
/// is 1 MiB by default when packed; a bomb of that size would become a gigabyte.
pub(super) const UNPACKED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The compression of a batch, by the number in its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
    None,
    /// gzip.
    Gzip,
    /// snappy, plain or framed as by the Java library xerial.
    Snappy,
    /// lz4, in frames.
    Lz4,
    /// zstd.
    Zstd,
    /// A number that Kafka 4.4 does not know.
    Other(u8),
}

impl Codec {
    pub(super) fn from_attributes(attributes: i16) -> Self {
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

/// Why a batch could not be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unpack {
    TooLarge,
    Unsupported,
    Broken(String),
}

/// The records of a batch as they were before `codec`, at most `bytes_max` of them.
pub(super) fn unpack(codec: Codec, packed: Bytes, bytes_max: usize) -> Result<Bytes, Unpack> {
    match codec {
        Codec::None => Ok(packed),
        Codec::Gzip => read_all(flate2::read::MultiGzDecoder::new(&*packed), bytes_max),
        Codec::Snappy => snappy(&packed, bytes_max),
        Codec::Lz4 => read_all(lz4_flex::frame::FrameDecoder::new(&*packed), bytes_max),
        Codec::Zstd => zstd(&packed, bytes_max),
        Codec::Other(_) => Err(Unpack::Unsupported),
    }
}

fn broken(cause: impl fmt::Display) -> Unpack {
    Unpack::Broken(cause.to_string())
}

fn read_all(reader: impl Read, bytes_max: usize) -> Result<Bytes, Unpack> {
    let mut unpacked = Vec::new();
    append(reader, &mut unpacked, bytes_max)?;
    Ok(unpacked.into())
}

fn append(reader: impl Read, unpacked: &mut Vec<u8>, bytes_max: usize) -> Result<(), Unpack> {
    let left = bytes_max - unpacked.len();
    reader.take(left as u64 + 1).read_to_end(unpacked).map_err(|cause: io::Error| broken(cause))?;
    if unpacked.len() > bytes_max { Err(Unpack::TooLarge) } else { Ok(()) }
}

/// zstd frames stand one after the other, as gzip members do.
fn zstd(packed: &[u8], bytes_max: usize) -> Result<Bytes, Unpack> {
    let mut rest = packed;
    let mut unpacked = Vec::new();
    while !rest.is_empty() {
        let decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest).map_err(broken)?;
        append(decoder, &mut unpacked, bytes_max)?;
    }
    Ok(unpacked.into())
}

/// What Kafka's Java clients put before snappy blocks: magic, version, and the
/// oldest version that can read it.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_LEN: usize = XERIAL_MAGIC.len() + 8;

fn snappy(packed: &[u8], bytes_max: usize) -> Result<Bytes, Unpack> {
    let mut unpacked = Vec::new();
    if !packed.starts_with(XERIAL_MAGIC) {
        snappy_block(packed, &mut unpacked, bytes_max)?;
        return Ok(unpacked.into());
    }
    let cut = || broken("a block of snappy is cut");
    let mut rest = packed.get(XERIAL_HEADER_LEN..).ok_or_else(cut)?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let block = after.get(..length).ok_or_else(cut)?;
        snappy_block(block, &mut unpacked, bytes_max)?;
        rest = &after[length..];
    }
    if rest.is_empty() { Ok(unpacked.into()) } else { Err(cut()) }
}

fn snappy_block(block: &[u8], unpacked: &mut Vec<u8>, bytes_max: usize) -> Result<(), Unpack> {
    let length = snap::raw::decompress_len(block).map_err(broken)?;
    let start = unpacked.len();
    if length > bytes_max - start {
        return Err(Unpack::TooLarge);
    }
    unpacked.resize(start + length, 0);
    let written =
        snap::raw::Decoder::new().decompress(block, &mut unpacked[start..]).map_err(broken)?;
    unpacked.truncate(start + written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(codec: Codec, plain: &[u8]) -> Bytes {
        match codec {
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap().into()
            }
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap().into(),
            Codec::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap().into()
            }
            Codec::Zstd => ruzstd::encoding::compress_to_vec(
                plain,
                ruzstd::encoding::CompressionLevel::Fastest,
            )
            .into(),
            other => panic!("{other}"),
        }
    }

    const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let plain = vec![0; 1_000_000];
        for codec in CODECS {
            let packed = packed(codec, &plain);
            assert_eq!(unpack(codec, packed.clone(), 1_000_000).unwrap(), plain, "{codec}");
            assert_eq!(unpack(codec, packed, 999_999), Err(Unpack::TooLarge), "{codec}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_or_bytes_and_never_a_panic() {
        let plain: Vec<u8> = (0..2000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for codec in CODECS {
            let packed = packed(codec, &plain);
            for position in 0..packed.len() {
                let _ = unpack(codec, packed.slice(..position), 100_000);
                let mut flipped = packed.to_vec();
                for bit in [1, 0x80, 0xff] {
                    flipped[position] ^= bit;
                    let _ = unpack(codec, flipped.clone().into(), 100_000);
                    flipped[position] ^= bit;
                }
            }
        }
    }

    #[test]
    fn frames_of_xerial_are_joined_and_their_lengths_checked() {
        let block = packed(Codec::Snappy, b"hello ");
        let mut framed = XERIAL_MAGIC.to_vec();
        framed.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        for _ in 0..2 {
            framed.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
            framed.extend(&block);
        }
        assert_eq!(
            unpack(Codec::Snappy, framed.clone().into(), 100).unwrap(),
            &b"hello hello "[..]
        );
        assert_eq!(unpack(Codec::Snappy, framed.clone().into(), 11), Err(Unpack::TooLarge));
        framed.extend([0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(unpack(Codec::Snappy, framed.into(), 100), Err(Unpack::Broken(_))));
    }

    /// Goes red when `append` does not compare what came with the bound.
    #[test]
    fn fuzzed_bytes_unpack_to_no_more_than_the_bound() {
        const BOUND: usize = 20_000;
        let plain: Vec<u8> = (0..500_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut samples: Vec<_> = CODECS.iter().map(|it| packed(*it, &plain).to_vec()).collect();
        samples.extend(CODECS.iter().map(|it| packed(*it, &vec![0; 100_000]).to_vec()));
        let tried = testkit::fuzz::run(&samples, |bytes| {
            for codec in CODECS {
                if let Ok(unpacked) = unpack(codec, Bytes::copy_from_slice(bytes), BOUND) {
                    assert!(unpacked.len() <= BOUND, "{codec}");
                }
            }
        });
        println!("compression: {tried} inputs");
    }
}
