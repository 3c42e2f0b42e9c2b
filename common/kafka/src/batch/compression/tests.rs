use super::*;
use std::io::Write;

fn packed(codec: Codec, plain: &[u8]) -> Bytes {
    match codec {
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap().into()
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap().into(),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap().into()
        }
        Codec::Zstd => {
            ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest)
                .into()
        }
        other => panic!("{other}"),
    }
}

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

#[test]
fn decompression_stops_at_the_limit() {
    let plain = vec![0; 1_000_000];
    for codec in CODECS {
        let packed = packed(codec, &plain);
        assert_eq!(unpack(codec, packed.clone(), 1_000_000).unwrap(), plain, "{codec}");
        assert_eq!(unpack(codec, packed, 999_999), Err(UnpackError::TooLarge), "{codec}");
    }
}

#[test]
fn damaged_bytes_do_not_panic() {
    let plain: Vec<u8> = (0..2000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    for codec in CODECS {
        let packed = packed(codec, &plain);
        for position in 0..packed.len() {
            let _ = unpack(codec, packed.slice(..position), 100_000);
            let mut flipped = packed.to_vec();
            for bit in [1, 0x80, 0xff] {
                flipped[position] ^= bit;
                let _ = unpack(codec, flipped.clone().into(), 100_000);
                flipped[position] ^= bit;
            }
        }
    }
}

#[test]
fn xerial_blocks_are_joined_and_their_lengths_checked() {
    let block = packed(Codec::Snappy, b"hello ");
    let mut framed = XERIAL_MAGIC.to_vec();
    framed.extend([0, 0, 0, 1, 0, 0, 0, 1]);
    for _ in 0..2 {
        framed.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        framed.extend(&block);
    }
    assert_eq!(unpack(Codec::Snappy, framed.clone().into(), 100).unwrap(), &b"hello hello "[..]);
    assert_eq!(unpack(Codec::Snappy, framed.clone().into(), 11), Err(UnpackError::TooLarge));
    framed.extend([0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(unpack(Codec::Snappy, framed.into(), 100), Err(UnpackError::Invalid(_))));
}

/// Fuzzed bytes never decompress to more than the limit.
#[test]
fn fuzzed_bytes_stay_within_the_limit() {
    const LIMIT: usize = 20_000;
    let plain: Vec<u8> = (0..500_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let mut samples: Vec<_> = CODECS.iter().map(|it| packed(*it, &plain).to_vec()).collect();
    samples.extend(CODECS.iter().map(|it| packed(*it, &vec![0; 100_000]).to_vec()));
    let tried = testkit::fuzz::run(&samples, |bytes| {
        for codec in CODECS {
            if let Ok(unpacked) = unpack(codec, Bytes::copy_from_slice(bytes), LIMIT) {
                assert!(unpacked.len() <= LIMIT, "{codec}");
            }
        }
    });
    println!("compression: {tried} inputs");
}
