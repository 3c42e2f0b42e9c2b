//! The bytes of a segment: a file of the spool that is only appended to.
//!
//! ```text
//! file    "wa-spool", version (u32), then frames
//! frame   length of the payload (u32), CRC-32C of the payload (u32),
//!         CRC-32C of those eight bytes (u32), payload
//! payload number (u64), timestamp_ms (i64), topic, headers' count (u32),
//!         each header's key and value, value; a text is its length (u32) and bytes
//! ```
//!
//! All numbers are little endian. A frame's head has a checksum of its own, so
//! that a length is never believed that was not written: with a bad payload
//! exactly one result is lost, and a frame is torn only when the file really
//! ends in it.

use kafka_client::ProduceRecord;

/// What a segment begins with: the magic and the version of the format.
pub(super) const FILE_HEAD: [u8; 12] = *b"wa-spool\x01\0\0\0";

/// The bytes of a frame before its payload.
const FRAME_HEAD_LEN: usize = 12;

/// A result as it stands in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// Its place in the order of arrival, unique in a spool.
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
    put(topic.as_bytes(), into);
    // Results are bounded far below 2^32 bytes, and so are all lengths in them.
    into.extend((record.headers.len() as u32).to_le_bytes());
    for (key, value) in &record.headers {
        put(key.as_bytes(), into);
        put(value, into);
    }
    put(&record.value, into);
    let payload = &into[start + FRAME_HEAD_LEN..];
    let (length, checksum) = (payload.len() as u32, crc32c::crc32c(payload));
    let head = &mut into[start..start + FRAME_HEAD_LEN];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&checksum.to_le_bytes());
    let checksum = crc32c::crc32c(&head[..8]);
    head[8..].copy_from_slice(&checksum.to_le_bytes());
}

fn put(text: &[u8], into: &mut Vec<u8>) {
    into.extend((text.len() as u32).to_le_bytes());
    into.extend(text);
}

/// What comes next in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A result, as it was written.
    Result(Stored),
    /// A result whose checksum does not fit: it is lost, and the next goes on.
    Lost,
    /// The end, behind a whole frame.
    End,
    /// The file ends in a frame, or in zeros that a file system put for what was
    /// never written: not accepted, so nothing is lost.
    Torn,
    /// No frame begins here: nothing after it can be told apart.
    Damaged,
}

/// Reads a segment from its first byte on.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// None: it is no segment, or one of another version.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.starts_with(&FILE_HEAD).then_some(Self { bytes, at: FILE_HEAD.len() })
    }

    /// How many bytes the frames so far end at.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next step. After [`Step::End`], [`Step::Torn`] and [`Step::Damaged`]
    /// it stays there.
    pub(super) fn step(&mut self) -> Step {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Step::End;
        }
        let Some((head, after)) = rest.split_at_checked(FRAME_HEAD_LEN) else { return Step::Torn };
        let mut fields = Fields(head);
        let (Some(length), Some(checksum), Some(head_checksum)) =
            (fields.u32(), fields.u32(), fields.u32())
        else {
            return Step::Torn;
        };
        if head_checksum != crc32c::crc32c(&head[..8]) {
            let zeros = rest.iter().all(|byte| *byte == 0);
            return if zeros { Step::Torn } else { Step::Damaged };
        }
        let Some(payload) = after.get(..length as usize) else { return Step::Torn };
        self.at += FRAME_HEAD_LEN + payload.len();
        if checksum != crc32c::crc32c(payload) {
            return Step::Lost;
        }
        decode(payload).map_or(Step::Lost, Step::Result)
    }
}

/// None: the payload is not exactly one result.
fn decode(payload: &[u8]) -> Option<Stored> {
    let mut fields = Fields(payload);
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
    fields.0.is_empty().then_some(Stored { number, topic, record })
}

/// Bytes that are read field by field; None at the end.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
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

    fn written(count: u64) -> (Vec<u8>, Vec<Stored>) {
        let mut bytes = FILE_HEAD.to_vec();
        let stored = (1..=count).map(|number| Stored {
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
        for Stored { number, topic, record } in &stored {
            encode(*number, topic, record, &mut bytes);
        }
        (bytes, stored)
    }

    /// The results of a segment, and the last step.
    fn read(bytes: &[u8]) -> Option<(Vec<Stored>, usize, Step)> {
        let mut reader = Reader::new(bytes)?;
        let (mut results, mut lost) = (Vec::new(), 0);
        loop {
            match reader.step() {
                Step::Result(stored) => results.push(stored),
                Step::Lost => lost += 1,
                end => return Some((results, lost, end)),
            }
        }
    }

    /// Red without the checks of lengths in `Fields` and `Reader::step`.
    #[test]
    fn every_prefix_gives_the_results_that_are_whole_in_it() {
        let (bytes, stored) = written(7);
        let mut ends = vec![FILE_HEAD.len()];
        for Stored { number, topic, record } in &stored {
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
            let expected = if ends.contains(&length) { Step::End } else { Step::Torn };
            assert_eq!(end, expected, "{length}");
            let mut zeros = bytes[..length].to_vec();
            zeros.resize(length + 40, 0);
            let (results, lost, end) = read(&zeros).unwrap();
            assert_eq!(results, stored[..whole], "{length} and zeros");
            assert!(lost > 0 || end != Step::End, "{length} and zeros");
        }
    }

    /// Red without either of the two comparisons of checksums in `Reader::step`.
    #[test]
    fn no_flipped_bit_gives_a_result_that_was_not_written() {
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
                // All others are there, and it is known that one is not.
                Step::End => assert_eq!((missing, lost), (1, 1), "bit {bit}"),
                end => assert!(end == Step::Damaged && missing > 0 && lost == 0, "bit {bit}"),
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_frame_is_none() {
        let mut noise = noise_bytes(4096);
        noise.splice(..0, FILE_HEAD);
        let (results, _, end) = read(&noise).unwrap();
        assert_eq!((results, end), (Vec::new(), Step::Damaged));
        assert!(read(b"wa-spool\x02\0\0\0").is_none(), "another version");
    }

    /// Red when `decode` takes a payload with more behind it, or `step` goes on
    /// without a checksum.
    #[test]
    fn fuzzed_segments_give_results_that_were_written() {
        let (bytes, stored) = written(5);
        let more = (1..=3).map(|count| written(count).0);
        let samples: Vec<_> = more.chain([bytes]).collect();
        testkit::fuzz::run(&samples, |bytes| {
            let Some(mut reader) = Reader::new(bytes) else { return };
            loop {
                let start = reader.at();
                let step = reader.step();
                assert!(start <= reader.at() && reader.at() <= bytes.len());
                match step {
                    Step::Result(read) => {
                        assert!(stored.contains(&read), "{read:?}");
                        let mut again = Vec::new();
                        encode(read.number, &read.topic, &read.record, &mut again);
                        assert_eq!(again, bytes[start..reader.at()]);
                    }
                    Step::Lost => assert!(start < reader.at()),
                    end => {
                        assert!(start == reader.at() && reader.step() == end);
                        return;
                    }
                }
            }
        });
        // And payloads whose checksums fit, as those of another version might.
        let payloads: Vec<_> =
            samples.iter().map(|it| it[FILE_HEAD.len() + 12..].to_vec()).collect();
        testkit::fuzz::run(&payloads, |payload| {
            if let Some(Stored { number, topic, record }) = decode(payload) {
                let mut again = Vec::new();
                encode(number, &topic, &record, &mut again);
                assert_eq!(&again[FRAME_HEAD_LEN..], payload);
            }
        });
    }

    /// Numbers of a small generator, the same each time.
    fn noise_bytes(count: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }
}
