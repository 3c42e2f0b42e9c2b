//! The content encodings that the probe supports.
//!
//! To support another encoding, add it to `SUPPORTED`: the `accept-encoding` header, the check
//! of a target's own `accept-encoding` header, and the decoders all use that list.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use thiserror::Error;

/// The encoded bytes in front of a decoder.
type EncodedReader<'a> = BufReader<Box<dyn Read + 'a>>;

/// A content encoding and its decoder.
#[derive(Debug)]
pub(super) struct ContentEncoding {
    name: &'static str,
    /// Another name for the same encoding (RFC 9110, section 8.4.1.3).
    alias: Option<&'static str>,
    decode: for<'a> fn(EncodedReader<'a>) -> io::Result<Box<dyn Read + 'a>>,
}

/// The supported encodings, the preferred encoding first.
static SUPPORTED: [ContentEncoding; 2] = [
    ContentEncoding { name: "gzip", alias: Some("x-gzip"), decode: decode_gzip },
    ContentEncoding { name: "deflate", alias: None, decode: decode_deflate },
];

/// Registered encodings that the probe does not support. An unregistered name is not an
/// encoding, see `parse_content_encoding`.
const UNSUPPORTED: [&str; 8] =
    ["aes128gcm", "br", "compress", "dcb", "dcz", "exi", "pack200-gzip", "zstd"];

/// The most encodings of one body. More than one is rare, and each encoding multiplies the work
/// of decoding.
const ENCODINGS_MAX: usize = 3;

/// Means "not encoded".
const IDENTITY: &str = "identity";

/// The value of the `accept-encoding` header.
pub(super) fn accept_encoding() -> String {
    SUPPORTED.each_ref().map(|encoding| encoding.name).join(", ")
}

/// An `accept-encoding` header asks for an encoding that the probe does not support.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?}: expected {list}", list = supported_names())]
pub(crate) struct AcceptEncodingError(String);

/// The Content-Encoding header of a response has encodings that the probe can't decode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum ContentEncodingError {
    #[error("content encoding not asked for: {0}")]
    Unsupported(String),
    #[error("more than {ENCODINGS_MAX} content encodings")]
    TooMany,
}

/// Checks that the `accept-encoding` header of a target asks only for supported encodings.
///
/// # Errors
/// Names the first encoding that is not supported.
pub(crate) fn check_accept_encoding(value: &str) -> Result<(), AcceptEncodingError> {
    let mut names = value.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    let is_supported = |name: &str| {
        name.is_empty() || name.eq_ignore_ascii_case(IDENTITY) || find_supported(name).is_some()
    };
    match names.find(|name| !is_supported(name)) {
        None => Ok(()),
        Some(name) => Err(AcceptEncodingError(name.to_owned())),
    }
}

/// "identity, gzip or deflate".
fn supported_names() -> String {
    let names: Vec<_> =
        [IDENTITY].into_iter().chain(SUPPORTED.iter().map(|encoding| encoding.name)).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

fn find_supported(name: &str) -> Option<&'static ContentEncoding> {
    let is_named = |known: &str| known.eq_ignore_ascii_case(name);
    SUPPORTED
        .iter()
        .find(|encoding| is_named(encoding.name) || encoding.alias.is_some_and(is_named))
}

/// Parses a Content-Encoding header. The result is in the order in which the encodings were
/// applied.
///
/// Names that are not registered, like "utf-8" and "none" from wrongly configured sites,
/// are ignored, as browsers do.
///
/// # Errors
/// When an encoding is not supported, or there are too many.
pub(super) fn parse_content_encoding(
    value: &str,
) -> Result<Vec<&'static ContentEncoding>, ContentEncodingError> {
    let mut encodings = Vec::new();
    for name in value.split(',').map(str::trim) {
        match find_supported(name) {
            Some(encoding) => encodings.push(encoding),
            None if UNSUPPORTED.iter().any(|other| other.eq_ignore_ascii_case(name)) => {
                return Err(ContentEncodingError::Unsupported(name.to_owned()));
            }
            None => {}
        }
    }
    match encodings.len() > ENCODINGS_MAX {
        true => Err(ContentEncodingError::TooMany),
        false => Ok(encodings),
    }
}

impl ContentEncoding {
    /// Wraps `encoded` in a decoder. An empty body stays empty, because some servers
    /// declare an encoding and send nothing.
    ///
    /// Not inlined, because a decoder is built on the stack: inlined, its 40 KiB would
    /// enlarge the stack of every worker.
    #[inline(never)]
    pub(super) fn decode<'a>(&self, encoded: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        let mut encoded = BufReader::new(encoded);
        match encoded.fill_buf()?.is_empty() {
            true => Ok(Box::new(encoded)),
            false => (self.decode)(encoded),
        }
    }
}

fn decode_gzip<'a>(encoded: EncodedReader<'a>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(Box::new(MultiMemberGzip(Some(GzDecoder::new(encoded)))))
}

fn decode_deflate<'a>(mut encoded: EncodedReader<'a>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match is_zlib(encoded.fill_buf()?) {
        true => Box::new(ZlibDecoder::new(encoded)),
        false => Box::new(DeflateDecoder::new(encoded)),
    })
}

/// Whether a body starts with the two bytes of zlib (RFC 1950).
///
/// "deflate" means zlib (RFC 9110, section 8.4.1.2), but some servers send the compressed
/// data without zlib's header. With only one byte, zlib is assumed.
fn is_zlib(start: &[u8]) -> bool {
    match start {
        [method, flags, ..] => {
            method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0
        }
        _ => true,
    }
}

/// Decodes all members of a gzip file (RFC 1952, section 2.2). Bytes after the last member
/// are ignored, as browsers do; the multi-member decoder of flate2 fails on them.
struct MultiMemberGzip<R>(Option<GzDecoder<R>>);

/// The first byte of a gzip member. The second byte may not be received yet.
const GZIP_MAGIC: u8 = 0x1f;

impl<R: BufRead> Read for MultiMemberGzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(mut member) = self.0.take() {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                self.0 = Some(member);
                return Ok(count);
            }
            let mut rest = member.into_inner();
            if rest.fill_buf()?.first() == Some(&GZIP_MAGIC) {
                self.0 = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_encoding_is_named() {
        let parse = |value| -> Result<Vec<_>, _> {
            Ok(parse_content_encoding(value)?.iter().map(|encoding| encoding.name).collect())
        };
        assert_eq!(parse("Identity, X-GZIP ,UTF-8,deflate"), Ok(vec!["gzip", "deflate"]));
        let error = ContentEncodingError::Unsupported("br".to_owned());
        assert_eq!(error.to_string(), "content encoding not asked for: br");
        assert_eq!(parse("br"), Err(error));
        assert_eq!(parse("gzip,gzip,gzip,gzip"), Err(ContentEncodingError::TooMany));
    }

    #[test]
    fn the_probe_asks_for_all_supported_encodings() {
        assert_eq!(accept_encoding(), "gzip, deflate");
        assert_eq!(check_accept_encoding(&accept_encoding()), Ok(()));
        assert_eq!(check_accept_encoding("GZIP;q=0.5, x-gzip, identity,"), Ok(()));
        let error = check_accept_encoding("gzip, br;q=1").unwrap_err();
        assert_eq!(error.to_string(), "\"br\": expected identity, gzip or deflate");
    }
}
