//! The identity of a result: which run of which tracker took it, and as which
//! of its topic's results.
//!
//! It stands in two headers of the record in Kafka, so that the value stays
//! that of 1.1.0, which reads no headers:
//!
//! | header | value |
//! |---|---|
//! | `run` | 16 bytes: random, new at every start of a tracker |
//! | `sequence` | 8 bytes, big-endian: 0 for the run's first result of the topic, one more for each that follows; at most 2⁶³ − 2 |
//! | `ended` | 24 bytes: an earlier run's 16, and 8, big-endian, of how many numbers it gave in the topic |
//!
//! A number is given once, when the result is taken, and is written again with
//! it; so a number that never comes is a result that was lost. The number after
//! it shows that, and at the end of a run [`Ended`] does.

mod ended;

use std::fmt;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

pub use ended::{ENDED_HEADER, ENDED_MAX, Ended};

/// The header with the run's 16 bytes.
pub const RUN_HEADER: &str = "run";
/// The header with the number's 8 bytes.
pub const SEQUENCE_HEADER: &str = "sequence";
/// The highest number: the one after it must fit 63 bits as well.
pub const SEQUENCE_MAX: i64 = i64::MAX - 1;

/// One start of a tracker: 128 random bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run(Bytes);

impl Run {
    /// A new one, from the system's randomness.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(Bytes::copy_from_slice(&bytes)))
    }

    /// Its 128 bits.
    pub fn id(&self) -> Uuid {
        Uuid::from_slice(&self.0).unwrap_or_default()
    }

    /// Whether headers that were made by [`Run::headers`] are of this run.
    pub fn made(&self, headers: &[(String, Bytes)]) -> bool {
        headers.iter().any(|(key, value)| key == RUN_HEADER && *value == self.0)
    }

    /// The headers of the run's result with this number in its topic, 0 to
    /// [`SEQUENCE_MAX`].
    pub fn headers(&self, sequence: i64) -> Vec<(String, Bytes)> {
        vec![
            (RUN_HEADER.to_owned(), self.0.clone()),
            (SEQUENCE_HEADER.to_owned(), Bytes::copy_from_slice(&sequence.to_be_bytes())),
        ]
    }
}

/// The system gave no random bytes, without which a run has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandomness;

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system gave no random bytes")
    }
}

impl std::error::Error for NoRandomness {}

/// What a record's headers say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The tracker's run.
    pub run: Uuid,
    /// The number in the topic within the run, 0 to [`SEQUENCE_MAX`].
    pub sequence: i64,
}

impl Identity {
    /// From a record's headers; none when they have neither header, as those
    /// of 1.1.0. Other headers mean nothing here.
    ///
    /// # Errors
    /// [`BrokenIdentity`]: there is something, and it is not an identity.
    pub fn from_headers(
        headers: &[(String, Option<Bytes>)],
    ) -> Result<Option<Self>, BrokenIdentity> {
        let run = only(headers, RUN_HEADER)?;
        let sequence = only(headers, SEQUENCE_HEADER)?;
        let (run, sequence) = match (run, sequence) {
            (None, None) => return Ok(None),
            (Some(run), Some(sequence)) => (run, sequence),
            (None, Some(_)) => return Err(BrokenIdentity::Missing(RUN_HEADER)),
            (Some(_), None) => return Err(BrokenIdentity::Missing(SEQUENCE_HEADER)),
        };
        let run = Uuid::from_bytes(exactly(RUN_HEADER, run)?);
        let sequence = u64::from_be_bytes(exactly(SEQUENCE_HEADER, sequence)?);
        match i64::try_from(sequence) {
            Ok(sequence) if sequence <= SEQUENCE_MAX => Ok(Some(Self { run, sequence })),
            _ => Err(BrokenIdentity::SequenceTooHigh(sequence)),
        }
    }
}

/// The one value of a header; none when it is not there, empty when it is null.
fn only<'a>(
    headers: &'a [(String, Option<Bytes>)],
    name: &'static str,
) -> Result<Option<&'a [u8]>, BrokenIdentity> {
    let mut values = headers.iter().filter(|(key, _)| key == name);
    let value = values.next().map(|(_, value)| value.as_deref().unwrap_or_default());
    if values.next().is_some() {
        return Err(BrokenIdentity::Twice(name));
    }
    Ok(value)
}

fn exactly<const N: usize>(name: &'static str, value: &[u8]) -> Result<[u8; N], BrokenIdentity> {
    let wrong = BrokenIdentity::Length { header: name, bytes: value.len(), expected: N };
    value.try_into().map_err(|_| wrong)
}

