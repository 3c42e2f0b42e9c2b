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

/// Answers of every kind, each read as what it is; the first byte says which.
///
/// Goes red when `Guard::judge` lets every count pass: a capacity overflows.
#[test]
fn fuzzed_answers_are_an_answer_or_an_error() {
    fn sample<R: Call>(kind: u8, response: &R::Response, version: i16) -> Vec<u8>
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
    fn read<R: Call>(frame: Bytes, version: i16) {
        let _ = decode::<R>(frame, &Sent { correlation_id: 7, version });
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
    println!("kafka answers: {tried} inputs");
}
