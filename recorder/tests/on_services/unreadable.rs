//! Tests of batches that the recorder can't read and skips.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use recorder::timings::Timings;
use testkit::services::shared;

use crate::own_services::with_own_services;
use crate::support::{World, eventually, ok};

/// A compressed batch of a few KiB that holds this many records of 1 MiB of zeros.
fn bomb(records: usize) -> Vec<u8> {
    let mut batch = World::encoded(std::iter::repeat_n(vec![0; 1024 * 1024], records)).to_vec();
    let records = batch.split_off(61);
    let mut gzip = flate2::write::GzEncoder::new(batch, flate2::Compression::best());
    gzip.write_all(&records).unwrap();
    let mut batch = gzip.finish().unwrap();
    // The codec, the length and the checksum of the compressed batch.
    batch[21..23].copy_from_slice(&1_u16.to_be_bytes());
    let length = u32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

#[test]
fn a_batch_that_is_too_large_is_a_gap_and_later_records_are_recorded() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    world.produce_batch(0, bomb(40));
    world.produce([ok(1), ok(2)]);
    world.expect_position(43);
    assert_eq!(world.offsets(), [0, 41, 42]);
    let sql = "select from_offset, to_offset, reason from availability_gap";
    let gap = world.database.query_one(sql, &[]).unwrap();
    assert_eq!((gap.get::<_, i64>(0), gap.get::<_, i64>(1)), (1, 41));
    let reason = "unreadable batch: more than 33554432 bytes when unpacked from gzip";
    assert_eq!(gap.get::<_, &str>(2), reason);
    let (_, _, log) = recorder.stop();
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(
        log.contains(&format!("{}/0: {reason}: continuing at offset 41 instead of 1", world.topic))
    );
}

/// Kafka checks offsets only in compressed batches. No record disappears without a gap.
#[test]
fn a_batch_whose_offsets_do_not_ascend_is_a_gap_and_later_records_are_recorded() {
    let mut world = World::new(&shared().unwrap());
    world.produce([ok(0)]);
    let recorder = world.recorder();
    world.expect_position(1);
    let mut batch = World::encoded([ok(1), ok(2), ok(3), ok(4)]).to_vec();
    let mut start = 61;
    for delta in [0_u8, 3, 1, 2] {
        // Length, attributes, time, then the offset as a zigzag varint of one byte.
        let length = batch[start..].iter().position(|byte| *byte < 0x80).unwrap() + 1;
        let varint = &batch[start..start + length];
        let size = varint.iter().rev().fold(0, |size, byte| (size << 7) | usize::from(byte & 0x7f));
        let time = batch[start + length + 1..].iter().position(|byte| *byte < 0x80).unwrap() + 1;
        batch[start + length + 1 + time] = delta << 1;
        start += length + size / 2;
    }
    assert_eq!(start, batch.len());
    let checksum = crc32c::crc32c(&batch[CHECKED_FROM..]);
    batch[CHECKSUM_AT].copy_from_slice(&checksum.to_be_bytes());
    world.produce_batch(0, batch);
    world.produce([ok(5)]);
    world.expect_position(6);
    assert_eq!(world.offsets(), [0, 5]);
    let sql = "select from_offset, to_offset, reason from availability_gap";
    let gap = world.database.query_one(sql, &[]).unwrap();
    assert_eq!((gap.get::<_, i64>(0), gap.get::<_, i64>(1)), (1, 5));
    let reason = "unreadable batch: offsets of records that do not ascend";
    assert_eq!(gap.get::<_, &str>(2), reason);
    recorder.stop();
}

/// The places of the base offset, of the checksum, and of the bytes that the checksum covers in a
/// batch.
const BASE_OFFSET_AT: std::ops::Range<usize> = 0..8;
const CHECKSUM_AT: std::ops::Range<usize> = 17..21;
const CHECKED_FROM: usize = 21;

/// A byte of a batch changes on the disk of the broker. Kafka verifies checksums when it appends a
/// batch, but not when it serves the batch. The batch is skipped after it has failed for
/// `unreadable_batch_after`, and a gap has the reason.
#[test]
fn a_batch_with_a_wrong_checksum_is_a_gap_broken_on_purpose() {
    with_own_services(1, |services| {
        let mut world = World::new(services);
        world.client().create_topic_with(&world.topic, 1, 1, &[]).unwrap();
        world.produce([ok(0)]);
        world.produce([ok(1), ok(2)]);
        world.produce([ok(3)]);
        let log = format!("kafka/1/data/{}-0/00000000000000000000.log", world.topic);
        let log = services.dir.join(log);
        let flip = eventually("three batches", || flip(&fs::read(&log).ok()?, 1, 3));
        let reason = flip.write_to(&log);
        let timings =
            Timings { unreadable_batch_after: Duration::from_secs(3), ..Timings::default() };
        let recorder = world.recorder_in_process(timings, &[]);
        // Earlier records do not wait for the batch.
        world.expect_position(1);
        world.produce([ok(4)]);
        world.expect_position(5);
        assert_eq!(world.offsets(), [0, 3, 4]);
        let sql = "select from_offset, to_offset, reason from availability_gap";
        let gap = world.database.query_one(sql, &[]).unwrap();
        assert_eq!((gap.get::<_, i64>(0), gap.get::<_, i64>(1)), (1, 3));
        assert_eq!(gap.get::<_, &str>(2), reason);
        recorder.stop();
        world.delete_topic();
    });
}

/// A byte to write into a log, and the reason of the resulting gap.
struct Flip {
    at: usize,
    byte: u8,
    reason: String,
}

impl Flip {
    fn write_to(self, log: &std::path::Path) -> String {
        let file = File::options().write(true).open(log).unwrap();
        file.write_all_at(&[self.byte], self.at as u64).unwrap();
        self.reason
    }
}

/// Flips a bit in the last byte of the batch with this base offset. `None` until the log
/// has this batch and the batch with the base offset `after`.
fn flip(log: &[u8], base_offset: i64, after: i64) -> Option<Flip> {
    let batch_at = |base_offset: i64| {
        let mut start = 0;
        while start + CHECKED_FROM <= log.len() {
            let length = u32::from_be_bytes(log[start + 8..start + 12].try_into().unwrap());
            let end = start + 12 + length as usize;
            if log[start..][BASE_OFFSET_AT] == base_offset.to_be_bytes() {
                return (end <= log.len()).then_some(start..end);
            }
            start = end;
        }
        None
    };
    batch_at(after)?;
    let place = batch_at(base_offset)?;
    let at = place.end - 1;
    let mut batch = log[place].to_vec();
    *batch.last_mut()? ^= 0x10;
    let written = u32::from_be_bytes(batch[CHECKSUM_AT].try_into().unwrap());
    let found = crc32c::crc32c(&batch[CHECKED_FROM..]);
    Some(Flip {
        at,
        byte: *batch.last()?,
        reason: format!(
            "unreadable batch: the checksum is wrong: {found:08x} instead of {written:08x}"
        ),
    })
}
