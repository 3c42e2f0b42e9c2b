//! An answer's body: read to a bound, decoded as declared, and as text.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

use crate::probe::http::client::Source;
use crate::probe::net::socket::Deadline;
use crate::probe::reason::{Failure, Phase, Reason};

/// Codings on top of each other; more than one is rare, more than this a trap.
const CODINGS_MAX: usize = 3;

/// The registered codings beside those that are asked for.
const REGISTERED: [&str; 8] =
    ["aes128gcm", "br", "compress", "dcb", "dcz", "exi", "pack200-gzip", "zstd"];

/// How far into a page its own word on its character set is looked for, as the
/// HTML standard has it.
const META_BYTES: usize = 1024;

/// How a body is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Decoded bytes, and as many coded ones, at which reading stops; what came
    /// by then counts as the body.
    pub(crate) bytes_max: u64,
    /// When it stops as well, whether it waits or decodes.
    pub(crate) deadline: Deadline,
    /// Whether the bytes are given back.
    pub(crate) is_wanted: bool,
}

/// Reads a body to its end or limit, and says in `bytes_read` how many decoded
/// bytes came, also when that fails.
///
/// # Errors
/// What the connection failed with; a coding that was not asked for; bytes that
/// are not coded as declared.
pub(crate) fn read(
    source: &mut Source,
    codings: Option<&str>,
    limit: Limit,
    bytes_read: &mut u64,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let codings = match Coding::list(codings.unwrap_or_default()) {
        Ok(codings) => codings,
        // Of nothing, as with 204 and 304, no coding makes anything else.
        Err(_) if matches!(source.read(&mut [0]), Ok(0)) => return Ok(bytes),
        Err(failure) => return Err(source.failure().unwrap_or(failure)),
    };
    let mut page = Page { bytes: limit.is_wanted.then_some(&mut bytes), count: 0, limit };
    let read = read_into(&mut page, source, &codings);
    *bytes_read = page.count;
    match (source.failure(), read) {
        (Some(failure), _) => Err(failure),
        (None, Ok(())) => Ok(bytes),
        (None, Err(cause)) if cause.kind() == ErrorKind::TimedOut => {
            Err(Failure::with(Reason::BodyTimeout, Phase::Body, Phase::Body.place()))
        }
        (None, Err(cause)) => Err(malformed(format!("broken content encoding: {cause}"))),
    }
}

/// Takes what was decoded.
struct Page<'a> {
    bytes: Option<&'a mut Vec<u8>>,
    count: u64,
    limit: Limit,
}

impl Write for Page<'_> {
    fn write(&mut self, decoded: &[u8]) -> io::Result<usize> {
        self.count += decoded.len() as u64;
        if let Some(bytes) = &mut self.bytes {
            bytes.extend_from_slice(decoded);
        }
        Ok(decoded.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_into(page: &mut Page<'_>, source: &mut Source, codings: &[Coding]) -> io::Result<()> {
    let mut coded = source.take(page.limit.bytes_max);
    match decode_into(page, &mut coded, codings) {
        // What follows a coded stream is passed over, as browsers do; it still
        // has to arrive.
        Ok(count) if count < page.limit.bytes_max => {
            io::copy(&mut coded, &mut io::sink()).map(drop)
        }
        Ok(_) => Ok(()),
        // The bound on coded bytes cut the stream; the stream is not broken.
        Err(cause) if coded.limit() == 0 && cause.kind() != ErrorKind::TimedOut => Ok(()),
        Err(cause) => Err(cause),
    }
}

/// Returns the number of decoded bytes.
fn decode_into(page: &mut Page<'_>, coded: &mut dyn Read, codings: &[Coding]) -> io::Result<u64> {
    let mut decoded: Box<dyn Read + '_> = Box::new(coded);
    let deadline = page.limit.deadline;
    for coding in codings.iter().rev() {
        decoded = Box::new(Timely { decoded: coding.decoder(decoded)?, deadline });
    }
    io::copy(&mut decoded.take(page.limit.bytes_max), page)
}

/// Ends at the deadline. Each decoder has one behind it, as a small body can be
/// large to decode, and of two codings the first can make much of which the
/// second makes nothing.
struct Timely<'a> {
    decoded: Box<dyn Read + 'a>,
    deadline: Deadline,
}

impl Read for Timely<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.deadline.passed() {
            true => Err(ErrorKind::TimedOut.into()),
            false => self.decoded.read(buffer),
        }
    }
}

fn malformed(detail: impl Into<String>) -> Failure {
    Failure::with(Reason::MalformedResponse, Phase::Body, detail)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// Reads a Content-Encoding, in the order in which the codings were applied.
    fn list(header: &str) -> Result<Vec<Self>, Failure> {
        let mut codings = Vec::new();
        for name in header.split(',').map(str::trim) {
            match name.to_ascii_lowercase().as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => codings.push(Self::Gzip),
                "deflate" => codings.push(Self::Deflate),
                other if REGISTERED.contains(&other) => {
                    return Err(malformed(format!("content encoding not asked for: {name}")));
                }
                // "utf-8", "none" and the like of sites set up wrongly change
                // nothing, and browsers pass them over.
                _ => {}
            }
        }
        match codings.len() > CODINGS_MAX {
            true => Err(malformed(format!("more than {CODINGS_MAX} content encodings"))),
            false => Ok(codings),
        }
    }

    /// An empty body is taken as it is: some servers declare a coding and send
    /// nothing.
    ///
    /// A function of its own, as a decoder is built on the stack, and its 40 KiB
    /// would be touched, and kept, by each worker that ever reads a body.
    #[inline(never)]
    fn decoder<'a>(self, coded: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        let mut coded = BufReader::new(coded);
        let start = coded.fill_buf()?;
        let is_zlib = is_zlib(start);
        Ok(match self {
            _ if start.is_empty() => Box::new(coded),
            Self::Gzip => Box::new(Gzip(Some(GzDecoder::new(coded)))),
            Self::Deflate if is_zlib => Box::new(ZlibDecoder::new(coded)),
            Self::Deflate => Box::new(DeflateDecoder::new(coded)),
        })
    }
}

