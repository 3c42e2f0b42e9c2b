use super::*;
use bytes::BufMut;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;

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