/// Headers that look like an identity and are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokenIdentity {
    /// The other of the two headers is there.
    Missing(&'static str),
    /// More than one value.
    Twice(&'static str),
    /// Not as many bytes as it has.
    Length {
        /// The header.
        header: &'static str,
        /// How many bytes there are; 0 where the value is null.
        bytes: usize,
        /// How many there must be.
        expected: usize,
    },
    /// Beyond [`SEQUENCE_MAX`].
    SequenceTooHigh(u64),
    /// More numbers than there are.
    CountTooHigh(u64),
    /// More than [`ENDED_MAX`] ended runs.
    TooManyEnded(usize),
}

impl fmt::Display for BrokenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(header) => write!(f, "header {header}: missing beside the other"),
            Self::Twice(header) => write!(f, "header {header}: more than one"),
            Self::Length { header, bytes, expected } => {
                write!(f, "header {header}: {bytes} bytes, expected {expected}")
            }
            Self::SequenceTooHigh(sequence) => {
                write!(f, "header {SEQUENCE_HEADER}: {sequence}, expected at most {SEQUENCE_MAX}")
            }
            Self::CountTooHigh(count) => {
                write!(f, "header {ENDED_HEADER}: {count} numbers, expected at most {}", i64::MAX)
            }
            Self::TooManyEnded(count) => {
                write!(f, "header {ENDED_HEADER}: {count} of it, expected at most {ENDED_MAX}")
            }
        }
    }
}

impl std::error::Error for BrokenIdentity {}

#[cfg(test)]
mod tests {
    use super::*;

    type Header<'a> = (&'a str, Option<&'a [u8]>);

    fn fetched(headers: &[Header<'_>]) -> Vec<(String, Option<Bytes>)> {
        let owned =
            |(key, value): &Header<'_>| ((*key).to_owned(), value.map(Bytes::copy_from_slice));
        headers.iter().map(owned).collect()
    }

    const RUN: &[u8] = &[0xde, 0xad, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    /// The bytes on the wire, which stay the same for ever.
    #[test]
    fn golden_bytes() {
        let run = Run(Bytes::from_static(RUN));
        let written = run.headers(0x0102_0304);
        assert_eq!(
            written,
            [
                ("run".to_owned(), Bytes::from_static(RUN)),
                ("sequence".to_owned(), Bytes::from_static(&[0, 0, 0, 0, 1, 2, 3, 4])),
            ]
        );
        let mut read: Vec<_> = written.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let identity = Identity {
            run: Uuid::from_u128(0xdead_0203_0405_0607_0809_0a0b_0c0d_0e0f),
            sequence: 0x0102_0304,
        };
        assert_eq!(Identity::from_headers(&read), Ok(Some(identity)));
        // In any order, among others.
        read.reverse();
        read.insert(1, ("other".to_owned(), None));
        assert_eq!(Identity::from_headers(&read), Ok(Some(identity)));
    }

    #[test]
    fn every_run_is_another() {
        let (one, other) = (Run::new().unwrap(), Run::new().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.0.len(), 16);
    }

    #[test]
    fn the_highest_number_goes_there_and_back() {
        let headers: Vec<_> = Run(Bytes::from_static(RUN))
            .headers(SEQUENCE_MAX)
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .collect();
        let identity = Identity::from_headers(&headers).unwrap().unwrap();
        assert_eq!(identity.sequence, SEQUENCE_MAX);
    }

    #[test]
    fn what_is_no_identity_says_why() {
        assert_eq!(Identity::from_headers(&[]), Ok(None));
        assert_eq!(Identity::from_headers(&fetched(&[("trace", Some(b"x"))])), Ok(None));
        let zero: &[u8] = &[0; 8];
        let cases: &[(&[Header<'_>], &str)] = &[
            (&[("run", Some(RUN))], "header sequence: missing beside the other"),
            (&[("sequence", Some(zero))], "header run: missing beside the other"),
            (
                &[("run", Some(RUN)), ("run", Some(RUN)), ("sequence", Some(zero))],
                "header run: more than one",
            ),
            (
                &[("run", Some(&RUN[1..])), ("sequence", Some(zero))],
                "header run: 15 bytes, expected 16",
            ),
            (&[("run", Some(RUN)), ("sequence", None)], "header sequence: 0 bytes, expected 8"),
            (
                &[("run", Some(RUN)), ("sequence", Some(&[0; 9]))],
                "header sequence: 9 bytes, expected 8",
            ),
            (
                &[("run", Some(RUN)), ("sequence", Some(&i64::MAX.to_be_bytes()))],
                "header sequence: 9223372036854775807, expected at most 9223372036854775806",
            ),
            (
                &[("run", Some(RUN)), ("sequence", Some(&[0xff; 8]))],
                "header sequence: 18446744073709551615, expected at most 9223372036854775806",
            ),
        ];
        for (headers, expected) in cases {
            let error = Identity::from_headers(&fetched(headers)).unwrap_err();
            assert_eq!(&error.to_string(), expected);
        }
    }
}
