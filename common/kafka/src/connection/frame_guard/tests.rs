use super::*;
use bytes::BufMut;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};

fn refused<R: Decodable>(bytes: Vec<u8>, version: i16) -> bool {
    R::decode(&mut FrameGuard::new(bytes.into()), version).is_err()
}

/// Without the guard each of these counts would allocate gigabytes or abort the process.
#[test]
fn counts_beyond_the_frame_are_refused() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let fits_usize = [0xff, 0xff, 0xff, 0x7f];
    for count in [&huge[..], &fits_usize] {
        let brokers = [&[0; 4], count, &[0; 64]].concat();
        assert!(refused::<MetadataResponse>(brokers, 12));
        // throttle, error, session, then the topics.
        let topics = [&[0; 4 + 2 + 4], count, &[0; 64]].concat();
        assert!(refused::<FetchResponse>(topics, 13));
        let topics = [count, &[0; 64]].concat();
        assert!(refused::<ProduceResponse>(topics, 12));
    }
}

#[test]
fn hostile_boolean_does_not_hide_the_next_count() {
    let mut bytes = Vec::new();
    bytes.put_i32(0); // throttle
    bytes.put_u8(1); // no broker
    bytes.put_u8(0); // no cluster id
    bytes.put_i32(0); // controller
    bytes.put_u8(2); // one topic
    bytes.put_i16(0); // its error
    bytes.put_u8(0); // no name
    bytes.put_slice(&[0; 16]); // its id
    bytes.put_u8(0x80); // internal: neither false nor true
    bytes.put_slice(&[0x80, 0x80, 0x80, 0x80, 0x0f]); // 4 billion partitions
    bytes.put_slice(&[0; 64]);
    assert!(refused::<MetadataResponse>(bytes.clone(), 12));
    let at = bytes.len() - 69;
    bytes[at..at + 5].copy_from_slice(&[0x80, 0x80, 0x7f, 1, 1]);
    assert!(refused::<MetadataResponse>(bytes, 12));
}

#[test]
fn records_of_a_fetch_may_be_long() {
    let mut bytes = Vec::new();
    let records = vec![7; COUNT_MAX * 2];
    bytes.put_slice(&[0; 4 + 2 + 4]); // throttle, error, session
    bytes.put_u8(2); // one topic
    bytes.put_slice(&[9; 16]); // its id
    bytes.put_u8(2); // one partition
    bytes.put_slice(&[0; 4 + 2 + 8 + 8 + 8]); // index, error, three offsets
    bytes.put_u8(0); // no aborted transaction
    bytes.put_i32(-1); // preferred read replica
    let length = u32::try_from(records.len()).unwrap() + 1;
    let varint = [length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8];
    bytes.put_slice(&varint);
    bytes.put_slice(&records);
    bytes.put_slice(&[0; 3]); // no tagged fields of partition, topic and answer
    let mut guard = FrameGuard::new(bytes.into());
    let response = FetchResponse::decode(&mut guard, 13).unwrap();
    assert_eq!(response.responses[0].partitions[0].records.as_ref().unwrap(), &records);
    assert!(!guard.has_remaining());
}

/// A response with an additional tagged field, of any number and length, as a later Kafka or
/// another vendor may send it.
#[test]
fn unknown_tagged_fields_are_no_reason_to_refuse_an_answer() {
    let key = |key| api_versions_response::ApiVersion::default().with_api_key(key);
    let keys: Vec<_> = (0..60).map(key).collect();
    let numbers = (4..200).chain([10_000, 1 << 18, 1 << 21, (1 << 28) + 1, i32::MAX]);
    for number in numbers {
        for length in [0, 1, 2, 4, 8, 16, 40, 200] {
            let tagged = [(number, Bytes::from(vec![0xff; length]))];
            let tagged = || std::collections::BTreeMap::from(tagged.clone());
            let versions = ApiVersionsResponse::default()
                .with_api_keys(keys.clone())
                .with_unknown_tagged_fields(tagged());
            is_read(&versions, 3);
            // In the middle of a response, before other counts.
            let mut versions = ApiVersionsResponse::default().with_api_keys(keys.clone());
            versions.api_keys[7].unknown_tagged_fields = tagged();
            is_read(&versions, 3);
            is_read(&MetadataResponse::default().with_unknown_tagged_fields(tagged()), 12);
            is_read(&ProduceResponse::default().with_unknown_tagged_fields(tagged()), 12);
            is_read(&FetchResponse::default().with_unknown_tagged_fields(tagged()), 13);
            is_read(&InitProducerIdResponse::default().with_unknown_tagged_fields(tagged()), 4);
        }
    }
}

/// Checks that everything except the number of an unknown field arrives.
fn is_read<R: Decodable + Encodable>(response: &R, version: i16) {
    let mut bytes = bytes::BytesMut::new();
    response.encode(&mut bytes, version).unwrap();
    let bytes = bytes.freeze();
    let mut guard = FrameGuard::new(bytes.clone());
    let read = R::decode(&mut guard, version)
        .unwrap_or_else(|error| panic!("{error}: {:?}", &bytes[bytes.len().saturating_sub(60)..]));
    assert!(!guard.has_remaining());
    let mut again = bytes::BytesMut::new();
    read.encode(&mut again, version).unwrap();
    let expected = R::decode(&mut bytes.clone(), version).unwrap();
    let mut whole = bytes::BytesMut::new();
    expected.encode(&mut whole, version).unwrap();
    // The number of the field may change, and then have fewer bytes.
    assert!(whole.len() - again.len() < 5);
}

/// If a count is replaced like the number of a field, the following bytes show the error.
#[test]
fn a_count_that_looks_like_the_number_of_a_field_is_refused() {
    for count in [&[0xe8, 0x07][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
        // throttle, error, session, then topics of at least 16 bytes.
        let fetch = [&[0; 4 + 2 + 4], count, &[1; 700]].concat();
        assert!(refused::<FetchResponse>(fetch, 13));
        // Topics that begin with a name: a length and as many bytes, like an unknown field.
        let produce = [count, &[2, b'a'], &[0; 700]].concat();
        assert!(refused::<ProduceResponse>(produce, 9));
        // The length of a string, which is cut.
        let brokers = [&[0; 4][..], &[2], &[0; 4], count, &[b'a'; 700]].concat();
        assert!(refused::<MetadataResponse>(brokers, 12));
    }
}
