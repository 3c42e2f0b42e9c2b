//! The format of a segment, an append-only file of the spool.
//!
//! ```text
//! file    "wa-spool", version (u32), then frames
//! frame   length of the payload (u32), CRC-32C of the payload (u32),
//!         CRC-32C of the eight bytes before it (u32), payload
//! payload number (u64), timestamp_ms (i64), topic, headers' count (u32),
//!         each header's key and value, value; a text is its length (u32) and bytes
//! ```
//!
//! All numbers are little endian. The head of a frame has its own checksum, so the
//! reader never trusts a damaged length: a bad payload loses exactly one result, and a
//! frame is torn only if the file ends inside it.

use kafka_client::ProduceRecord;

/// The first bytes of a segment: magic and version of the format.
pub(super) const FILE_HEAD: [u8; 12] = *b"wa-spool\x01\0\0\0";

/// Bytes of a frame before its payload.
const FRAME_HEAD_LEN: usize = 12;

/// A result as a segment stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredResult {
    /// Position in the order of arrival, unique in a spool.
    pub(super) number: u64,
    pub(super) topic: String,
    pub(super) record: ProduceRecord,
}

/// Appends a result's frame.
pub(super) fn encode(number: u64, topic: &str, record: &ProduceRecord, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend([0; FRAME_HEAD_LEN]);
    into.extend(number.to_le_bytes());
    into.extend(record.timestamp_ms.to_le_bytes());
    put_text(topic.as_bytes(), into);
    // A result is far smaller than 2^32 bytes, so every length in it fits a u32.
    into.extend((record.headers.len() as u32).to_le_bytes());
    for (key, value) in &record.headers {
        put_text(key.as_bytes(), into);
        put_text(value, into);
    }
    put_text(&record.value, into);
    let payload = &into[start + FRAME_HEAD_LEN..];
    let (length, checksum) = (payload.len() as u32, crc32c::crc32c(payload));
    let head = &mut into[start..start + FRAME_HEAD_LEN];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&checksum.to_le_bytes());
    let checksum = crc32c::crc32c(&head[..8]);
    head[8..].copy_from_slice(&checksum.to_le_bytes());
}

fn put_text(text: &[u8], into: &mut Vec<u8>) {
    into.extend((text.len() as u32).to_le_bytes());
    into.extend(text);
}

/// The next item of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameStep {
    /// A complete result.
    Result(StoredResult),
    /// A result with a wrong checksum. The reader continues with the next frame.
    Lost,
    /// The end of the file, after a complete frame.
    End,
    /// The file ends inside a frame, or in zeros that the file system put in place of
    /// bytes that were never written. The frame was never synced, so nothing is lost.
    Torn,
    /// No frame starts here, so the rest of the file can't be read.
    Damaged,
}

/// Reads a segment from its first byte.
#[derive(Debug)]
pub(super) struct SegmentReader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> SegmentReader<'a> {
    /// Returns `None` if the bytes are no segment of this version.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.starts_with(&FILE_HEAD).then_some(Self { bytes, offset: FILE_HEAD.len() })
    }

    /// The offset after the frames that were read.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Reads the next item. After [`FrameStep::End`], [`FrameStep::Torn`] and
    /// [`FrameStep::Damaged`] it returns the same item again.
    pub(super) fn step(&mut self) -> FrameStep {
        let rest = &self.bytes[self.offset..];
        if rest.is_empty() {
            return FrameStep::End;
        }
        let Some((head, after)) = rest.split_at_checked(FRAME_HEAD_LEN) else {
            return FrameStep::Torn;
        };
        let mut fields = FieldReader(head);
        let (Some(length), Some(checksum), Some(head_checksum)) =
            (fields.u32(), fields.u32(), fields.u32())
        else {
            return FrameStep::Torn;
        };
        if head_checksum != crc32c::crc32c(&head[..8]) {
            let zeros = rest.iter().all(|byte| *byte == 0);
            return if zeros { FrameStep::Torn } else { FrameStep::Damaged };
        }
        let Some(payload) = after.get(..length as usize) else { return FrameStep::Torn };
        self.offset += FRAME_HEAD_LEN + payload.len();
        if checksum != crc32c::crc32c(payload) {
            return FrameStep::Lost;
        }
        decode(payload).map_or(FrameStep::Lost, FrameStep::Result)
    }
}

/// Returns `None` if the payload is not exactly one result.
fn decode(payload: &[u8]) -> Option<StoredResult> {
    let mut fields = FieldReader(payload);
    let number = fields.u64()?;
    let timestamp_ms = fields.u64()?.cast_signed();
    let topic = fields.text()?;
    let count = fields.u32()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        headers.push((fields.text()?, fields.bytes()?.to_vec().into()));
    }
    let value = fields.bytes()?.to_vec().into();
    let record = ProduceRecord { timestamp_ms, value, headers };
    fields.0.is_empty().then_some(StoredResult { number, topic, record })
}

/// Reads bytes field by field. Each method returns `None` if too few bytes are left.
pub(super) struct FieldReader<'a>(pub(super) &'a [u8]);

