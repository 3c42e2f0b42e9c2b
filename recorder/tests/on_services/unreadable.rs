//! Batches that the log holds and nobody here can read.

use std::io::Write;

use testkit::services::shared;

use crate::support::{World, ok};

/// A batch of so many records of a MiB, zeros all of it, as a client that packs
/// writes it: some KiB.
fn bomb(records: usize) -> Vec<u8> {
    let mut batch = World::encoded(std::iter::repeat_n(vec![0; 1024 * 1024], records)).to_vec();
    let records = batch.split_off(61);
    let mut gzip = flate2::write::GzEncoder::new(batch, flate2::Compression::best());
    gzip.write_all(&records).unwrap();
    let mut batch = gzip.finish().unwrap();
    // The codec; then the length and the checksum of what that made of it.
    batch[21..23].copy_from_slice(&1_u16.to_be_bytes());
    let length = u32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

/// Goes red when `fetch_and_write` does not pass the batch, and when `pass` moves
/// the position without the gap.
#[test]
fn a_batch_too_large_is_a_gap_and_what_comes_after_it_is_recorded() {
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
    assert!(log.contains(&format!("{}/0: {reason}: going on at 41 instead of 1", world.topic)));
}
