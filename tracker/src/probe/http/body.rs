//! Reads a body: up to its limits, and decoded.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use ureq::Error;

use super::encoding::{ContentEncoding, parse_content_encoding};
use super::transport::ConnectionLog;
use crate::probe::net::deadline::Deadline;
use crate::probe::reason::{Failure, Phase, Reason};

/// The limits for reading a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Reading stops after this number of decoded bytes, and after the same number of
    /// encoded bytes. The bytes received by then are the body.
    pub(crate) bytes_max: u64,
    /// Reading and decoding fail at the deadline.
    pub(crate) deadline: Deadline,
    /// Whether the decoded bytes are returned.
    pub(crate) keep_bytes: bool,
}

/// The body without the framing of HTTP, still encoded.
pub(crate) struct BodyReader {
    reader: Box<dyn Read>,
    log: Arc<ConnectionLog>,
    failure: Option<Failure>,
}

impl BodyReader {
    pub(super) fn new(reader: Box<dyn Read>, log: Arc<ConnectionLog>) -> Self {
        Self { reader, log, failure: None }
    }

    /// The failure of the last read. `None`: the last read did not fail, so an error comes
    /// from a decoder.
    fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|cause| {
            self.failure = Some(self.log.take_failure(&Error::from(cause), Phase::Body));
            io::Error::other("the body did not arrive")
        })
    }
}

/// Reads a body to its end or limit. Sets `bytes_read` to the number of decoded bytes, even
/// on failure.
///
/// # Errors
/// When the connection fails, an encoding is not supported, or the body is not encoded as
/// declared.
pub(crate) fn read(
    reader: &mut BodyReader,
    content_encoding: Option<&str>,
    limits: BodyLimits,
    bytes_read: &mut u64,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let encodings = match parse_content_encoding(content_encoding.unwrap_or_default()) {
        Ok(encodings) => encodings,
        // The encoding of an empty body, as with 204 and 304, is ignored.
        Err(_) if matches!(reader.read(&mut [0]), Ok(0)) => return Ok(bytes),
        Err(error) => {
            return Err(reader.take_failure().unwrap_or_else(|| malformed(error.to_string())));
        }
    };
    let mut sink =
        BodySink { bytes: limits.keep_bytes.then_some(&mut bytes), bytes_read: 0, limits };
    let result = read_into(&mut sink, reader, &encodings);
    *bytes_read = sink.bytes_read;
    match (reader.take_failure(), result) {
        (Some(failure), _) => Err(failure),
        (None, Ok(())) => Ok(bytes),
        (None, Err(cause)) if cause.kind() == ErrorKind::TimedOut => {
            let detail = Phase::Body.description();
            Err(Failure::with_detail(Reason::BodyTimeout, Phase::Body, detail))
        }
        (None, Err(cause)) => Err(malformed(format!("broken content encoding: {cause}"))),
    }
}

fn malformed(detail: String) -> Failure {
    Failure::with_detail(Reason::MalformedResponse, Phase::Body, detail)
}

/// Counts the decoded bytes, and stores them if they are needed.
struct BodySink<'a> {
    bytes: Option<&'a mut Vec<u8>>,
    bytes_read: u64,
    limits: BodyLimits,
}

impl Write for BodySink<'_> {
    fn write(&mut self, decoded: &[u8]) -> io::Result<usize> {
        self.bytes_read += decoded.len() as u64;
        if let Some(bytes) = &mut self.bytes {
            bytes.extend_from_slice(decoded);
        }
        Ok(decoded.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_into(
    sink: &mut BodySink<'_>,
    reader: &mut BodyReader,
    encodings: &[&ContentEncoding],
) -> io::Result<()> {
    let bytes_max = sink.limits.bytes_max;
    let mut encoded = reader.take(bytes_max);
    match decode_into(sink, &mut encoded, encodings) {
        // Bytes after the encoded data are ignored, as browsers do, but they must arrive.
        Ok(count) if count < bytes_max => io::copy(&mut encoded, &mut io::sink()).map(drop),
        Ok(_) => Ok(()),
        // The limit cut the encoded data, so the decoder's error is expected.
        Err(cause) if encoded.limit() == 0 && cause.kind() != ErrorKind::TimedOut => Ok(()),
        Err(cause) => Err(cause),
    }
}

/// Returns the number of decoded bytes.
fn decode_into(
    sink: &mut BodySink<'_>,
    encoded: &mut dyn Read,
    encodings: &[&ContentEncoding],
) -> io::Result<u64> {
    let BodyLimits { bytes_max, deadline, .. } = sink.limits;
    let mut decoded: Box<dyn Read + '_> = Box::new(encoded);
    for encoding in encodings.iter().rev() {
        decoded = Box::new(DeadlineReader { reader: encoding.decode(decoded)?, deadline });
    }
    io::copy(&mut decoded.take(bytes_max), sink)
}

/// Fails at the deadline. Each decoder has one, because a small body can take long to
/// decode, and the second of two decoders may return nothing for much input.
struct DeadlineReader<'a> {
    reader: Box<dyn Read + 'a>,
    deadline: Deadline,
}

impl Read for DeadlineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.deadline.has_passed() {
            true => Err(ErrorKind::TimedOut.into()),
            false => self.reader.read(buffer),
        }
    }
}