impl<'a> FieldReader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        self.bytes().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(count: u64) -> (Vec<u8>, Vec<StoredResult>) {
        let mut bytes = FILE_HEAD.to_vec();
        let stored = (1..=count).map(|number| StoredResult {
            number,
            topic: format!("topic-{}", number % 3),
            record: ProduceRecord {
                timestamp_ms: -5 + number.cast_signed(),
                value: vec![number as u8; 20 + number as usize].into(),
                headers: vec![
                    ("run".to_owned(), vec![number as u8; 8].into());
                    (number % 3) as usize
                ],
            },
        });
        let stored: Vec<_> = stored.collect();
        for StoredResult { number, topic, record } in &stored {
            encode(*number, topic, record, &mut bytes);
        }
        (bytes, stored)
    }

    /// The results of a segment, the number of lost results, and the last step.
    fn read(bytes: &[u8]) -> Option<(Vec<StoredResult>, usize, FrameStep)> {
        let mut reader = SegmentReader::new(bytes)?;
        let (mut results, mut lost) = (Vec::new(), 0);
        loop {
            match reader.step() {
                FrameStep::Result(stored) => results.push(stored),
                FrameStep::Lost => lost += 1,
                end => return Some((results, lost, end)),
            }
        }
    }

    #[test]
    fn every_prefix_yields_its_complete_results() {
        let (bytes, stored) = written(7);
        let mut ends = vec![FILE_HEAD.len()];
        for StoredResult { number, topic, record } in &stored {
            let mut frame = Vec::new();
            encode(*number, topic, record, &mut frame);
            ends.push(ends[ends.len() - 1] + frame.len());
        }
        for length in 0..=bytes.len() {
            let Some((results, lost, end)) = read(&bytes[..length]) else {
                assert!(length < FILE_HEAD.len());
                continue;
            };
            let whole = ends.iter().filter(|end| **end <= length).count() - 1;
            assert_eq!((results.as_slice(), lost), (&stored[..whole], 0), "{length}");
            let expected = if ends.contains(&length) { FrameStep::End } else { FrameStep::Torn };
            assert_eq!(end, expected, "{length}");
            let mut zeros = bytes[..length].to_vec();
            zeros.resize(length + 40, 0);
            let (results, lost, end) = read(&zeros).unwrap();
            assert_eq!(results, stored[..whole], "{length} and zeros");
            assert!(lost > 0 || end != FrameStep::End, "{length} and zeros");
        }
    }

    #[test]
    fn no_flipped_bit_yields_a_result_that_was_not_written() {
        let (bytes, stored) = written(7);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Some((results, lost, end)) = read(&flipped) else {
                assert!(bit < FILE_HEAD.len() * 8);
                continue;
            };
            let missing = stored.iter().filter(|stored| !results.contains(stored)).count();
            assert!(results.len() + missing == 7 && results.is_sorted_by_key(|it| it.number));
            match end {
                // All other results are read, and one loss is reported.
                FrameStep::End => assert_eq!((missing, lost), (1, 1), "bit {bit}"),
                end => assert!(end == FrameStep::Damaged && missing > 0 && lost == 0, "bit {bit}"),
            }
        }
    }

    #[test]
    fn bytes_that_only_look_like_a_frame_are_rejected() {
        let mut noise = noise_bytes(4096);
        noise.splice(..0, FILE_HEAD);
        let (results, _, end) = read(&noise).unwrap();
        assert_eq!((results, end), (Vec::new(), FrameStep::Damaged));
        assert!(read(b"wa-spool\x02\0\0\0").is_none(), "another version");
    }

    #[test]
    fn fuzzed_segments_yield_only_written_results() {
        let (bytes, stored) = written(5);
        let more = (1..=3).map(|count| written(count).0);
        let samples: Vec<_> = more.chain([bytes]).collect();
        testkit::fuzz::run(&samples, |bytes| {
            let Some(mut reader) = SegmentReader::new(bytes) else { return };
            loop {
                let start = reader.offset();
                let step = reader.step();
                assert!(start <= reader.offset() && reader.offset() <= bytes.len());
                match step {
                    FrameStep::Result(read) => {
                        assert!(stored.contains(&read), "{read:?}");
                        let mut again = Vec::new();
                        encode(read.number, &read.topic, &read.record, &mut again);
                        assert_eq!(again, bytes[start..reader.offset()]);
                    }
                    FrameStep::Lost => assert!(start < reader.offset()),
                    end => {
                        assert!(start == reader.offset() && reader.step() == end);
                        return;
                    }
                }
            }
        });
        // Payloads with a right checksum and other contents, as another version may write.
        let payloads: Vec<_> =
            samples.iter().map(|it| it[FILE_HEAD.len() + 12..].to_vec()).collect();
        testkit::fuzz::run(&payloads, |payload| {
            if let Some(StoredResult { number, topic, record }) = decode(payload) {
                let mut again = Vec::new();
                encode(number, &topic, &record, &mut again);
                assert_eq!(&again[FRAME_HEAD_LEN..], payload);
            }
        });
    }

    /// Pseudorandom bytes, the same in each run.
    fn noise_bytes(count: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }
}
