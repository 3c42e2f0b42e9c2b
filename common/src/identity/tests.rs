use super::*;

type Header<'a> = (&'a str, Option<&'a [u8]>);

fn fetched(headers: &[Header<'_>]) -> Vec<(String, Option<Bytes>)> {
    let owned = |(key, value): &Header<'_>| ((*key).to_owned(), value.map(Bytes::copy_from_slice));
    headers.iter().map(owned).collect()
}

const RUN: &[u8] = &[0xde, 0xad, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The bytes of the headers must never change.
#[test]
fn golden_bytes() {
    let run = Run(Bytes::from_static(RUN));
    let written = run.headers(0x0102_0304);
    assert_eq!(
        written,
        [
            ("run".to_owned(), Bytes::from_static(RUN)),
            ("sequence".to_owned(), Bytes::from_static(&[0, 0, 0, 0, 1, 2, 3, 4])),
        ]
    );
    let mut read: Vec<_> = written.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let identity = Identity {
        run: Uuid::from_u128(0xdead_0203_0405_0607_0809_0a0b_0c0d_0e0f),
        sequence: 0x0102_0304,
    };
    assert_eq!(Identity::from_headers(&read), Ok(Some(identity)));
    // In any order, among other headers.
    read.reverse();
    read.insert(1, ("other".to_owned(), None));
    assert_eq!(Identity::from_headers(&read), Ok(Some(identity)));
}

#[test]
fn runs_differ() {
    let (one, other) = (Run::new().unwrap(), Run::new().unwrap());
    assert_ne!(one, other);
    assert_eq!(one.0.len(), 16);
}

#[test]
fn highest_sequence_number_makes_the_round_trip() {
    let headers: Vec<_> = Run(Bytes::from_static(RUN))
        .headers(SEQUENCE_MAX)
        .into_iter()
        .map(|(key, value)| (key, Some(value)))
        .collect();
    let identity = Identity::from_headers(&headers).unwrap().unwrap();
    assert_eq!(identity.sequence, SEQUENCE_MAX);
}

#[test]
fn invalid_identities_have_a_reason() {
    assert_eq!(Identity::from_headers(&[]), Ok(None));
    assert_eq!(Identity::from_headers(&fetched(&[("trace", Some(b"x"))])), Ok(None));
    let zero: &[u8] = &[0; 8];
    let cases: &[(&[Header<'_>], &str)] = &[
        (&[("run", Some(RUN))], "header sequence: missing, but the other header exists"),
        (&[("sequence", Some(zero))], "header run: missing, but the other header exists"),
        (
            &[("run", Some(RUN)), ("run", Some(RUN)), ("sequence", Some(zero))],
            "header run: more than one",
        ),
        (
            &[("run", Some(&RUN[1..])), ("sequence", Some(zero))],
            "header run: 15 bytes, expected 16",
        ),
        (&[("run", Some(RUN)), ("sequence", None)], "header sequence: 0 bytes, expected 8"),
        (
            &[("run", Some(RUN)), ("sequence", Some(&[0; 9]))],
            "header sequence: 9 bytes, expected 8",
        ),
        (
            &[("run", Some(RUN)), ("sequence", Some(&i64::MAX.to_be_bytes()))],
            "header sequence: 9223372036854775807, expected at most 9223372036854775806",
        ),
        (
            &[("run", Some(RUN)), ("sequence", Some(&[0xff; 8]))],
            "header sequence: 18446744073709551615, expected at most 9223372036854775806",
        ),
    ];
    for (headers, expected) in cases {
        let error = Identity::from_headers(&fetched(headers)).unwrap_err();
        assert_eq!(&error.to_string(), expected);
    }
}
