//! The batch in flight of one topic, and the effect of each response on it.
//!
//! The rules rest on one batch in flight per partition:
//!
//! 1. A batch that was written is sent again byte for byte, with its producer id, epoch and
//!    sequence, until the broker has answered. The broker remembers the last five batches of a
//!    producer, so it answers the second request like the first or as a duplicate, and does not
//!    append the batch again.
//! 2. A batch gets its sequence when it is first encoded. The partition's sequence moves on only
//!    when the batch is in the log. A permanently refused batch leaves its sequence numbers to
//!    the next batch.
//! 3. A permanent refusal after a request with an unknown outcome leaves the broker's next
//!    sequence unknown. The topic then continues with a new producer id, for which the broker
//!    accepts any first sequence.
//! 4. If the broker does not accept the sequence (out of order, unknown producer), the batch is
//!    not in the leader's log: the broker would recognise the last batch of the producer. The batch
//!    is written under a new producer id. Other topics keep their producer id and their batches in
//!    flight.
//!
//! A batch can still be appended twice, if its response was lost and one of these events happened
//! before the batch was sent again:
//!
//! - The broker forgot the producer (`producer.id.expiration.ms`, 24 hours by default).
//! - The topic's records were deleted.
//! - `max.message.bytes` was lowered below the size of the batch. The broker checks the size before
//!   the sequence.
//!
//! The producer can't distinguish this from a batch that was never appended. The recorder can, by
//! the identity in each record's headers.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::outcome::ProduceOutcome;
use crate::batch::encode::{BATCH_HEADER_LEN, ProduceRecord, ProducerIdentity, encode_batch};
use crate::error::KafkaError;
use crate::error::retryable::{ErrorClass, classify};

/// The number of consecutive retryable answers after which the leader is looked up again. A broker
/// that lost its leadership without knowing it returns such errors, too.
const DELAYS_MAX: u32 = 3;

/// The producer's state of one topic's partition 0.
#[derive(Debug)]
pub(super) struct ProducerPartition {
    /// Producer id and epoch of this partition. `None`: use the producer's current producer id and
    /// epoch for the next batch.
    identity: Option<ProducerIdentity>,
    /// The producer id that this partition abandoned, until it is returned to the producer, which
    /// must not use it for further partitions.
    abandoned_id: Option<ProducerIdentity>,
    /// The sequence of the next record.
    next_sequence: i32,
    /// The maximum size of a batch in bytes. Lower than the producer's option if the topic allows
    /// less.
    pub(super) bytes_max: usize,
    pub(super) in_flight: Option<InFlightBatch>,
}

/// A batch that was accepted and is not settled yet.
#[derive(Debug)]
pub(super) struct InFlightBatch {
    records: Vec<ProduceRecord>,
    /// The bytes to send, after the first encoding.
    encoded: Option<Bytes>,
    /// Whether a request with an unknown outcome may have appended the batch.
    maybe_appended: bool,
    /// The number of retryable answers since the leader was looked up.
    delays: u32,
}

impl InFlightBatch {
    pub(super) fn record_count(&self) -> usize {
        self.records.len()
    }
}

/// The outcome of the batch (`None`: it stays pending), and the producer id that the partition
/// abandoned, if any.
type AfterError = (Option<ProduceOutcome>, Option<ProducerIdentity>);

