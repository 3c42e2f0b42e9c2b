//! Batches that the log holds and nobody here can read.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;

use testkit::services::{OwnSet, shared};

use crate::support::{Recorder, World, eventually, ok};

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

/// Where a batch has its base offset, its checksum, and what that covers.
const BASE_OFFSET_AT: std::ops::Range<usize> = 0..8;
const CHECKSUM_AT: std::ops::Range<usize> = 17..21;
const CHECKED_FROM: usize = 21;

/// A topic one of whose batches has another byte on the disks of its brokers than
/// was written, and a recorder that reads it. Kafka looks at checksums when it
/// takes a batch, and not when it gives it.
pub(crate) struct Rotten {
    /// The broker that has nothing of the topic. Another that is killed mends its
    /// log when it starts again.
    pub(crate) spared: usize,
    world: World,
    recorder: Recorder,
    reason: String,
}

impl Rotten {
    pub(crate) fn start(services: &OwnSet) -> Self {
        let mut world = World::new(services);
        let mut client = world.client();
        client.create_topic_with(&world.topic, 1, services.brokers as i16 - 1, &[]).unwrap();
        world.produce([ok(0)]);
        world.produce([ok(1), ok(2)]);
        world.produce([ok(3)]);
        let folder = |broker| services.dir.join(format!("kafka/{broker}/data/{}-0", world.topic));
        let (having, without): (Vec<_>, Vec<_>) =
            (1..=services.brokers).partition(|broker| folder(*broker).exists());
        assert_eq!(without.len(), 1);
        let reasons: Vec<_> = having
            .into_iter()
            .map(|broker| {
                let log = folder(broker).join("00000000000000000000.log");
                // The last broker may not have all of it yet.
                eventually("replicated", || flip(&fs::read(&log).ok()?, 1, 3)).and_write(&log)
            })
            .collect();
        assert!(reasons.iter().all(|reason| *reason == reasons[0]), "{reasons:?}");
        let recorder = world.recorder();
        // What is before it does not wait for it.
        world.expect_position(1);
        Self { spared: without[0], world, recorder, reason: reasons[0].clone() }
    }

    /// It is passed when it has stayed the same for a minute, and a gap says why.
    pub(crate) fn check(mut self) {
        self.world.produce([ok(4)]);
        self.world.expect_position(5);
        assert_eq!(self.world.offsets(), [0, 3, 4]);
        let sql = "select from_offset, to_offset, reason from availability_gap";
        let gap = self.world.database.query_one(sql, &[]).unwrap();
        assert_eq!((gap.get::<_, i64>(0), gap.get::<_, i64>(1)), (1, 3));
        assert_eq!(gap.get::<_, &str>(2), self.reason);
        let (_, _, log) = self.recorder.stop();
        let said = format!("{}/0: {}: going on at 3 instead of 1", self.world.topic, self.reason);
        assert_eq!(log.matches(&said).count(), 1, "{log}");
    }
}

/// A byte that is to be written in a log, and what a reader then says.
struct Flip {
    at: usize,
    byte: u8,
    reason: String,
}

impl Flip {
    fn and_write(self, log: &std::path::Path) -> String {
        let file = File::options().write(true).open(log).unwrap();
        file.write_all_at(&[self.byte], self.at as u64).unwrap();
        self.reason
    }
}

/// Flips a bit of the last byte of the batch with this base offset; none while that
/// and the batch with the offset `after` it are not there.
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
