//! The batch in flight of one topic, and what each answer makes of it.
//!
//! The rules, all of which rest on one batch in flight per partition:
//!
//! 1. What was written once is written again byte for byte, with its producer
//!    id, epoch and sequence, until the broker has said what became of it. The
//!    broker knows the last five batches of a producer, so the second time is
//!    answered as the first or as a duplicate, and is not appended again.
//! 2. A batch gets its sequence when it is first written, and the sequence moves
//!    on only when the batch is in the log. A batch that is refused for good
//!    leaves its numbers to the next one.
//! 3. A refusal for good after an attempt whose end is unknown leaves the
//!    broker's next number unknown. The topic then goes on under a new producer
//!    id, for which the broker takes any first number.
//! 4. When the broker does not go on from what we say (out of order, unknown
//!    producer), the log that the leader has does not end in this batch: one in
//!    flight, so had it been appended it would be the last and known. The batch
//!    is then written under a new producer id. Other topics keep theirs, with
//!    whatever they have in flight.
//!
//! What can still be written twice: a batch whose first writing was appended and
//! whose answer was lost, when the broker has forgotten the producer before the
//! second (`producer.id.expiration.ms`, 24 hours by default), when its topic's
//! records were deleted in between, or when what a topic takes was made smaller
//! than the batch in between, as the size is looked at before the sequence.
//! Nothing that a producer can see tells this from a batch that was never
//! appended. Who reads can, by the identity that each record brings along, and the
//! recorder does.

use std::collections::HashSet;

use bytes::Bytes;

use super::Outcome;
use crate::batch::{BATCH_HEADER_LEN, Identity, ProduceRecord, encode_batch};
use crate::error::{Error, Verdict, verdict};

/// What the producer knows of one topic's partition 0.
#[derive(Debug)]
pub(super) struct Partition {
    /// As whom the next batch is written; none: as whom the producer is by then.
    identity: Option<Identity>,
    /// As whom it can't go on, until that is told: nobody may begin as that again.
    spent: Option<Identity>,
    /// The number of the next record.
    next_sequence: i32,
    /// The most bytes of a batch; less than the producer's when the topic takes less.
    pub(super) bytes_max: usize,
    pub(super) in_flight: Option<InFlight>,
}

/// A batch that was accepted and is not settled.
#[derive(Debug)]
pub(super) struct InFlight {
    records: Vec<ProduceRecord>,
    /// The bytes, once they were made.
    encoded: Option<Bytes>,
    /// It was written, and may be in the log.
    maybe_appended: bool,
    /// How often its leader has asked for patience.
    delays: u32,
}

/// After so many answers that ask for patience the leader is looked for anew: one
/// that others have left behind says that as well.
const DELAYS_MAX: u32 = 3;

impl InFlight {
    pub(super) fn record_count(&self) -> usize {
        self.records.len()
    }
}

