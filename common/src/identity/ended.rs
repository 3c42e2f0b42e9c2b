//! How many numbers an earlier run gave, told by the run that follows it: what
//! it lost at its very end shows in no number of its own.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{BrokenIdentity, exactly};

/// The header with a run's 16 bytes and a count's 8, big-endian; there may be
/// several.
pub const ENDED_HEADER: &str = "ended";
/// The most of them at one record.
pub const ENDED_MAX: usize = 16;

/// A run that has ended, in one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The run.
    pub run: Uuid,
    /// How many numbers it gave: the one after the last.
    pub count: i64,
}

impl Ended {
    /// Its header. It belongs at a record behind all that is left of the run.
    pub fn header(&self) -> (String, Bytes) {
        let mut value = BytesMut::with_capacity(24);
        value.put_slice(self.run.as_bytes());
        value.put_i64(self.count);
        (ENDED_HEADER.to_owned(), value.freeze())
    }

    /// Those that a record's headers tell of; mostly none.
    ///
    /// # Errors
    /// [`BrokenIdentity`]: one of them is none, or there are too many.
    pub fn from_headers(headers: &[(String, Option<Bytes>)]) -> Result<Vec<Self>, BrokenIdentity> {
        let values = || headers.iter().filter(|(key, _)| key == ENDED_HEADER);
        let number = values().count();
        if number > ENDED_MAX {
            return Err(BrokenIdentity::TooManyEnded(number));
        }
        let ended = values().map(|(_, value)| {
            let bytes: [u8; 24] = exactly(ENDED_HEADER, value.as_deref().unwrap_or_default())?;
            let (run, count) = bytes.split_at(16);
            let count = u64::from_be_bytes(exactly(ENDED_HEADER, count)?);
            let run = Uuid::from_bytes(exactly(ENDED_HEADER, run)?);
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

    /// The bytes on the wire, which stay the same for ever.
    #[test]
    fn golden_bytes() {
        let ended = Ended { run: RUN, count: 0x0102_0304 };
        let (key, value) = ended.header();
        let bytes: [u8; 24] =
            [0xde, 0xad, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!((key.as_str(), &value[..]), ("ended", &bytes[..]));
        let last = Ended { run: RUN, count: i64::MAX };
        let headers = [ended, last].map(|it| it.header()).map(|(key, value)| (key, Some(value)));
        assert_eq!(Ended::from_headers(&headers), Ok(vec![ended, last]));
        assert_eq!(Ended::from_headers(&[]), Ok(vec![]));
        // It is no part of an identity, so that recorders of before pass it over.
        assert_eq!(Identity::from_headers(&headers), Ok(None));
    }

    #[test]
    fn what_tells_of_no_run_says_why() {
        let told = |value: Option<&[u8]>| {
            let value = value.map(Bytes::copy_from_slice);
            Ended::from_headers(&[("ended".to_owned(), value)]).unwrap_err().to_string()
        };
        assert_eq!(told(None), "header ended: 0 bytes, expected 24");
        assert_eq!(told(Some(&[0; 25])), "header ended: 25 bytes, expected 24");
        let too_high =
            "header ended: 18446744073709551615 numbers, expected at most 9223372036854775807";
        assert_eq!(told(Some(&[0xff; 24])), too_high);
        let (key, value) = Ended { run: RUN, count: 1 }.header();
        let many = vec![(key, Some(value)); ENDED_MAX + 1];
        let error = Ended::from_headers(&many).unwrap_err();
        assert_eq!(error.to_string(), "header ended: 17 of it, expected at most 16");
    }
}
