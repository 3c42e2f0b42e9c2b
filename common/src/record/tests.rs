use super::extra::tests::{FULL, any_extra, any_text};
use super::*;

/// The example record in the contract with 1.1.0, written by that version.
const GOLDEN: &[u8] = include_bytes!("../../testdata/record-1.1.0.msgpack");

pub(super) fn golden() -> Record {
    Record {
        from: "sydney".to_owned(),
        url: "https://aiven.io".to_owned(),
        timestamp: 1_608_855_561.565_346,
        status: Status::Responsive,
        phrase: "forbidden".to_owned(),
        dns_ms: Some(10),
        response_ms: Some(300),
        detail: Some(String::new()),
        offset: 15,
        extra: Extra::default(),
    }
}

#[test]
fn record_of_1_1_0_is_decoded_and_encoded_alike() {
    assert_eq!(Record::decode(GOLDEN).unwrap(), golden());
    assert_eq!(golden().encode(), GOLDEN);
}

#[test]
fn all_phrases_make_the_round_trip() {
    for (index, phrase) in phrase::all().enumerate() {
        let record = Record {
            phrase: phrase.to_owned(),
            status: if index % 2 == 0 { Status::Responsive } else { Status::Unresponsive },
            dns_ms: (index % 3 > 0).then_some(i64::MIN + 1),
            response_ms: (index % 3 > 1).then_some(i64::MAX),
            detail: (index % 2 > 0).then(|| "<svg\\s+".to_owned()),
            offset: -1,
            extra: Extra::default(),
            ..golden()
        };
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    }
}

#[test]
fn texts_are_encoded_in_lower_case_as_by_1_1_0() {
    let record = Record { from: "SYDNEY".into(), url: "https://A.io/Path".into(), ..golden() };
    let read = Record::decode(&record.encode()).unwrap();
    assert_eq!((read.from.as_str(), read.url.as_str()), ("sydney", "https://a.io/path"));
}

pub(super) type Bytes = Box<dyn Fn(&mut Vec<u8>)>;

fn text(value: &str) -> Bytes {
    let value = value.to_owned();
    Box::new(move |out| encode::write_str(out, &value).unwrap())
}

pub(super) fn raw(bytes: &'static [u8]) -> Bytes {
    Box::new(move |out| out.extend_from_slice(bytes))
}

pub(super) fn bytes(bytes: &[u8]) -> Bytes {
    let bytes = bytes.to_vec();
    Box::new(move |out| out.extend_from_slice(&bytes))
}

/// The golden record with more entries.
pub(super) fn map_of(more: &[(&str, Bytes)]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::write_map_len(&mut out, u32::try_from(9 + more.len()).unwrap()).unwrap();
    out.extend_from_slice(&GOLDEN[1..]);
    for (key, value) in more {
        encode::write_str(&mut out, key).unwrap();
        value(&mut out);
    }
    out
}

/// A map of `count` causes.
fn causes(count: u32) -> Vec<u8> {
    let mut out = Vec::new();
    encode::write_map_len(&mut out, count).unwrap();
    for n in 0..count {
        encode::write_str(&mut out, &n.to_string()).unwrap();
        out.push(1);
    }
    out
}

/// The golden record with its keys in reverse order. `changed` replaces the key of that name or is
/// added.
fn map(changed: &str, value: Option<Bytes>) -> Vec<u8> {
    let mut entries: Vec<(&str, Bytes)> = vec![
        ("offset", raw(&[15])),
        ("detail", text("")),
        ("response", raw(&[0xcd, 1, 0x2c])),
        ("dns", raw(&[10])),
        ("phrase", text("forbidden")),
        ("status", text("responsive")),
        ("timestamp", raw(&[0xcb, 0x41, 0xd7, 0xf9, 0x4c, 0x02, 0x64, 0x2e, 0xa1])),
        ("url", text("https://aiven.io")),
        ("from", text("sydney")),
    ];
    entries.retain(|(key, _)| *key != changed);
    if let Some(value) = value {
        entries.insert(entries.len() / 2, (changed, value));
    }
    let mut out = Vec::new();
    encode::write_map_len(&mut out, u32::try_from(entries.len()).unwrap()).unwrap();
    for (key, value) in entries {
        encode::write_str(&mut out, key).unwrap();
        value(&mut out);
    }
    out
}