impl ProducerPartition {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { identity: None, abandoned_id: None, next_sequence: 0, bytes_max, in_flight: None }
    }

    /// Accepts a batch of at least one record. No other batch may be in flight.
    pub(super) fn accept(&mut self, records: Vec<ProduceRecord>) {
        self.in_flight =
            Some(InFlightBatch { records, encoded: None, maybe_appended: false, delays: 0 });
    }

    /// Whether the batch can't be encoded without a producer id.
    pub(super) fn needs_identity(&self) -> bool {
        self.identity.is_none()
            && self.in_flight.as_ref().is_some_and(|in_flight| in_flight.encoded.is_none())
    }

    /// Returns the bytes of the batch, the same bytes at each call. `current` is the producer's
    /// current id and epoch, for a partition without a producer id.
    pub(super) fn encode(&mut self, current: Option<ProducerIdentity>) -> Option<Bytes> {
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

    /// Handles the answer that the batch is in the log.
    pub(super) fn handle_delivered(&mut self, base_offset: Option<i64>) -> Option<ProduceOutcome> {
        let in_flight = self.in_flight.take()?;
        let records = in_flight.records.len();
        // Sequences wrap from 2147483647 to 0, as in the broker.
        let count = i32::try_from(records).unwrap_or(i32::MAX);
        self.next_sequence = self.next_sequence.wrapping_add(count) & i32::MAX;
        Some(ProduceOutcome::Delivered { records, base_offset })
    }

    /// Handles an error before the batch was written. Only a permanent error of the broker ends
    /// the batch: certificates can be renewed, and brokers come back.
    pub(super) fn handle_unsent(&mut self, error: &KafkaError) -> AfterError {
        let outcome = match error {
            KafkaError::Broker { code, .. } if classify(*code) == ErrorClass::Permanent => {
                self.lose_batch(error)
            }
            _ => None,
        };
        (outcome, self.abandoned_id.take())
    }

    /// Handles an error after the batch was written.
    pub(super) fn handle_error(&mut self, error: &KafkaError) -> AfterError {
        let class = match error {
            KafkaError::Broker { code, .. } => classify(*code),
            _ => ErrorClass::OutcomeUnknown,
        };
        let outcome = match class {
            ErrorClass::AlreadyAppended => self.handle_delivered(None),
            ErrorClass::ProducerStateLost => {
                self.abandon_identity();
                None
            }
            // A leader that loses its leadership during the request returns the same error as a
            // broker that never led. The batch can be in its log, and in the new leader's.
            ErrorClass::StaleMetadata | ErrorClass::OutcomeUnknown => {
                self.mark_maybe_appended();
                None
            }
            ErrorClass::RetryLater => None,
            // The next batch can hold other records, and then only the refused ones are lost.
            ErrorClass::NeedsOperator if error.is_record_error() => self.return_refused(error),
            ErrorClass::NeedsOperator => None,
            ErrorClass::BatchTooLarge => self.return_batch(error),
            ErrorClass::Permanent => self.lose_batch(error),
        };
        (outcome, self.abandoned_id.take())
    }

    /// Counts one more retryable answer. Returns `true` if the leader must be looked up again.
    pub(super) fn record_delay(&mut self) -> bool {
        let Some(in_flight) = &mut self.in_flight else { return false };
        in_flight.delays = (in_flight.delays + 1) % DELAYS_MAX;
        in_flight.delays == 0
    }

    /// Removes the records that the broker refused, by their index in the batch. The others are
    /// sent with the same sequence, which the broker has not used. Returns `None` and changes
    /// nothing if the batch may be in the log, or if all or none of its records were refused.
    pub(super) fn remove_refused(
        &mut self,
        indexes: &BTreeSet<usize>,
        error: &KafkaError,
    ) -> Option<ProduceOutcome> {
        let in_flight = self.in_flight.as_mut().filter(|batch| !batch.maybe_appended)?;
        let count = in_flight.records.len();
        let lost: BTreeSet<usize> = indexes.range(..count).copied().collect();
        if lost.is_empty() || lost.len() == count {
            return None;
        }
        let mut index = 0..count;
        in_flight.records.retain(|_| index.next().is_some_and(|index| !lost.contains(&index)));
        in_flight.encoded = None;
        Some(ProduceOutcome::Lost { indexes: lost, cause: error.clone(), maybe_delivered: false })
    }

    fn mark_maybe_appended(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.maybe_appended = true;
        }
    }

    fn abandon_identity(&mut self) {
        self.abandoned_id = self.identity.take();
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.encoded = None;
        }
    }

    fn return_batch(&mut self, error: &KafkaError) -> Option<ProduceOutcome> {
        let in_flight = self.in_flight.as_ref()?;
        if in_flight.records.len() <= 1 {
            return self.lose_batch(error);
        }
        let size = in_flight.encoded.as_ref().map_or(self.bytes_max, Bytes::len);
        self.bytes_max = (size / 2).max(BATCH_HEADER_LEN);
        let in_flight = self.take_batch()?;
        Some(ProduceOutcome::TooLarge { records: in_flight.records, bytes_max: self.bytes_max })
    }

    fn return_refused(&mut self, error: &KafkaError) -> Option<ProduceOutcome> {
        let records = self.take_batch()?.records;
        Some(ProduceOutcome::Refused { records, cause: error.clone() })
    }

    fn lose_batch(&mut self, error: &KafkaError) -> Option<ProduceOutcome> {
        let in_flight = self.take_batch()?;
        Some(ProduceOutcome::Lost {
            indexes: (0..in_flight.records.len()).collect(),
            cause: error.clone(),
            maybe_delivered: in_flight.maybe_appended,
        })
    }

    /// Removes the batch from the partition. If the batch may be in the log, the next sequence is
    /// unknown, so the partition abandons its producer id.
    fn take_batch(&mut self) -> Option<InFlightBatch> {
        let in_flight = self.in_flight.take()?;
        if in_flight.maybe_appended {
            self.abandoned_id = self.identity.take();
        }
        Some(in_flight)
    }
}

#[cfg(test)]
mod tests;
