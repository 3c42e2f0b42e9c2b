use super::*;
use kafka_protocol::ResponseError as E;

const FIRST: ProducerIdentity = ProducerIdentity { producer_id: 1, epoch: 0 };
const SECOND: ProducerIdentity = ProducerIdentity { producer_id: 2, epoch: 0 };

fn records(count: usize) -> Vec<ProduceRecord> {
    let record =
        ProduceRecord { timestamp_ms: 1, value: Bytes::from_static(&[b'v'; 50]), headers: vec![] };
    vec![record; count]
}

fn error(code: E) -> KafkaError {
    KafkaError::from_code("Produce", "t", code.code(), None).unwrap_err()
}

/// Producer id and base sequence of an encoded batch.
fn id_and_sequence(bytes: &Bytes) -> (i64, i32) {
    let id = i64::from_be_bytes(bytes[43..51].try_into().unwrap());
    (id, i32::from_be_bytes(bytes[53..57].try_into().unwrap()))
}

fn in_flight(count: usize) -> (ProducerPartition, Bytes) {
    let mut partition = ProducerPartition::new(1000);
    partition.accept(records(count));
    let bytes = partition.encode(Some(FIRST)).unwrap();
    (partition, bytes)
}

#[test]
fn batch_with_unknown_outcome_is_sent_again_byte_for_byte() {
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
        let (outcome, identity) = partition.handle_error(&error(code));
        assert!(outcome.is_none() && identity.is_none(), "{code:?}");
        // The bytes stay the same even if the producer has another id.
        assert_eq!(partition.encode(Some(SECOND)).unwrap(), bytes, "{code:?}");
        assert!(matches!(
            partition.handle_delivered(Some(7)),
            Some(ProduceOutcome::Delivered { records: 3, base_offset: Some(7) })
        ));
        partition.accept(records(1));
        assert_eq!(id_and_sequence(&partition.encode(Some(SECOND)).unwrap()), (1, 3));
    }
}

#[test]
fn duplicate_is_delivered() {
    let (mut partition, _) = in_flight(2);
    partition.mark_maybe_appended();
    let (outcome, _) = partition.handle_error(&error(E::DuplicateSequenceNumber));
    assert!(matches!(outcome, Some(ProduceOutcome::Delivered { records: 2, base_offset: None })));
    partition.accept(records(1));
    assert_eq!(id_and_sequence(&partition.encode(None).unwrap()), (1, 2));
}

#[test]
fn lost_producer_state_needs_a_new_producer_id() {
    for code in [E::OutOfOrderSequenceNumber, E::UnknownProducerId, E::InvalidProducerEpoch] {
        let (mut partition, _) = in_flight(2);
        let (outcome, abandoned_id) = partition.handle_error(&error(code));
        assert!(outcome.is_none());
        assert_eq!(abandoned_id, Some(FIRST));
        assert!(partition.needs_identity());
        assert!(partition.encode(None).is_none());
        assert_eq!(id_and_sequence(&partition.encode(Some(SECOND)).unwrap()), (2, 0));
    }
}

#[test]
fn refused_batch_leaves_its_sequence_to_the_next_unless_it_may_be_appended() {
    let (mut partition, _) = in_flight(2);
    let (outcome, abandoned_id) = partition.handle_error(&error(E::InvalidTopicException));
    assert!(matches!(
        outcome,
        Some(ProduceOutcome::Lost { indexes, maybe_delivered: false, .. }) if indexes.len() == 2
    ));
    assert_eq!(abandoned_id, None);
    partition.accept(records(1));
    assert_eq!(id_and_sequence(&partition.encode(Some(SECOND)).unwrap()), (1, 0));

    partition.mark_maybe_appended();
    let (outcome, abandoned_id) = partition.handle_error(&error(E::InvalidTopicException));
    assert!(matches!(
        outcome,
        Some(ProduceOutcome::Lost { indexes, maybe_delivered: true, .. }) if indexes.len() == 1
    ));
    assert_eq!(abandoned_id, Some(FIRST));
    partition.accept(records(1));
    assert_eq!(id_and_sequence(&partition.encode(Some(SECOND)).unwrap()), (2, 0));
}

#[test]
fn too_large_batch_is_returned_until_it_has_one_record() {
    let (mut partition, bytes) = in_flight(2);
    let (outcome, _) = partition.handle_error(&error(E::MessageTooLarge));
    let Some(ProduceOutcome::TooLarge { records, bytes_max }) = outcome else { panic!() };
    assert_eq!((records.len(), bytes_max), (2, bytes.len() / 2));
    partition.accept(records[..1].to_vec());
    partition.encode(Some(FIRST)).unwrap();
    let (outcome, _) = partition.handle_error(&error(E::MessageTooLarge));
    assert!(matches!(outcome, Some(ProduceOutcome::Lost { indexes, .. }) if indexes.len() == 1));
}

#[test]
fn sequence_wraps_from_the_highest_to_zero() {
    let (mut partition, _) = in_flight(1);
    partition.handle_delivered(None);
    partition.next_sequence = i32::MAX - 1;
    partition.accept(records(4));
    assert_eq!(id_and_sequence(&partition.encode(None).unwrap()), (1, i32::MAX - 1));
    partition.handle_delivered(None);
    partition.accept(records(1));
    assert_eq!(id_and_sequence(&partition.encode(None).unwrap()), (1, 2));
}

/// A missing right is an outage: the batch stays pending, byte for byte.
#[test]
fn missing_right_leaves_the_batch_pending() {
    for code in [E::TopicAuthorizationFailed, E::ClusterAuthorizationFailed, E::PolicyViolation] {
        let (mut partition, bytes) = in_flight(2);
        for (outcome, abandoned) in
            [partition.handle_unsent(&error(code)), partition.handle_error(&error(code))]
        {
            assert!(outcome.is_none() && abandoned.is_none(), "{code:?}");
        }
        assert_eq!(partition.encode(None).unwrap(), bytes, "{code:?}");
    }
}

/// The broker refuses some records and accepts no other records of the batch. The records are
/// returned, and the next sequence stays unused.
#[test]
fn refused_records_are_returned() {
    let (mut partition, _) = in_flight(2);
    let (outcome, abandoned) = partition.handle_error(&error(E::InvalidTimestamp));
    let Some(ProduceOutcome::Refused { records: refused, .. }) = outcome else { panic!() };
    assert_eq!((refused, abandoned), (records(2), None));
    partition.accept(records(1));
    assert_eq!(id_and_sequence(&partition.encode(None).unwrap()), (1, 0));
}

#[test]
fn exactly_the_refused_records_of_a_batch_are_lost() {
    for refused in 0..3 {
        let (mut partition, _) = in_flight(3);
        let indexes = BTreeSet::from([refused, 7]);
        let lost = partition.remove_refused(&indexes, &error(E::InvalidTimestamp)).unwrap();
        let ProduceOutcome::Lost { indexes, maybe_delivered: false, .. } = lost else { panic!() };
        assert_eq!(indexes, BTreeSet::from([refused]));
        assert_eq!(partition.in_flight.as_ref().unwrap().record_count(), 2);
    }
}