/// The members of a gzip file one after the other (RFC 1952, section 2.2). What
/// follows the last and does not begin like another is passed over, as browsers
/// do; flate2's own decoder of several fails on it.
struct Gzip<R>(Option<GzDecoder<R>>);

/// The first of the two bytes that a member begins with. Of the second nothing
/// may be there yet.
const GZIP_START: u8 = 0x1f;

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(mut member) = self.0.take() {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                self.0 = Some(member);
                return Ok(count);
            }
            let mut rest = member.into_inner();
            if rest.fill_buf()?.first() == Some(&GZIP_START) {
                self.0 = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// "deflate" means zlib (RFC 9110, section 8.4.1.2); some servers send it
/// without zlib's two leading bytes, by which it is told apart (RFC 1950). Of a
/// single byte nothing can be told, and zlib is what the name means.
fn is_zlib(start: &[u8]) -> bool {
    match start {
        [method, flags, ..] => {
            method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0
        }
        _ => true,
    }
}

/// The body as text, as browsers find its character set: a byte order mark,
/// the header's charset, the page's own meta element; else UTF-8, or
/// windows-1252 when it is not UTF-8. Bytes that the set does not know become
/// U+FFFD.
pub(crate) fn text<'a>(bytes: &'a [u8], content_type: Option<&str>) -> Cow<'a, str> {
    let declared = content_type
        .and_then(|value| parameter(value.as_bytes()))
        .or_else(|| of_meta(&bytes[..bytes.len().min(META_BYTES)]));
    let encoding = declared.unwrap_or_else(|| match std::str::from_utf8(bytes) {
        Ok(_) => UTF_8,
        // A page that is cut at the bound may end within a character.
        Err(cause) if cause.error_len().is_none() => UTF_8,
        Err(_) => WINDOWS_1252,
    });
    encoding.decode(bytes).0
}

/// The set that `charset=` names, in a header's value or a meta element.
fn parameter(value: &[u8]) -> Option<&'static Encoding> {
    let at = find(value, b"charset")? + b"charset".len();
    let rest = value[at..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest);
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"';,/>".contains(byte);
    let label = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
    Encoding::for_label(label)
}

/// A page that could be read so far is in no set of 16 bits, whatever its meta
/// element says (HTML standard, "prescan").
fn of_meta(mut start: &[u8]) -> Option<&'static Encoding> {
    while let Some(at) = find(start, b"<meta") {
        let element = &start[at + b"<meta".len()..];
        let end = element.iter().position(|byte| *byte == b'>').unwrap_or(element.len());
        if let Some(encoding) = parameter(&element[..end]) {
            return Some(match encoding.is_ascii_compatible() {
                true => encoding,
                false => UTF_8,
            });
        }
        start = &element[end..];
    }
    None
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_character_set_is_found_as_browsers_find_it() {
        let utf8 = "é".as_bytes();
        for (bytes, content_type, expected) in [
            (utf8, None, "é"),
            (b"\xe9t\xe9.".as_slice(), None, "été."),
            (utf8, Some("text/html; charset=utf-8"), "é"),
            (utf8, Some("text/html; Charset = \"ISO-8859-1\""), "Ã©"),
            (b"\xce\xe9".as_slice(), Some("text/html;charset=windows-1251"), "Ой"),
            (b"\xef\xbb\xbf\xc3\xa9".as_slice(), Some("text/html;charset=latin1"), "é"),
            (b"\xff\xfe\xe9\x00".as_slice(), None, "é"),
            (b"<meta charset=windows-1251>\xce".as_slice(), None, "<meta charset=windows-1251>О"),
            (
                b"<META http-equiv=x content='text/html; charset=koi8-r'/>\xcf".as_slice(),
                None,
                "<META http-equiv=x content='text/html; charset=koi8-r'/>о",
            ),
            (
                b"<meta name=a><meta charset='utf-16'>\xc3\xa9".as_slice(),
                None,
                "<meta name=a><meta charset='utf-16'>é",
            ),
            (utf8, Some("text/html; charset=no-such-set"), "é"),
            (b"caf\xc3".as_slice(), None, "caf\u{fffd}"),
        ] {
            assert_eq!(text(bytes, content_type), expected, "{content_type:?}");
        }
    }

    #[test]
    fn a_coding_that_was_not_asked_for_is_named() {
        assert_eq!(
            Coding::list("Identity, X-GZIP ,UTF-8,deflate"),
            Ok(vec![Coding::Gzip, Coding::Deflate])
        );
        assert_eq!(
            Coding::list("br").unwrap_err().detail.as_deref(),
            Some("content encoding not asked for: br")
        );
        assert!(Coding::list("gzip,gzip,gzip,gzip").is_err());
    }
}
