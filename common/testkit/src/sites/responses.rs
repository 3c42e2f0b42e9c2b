//! HTTP responses as bytes.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// Returns a status line and headers. Each header is `name: value`.
pub fn response_head(status: u16, headers: &[&str]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} As The Site Says\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Returns a response with a `Content-Length` header.
pub fn response_with_body(status: u16, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    let headers = [headers, &[length.as_str()]].concat();
    [response_head(status, &headers), body.to_vec()].concat()
}

/// Returns a response with this status and a short page.
pub fn status_response(status: u16) -> Vec<u8> {
    response_with_body(
        status,
        &["Content-Type: text/html"],
        b"<html><title>A page</title></html>\n",
    )
}

/// Returns a response with status 200 and this page.
pub fn page(body: &str) -> Vec<u8> {
    response_with_body(200, &["Content-Type: text/html; charset=utf-8"], body.as_bytes())
}

/// Returns a redirect with this status.
pub fn redirect(status: u16, location: &str) -> Vec<u8> {
    response_with_body(status, &[&format!("Location: {location}")], b"")
}

/// Returns a response with status 200 and a chunked body.
pub fn chunked(chunks: &[&[u8]]) -> Vec<u8> {
    let mut bytes = response_head(200, &["Transfer-Encoding: chunked"]);
    for chunk in chunks.iter().chain([&b"".as_slice()]) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Compresses a body as gzip.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to a Vec can't fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// Compresses a body as "deflate" with the zlib header, as the standard requires.
pub fn deflate_zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// Compresses a body as "deflate" without the zlib header, as some servers do.
pub fn deflate_raw(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}