impl Partition {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { identity: None, spent: None, next_sequence: 0, bytes_max, in_flight: None }
    }

    /// Takes a batch; it must be free, and the batch not empty.
    pub(super) fn accept(&mut self, records: Vec<ProduceRecord>) {
        self.in_flight =
            Some(InFlight { records, encoded: None, maybe_appended: false, delays: 0 });
    }

    /// Whether it can't be written without a producer id from the broker.
    pub(super) fn lacks_identity(&self) -> bool {
        self.identity.is_none()
            && self.in_flight.as_ref().is_some_and(|in_flight| in_flight.encoded.is_none())
    }

    /// The bytes to write, the same ones each time.
    pub(super) fn bytes(&mut self, current: Option<Identity>) -> Option<Bytes> {
        let in_flight = self.in_flight.as_mut()?;
        if let Some(encoded) = &in_flight.encoded {
            return Some(encoded.clone());
        }
        if self.identity.is_none() {
            self.identity = current;
            self.next_sequence = 0;
        }
        let identity = self.identity?;
        let bytes = encode_batch(&in_flight.records, identity, self.next_sequence);
        in_flight.encoded = Some(bytes.clone());
        Some(bytes)
    }

    /// The end of the writing is not known: a broken connection, no answer.
    fn unknown(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.maybe_appended = true;
        }
    }

    /// It is in the log, now or since before.
    pub(super) fn delivered(&mut self, base_offset: Option<i64>) -> Option<Outcome> {
        let in_flight = self.in_flight.take()?;
        let records = in_flight.records.len();
        // Wraps from 2147483647 to 0, as the broker counts.
        let count = i32::try_from(records).unwrap_or(i32::MAX);
        self.next_sequence = self.next_sequence.wrapping_add(count) & i32::MAX;
        Some(Outcome::Delivered { records, base_offset })
    }

    /// What an error before the batch was written makes of it: most leave it where
    /// it is (certificates can be renewed, brokers come back), some end it. Also the
    /// identity that is spent by it, if one is.
    pub(super) fn not_written(&mut self, error: &Error) -> (Option<Outcome>, Option<Identity>) {
        let outcome = match error {
            Error::Broker { code, .. } if verdict(*code) == Verdict::Permanent => self.lost(error),
            _ => None,
        };
        (outcome, self.spent.take())
    }

    /// What an error after the batch was written makes of it. None: it stays in
    /// flight, for a reason that is the error; the identity that is spent by it, if
    /// one is.
    pub(super) fn refused(&mut self, error: &Error) -> (Option<Outcome>, Option<Identity>) {
        let verdict = match error {
            Error::Broker { code, .. } => verdict(*code),
            _ => Verdict::Unknown,
        };
        let outcome = match verdict {
            Verdict::Duplicate => self.delivered(None),
            Verdict::ProducerState => {
                self.start_again();
                None
            }
            // A leader that steps down in the middle says the same as one that never
            // led, with the batch in its log and perhaps in the new leader's.
            Verdict::Metadata | Verdict::Unknown => {
                self.unknown();
                None
            }
            Verdict::Again => None,
            Verdict::TooLarge => self.too_large(error),
            Verdict::Permanent => self.lost(error),
        };
        (outcome, self.spent.take())
    }

    /// Whether it is time to look for the leader, after one more answer that asks
    /// for patience.
    pub(super) fn doubts_leader(&mut self) -> bool {
        let Some(in_flight) = &mut self.in_flight else { return false };
        in_flight.delays = (in_flight.delays + 1) % DELAYS_MAX;
        in_flight.delays == 0
    }

    fn start_again(&mut self) {
        self.spent = self.identity.take();
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.encoded = None;
        }
    }

    fn too_large(&mut self, error: &Error) -> Option<Outcome> {
        let in_flight = self.in_flight.as_ref()?;
        if in_flight.records.len() <= 1 {
            return self.lost(error);
        }
        let size = in_flight.encoded.as_ref().map_or(self.bytes_max, Bytes::len);
        self.bytes_max = (size / 2).max(BATCH_HEADER_LEN);
        let in_flight = self.give_up()?;
        Some(Outcome::TooLarge { records: in_flight.records, bytes_max: self.bytes_max })
    }

    /// Gives up the records that the broker names as the ones that it refuses, by
    /// their places in the batch; the others go under the same numbers, which the
    /// broker has not taken. None when that can't be done: the batch is in doubt, or
    /// it is all of it, or none.
    pub(super) fn without(&mut self, places: &HashSet<usize>, error: &Error) -> Option<Outcome> {
        let in_flight = self.in_flight.as_mut().filter(|it| !it.maybe_appended)?;
        let count = in_flight.records.len();
        let lost = places.iter().filter(|place| **place < count).count();
        if lost == 0 || lost == count {
            return None;
        }
        let mut place = 0..count;
        in_flight.records.retain(|_| place.next().is_some_and(|place| !places.contains(&place)));
        in_flight.encoded = None;
        Some(Outcome::Lost { records: lost, cause: error.clone(), maybe_delivered: false })
    }

    /// Gives the batch up for good, whatever the broker may have of it.
    fn lost(&mut self, error: &Error) -> Option<Outcome> {
        let in_flight = self.give_up()?;
        Some(Outcome::Lost {
            records: in_flight.records.len(),
            cause: error.clone(),
            maybe_delivered: in_flight.maybe_appended,
        })
    }

    fn give_up(&mut self) -> Option<InFlight> {
        let in_flight = self.in_flight.take()?;
        if in_flight.maybe_appended {
            self.spent = self.identity.take();
        }
        Some(in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::ResponseError as E;

    const FIRST: Identity = Identity { producer_id: 1, epoch: 0 };
    const SECOND: Identity = Identity { producer_id: 2, epoch: 0 };

    fn records(count: usize) -> Vec<ProduceRecord> {
        let record = ProduceRecord {
            timestamp_ms: 1,
            value: Bytes::from_static(&[b'v'; 50]),
            headers: vec![],
        };
        vec![record; count]
    }

    fn error(code: E) -> Error {
        Error::from_code("Produce", "t", code.code(), None).unwrap_err()
    }

    /// Producer id and base sequence, read from where they stand in a batch.
    fn written(bytes: &Bytes) -> (i64, i32) {
        let id = i64::from_be_bytes(bytes[43..51].try_into().unwrap());
        (id, i32::from_be_bytes(bytes[53..57].try_into().unwrap()))
    }

    fn in_flight(count: usize) -> (Partition, Bytes) {
        let mut partition = Partition::new(1000);
        partition.accept(records(count));
        let bytes = partition.bytes(Some(FIRST)).unwrap();
        (partition, bytes)
    }

    #[test]
    fn what_is_in_doubt_goes_again_byte_for_byte() {
        for code in [
            E::NotLeaderOrFollower,
            E::RequestTimedOut,
            E::NotEnoughReplicas,
            E::NotEnoughReplicasAfterAppend,
            E::UnknownTopicOrPartition,
            E::UnknownServerError,
            E::Unknown(999),
            E::KafkaStorageError,
        ] {
            let (mut partition, bytes) = in_flight(3);
            let (outcome, identity) = partition.refused(&error(code));
            assert!(outcome.is_none() && identity.is_none(), "{code:?}");
            // Even when the producer has become another by then.
            assert_eq!(partition.bytes(Some(SECOND)).unwrap(), bytes, "{code:?}");
            assert!(matches!(
                partition.delivered(Some(7)),
                Some(Outcome::Delivered { records: 3, base_offset: Some(7) })
            ));
            partition.accept(records(1));
            assert_eq!(written(&partition.bytes(Some(SECOND)).unwrap()), (1, 3));
        }
    }

    #[test]
    fn a_duplicate_is_delivered() {
        let (mut partition, _) = in_flight(2);
        partition.unknown();
        let (outcome, _) = partition.refused(&error(E::DuplicateSequenceNumber));
        assert!(matches!(outcome, Some(Outcome::Delivered { records: 2, base_offset: None })));
        partition.accept(records(1));
        assert_eq!(written(&partition.bytes(None).unwrap()), (1, 2));
    }

    #[test]
    fn a_lost_sequence_starts_again_under_a_new_id() {
        for code in [E::OutOfOrderSequenceNumber, E::UnknownProducerId, E::InvalidProducerEpoch] {
            let (mut partition, _) = in_flight(2);
            let (outcome, refused) = partition.refused(&error(code));
            assert!(outcome.is_none());
            assert_eq!(refused, Some(FIRST));
            assert!(partition.lacks_identity());
            assert!(partition.bytes(None).is_none());
            assert_eq!(written(&partition.bytes(Some(SECOND)).unwrap()), (2, 0));
        }
    }

    #[test]
    fn a_refusal_leaves_its_numbers_to_the_next_batch_or_a_new_id_when_in_doubt() {
        let (mut partition, _) = in_flight(2);
        let (outcome, spent) = partition.refused(&error(E::TopicAuthorizationFailed));
        assert!(matches!(outcome, Some(Outcome::Lost { records: 2, maybe_delivered: false, .. })));
        assert_eq!(spent, None);
        partition.accept(records(1));
        assert_eq!(written(&partition.bytes(Some(SECOND)).unwrap()), (1, 0));

        partition.unknown();
        let (outcome, spent) = partition.refused(&error(E::TopicAuthorizationFailed));
        assert!(matches!(outcome, Some(Outcome::Lost { records: 1, maybe_delivered: true, .. })));
        assert_eq!(spent, Some(FIRST));
        partition.accept(records(1));
        assert_eq!(written(&partition.bytes(Some(SECOND)).unwrap()), (2, 0));
    }

    #[test]
    fn a_batch_too_large_comes_back_until_it_is_one_record() {
        let (mut partition, bytes) = in_flight(2);
        let (outcome, _) = partition.refused(&error(E::MessageTooLarge));
        let Some(Outcome::TooLarge { records, bytes_max }) = outcome else { panic!() };
        assert_eq!((records.len(), bytes_max), (2, bytes.len() / 2));
        partition.accept(records[..1].to_vec());
        partition.bytes(Some(FIRST)).unwrap();
        let (outcome, _) = partition.refused(&error(E::MessageTooLarge));
        assert!(matches!(outcome, Some(Outcome::Lost { records: 1, .. })));
    }

    #[test]
    fn the_sequence_wraps_from_the_highest_to_zero() {
        let (mut partition, _) = in_flight(1);
        partition.delivered(None);
        partition.next_sequence = i32::MAX - 1;
        partition.accept(records(4));
        assert_eq!(written(&partition.bytes(None).unwrap()), (1, i32::MAX - 1));
        partition.delivered(None);
        partition.accept(records(1));
        assert_eq!(written(&partition.bytes(None).unwrap()), (1, 2));
    }
}
