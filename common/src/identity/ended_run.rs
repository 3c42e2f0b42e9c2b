//! The number of sequence numbers that an earlier run issued, reported by a later run. Without this
//! report, results lost at the very end of a run would not show as a gap.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{BrokenIdentity, fixed_bytes};

/// The header with an ended run: 16 bytes of the run, 8 bytes big-endian of the count. A record can
/// have several.
pub const ENDED_HEADER: &str = "ended";
/// The most [`ENDED_HEADER`] headers of one record.
pub const ENDED_MAX: usize = 16;

/// A run that has ended, and its number of records in one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRun {
    /// The run.
    pub run: Uuid,
    /// How many sequence numbers the run issued: the last number plus 1.
    pub count: i64,
}

impl EndedRun {
    /// Returns the header. It belongs to a record after all records of the ended run.
    pub fn header(&self) -> (String, Bytes) {
        let mut value = BytesMut::with_capacity(24);
        value.put_slice(self.run.as_bytes());
        value.put_i64(self.count);
        (ENDED_HEADER.to_owned(), value.freeze())
    }

    /// Reads the ended runs from a record's headers. Most records have none.
    ///
    /// # Errors
    /// [`BrokenIdentity`] if a header is not valid, or there are more than [`ENDED_MAX`].
    pub fn from_headers(headers: &[(String, Option<Bytes>)]) -> Result<Vec<Self>, BrokenIdentity> {
        let values = || headers.iter().filter(|(key, _)| key == ENDED_HEADER);
        let number = values().count();
        if number > ENDED_MAX {
            return Err(BrokenIdentity::TooManyEnded(number));
        }
        let ended = values().map(|(_, value)| {
            let bytes: [u8; 24] = fixed_bytes(ENDED_HEADER, value.as_deref().unwrap_or_default())?;
            let (run, count) = bytes.split_at(16);
            let count = u64::from_be_bytes(fixed_bytes(ENDED_HEADER, count)?);
            let run = Uuid::from_bytes(fixed_bytes(ENDED_HEADER, run)?);
            let count = i64::try_from(count).map_err(|_| BrokenIdentity::CountTooHigh(count))?;
            Ok(Self { run, count })
        });
        ended.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;

    const RUN: Uuid = Uuid::from_u128(0xdead_0203_0405_0607_0809_0a0b_0c0d_0e0f);

    /// The bytes of the header must never change.
    #[test]
    fn golden_bytes() {
        let ended = EndedRun { run: RUN, count: 0x0102_0304 };
        let (key, value) = ended.header();
        let bytes: [u8; 24] =
            [0xde, 0xad, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!((key.as_str(), &value[..]), ("ended", &bytes[..]));
        let last = EndedRun { run: RUN, count: i64::MAX };
        let headers = [ended, last].map(|it| it.header()).map(|(key, value)| (key, Some(value)));
        assert_eq!(EndedRun::from_headers(&headers), Ok(vec![ended, last]));
        assert_eq!(EndedRun::from_headers(&[]), Ok(vec![]));
        // It is not part of an identity, so older recorders ignore it.
        assert_eq!(Identity::from_headers(&headers), Ok(None));
    }

    #[test]
    fn invalid_headers_have_a_reason() {
        let error_of = |value: Option<&[u8]>| {
            let value = value.map(Bytes::copy_from_slice);
            EndedRun::from_headers(&[("ended".to_owned(), value)]).unwrap_err().to_string()
        };
        assert_eq!(error_of(None), "header ended: 0 bytes, expected 24");
        assert_eq!(error_of(Some(&[0; 25])), "header ended: 25 bytes, expected 24");
        let too_high =
            "header ended: 18446744073709551615 numbers, expected at most 9223372036854775807";
        assert_eq!(error_of(Some(&[0xff; 24])), too_high);
        let (key, value) = EndedRun { run: RUN, count: 1 }.header();
        let many = vec![(key, Some(value)); ENDED_MAX + 1];
        let error = EndedRun::from_headers(&many).unwrap_err();
        assert_eq!(error.to_string(), "header ended: 17 headers, expected at most 16");
    }
}
