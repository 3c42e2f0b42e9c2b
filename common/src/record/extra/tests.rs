use super::super::tests::{bytes, golden, map_of, raw};
use super::super::wire::skip;
use super::*;
use crate::record::Record;

/// The golden record with every extra key, encoded by another msgpack library.
pub(in super::super) const FULL: &[u8] = include_bytes!("../../../testdata/record-full.msgpack");

fn full() -> Record {
    let extra = Extra {
        name: Some("Aiven front page".to_owned()),
        healthy: Some(true),
        reason: Some("certificate_expires_soon".to_owned()),
        phase: Some("tls".to_owned()),
        resolve_us: Some(10_200),
        connect_us: Some(15_400),
        tls_us: Some(31_000),
        first_byte_us: Some(90_000),
        transfer_us: Some(1_500),
        total_us: Some(150_321),
        address: Some("2001:db8::7".to_owned()),
        http_version: Some("1.1".to_owned()),
        http_status: Some(200),
        body_bytes: Some(20_480),
        redirects: Some(1),
        final_url: Some("https://aiven.io/home".to_owned()),
        certificate_end: Some(1_611_447_561),
        attempts: Some(2),
        first_reason: Some("connect_timeout".to_owned()),
        no_network: Some(false),
        others_failing: Some(true),
        period_ms: Some(60_000),
        slot: Some(4_711),
        missed: [("suspended".to_owned(), 7), ("workers_short".to_owned(), 2)].into(),
    };
    Record { phrase: "ok".to_owned(), detail: None, offset: -1, extra, ..golden() }
}

/// The names and the order of the keys are part of the contract.
#[test]
fn extra_keys_follow_the_nine_in_their_order() {
    assert_eq!(full().encode(), FULL);
    assert_eq!(Record::decode(FULL).unwrap(), full());
    let nine = Record { extra: Extra::default(), ..full() }.encode();
    assert_eq!(nine[0], 0x89, "nine keys and no more");
    assert!(FULL[3..].starts_with(&nine[1..]), "the nine keys are encoded as without extra keys");
}

#[test]
fn key_without_value_is_omitted_and_nil_is_no_value() {
    let record = Record { extra: Extra { slot: Some(0), ..Extra::default() }, ..golden() };
    assert_eq!(record.encode(), map_of(&[("slot", raw(&[0]))]));
    for (key, _) in Extra::default().values() {
        let read = Record::decode(&map_of(&[(key, raw(&[0xc0]))]));
        assert_eq!(read, Ok(golden()), "{key}");
    }
}

#[test]
fn extra_keys_are_read_in_any_order_and_once() {
    let mut keys: Vec<_> = Extra::default().values().map(|(key, _)| key).to_vec();
    keys.reverse();
    let text_at = FULL.windows(4).position(|bytes| bytes == b"name").unwrap() - 1;
    // The values of the full record by their keys.
    let entries = split(&FULL[text_at..]);
    let reversed: Vec<_> = entries.iter().rev().map(|(key, value)| (*key, bytes(value))).collect();
    assert_eq!(reversed.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
    assert_eq!(Record::decode(&map_of(&reversed)).unwrap().extra, full().extra);
    for key in keys {
        let nil = raw(&[0xc0]);
        let twice = Record::decode(&map_of(&[(key, raw(&[0xc0])), ("new", raw(&[1])), (key, nil)]));
        assert_eq!(twice, Err(DecodeError::DuplicateKey(key)));
    }
}

/// The entries in `bytes`, the end of a map.
fn split(mut bytes: &[u8]) -> Vec<(&str, &[u8])> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let Ok(key) = read_str(&mut bytes) else { panic!("a key") };
        let value = bytes;
        skip(&mut bytes).unwrap();
        entries.push((key, &value[..value.len() - bytes.len()]));
    }
    entries
}

#[test]
fn key_healthy_decides_for_any_phrase() {
    let record = |phrase: &str, healthy| Record {
        phrase: phrase.into(),
        extra: Extra { healthy: Some(healthy), ..Extra::default() },
        ..golden()
    };
    assert!(record("moved permanently", true).is_healthy());
    assert!(!record("ok", false).is_healthy());
}

#[test]
fn only_unusual_values_are_marks() {
    let usual = Extra {
        reason: None,
        attempts: Some(1),
        first_reason: None,
        no_network: Some(false),
        others_failing: Some(false),
        missed: BTreeMap::new(),
        ..full().extra
    };
    assert!(!usual.is_marked() && !Extra::default().is_marked());
    let marks: [fn(&mut Extra); 6] = [
        |extra| extra.reason = Some("too_slow".into()),
        |extra| extra.attempts = Some(2),
        |extra| extra.first_reason = Some("dns_timeout".into()),
        |extra| extra.no_network = Some(true),
        |extra| extra.others_failing = Some(true),
        |extra| extra.missed = [("clock".into(), 1)].into(),
    ];
    for (number, mark) in marks.into_iter().enumerate() {
        let mut extra = usual.clone();
        mark(&mut extra);
        assert!(extra.is_marked(), "mark {number}");
    }
}

pub(in super::super) fn any_text(random: &mut fastrand::Rng) -> String {
    let length = random.usize(0..300);
    (0..length).map(|_| if random.bool() { random.char(..) } else { random.lowercase() }).collect()
}

pub(in super::super) fn any_extra(
    random: &mut fastrand::Rng,
    number: impl Fn(&mut fastrand::Rng) -> i64,
) -> Extra {
    macro_rules! maybe {
        ($value:expr) => {
            random.bool().then(|| $value)
        };
    }
    Extra {
        name: maybe!(any_text(random)),
        healthy: maybe!(random.bool()),
        reason: maybe!(any_text(random)),
        phase: maybe!(any_text(random)),
        resolve_us: maybe!(number(random)),
        connect_us: maybe!(number(random)),
        tls_us: maybe!(number(random)),
        first_byte_us: maybe!(number(random)),
        transfer_us: maybe!(number(random)),
        total_us: maybe!(number(random)),
        address: maybe!(any_text(random)),
        http_version: maybe!(any_text(random)),
        http_status: maybe!(number(random)),
        body_bytes: maybe!(number(random)),
        redirects: maybe!(number(random)),
        final_url: maybe!(any_text(random)),
        certificate_end: maybe!(number(random)),
        attempts: maybe!(number(random)),
        first_reason: maybe!(any_text(random)),
        no_network: maybe!(random.bool()),
        others_failing: maybe!(random.bool()),
        period_ms: maybe!(number(random)),
        slot: maybe!(number(random)),
        missed: (0..random.usize(0..=MISSED_MAX))
            .map(|_| (any_text(random), number(random)))
            .collect(),
    }
}
