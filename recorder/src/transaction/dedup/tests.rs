use super::*;

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);

/// Runs and numbers, at offsets 100, 101 and so on.
fn judge(known: &[(Uuid, i64)], records: &[(Uuid, i64)]) -> Judged {
    let said: Vec<_> = records
        .iter()
        .zip(100..)
        .map(|(&(run, sequence), offset)| (offset, Said::Is(Identity { run, sequence })))
        .collect();
    judge_said(known, &said)
}

fn judge_said(known: &[(Uuid, i64)], said: &[(i64, Said)]) -> Judged {
    let known: HashMap<Uuid, i64> = known.iter().copied().collect();
    Judged::new(said, |run| known.get(&run).copied().unwrap_or(0))
}

/// Goes red when `Judged::new` loses any of its three cases.
#[test]
fn what_is_kept_dropped_and_missing() {
    type Case<'a> =
        (&'a [(Uuid, i64)], &'a [(Uuid, i64)], &'a [i64], &'a [Missing], &'a [(Uuid, i64)]);
    let missing = |run, from, to, offset| Missing { run, from, to, offset, at_end: false };
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

/// Goes red when `Judged::new` lets a count below the mark move it back, or does
/// not move it.
#[test]
fn the_end_of_a_run_that_was_told_of_is_a_gap_once() {
    let is = |offset, run, sequence| (offset, Said::Is(Identity { run, sequence }));
    let ended = |offset, run, count| (offset, Said::Ended(Ended { run, count }));
    let last = |run, from, to, offset| Missing { run, from, to, offset, at_end: true };
    // Behind what is left of it, beside the next run's first, and again.
    let said = [is(5, A, 7), is(6, B, 0), ended(6, A, 11), is(7, B, 1), ended(7, A, 11)];
    let judged = judge_said(&[(A, 7)], &said);
    assert_eq!(judged.missing, [last(A, 8, 11, 6)]);
    assert_eq!((judged.next[&A], judged.next[&B], judged.missing()), (11, 2, 3));
    // What is of it and comes behind that after all is in the gap already.
    assert_eq!(judge_said(&[(A, 11)], &[is(8, A, 9)]).dropped, HashSet::from([8]));
    // All of it came; one that was told of by a copy that is older; none came.
    assert_eq!(judge_said(&[(A, 11)], &[ended(6, A, 11)]).missing, []);
    let older = judge_said(&[(A, 11)], &[ended(6, A, 4), is(7, A, 11)]);
    assert_eq!((older.missing, older.next[&A], older.dropped.len()), (vec![], 12, 0));
    assert_eq!(judge_said(&[], &[ended(6, A, 3)]).missing, [last(A, 0, 3, 6)]);
    assert_eq!(judge_said(&[], &[ended(6, A, i64::MAX)]).next[&A], i64::MAX);
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
    let [(7, Said::Is(Identity { sequence: 4, .. }))] = identities.known[..] else {
        panic!("{identities:?}");
    };
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
