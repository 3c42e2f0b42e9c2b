//! A buffer that refuses counts and lengths that exceed the bytes of the frame.
//!
//! The decoders of `kafka-protocol` call `Vec::with_capacity` with a count from the frame before
//! they read the first element, so a few hostile bytes could request hundreds of gigabytes and
//! abort the process. This client uses only flexible versions, in which every count and length is
//! an unsigned varint. So the guard checks each varint before the decoder reads it.
//!
//! The numbers of tagged fields (KIP-482) are unsigned varints too, and a later Kafka or another
//! vendor may use any number. A number that is too large for a count is therefore replaced by
//! [`UNKNOWN_TAG`], which is so small that it allocates almost no memory. After that, the guard
//! requires the size of the unknown field and as many bytes.

use std::ops::Range;

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::buf::ByteBuf;

/// The maximum number of elements of an array, or of bytes of a string. Only the records of a fetch
/// may be longer.
const COUNT_MAX: usize = 1 << 18;

/// The kind of the last value, to recognise the records of a fetch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastRead {
    Byte,
    IntAfterByte,
    Other,
}

/// The number that replaces a larger number. Kafka has no field with this number, because it
/// numbers the fields of each message from 0.
const UNKNOWN_TAG: u8 = 0x7f;

/// The maximum size in bytes of a varint of 32 bits.
const VARINT_BYTES_MAX: usize = 5;

/// The part that must follow after a number was replaced by [`UNKNOWN_TAG`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Anything,
    /// The size of the unknown field.
    Size,
    /// The bytes of the unknown field.
    Bytes(usize),
}

/// A frame whose counts are checked while a decoder reads it.
pub(crate) struct FrameGuard {
    bytes: Bytes,
    last: LastRead,
    /// The number of bytes of a checked varint that are not read yet.
    varint_rest: usize,
    expected: Expected,
}

impl FrameGuard {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, last: LastRead::Other, varint_rest: 0, expected: Expected::Anything }
    }

    /// Returns the first byte of the varint at the front, after a check of the whole varint.
    ///
    /// The byte may also be a boolean. A hostile boolean, above 127, is treated as the first byte
    /// of the following varint. The combined value is larger than the following varint alone, so
    /// the check is at least as strict. If the check fails, the following varint is consumed, too.
    fn start_varint(&mut self) -> Result<u8, TryGetError> {
        let bytes = &self.bytes[..self.bytes.len().min(VARINT_BYTES_MAX)];
        let Some(last) = bytes.iter().position(|byte| *byte < 0x80) else {
            return Err(self.too_many(usize::MAX));
        };
        let value = bytes[..=last]
            .iter()
            .rev()
            .fold(0_u64, |value, byte| (value << 7) | u64::from(byte & 0x7f));
        let value = usize::try_from(value).unwrap_or(usize::MAX);
        let rest = self.bytes.len() - last - 1;
        if self.expected == Expected::Size {
            if value > rest {
                return Err(self.too_many(value));
            }
            self.expected = Expected::Bytes(value);
        } else if self.exceeds(value, rest) {
            self.expected = Expected::Size;
            self.bytes.advance(last + 1);
            return Ok(UNKNOWN_TAG);
        }
        self.varint_rest = last;
        let first = bytes[0];
        self.bytes.advance(1);
        Ok(first)
    }

    /// Whether a count or length of this value exceeds the `rest` of the frame.
    fn exceeds(&self, value: usize, rest: usize) -> bool {
        // The length of the records of a fetch follows `preferred_read_replica`, an i32 after the
        // end of a compact array. No other count is at such a place.
        let is_records_len = self.last == LastRead::IntAfterByte;
        // A compact count is one higher than the number of elements.
        let count = value.saturating_sub(1);
        count > rest || (count > COUNT_MAX && !is_records_len)
    }

    /// Ends the frame if another part was expected, because the replaced number was a count or a
    /// length. The decoder fails at its next read. There is always a next read, because each
    /// message ends with the count of its tagged fields.
    fn refuse_unless(&mut self, expected: Expected) {
        if self.expected != expected {
            self.bytes.clear();
        }
    }

    fn too_many(&self, requested: usize) -> TryGetError {
        TryGetError { requested, available: self.bytes.remaining() }
    }
}

impl Buf for FrameGuard {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.last = LastRead::Other;
        self.bytes.advance(count);
        self.refuse_unless(Expected::Anything);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        if self.varint_rest == 0 && matches!(self.expected, Expected::Bytes(_)) {
            return Err(self.too_many(usize::MAX));
        }
        let byte = if self.varint_rest > 0 {
            self.varint_rest -= 1;
            self.bytes.try_get_u8()?
        } else {
            self.start_varint()?
        };
        self.last = LastRead::Byte;
        Ok(byte)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let value = self.bytes.try_get_i32()?;
        self.refuse_unless(Expected::Anything);
        self.last =
            if self.last == LastRead::Byte { LastRead::IntAfterByte } else { LastRead::Other };
        Ok(value)
    }
}

impl ByteBuf for FrameGuard {
    fn peek_bytes(&mut self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.last = LastRead::Other;
        let bytes = self.bytes.split_to(size);
        if self.expected != Expected::Anything {
            self.refuse_unless(Expected::Bytes(size));
            self.expected = Expected::Anything;
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
