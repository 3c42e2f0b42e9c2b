//! Reads the results that a killed tracker left on disk. They must all arrive in Kafka. The code
//! is independent of the tracker's own.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use common::identity::Identity;

/// Magic bytes of a segment, without the format version.
const MAGIC: &[u8] = b"wa-spool";
/// Magic bytes and format version.
const HEAD_BYTES: usize = 12;
/// The three numbers in front of a payload.
const FRAME_HEAD_BYTES: usize = 12;

/// Returns topic and identity of each result in a spool. Reading a segment stops at an incomplete
/// frame.
pub(crate) fn read(folder: &Path) -> io::Result<Vec<(String, Identity)>> {
    let mut results = Vec::new();
    let entries = match fs::read_dir(folder) {
        // The tracker was killed before it created the folder.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(results),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "segment") {
            read_segment(&fs::read(&path)?, &mut results);
        }
    }
    Ok(results)
}

fn read_segment(bytes: &[u8], results: &mut Vec<(String, Identity)>) {
    let mut rest = match bytes.split_at_checked(HEAD_BYTES) {
        Some((head, rest)) if head.starts_with(MAGIC) => rest,
        _ => return,
    };
    while let Some((head, after)) = rest.split_at_checked(FRAME_HEAD_BYTES) {
        let Some(length) = SpoolFieldReader(head).number() else { return };
        let Some((payload, behind)) = after.split_at_checked(length) else { return };
        results.extend(decode_result(payload));
        rest = behind;
    }
}

/// `None` if the payload is damaged or has no identity.
fn decode_result(payload: &[u8]) -> Option<(String, Identity)> {
    // Frame number and timestamp, 8 bytes each.
    let mut fields = SpoolFieldReader(payload.get(16..)?);
    let topic = String::from_utf8(fields.text()?.to_vec()).ok()?;
    let mut headers = Vec::new();
    for _ in 0..fields.number()? {
        let key = String::from_utf8(fields.text()?.to_vec()).ok()?;
        headers.push((key, Some(Bytes::copy_from_slice(fields.text()?))));
    }
    Some((topic, Identity::from_headers(&headers).ok()??))
}

/// Reads length-prefixed fields, little endian.
struct SpoolFieldReader<'a>(&'a [u8]);

impl<'a> SpoolFieldReader<'a> {
    fn number(&mut self) -> Option<usize> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        usize::try_from(u32::from_le_bytes(*number)).ok()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &[u8], into: &mut Vec<u8>) {
        into.extend((text.len() as u32).to_le_bytes());
        into.extend(text);
    }

    #[test]
    fn results_are_read_up_to_an_incomplete_frame() {
        let mut bytes = [MAGIC, &[1, 0, 0, 0]].concat();
        for sequence in 0..3_u64 {
            let mut payload = vec![0; 16];
            put(b"topic", &mut payload);
            payload.extend(2_u32.to_le_bytes());
            put(b"run", &mut payload);
            put(&[7; 16], &mut payload);
            put(b"sequence", &mut payload);
            put(&sequence.to_be_bytes(), &mut payload);
            put(b"value", &mut payload);
            bytes.extend((payload.len() as u32).to_le_bytes());
            bytes.extend([0; 8]);
            bytes.extend(payload);
        }
        bytes.truncate(bytes.len() - 1);
        let mut results = Vec::new();
        read_segment(&bytes, &mut results);
        let numbers: Vec<_> = results.iter().map(|(topic, it)| (&topic[..], it.sequence)).collect();
        assert_eq!(numbers, [("topic", 0), ("topic", 1)]);
    }
}
