//! Answers as bytes.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// A status line and headers, ready for a body. Each header is `name: value`.
pub fn head_of(status: u16, headers: &[&str]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} As The Site Says\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// An answer with a body of known length.
pub fn with_length(status: u16, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    let headers = [headers, &[length.as_str()]].concat();
    [head_of(status, &headers), body.to_vec()].concat()
}

/// An answer of this status with a short page.
pub fn answer(status: u16) -> Vec<u8> {
    with_length(status, &["Content-Type: text/html"], b"<html><title>A page</title></html>\n")
}

/// An answer of status 200 with this page.
pub fn page(body: &str) -> Vec<u8> {
    with_length(200, &["Content-Type: text/html; charset=utf-8"], body.as_bytes())
}

/// A redirect of this status.
pub fn redirect(status: u16, location: &str) -> Vec<u8> {
    with_length(status, &[&format!("Location: {location}")], b"")
}

/// An answer of status 200 whose body comes in chunks.
pub fn chunked(chunks: &[&[u8]]) -> Vec<u8> {
    let mut bytes = head_of(200, &["Transfer-Encoding: chunked"]);
    for chunk in chunks.iter().chain([&b"".as_slice()]) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Packs a body as gzip.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to a Vec can't fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// Packs a body as "deflate" by the standard: with zlib's frame.
pub fn deflate_zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// Packs a body as "deflate" without zlib's frame, as some servers do.
pub fn deflate_raw(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}
