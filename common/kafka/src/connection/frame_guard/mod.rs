//! A buffer that refuses counts and lengths that exceed the bytes of the frame.
//!
//! The decoders of `kafka-protocol` call `Vec::with_capacity` with a count from the frame before
//! they read the first element, so a few hostile bytes could request hundreds of gigabytes and
//! abort the process. In flexible versions, the only ones in use, every count and length is an
//! unsigned varint, so the guard checks each varint when it is read.

use std::ops::Range;

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::buf::ByteBuf;

/// The most elements of an array, or bytes of a string. Only the records of a fetch may be longer.
const COUNT_MAX: usize = 1 << 18;

/// The kind of the last value, to recognise the records of a fetch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastRead {
    Byte,
    IntAfterByte,
    Other,
}

/// A frame whose counts are checked while a decoder reads it.
pub(crate) struct FrameGuard {
    bytes: Bytes,
    last: LastRead,
    /// The first bytes of the varint that is being read.
    varint: [u8; 4],
    varint_len: usize,
    /// Whether the varint is the length of the records of a fetch. Only this length follows an i32
    /// after the end of a compact array (`preferred_read_replica`).
    is_records_len: bool,
}

impl FrameGuard {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, last: LastRead::Other, varint: [0; 4], varint_len: 0, is_records_len: false }
    }

    /// Checks the count that ends with this byte, if the byte ends a varint.
    ///
    /// A hostile boolean (a byte above 127 directly before a varint) must not hide the varint. The
    /// guard reads it as the first byte of the varint. The resulting count is larger than the
    /// count in the varint, so the check is at least as strict.
    fn check_varint(&mut self, byte: u8) -> Result<(), TryGetError> {
        if self.last != LastRead::Byte || self.varint_len == 0 {
            self.is_records_len = self.last == LastRead::IntAfterByte;
            self.varint_len = 0;
        }
        if byte >= 0x80 {
            // Five bytes are a count of 2^28 or more, which no accepted frame can hold.
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
        // A compact count is one higher than the number of elements.
        let count = value.saturating_sub(1);
        if count > self.bytes.remaining() || (count > COUNT_MAX && !self.is_records_len) {
            return Err(self.too_many(count));
        }
        Ok(())
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
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.check_varint(byte)?;
        self.last = LastRead::Byte;
        Ok(byte)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let value = self.bytes.try_get_i32()?;
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
        self.bytes.split_to(size)
    }
}

#[cfg(test)]
mod tests;
