use super::*;

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);

/// Runs and numbers, at offsets 100, 101 and so on.
fn judge(known: &[(Uuid, i64)], records: &[(Uuid, i64)]) -> Judged {
    let known: HashMap<Uuid, i64> = known.iter().copied().collect();
    let identities: Vec<_> = records
        .iter()
        .zip(100..)
        .map(|(&(run, sequence), offset)| (offset, Identity { run, sequence }))
        .collect();
    Judged::new(&identities, |run| known.get(&run).copied().unwrap_or(0))
}

/// Goes red when `Judged::new` loses any of its three cases.
#[test]
fn what_is_kept_dropped_and_missing() {
    type Case<'a> =
        (&'a [(Uuid, i64)], &'a [(Uuid, i64)], &'a [i64], &'a [Missing], &'a [(Uuid, i64)]);
    let missing = |run, from, to, offset| Missing { run, from, to, offset };
    let cases: &[Case<'_>] = &[
        // A new run from its beginning; one that goes on.
        (&[], &[(A, 0), (A, 1)], &[], &[], &[(A, 2)]),
        (&[(A, 7)], &[(A, 7), (A, 8)], &[], &[], &[(A, 9)]),
        // Again, within the batch and from before it.
        (&[], &[(A, 0), (A, 0), (A, 1)], &[101], &[], &[(A, 2)]),
        (&[(A, 7)], &[(A, 5), (A, 6), (A, 7)], &[100, 101], &[], &[(A, 8)]),
        (&[(A, 7)], &[(A, 6)], &[100], &[], &[(A, 7)]),
        // Holes: at the beginning of an unknown run, after the mark, within;
        // what comes behind a hole after it was passed is dropped.
        (&[], &[(A, 3)], &[], &[missing(A, 0, 3, 100)], &[(A, 4)]),
        (&[(A, 7)], &[(A, 9)], &[], &[missing(A, 7, 9, 100)], &[(A, 10)]),
        (
            &[],
            &[(A, 0), (A, 2), (A, 1), (A, 6)],
            &[102],
            &[missing(A, 1, 2, 101), missing(A, 3, 6, 103)],
            &[(A, 7)],
        ),
        // Two runs do not touch each other.
        (
            &[(A, 7)],
            &[(A, 7), (B, 0), (A, 7), (B, 2)],
            &[102],
            &[missing(B, 1, 2, 103)],
            &[(A, 8), (B, 3)],
        ),
        // The highest number there is.
        (&[(A, i64::MAX - 1)], &[(A, i64::MAX - 1)], &[], &[], &[(A, i64::MAX)]),
    ];
    for (known, records, dropped, missing, next) in cases {
        let expected = Judged {
            dropped: dropped.iter().copied().collect(),
            missing: missing.to_vec(),
            next: next.iter().copied().collect(),
        };
        assert_eq!(judge(known, records), expected, "{known:?} {records:?}");
    }
}

#[test]
fn a_broken_identity_is_none_and_counted() {
    let record = |offset, headers: Vec<(String, Option<bytes::Bytes>)>| FetchedRecord {
        offset,
        timestamp_ms: 0,
        key: None,
        value: None,
        headers,
    };
    let good = common::identity::Run::new().unwrap().headers(4);
    let good: Vec<_> = good.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let half = vec![good[0].clone()];
    let identities = Identities::new(&[
        record(5, Vec::new()),
        record(6, half.clone()),
        record(7, good),
        record(8, half),
    ]);
    assert_eq!(identities.known.len(), 1);
    assert_eq!((identities.known[0].0, identities.known[0].1.sequence), (7, 4));
    let missing = BrokenIdentity::Missing("sequence");
    assert_eq!((identities.broken, identities.first_broken), (2, Some((6, missing))));
}

#[test]
fn what_is_remembered_has_a_bound() {
    let mut marks = Marks::default();
    for run in 0..3 * RUNS_MAX as u128 {
        marks.keep(0, &judge(&[], &[(Uuid::from_u128(run), 0)]));
        assert!(marks.next.len() <= RUNS_MAX);
        assert_eq!(marks.next.get(&(0, Uuid::from_u128(run))), Some(&1));
    }
}
