//! Decodes a body to text, by the character set that a browser would use.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// How many bytes of a page are searched for a `meta` element (HTML standard).
const META_BYTES: usize = 1024;

/// Decodes a body to text.
///
/// The byte order mark determines the character set, else the Content-Type header, else
/// the page's `meta` element. Without any of them the body is UTF-8 if it is valid UTF-8,
/// else windows-1252. Invalid bytes become U+FFFD.
pub(super) fn decode_text<'a>(bytes: &'a [u8], content_type: Option<&str>) -> Cow<'a, str> {
    let declared = content_type
        .and_then(|value| find_charset(value.as_bytes()))
        .or_else(|| find_meta_charset(&bytes[..bytes.len().min(META_BYTES)]));
    let encoding = declared.unwrap_or_else(|| match std::str::from_utf8(bytes) {
        Ok(_) => UTF_8,
        // A body that is cut at the limit can end within a character.
        Err(cause) if cause.error_len().is_none() => UTF_8,
        Err(_) => WINDOWS_1252,
    });
    encoding.decode(bytes).0
}

/// Finds `charset=` in a header value or a `meta` element.
fn find_charset(value: &[u8]) -> Option<&'static Encoding> {
    let start = find(value, b"charset")? + b"charset".len();
    let rest = value[start..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest);
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"';,/>".contains(byte);
    let label = &rest[..rest.iter().position(is_end).unwrap_or(rest.len())];
    Encoding::for_label(label)
}

/// Finds the character set in the `meta` elements of a page. A page whose `meta` element
/// can be read as ASCII does not use a 16-bit character set, even if it declares one (HTML
/// standard, "prescan").
fn find_meta_charset(mut page: &[u8]) -> Option<&'static Encoding> {
    while let Some(start) = find(page, b"<meta") {
        let element = &page[start + b"<meta".len()..];
        let end = element.iter().position(|byte| *byte == b'>').unwrap_or(element.len());
        if let Some(encoding) = find_charset(&element[..end]) {
            return Some(match encoding.is_ascii_compatible() {
                true => encoding,
                false => UTF_8,
            });
        }
        page = &element[end..];
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
    fn the_character_set_is_the_one_that_browsers_use() {
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
            assert_eq!(decode_text(bytes, content_type), expected, "{content_type:?}");
        }
    }
}