#[test]
fn keys_are_read_by_name_and_unknown_keys_are_ignored() {
    assert_eq!(Record::decode(&map("", None)).unwrap(), golden());
    for unknown in [
        raw(&[0xc0]),
        raw(&[0x93, 1, 0x91, 0xc0, 0x81, 0xa1, b'k', 0xcb, 0, 0, 0, 0, 0, 0, 0, 0]),
        raw(&[0xc7, 2, 9, 1, 2]),
        raw(&[0xd8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        raw(&[0xc4, 1, 255]),
        raw(&[0xd9, 2, b'o', b'k']),
    ] {
        assert_eq!(Record::decode(&map("unheard", Some(unknown))).unwrap(), golden());
    }
}

#[test]
fn timestamp_can_be_any_number() {
    for (bytes, seconds) in [
        (&[0xce, 0x5f, 0xe5, 0x30, 0x09][..], 1_608_855_561.0),
        (&[7], 7.0),
        (&[0xff], -1.0),
        (&[0xca, 0x40, 0x20, 0, 0], 2.5),
    ] {
        let record = Record::decode(&map("timestamp", Some(raw(bytes)))).unwrap();
        assert_eq!(record.timestamp, seconds);
    }
}

#[test]
fn errors_name_the_key_and_the_expected_type() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "record: ends in the middle of a value"),
        (vec![0x93], "record: expected map, found FixArray(3)"),
        (vec![0x81, 1, 1], "record: a key is not text"),
        (vec![0x81, 0xa1, 255, 1], "record: a key is not text"),
        (map("from", None), "record: key from is missing"),
        (map("offset", None), "record: key offset is missing"),
        (map("url", Some(raw(&[1]))), "record: key url: expected text, found FixPos(1)"),
        (map("url", Some(raw(&[0xa1, 255]))), "record: key url: text is not utf-8"),
        (
            map("timestamp", Some(text("x"))),
            "record: key timestamp: expected number, found FixStr(1)",
        ),
        (map("dns", Some(text("x"))), "record: key dns: expected integer or nil, found FixStr(1)"),
        (
            map("detail", Some(raw(&[0xc2]))),
            "record: key detail: expected text or nil, found False",
        ),
        (
            map("response", Some(raw(&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]))),
            "record: key response: number out of range",
        ),
        (
            map("status", Some(text("up"))),
            "record: key status: expected responsive or unresponsive, found \"up\"",
        ),
        (map("name", Some(raw(&[1]))), "record: key name: expected text or nil, found FixPos(1)"),
        (map("reason", Some(raw(&[0xa1, 255]))), "record: key reason: text is not utf-8"),
        (
            map("slot", Some(text("x"))),
            "record: key slot: expected integer or nil, found FixStr(1)",
        ),
        (
            map("body_bytes", Some(raw(&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]))),
            "record: key body_bytes: number out of range",
        ),
        (
            map("healthy", Some(raw(&[1]))),
            "record: key healthy: expected true, false or nil, found FixPos(1)",
        ),
        (
            map("missed", Some(raw(&[0x90]))),
            "record: key missed: expected map of text to integer, or nil, found FixArray(0)",
        ),
        (
            map("missed", Some(raw(&[0x81, 1, 1]))),
            "record: key missed: expected map of text to integer, or nil, found FixPos(1)",
        ),
        (
            map("missed", Some(raw(&[0x81, 0xa1, b'k', 0xc0]))),
            "record: key missed: expected map of text to integer, or nil, found Null",
        ),
        (
            map("missed", Some(raw(&[0x82, 0xa1, b'k', 1, 0xa1, b'k', 1]))),
            "record: key missed: an entry appears twice",
        ),
        (
            map("missed", Some(bytes(&causes(17)))),
            "record: key missed: 17 entries, at most 16 are allowed",
        ),
        (
            map("missed", Some(raw(&[0xdf, 255, 255, 255, 255]))),
            "record: key missed: 4294967295 entries, at most 16 are allowed",
        ),
        (map("more", Some(raw(&[0xc1]))), "record: reserved msgpack marker"),
        (map("more", Some(raw(&[0x91; 100_000]))), "record: a key is not text"),
        ([GOLDEN, &[1, 2]].concat(), "record: 2 bytes follow the map"),
        (
            [&[0x8a], &GOLDEN[1..], &[0xa3, b'u', b'r', b'l', 0xa0]].concat(),
            "record: key url appears twice",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Record::decode(&bytes).unwrap_err().to_string(), expected);
    }
}

#[test]
fn cut_records_are_errors_and_flipped_bits_do_not_panic() {
    for whole in [GOLDEN, FULL] {
        for end in 0..whole.len() {
            assert_eq!(Record::decode(&whole[..end]), Err(DecodeError::Truncated), "cut at {end}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = Record::decode(&bytes);
        }
    }
}

#[test]
fn without_key_healthy_only_responsive_and_ok_is_healthy() {
    let record = |status, phrase: &str| Record { status, phrase: phrase.into(), ..golden() };
    assert!(record(Status::Responsive, "ok").is_healthy());
    assert!(record(Status::Responsive, "OK").is_healthy());
    assert!(!record(Status::Unresponsive, "ok").is_healthy());
    assert!(!record(Status::Responsive, "created").is_healthy());
}

/// Random texts, numbers and times make the round trip, except the case of letters.
#[test]
fn random_records_make_the_round_trip() {
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let number = |random: &mut fastrand::Rng| random.i64(..) >> random.u32(0..64);
        let record = Record {
            from: any_text(&mut random).to_lowercase(),
            url: any_text(&mut random).to_lowercase(),
            timestamp: number(&mut random) as f64 / 1000.0,
            status: if random.bool() { Status::Responsive } else { Status::Unresponsive },
            phrase: any_text(&mut random).to_lowercase(),
            dns_ms: random.bool().then(|| number(&mut random)),
            response_ms: random.bool().then(|| number(&mut random)),
            detail: random.bool().then(|| any_text(&mut random)),
            offset: -1,
            extra: any_extra(&mut random, number),
        };
        assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record), "seed {seed}");
    }
}

/// Fuzzed bytes do not panic, and a decoded record stays the same when it is encoded and decoded
/// again.
#[test]
fn fuzzed_bytes_are_a_stable_record_or_an_error() {
    let odd = Record { dns_ms: None, detail: None, response_ms: Some(i64::MAX), ..golden() };
    let unknown: Bytes = raw(&[0x92, 0x81, 0xa1, b'k', 0xc4, 2, 1, 2, 0xd8, 1, 0, 0, 0, 0]);
    let samples =
        [GOLDEN.to_vec(), odd.encode(), map("new", Some(unknown)), map("url", None), FULL.to_vec()];
    let tried = testkit::fuzz::run(&samples, |bytes| {
        if let Ok(record) = Record::decode(bytes) {
            let written = record.encode();
            assert_eq!(Record::decode(&written).unwrap().encode(), written);
            for length in 0..bytes.len() {
                assert!(Record::decode(&bytes[..length]).is_err(), "cut at {length}");
            }
        }
    });
    println!("record: {tried} inputs");
}
