//! What a tracker that was killed has left on disk: safe, and so to be seen in
//! Kafka. Read by other code than the tracker's, by README's words on it.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use common::identity::Identity;

/// What a segment begins with, less the version of its format.
const MAGIC: &[u8] = b"wa-spool";
/// The version and the file's head.
const HEAD_BYTES: usize = 12;
/// The three numbers before a payload.
const FRAME_HEAD_BYTES: usize = 12;

/// The topic and identity of each result in a spool, as far as frames are whole.
pub(crate) fn read(folder: &Path) -> io::Result<Vec<(String, Identity)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        // It was killed before it made it.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "segment") {
            segment(&fs::read(&path)?, &mut found);
        }
    }
    Ok(found)
}

fn segment(bytes: &[u8], found: &mut Vec<(String, Identity)>) {
    let mut rest = match bytes.split_at_checked(HEAD_BYTES) {
        Some((head, rest)) if head.starts_with(MAGIC) => rest,
        _ => return,
    };
    while let Some((head, after)) = rest.split_at_checked(FRAME_HEAD_BYTES) {
        let Some(length) = FieldReader(head).number() else { return };
        let Some((payload, behind)) = after.split_at_checked(length) else { return };
        found.extend(result(payload));
        rest = behind;
    }
}

/// None: without an identity, as what is torn.
fn result(payload: &[u8]) -> Option<(String, Identity)> {
    // Number and timestamp, 8 bytes each.
    let mut fields = FieldReader(payload.get(16..)?);
    let topic = String::from_utf8(fields.text()?.to_vec()).ok()?;
    let mut headers = Vec::new();
    for _ in 0..fields.number()? {
        let key = String::from_utf8(fields.text()?.to_vec()).ok()?;
        headers.push((key, Some(Bytes::copy_from_slice(fields.text()?))));
    }
    Some((topic, Identity::from_headers(&headers).ok()??))
}

/// Lengths and what they are of, little endian.
struct FieldReader<'a>(&'a [u8]);

impl<'a> FieldReader<'a> {
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
    fn results_are_read_up_to_a_torn_one() {
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
        let mut found = Vec::new();
        segment(&bytes, &mut found);
        let numbers: Vec<_> = found.iter().map(|(topic, it)| (&topic[..], it.sequence)).collect();
        assert_eq!(numbers, [("topic", 0), ("topic", 1)]);
    }
}
