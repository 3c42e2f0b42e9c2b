use super::*;

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);

/// The outcome of results with these runs and numbers, at offsets 100, 101, …
fn outcome_of_results(marks: &[(Uuid, i64)], records: &[(Uuid, i64)]) -> DedupOutcome {
    let claims: Vec<_> = records
        .iter()
        .zip(100..)
        .map(|(&(run, sequence), offset)| (offset, HeaderClaim::Result(Identity { run, sequence })))
        .collect();
    outcome(marks, &claims)
}

fn outcome(marks: &[(Uuid, i64)], claims: &[(i64, HeaderClaim)]) -> DedupOutcome {
    let marks: HashMap<Uuid, i64> = marks.iter().copied().collect();
    DedupOutcome::new(claims, |run| marks.get(&run).copied().unwrap_or(0))
}

#[test]
fn a_number_is_new_a_duplicate_or_shows_a_gap() {
    type Case<'a> =
        (&'a [(Uuid, i64)], &'a [(Uuid, i64)], &'a [i64], &'a [SequenceGap], &'a [(Uuid, i64)]);
    let missing = |run, from, to, offset| SequenceGap { run, from, to, offset, at_end: false };
    let cases: &[Case<'_>] = &[
        // A new run from its beginning, and a run that continues.
        (&[], &[(A, 0), (A, 1)], &[], &[], &[(A, 2)]),
        (&[(A, 7)], &[(A, 7), (A, 8)], &[], &[], &[(A, 9)]),
        // Duplicates, within the batch and from before it.
        (&[], &[(A, 0), (A, 0), (A, 1)], &[101], &[], &[(A, 2)]),
        (&[(A, 7)], &[(A, 5), (A, 6), (A, 7)], &[100, 101], &[], &[(A, 8)]),
        (&[(A, 7)], &[(A, 6)], &[100], &[], &[(A, 7)]),
        // Gaps: at the beginning of an unknown run, after the mark, and within the batch. A number
        // that arrives after its gap was stored is dropped.
        (&[], &[(A, 3)], &[], &[missing(A, 0, 3, 100)], &[(A, 4)]),
        (&[(A, 7)], &[(A, 9)], &[], &[missing(A, 7, 9, 100)], &[(A, 10)]),
        (
            &[],
            &[(A, 0), (A, 2), (A, 1), (A, 6)],
            &[102],
            &[missing(A, 1, 2, 101), missing(A, 3, 6, 103)],
            &[(A, 7)],
        ),
        // Two runs are independent.
        (
            &[(A, 7)],
            &[(A, 7), (B, 0), (A, 7), (B, 2)],
            &[102],
            &[missing(B, 1, 2, 103)],
            &[(A, 8), (B, 3)],
        ),
        // The highest possible number.
        (&[(A, i64::MAX - 1)], &[(A, i64::MAX - 1)], &[], &[], &[(A, i64::MAX)]),
    ];
    for (marks, records, dropped, missing, next) in cases {
        let expected = DedupOutcome {
            duplicates: dropped.iter().copied().collect(),
            gaps: missing.to_vec(),
            next: next.iter().copied().collect(),
        };
        assert_eq!(outcome_of_results(marks, records), expected, "{marks:?} {records:?}");
    }
}

/// A count moves the mark forward, and never back.
#[test]
fn the_lost_end_of_a_run_is_one_gap() {
    let is = |offset, run, sequence| (offset, HeaderClaim::Result(Identity { run, sequence }));
    let ended = |offset, run, count| (offset, HeaderClaim::Ended(EndedRun { run, count }));
    let last = |run, from, to, offset| SequenceGap { run, from, to, offset, at_end: true };
    // Reported after the records of the run, with the first result of the next run, and again.
    let claims = [is(5, A, 7), is(6, B, 0), ended(6, A, 11), is(7, B, 1), ended(7, A, 11)];
    let ended_late = outcome(&[(A, 7)], &claims);
    assert_eq!(ended_late.gaps, [last(A, 8, 11, 6)]);
    assert_eq!((ended_late.next[&A], ended_late.next[&B], ended_late.count_missing()), (11, 2, 3));
    // A result of the run that arrives later is already part of the gap.
    assert_eq!(outcome(&[(A, 11)], &[is(8, A, 9)]).duplicates, HashSet::from([8]));
    // All results arrived; the count is older; no result arrived.
    assert_eq!(outcome(&[(A, 11)], &[ended(6, A, 11)]).gaps, []);
    let older = outcome(&[(A, 11)], &[ended(6, A, 4), is(7, A, 11)]);
    assert_eq!((older.gaps, older.next[&A], older.duplicates.len()), (vec![], 12, 0));
    assert_eq!(outcome(&[], &[ended(6, A, 3)]).gaps, [last(A, 0, 3, 6)]);
    assert_eq!(outcome(&[], &[ended(6, A, i64::MAX)]).next[&A], i64::MAX);
}

#[test]
fn what_is_remembered_has_a_bound() {
    let mut tracker = SequenceTracker::new(&MissingColumns::default());
    for run in 0..3 * RUNS_MAX as u128 {
        tracker.committed((0, outcome_of_results(&[], &[(Uuid::from_u128(run), 0)])));
        assert!(tracker.marks.len() <= RUNS_MAX);
        assert_eq!(tracker.marks.get(&(0, Uuid::from_u128(run))), Some(&1));
    }
}
