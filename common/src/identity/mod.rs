//! The identity of a record: the tracker's run and a sequence number within its topic.
//!
//! The identity is in the headers of the Kafka record, not in its value: 1.1.0 ignores headers, and
//! the value must stay the same:
//!
//! | header | value |
//! |---|---|
//! | `run` | 16 random bytes, new at every start of a tracker |
//! | `sequence` | 8 bytes, big-endian: 0 for the run's first record of the topic, then increasing by one; at most 2⁶³ − 2 |
//! | `ended` | 24 bytes: the 16 bytes of an earlier run, and 8 bytes, big-endian: the number of sequence numbers that the run issued in the topic |
//!
//! A result gets its sequence number once and keeps it when it is sent again. A sequence number
//! that never arrives is therefore a lost result. The next sequence number shows the gap. A gap at
//! the end of a run is shown by [`EndedRun`].

mod ended_run;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

pub use ended_run::{ENDED_HEADER, ENDED_MAX, EndedRun};

/// The header with the run, 16 bytes.
pub const RUN_HEADER: &str = "run";
/// The header with the sequence number, 8 bytes.
pub const SEQUENCE_HEADER: &str = "sequence";
/// The highest sequence number: the number after it must fit 63 bits too.
pub const SEQUENCE_MAX: i64 = i64::MAX - 1;

/// The identity of one start of a tracker: 128 random bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run(Bytes);

impl Run {
    /// Creates a run from the system's random numbers.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system has no random numbers.
    pub fn new() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(Bytes::copy_from_slice(&bytes)))
    }

    /// The run as a UUID.
    pub fn id(&self) -> Uuid {
        Uuid::from_slice(&self.0).unwrap_or_default()
    }

    /// Whether `headers`, created by [`Run::headers`], belong to this run.
    pub fn created_headers(&self, headers: &[(String, Bytes)]) -> bool {
        headers.iter().any(|(key, value)| key == RUN_HEADER && *value == self.0)
    }

    /// Returns the headers of a record. `sequence` is 0 to [`SEQUENCE_MAX`].
    pub fn headers(&self, sequence: i64) -> Vec<(String, Bytes)> {
        vec![
            (RUN_HEADER.to_owned(), self.0.clone()),
            (SEQUENCE_HEADER.to_owned(), Bytes::copy_from_slice(&sequence.to_be_bytes())),
        ]
    }
}

/// The system has no random numbers, so a run can't be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random numbers")]
pub struct NoRandomness;

/// The identity in a record's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The tracker's run.
    pub run: Uuid,
    /// The sequence number within run and topic, 0 to [`SEQUENCE_MAX`].
    pub sequence: i64,
}

impl Identity {
    /// Reads the identity from a record's headers. `None`: there is none, as in records of 1.1.0.
    /// Other headers are ignored.
    ///
    /// # Errors
    /// [`BrokenIdentity`] if the headers exist but are not valid.
    pub fn from_headers(
        headers: &[(String, Option<Bytes>)],
    ) -> Result<Option<Self>, BrokenIdentity> {
        let run = single_value(headers, RUN_HEADER)?;
        let sequence = single_value(headers, SEQUENCE_HEADER)?;
        let (run, sequence) = match (run, sequence) {
            (None, None) => return Ok(None),
            (Some(run), Some(sequence)) => (run, sequence),
            (None, Some(_)) => return Err(BrokenIdentity::Missing(RUN_HEADER)),
            (Some(_), None) => return Err(BrokenIdentity::Missing(SEQUENCE_HEADER)),
        };
        let run = Uuid::from_bytes(fixed_bytes(RUN_HEADER, run)?);
        let sequence = u64::from_be_bytes(fixed_bytes(SEQUENCE_HEADER, sequence)?);
        match i64::try_from(sequence) {
            Ok(sequence) if sequence <= SEQUENCE_MAX => Ok(Some(Self { run, sequence })),
            _ => Err(BrokenIdentity::SequenceTooHigh(sequence)),
        }
    }
}

/// Returns the value of a header that may exist once. `None`: it does not exist. Empty: it is null.
fn single_value<'a>(
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

fn fixed_bytes<const N: usize>(
    name: &'static str,
    value: &[u8],
) -> Result<[u8; N], BrokenIdentity> {
    let wrong = BrokenIdentity::Length { header: name, bytes: value.len(), expected: N };
    value.try_into().map_err(|_| wrong)
}

/// Why headers are not a valid identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenIdentity {
    /// One of the two headers is missing.
    #[error("header {0}: missing, but the other header exists")]
    Missing(&'static str),
    /// The header exists more than once.
    #[error("header {0}: more than one")]
    Twice(&'static str),
    /// The value has a wrong length.
    #[error("header {header}: {bytes} bytes, expected {expected}")]
    Length {
        /// The header.
        header: &'static str,
        /// The number of bytes; 0 for null.
        bytes: usize,
        /// The expected number of bytes.
        expected: usize,
    },
    /// The sequence number is above [`SEQUENCE_MAX`].
    #[error("header {SEQUENCE_HEADER}: {0}, expected at most {SEQUENCE_MAX}")]
    SequenceTooHigh(u64),
    /// The count of an ended run is above 2⁶³ − 1.
    #[error("header {ENDED_HEADER}: {0} numbers, expected at most {max}", max = i64::MAX)]
    CountTooHigh(u64),
    /// There are more than [`ENDED_MAX`] ended runs.
    #[error("header {ENDED_HEADER}: {0} headers, expected at most {ENDED_MAX}")]
    TooManyEnded(usize),
}

#[cfg(test)]
mod tests;
