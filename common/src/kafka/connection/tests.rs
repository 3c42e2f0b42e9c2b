use super::*;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

/// Decodes damaged answers: an error or an answer, never a panic, and never
/// an allocation that ends the process.
fn survives<R: Call>(version: i16, good: &impl Encodable) {
    let sent = Sent { correlation_id: 7, version };
    let mut frame = BytesMut::new();
    frame.put_i32(7);
    if R::Response::header_version(version) > 0 {
        frame.put_u8(0);
    }
    good.encode(&mut frame, version).unwrap();
    let good = frame.freeze();
    let api = api_name(R::KEY);
    assert!(decode::<R>(good.clone(), &sent).is_ok(), "{api}");
    for position in 0..good.len() {
        assert!(decode::<R>(good.slice(..position), &sent).is_err(), "{api} cut at {position}");
        for byte in 0..=255 {
            let mut damaged = good.to_vec();
            damaged[position] = byte;
            let _ = decode::<R>(damaged.into(), &sent);
        }
    }
    let mut random = fastrand::Rng::with_seed(R::KEY.unsigned_abs().into());
    for _ in 0..5_000 {
        let mut damaged = good.to_vec();
        for _ in 0..random.usize(1..8) {
            // Bytes that make long varints are the ones that hurt.
            damaged[random.usize(5..good.len())] = random.u8(..) | (random.u8(..2) << 7);
        }
        let _ = decode::<R>(damaged.into(), &sent);
    }
}

#[test]
fn damaged_answers_are_survived() {
    let broker = MetadataResponseBroker::default().with_host("a".into()).with_port(1);
    let partition = MetadataResponsePartition::default()
        .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
        .with_isr_nodes(vec![BrokerId(1)]);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName("t".into())))
        .with_partitions(vec![partition]);
    let metadata = MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]);
    survives::<MetadataRequest>(12, &metadata);

    let partition = PartitionData::default()
        .with_aborted_transactions(Some(vec![Default::default()]))
        .with_records(Some(vec![1; 40].into()));
    let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
    survives::<FetchRequest>(13, &FetchResponse::default().with_responses(vec![topic]));

    let partition = PartitionProduceResponse::default()
        .with_record_errors(vec![Default::default()])
        .with_error_message(Some("no".into()));
    let topic = TopicProduceResponse::default()
        .with_name(TopicName("t".into()))
        .with_partition_responses(vec![partition]);
    survives::<ProduceRequest>(12, &ProduceResponse::default().with_responses(vec![topic]));

    let keys = vec![Default::default(); 3];
    survives::<ApiVersionsRequest>(3, &ApiVersionsResponse::default().with_api_keys(keys));
    survives::<InitProducerIdRequest>(4, &InitProducerIdResponse::default());
    survives::<FindCoordinatorRequest>(
        3,
        &FindCoordinatorResponse::default().with_host("h".into()),
    );
    let mechanisms = vec!["PLAIN".into(), "GSSAPI".into()];
    survives::<SaslHandshakeRequest>(
        1,
        &SaslHandshakeResponse::default().with_mechanisms(mechanisms),
    );
    survives::<SaslAuthenticateRequest>(
        2,
        &SaslAuthenticateResponse::default().with_auth_bytes(vec![1; 9].into()),
    );
    let topics = vec![create_topics_response::CreatableTopicResult::default()];
    survives::<CreateTopicsRequest>(7, &CreateTopicsResponse::default().with_topics(topics));
    let topics = vec![list_offsets_response::ListOffsetsTopicResponse::default()];
    survives::<ListOffsetsRequest>(7, &ListOffsetsResponse::default().with_topics(topics));
    let topics = vec![offset_commit_response::OffsetCommitResponseTopic::default()];
    survives::<OffsetCommitRequest>(8, &OffsetCommitResponse::default().with_topics(topics));
    let topics = vec![offset_fetch_response::OffsetFetchResponseTopic::default()];
    survives::<OffsetFetchRequest>(7, &OffsetFetchResponse::default().with_topics(topics));
}
