use super::*;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

/// Decodes damaged responses. Each is an error or a response: no panic, no huge allocation.
fn decode_damaged<R: KafkaRequest>(version: i16, good: &impl Encodable) {
    let pending = PendingResponse { correlation_id: 7, version };
    let mut frame = BytesMut::new();
    frame.put_i32(7);
    if R::Response::header_version(version) > 0 {
        frame.put_u8(0);
    }
    good.encode(&mut frame, version).unwrap();
    let good = frame.freeze();
    let api = api_name(R::KEY);
    assert!(decode::<R>(good.clone(), &pending).is_ok(), "{api}");
    for position in 0..good.len() {
        assert!(decode::<R>(good.slice(..position), &pending).is_err(), "{api} cut at {position}");
        for byte in 0..=255 {
            let mut damaged = good.to_vec();
            damaged[position] = byte;
            let _ = decode::<R>(damaged.into(), &pending);
        }
    }
    let mut random = fastrand::Rng::with_seed(R::KEY.unsigned_abs().into());
    for _ in 0..5_000 {
        let mut damaged = good.to_vec();
        for _ in 0..random.usize(1..8) {
            // Bytes above 127 make long varints.
            damaged[random.usize(5..good.len())] = random.u8(..) | (random.u8(..2) << 7);
        }
        let _ = decode::<R>(damaged.into(), &pending);
    }
}

#[test]
fn damaged_responses_do_not_panic() {
    let broker = MetadataResponseBroker::default().with_host("a".into()).with_port(1);
    let partition = MetadataResponsePartition::default()
        .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
        .with_isr_nodes(vec![BrokerId(1)]);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName("t".into())))
        .with_partitions(vec![partition]);
    let metadata = MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]);
    decode_damaged::<MetadataRequest>(12, &metadata);

    let partition = PartitionData::default()
        .with_aborted_transactions(Some(vec![Default::default()]))
        .with_records(Some(vec![1; 40].into()));
    let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
    decode_damaged::<FetchRequest>(13, &FetchResponse::default().with_responses(vec![topic]));

    let partition = PartitionProduceResponse::default()
        .with_record_errors(vec![Default::default()])
        .with_error_message(Some("no".into()));
    let topic = TopicProduceResponse::default()
        .with_name(TopicName("t".into()))
        .with_partition_responses(vec![partition]);
    decode_damaged::<ProduceRequest>(12, &ProduceResponse::default().with_responses(vec![topic]));

    let keys = vec![Default::default(); 3];
    decode_damaged::<ApiVersionsRequest>(3, &ApiVersionsResponse::default().with_api_keys(keys));
    decode_damaged::<InitProducerIdRequest>(4, &InitProducerIdResponse::default());
    decode_damaged::<FindCoordinatorRequest>(
        3,
        &FindCoordinatorResponse::default().with_host("h".into()),
    );
    let mechanisms = vec!["PLAIN".into(), "GSSAPI".into()];
    decode_damaged::<SaslHandshakeRequest>(
        1,
        &SaslHandshakeResponse::default().with_mechanisms(mechanisms),
    );
    decode_damaged::<SaslAuthenticateRequest>(
        2,
        &SaslAuthenticateResponse::default().with_auth_bytes(vec![1; 9].into()),
    );
    let topics = vec![create_topics_response::CreatableTopicResult::default()];
    decode_damaged::<CreateTopicsRequest>(7, &CreateTopicsResponse::default().with_topics(topics));
    let topics = vec![list_offsets_response::ListOffsetsTopicResponse::default()];
    decode_damaged::<ListOffsetsRequest>(7, &ListOffsetsResponse::default().with_topics(topics));
    let topics = vec![offset_commit_response::OffsetCommitResponseTopic::default()];
    decode_damaged::<OffsetCommitRequest>(8, &OffsetCommitResponse::default().with_topics(topics));
    let topics = vec![offset_fetch_response::OffsetFetchResponseTopic::default()];
    decode_damaged::<OffsetFetchRequest>(7, &OffsetFetchResponse::default().with_topics(topics));
}

/// Fuzzed responses of every kind neither panic nor allocate more than the frame holds. The first
/// byte of an input selects the kind.
#[test]
fn fuzzed_responses_are_a_response_or_an_error() {
    fn sample<R: KafkaRequest>(kind: u8, response: &R::Response, version: i16) -> Vec<u8>
    where
        R::Response: Encodable,
    {
        let mut bytes = BytesMut::new();
        bytes.put_u8(kind);
        bytes.put_i32(7);
        if R::Response::header_version(version) > 0 {
            bytes.put_u8(0);
        }
        response.encode(&mut bytes, version).unwrap();
        bytes.to_vec()
    }
    fn read<R: KafkaRequest>(frame: Bytes, version: i16) {
        let _ = decode::<R>(frame, &PendingResponse { correlation_id: 7, version });
    }
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName("t".into())))
        .with_partitions(vec![MetadataResponsePartition::default(); 3]);
    let metadata = MetadataResponse::default()
        .with_brokers(vec![MetadataResponseBroker::default().with_host("broker".into())])
        .with_topics(vec![topic; 2]);
    let data = PartitionData::default().with_records(Some(vec![1; 300].into()));
    let fetched = FetchableTopicResponse::default().with_partitions(vec![data; 2]);
    let produced = TopicProduceResponse::default()
        .with_name(TopicName("t".into()))
        .with_partition_responses(vec![PartitionProduceResponse::default(); 2]);
    let offsets = list_offsets_response::ListOffsetsTopicResponse::default();
    let created = create_topics_response::CreatableTopicResult::default();
    let group = offset_fetch_response::OffsetFetchResponseTopic::default();
    let samples = [
        sample::<MetadataRequest>(0, &metadata, 12),
        sample::<FetchRequest>(1, &FetchResponse::default().with_responses(vec![fetched; 2]), 13),
        sample::<ProduceRequest>(
            2,
            &ProduceResponse::default().with_responses(vec![produced; 2]),
            12,
        ),
        sample::<ApiVersionsRequest>(
            3,
            &ApiVersionsResponse::default().with_api_keys(vec![Default::default(); 9]),
            3,
        ),
        sample::<SaslHandshakeRequest>(
            4,
            &SaslHandshakeResponse::default().with_mechanisms(vec!["PLAIN".into(); 3]),
            1,
        ),
        sample::<ListOffsetsRequest>(
            5,
            &ListOffsetsResponse::default().with_topics(vec![offsets; 2]),
            7,
        ),
        sample::<CreateTopicsRequest>(
            6,
            &CreateTopicsResponse::default().with_topics(vec![created]),
            7,
        ),
        sample::<OffsetFetchRequest>(
            7,
            &OffsetFetchResponse::default().with_topics(vec![group]),
            7,
        ),
    ];
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let Some((kind, frame)) = bytes.split_first() else { return };
        let frame = Bytes::copy_from_slice(frame);
        match kind % 8 {
            0 => read::<MetadataRequest>(frame, 12),
            1 => read::<FetchRequest>(frame, 13),
            2 => read::<ProduceRequest>(frame, 12),
            3 => read::<ApiVersionsRequest>(frame, 3),
            4 => read::<SaslHandshakeRequest>(frame, 1),
            5 => read::<ListOffsetsRequest>(frame, 7),
            6 => read::<CreateTopicsRequest>(frame, 7),
            _ => read::<OffsetFetchRequest>(frame, 7),
        }
    });
    println!("kafka responses: {tried} inputs");
}
