//! A buffer that the generated decoders can read without being led to
//! allocate more than there is.
//!
//! The decoders of `kafka-protocol` call `Vec::with_capacity` with a count from
//! the wire before they read the first element, so four hostile bytes would ask
//! for hundreds of gigabytes and end the process. In the flexible versions,
//! which are the only ones that we speak, every count and every length is an
//! unsigned varint, so it can be judged here, as it is read.

use std::ops::Range;

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::buf::ByteBuf;

/// The most elements that an array, or bytes that a string, may have. Only the
/// records of a fetch are longer.
const COUNT_MAX: usize = 1 << 18;

/// What was read last; it tells the one field that may be long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Byte,
    IntAfterByte,
    Other,
}

/// See the module.
pub(crate) struct Guard {
    bytes: Bytes,
    last: Last,
    /// The last bytes of the varint that is being read, newest last.
    varint: [u8; 4],
    varint_len: usize,
    /// The records of a fetch: their length follows `preferred_read_replica`,
    /// an i32 that follows the end of a compact array. No other count does.
    long: bool,
}

impl Guard {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, last: Last::Other, varint: [0; 4], varint_len: 0, long: false }
    }

    /// Judges the byte as the end of a varint, when it is one.
    ///
    /// A hostile boolean (a byte above 127 directly before a varint) must not
    /// shift the view, so every start within the last bytes is judged. A later
    /// start gives a smaller number, so a good varint is never refused for it.
    fn judge(&mut self, byte: u8) -> Result<(), TryGetError> {
        if self.last != Last::Byte || self.varint_len == 0 {
            self.long = self.last == Last::IntAfterByte;
            self.varint_len = 0;
        }
        if byte >= 0x80 {
            // Five bytes are 2^28 or more, which no frame of ours can hold.
            if self.varint_len == self.varint.len() {
                return Err(self.too_many(usize::MAX));
            }
            self.varint[self.varint_len] = byte;
            self.varint_len += 1;
            return Ok(());
        }
        let mut value = usize::from(byte);
        for earlier in self.varint[..self.varint_len].iter().rev() {
            value = (value << 7) | usize::from(earlier & 0x7f);
        }
        self.varint_len = 0;
        // Compact counts are one higher than what they count.
        let count = value.saturating_sub(1);
        if count > self.bytes.remaining() || (count > COUNT_MAX && !self.long) {
            return Err(self.too_many(count));
        }
        Ok(())
    }

    fn too_many(&self, requested: usize) -> TryGetError {
        TryGetError { requested, available: self.bytes.remaining() }
    }
}

impl Buf for Guard {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.last = Last::Other;
        self.bytes.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.judge(byte)?;
        self.last = Last::Byte;
        Ok(byte)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let value = self.bytes.try_get_i32()?;
        self.last = if self.last == Last::Byte { Last::IntAfterByte } else { Last::Other };
        Ok(value)
    }
}

impl ByteBuf for Guard {
    fn peek_bytes(&mut self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.last = Last::Other;
        self.bytes.split_to(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use kafka_protocol::messages::*;
    use kafka_protocol::protocol::Decodable;

    fn refused<R: Decodable>(bytes: Vec<u8>, version: i16) -> bool {
        R::decode(&mut Guard::new(bytes.into()), version).is_err()
    }

    /// Each of these would allocate gigabytes, or end the process, unguarded.
    #[test]
    fn counts_from_the_wire_allocate_nothing_that_is_not_there() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let fits_usize = [0xff, 0xff, 0xff, 0x7f];
        for count in [&huge[..], &fits_usize] {
            let brokers = [&[0; 4], count, &[0; 64]].concat();
            assert!(refused::<MetadataResponse>(brokers, 12));
            // throttle, error, session, then the topics.
            let topics = [&[0; 4 + 2 + 4], count, &[0; 64]].concat();
            assert!(refused::<FetchResponse>(topics, 13));
            let topics = [count, &[0; 64]].concat();
            assert!(refused::<ProduceResponse>(topics, 12));
        }
    }

    #[test]
    fn a_hostile_boolean_does_not_hide_the_count_after_it() {
        let mut bytes = Vec::new();
        bytes.put_i32(0); // throttle
        bytes.put_u8(1); // no broker
        bytes.put_u8(0); // no cluster id
        bytes.put_i32(0); // controller
        bytes.put_u8(2); // one topic
        bytes.put_i16(0); // its error
        bytes.put_u8(0); // no name
        bytes.put_slice(&[0; 16]); // its id
        bytes.put_u8(0x80); // internal: neither false nor true
        bytes.put_slice(&[0x80, 0x80, 0x80, 0x80, 0x0f]); // 4 billion partitions
        bytes.put_slice(&[0; 64]);
        assert!(refused::<MetadataResponse>(bytes.clone(), 12));
        let at = bytes.len() - 69;
        bytes[at..at + 5].copy_from_slice(&[0x80, 0x80, 0x7f, 1, 1]);
        assert!(refused::<MetadataResponse>(bytes, 12));
    }

    #[test]
    fn the_records_of_a_fetch_may_be_long() {
        let mut bytes = Vec::new();
        let records = vec![7; COUNT_MAX * 2];
        bytes.put_slice(&[0; 4 + 2 + 4]); // throttle, error, session
        bytes.put_u8(2); // one topic
        bytes.put_slice(&[9; 16]); // its id
        bytes.put_u8(2); // one partition
        bytes.put_slice(&[0; 4 + 2 + 8 + 8 + 8]); // index, error, three offsets
        bytes.put_u8(0); // no aborted transaction
        bytes.put_i32(-1); // preferred read replica
        let length = u32::try_from(records.len()).unwrap() + 1;
        let varint = [length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8];
        bytes.put_slice(&varint);
        bytes.put_slice(&records);
        bytes.put_slice(&[0; 3]); // no tagged fields of partition, topic and answer
        let mut guard = Guard::new(bytes.into());
        let response = FetchResponse::decode(&mut guard, 13).unwrap();
        assert_eq!(response.responses[0].partitions[0].records.as_ref().unwrap(), &records);
        assert!(!guard.has_remaining());
    }
}
