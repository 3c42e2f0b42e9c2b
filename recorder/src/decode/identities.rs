//! The identities of results, from the headers of records.

use common::identity::{BrokenIdentity, EndedRun, Identity};
use kafka_client::{FetchedRecord, Uuid};

/// A statement in the headers of a record about a run of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderClaim {
    /// The record is this result.
    Result(Identity),
    /// An earlier run ended after this many results.
    Ended(EndedRun),
}

impl HeaderClaim {
    /// The run that the claim is about.
    pub fn run(&self) -> Uuid {
        match self {
            Self::Result(Identity { run, .. }) | Self::Ended(EndedRun { run, .. }) => *run,
        }
    }
}

/// The statements in the headers of the records of a batch.
#[derive(Debug, Default)]
pub struct Identities {
    /// The claims with the offsets of their records, sorted by offset.
    pub claims: Vec<(i64, HeaderClaim)>,
    /// The number of records with a malformed identity.
    pub malformed: u64,
    /// The offset and the error of the first record with a malformed identity.
    pub first_malformed: Option<(i64, BrokenIdentity)>,
}

impl Identities {
    /// Reads the headers of the records, which are sorted by offset. A malformed identity counts as
    /// absent: a duplicate row is better than a lost result.
    pub fn new(records: &[FetchedRecord]) -> Self {
        let mut identities = Self::default();
        for FetchedRecord { offset, headers, .. } in records {
            match Identity::from_headers(headers) {
                Ok(None) => {}
                Ok(Some(identity)) => {
                    identities.claims.push((*offset, HeaderClaim::Result(identity)));
                }
                Err(error) => identities.add_malformed(*offset, error),
            }
            match EndedRun::from_headers(headers) {
                Ok(ended) => {
                    let ended = ended.into_iter();
                    let claims = ended.map(|ended| (*offset, HeaderClaim::Ended(ended)));
                    identities.claims.extend(claims);
                }
                Err(error) => identities.add_malformed(*offset, error),
            }
        }
        identities
    }

    /// Splits off the claims of the records of `tail`. `head` holds the records before `tail`.
    pub(super) fn split_off(
        &mut self,
        offset: i64,
        head: &[FetchedRecord],
        tail: &[FetchedRecord],
    ) -> Self {
        if self.malformed > 0 {
            *self = Self::new(head);
            return Self::new(tail);
        }
        let first = self.claims.partition_point(|(claimed_at, _)| *claimed_at < offset);
        Self { claims: self.claims.split_off(first), ..Self::default() }
    }

    fn add_malformed(&mut self, offset: i64, error: BrokenIdentity) {
        self.malformed += 1;
        self.first_malformed.get_or_insert((offset, error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_identity_counts_as_absent() {
        let record = |offset, headers: Vec<(String, Option<bytes::Bytes>)>| FetchedRecord {
            offset,
            leader_epoch: None,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers,
        };
        let complete = common::identity::Run::new().unwrap().headers(4);
        let complete: Vec<_> = complete.into_iter().map(|(k, value)| (k, Some(value))).collect();
        let half = vec![complete[0].clone()];
        let identities = Identities::new(&[
            record(5, Vec::new()),
            record(6, half.clone()),
            record(7, complete),
            record(8, half),
        ]);
        let [(7, HeaderClaim::Result(Identity { sequence: 4, .. }))] = identities.claims[..] else {
            panic!("{identities:?}");
        };
        let missing = BrokenIdentity::Missing("sequence");
        assert_eq!((identities.malformed, identities.first_malformed), (2, Some((6, missing))));
    }
}
