use kafka_client::Uuid;

use super::*;

/// The second and the kind of a result. A failure or a warning has no kind.
type ResultEvent = (i64, Option<u8>);

fn kind(number: u8) -> RowKind {
    // Each kind differs from kind 0 in one field.
    let phrase = if number == 1 { "found" } else { "ok" };
    let run = (number == 2).then(|| Uuid::from_u128(7));
    let period_ms = (number == 3).then_some(30_000);
    RowKind { phrase: phrase.into(), run, period_ms }
}

/// A stored row, and how many results it stands for.
#[derive(Debug, Clone)]
struct Stored {
    known: TimelineRow,
    results: usize,
}

/// A table of one target, written in batches. Each batch sees a window of the newest
/// rows, as in the recorder.
#[derive(Default)]
struct SimulatedTable {
    rows: Vec<Stored>,
}

impl SimulatedTable {
    fn write(&mut self, first_offset: i64, batch: &[ResultEvent], window: usize) {
        self.rows.sort_by_key(|row| row.known.place);
        let known: Vec<_> =
            self.rows.iter().rev().take(window).map(|row| row.known.clone()).collect();
        let is_complete = known.len() == self.rows.len();
        let mut timeline = Timeline::new(known, is_complete);
        for (index, &(event_time, number)) in batch.iter().enumerate() {
            let topic_offset = first_offset + index as i64;
            let place = RowPlace { event_time, topic_offset };
            let row = RowRef::Stored(self.rows.len() as i64);
            let kind = number.map(kind);
            match timeline.add(place, kind.clone(), row) {
                MergeDecision::Insert => {
                    self.rows.push(Stored { known: TimelineRow { row, place, kind }, results: 1 });
                }
                MergeDecision::Merge(into, place) => {
                    let found = self.rows.iter_mut().find(|row| row.known.row == into).unwrap();
                    let known = &mut found.known;
                    assert!(kind.is_some() && known.kind == kind, "merged different kinds");
                    assert!(place.event_time >= known.place.event_time, "moved backwards");
                    assert!(place.topic_offset >= topic_offset, "lost an offset");
                    known.place = place;
                    found.results += 1;
                }
            }
        }
    }

    /// The history that the rows show: one entry for each sequence of results of one
    /// kind, and for each other result.
    fn history(&self) -> Vec<HistoryEntry> {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| row.known.place);
        compress(rows.into_iter().map(|Stored { known, results }| HistoryEntry {
            // The time of a row that is never merged into is exact.
            second: known.kind.is_none().then_some(known.place.event_time),
            kind: known.kind,
            results,
        }))
    }
}

/// An entry of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HistoryEntry {
    second: Option<i64>,
    kind: Option<RowKind>,
    results: usize,
}

fn compress(states: impl Iterator<Item = HistoryEntry>) -> Vec<HistoryEntry> {
    let mut history: Vec<HistoryEntry> = Vec::new();
    for state in states {
        match history.last_mut() {
            Some(last) if state.kind.is_some() && last.kind == state.kind => {
                last.results += state.results;
            }
            _ => history.push(state),
        }
    }
    history
}

/// The true history of these events, in their order.
fn true_history(events: &[ResultEvent]) -> Vec<HistoryEntry> {
    let mut ordered: Vec<_> = events.iter().copied().enumerate().collect();
    ordered.sort_by_key(|(offset, (second, _))| (*second, *offset));
    compress(ordered.into_iter().map(|(_, (second, number))| HistoryEntry {
        second: number.is_none().then_some(second),
        kind: number.map(kind),
        results: 1,
    }))
}

/// Whether an event that arrives now would separate two results of one kind.
fn separates(events: &[ResultEvent], (second, number): ResultEvent) -> bool {
    // Of several events within a second, the last to arrive is the latest.
    let before = events.iter().filter(|it| it.0 <= second).max_by_key(|it| it.0);
    let next = events.iter().filter(|it| it.0 > second).min_by_key(|it| it.0);
    let (before, next) = (before.and_then(|it| it.1), next.and_then(|it| it.1));
    before.is_some() && before == next && before != number
}

/// Random events in the order of their arrival: most in order, some late. Unless
/// `separating`, no late event separates two results of one kind that arrived before.
fn arrivals(random: &mut fastrand::Rng, separating: bool) -> Vec<ResultEvent> {
    let mut events: Vec<ResultEvent> = Vec::new();
    let (mut second, mut number) = (100, Some(0));
    for _ in 0..random.usize(1..60) {
        second += random.i64(0..3);
        if random.u8(0..10) < 5 {
            number = (random.u8(0..10) < 7).then(|| random.u8(0..4));
        }
        let late = (second - random.i64(0..30), number);
        let is_late = random.u8(0..10) < 3 && (separating || !separates(&events, late));
        events.push(if is_late { late } else { (second, number) });
    }
    events
}

fn record_all(random: &mut fastrand::Rng, events: &[ResultEvent]) -> SimulatedTable {
    let mut table = SimulatedTable::default();
    let mut offset = 0;
    while offset < events.len() {
        let end = (offset + random.usize(1..9)).min(events.len());
        table.write(offset as i64, &events[offset..end], usize::MAX);
        offset = end;
    }
    table
}

#[test]
fn the_rows_show_the_true_history() {
    for seed in 0..4_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = arrivals(&mut random, false);
        let table = record_all(&mut random, &events);
        assert_eq!(table.history(), true_history(&events), "seed {seed}: {events:?}");
        let offsets = table.rows.iter().map(|row| row.known.place.topic_offset);
        assert_eq!(offsets.max(), Some(events.len() as i64 - 1), "seed {seed}");
    }
}

#[test]
fn with_late_failures_no_result_is_lost_or_invented() {
    for seed in 0..4_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = arrivals(&mut random, true);
        let shown = record_all(&mut random, &events).history();
        let truth = true_history(&events);
        let count_unmerged =
            |history: &[HistoryEntry]| history.iter().filter(|it| it.kind.is_none()).count();
        assert_eq!(count_unmerged(&shown), count_unmerged(&truth), "seed {seed}");
        let results = shown.iter().map(|state| state.results).sum::<usize>();
        assert_eq!(results, events.len(), "seed {seed}");
        // The rows show the true history, except for some healthy sequences.
        let mut rest = truth.iter();
        for state in &shown {
            let same = |it: &HistoryEntry| (it.second, &it.kind) == (state.second, &state.kind);
            assert!(rest.any(same), "seed {seed}: {shown:?} {truth:?}");
        }
    }
}

/// A record older than the window of known rows is a row of its own.
#[test]
fn a_small_window_only_adds_rows() {
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = arrivals(&mut random, false);
        let mut table = SimulatedTable::default();
        for (offset, event) in events.iter().enumerate() {
            table.write(offset as i64, std::slice::from_ref(event), 2);
        }
        assert_eq!(table.history(), true_history(&events), "seed {seed}: {events:?}");
    }
}

#[test]
fn records_in_order_make_one_row_for_each_sequence() {
    let mut table = SimulatedTable::default();
    let (ok, found) = (Some(0), Some(1));
    let events = [
        (1, ok),
        (2, ok),
        (3, None),
        (4, None),
        (5, ok),
        (6, ok),
        (6, ok),
        (7, found),
        (8, found),
        (9, ok),
    ];
    table.write(0, &events, usize::MAX);
    let rows: Vec<_> = table.rows.iter().map(|row| (row.known.place, row.results)).collect();
    let at = |event_time, topic_offset| RowPlace { event_time, topic_offset };
    let expected =
        [(at(2, 1), 2), (at(3, 2), 1), (at(4, 3), 1), (at(6, 6), 3), (at(8, 8), 2), (at(9, 9), 1)];
    assert_eq!(rows, expected);
}

/// Two results within a second of a recreated topic, whose offsets are below the offset
/// of the row.
#[test]
fn results_of_a_recreated_topic_extend_the_sequence() {
    let at = |event_time, topic_offset| RowPlace { event_time, topic_offset };
    let ok = || Some(kind(0));
    let run = TimelineRow { row: RowRef::Stored(1), place: at(102, 174), kind: ok() };
    let mut timeline = Timeline::new(vec![run], false);
    let merged = MergeDecision::Merge(RowRef::Stored(1), at(103, 174));
    assert_eq!(timeline.add(at(103, 20), ok(), RowRef::New(0)), merged);
    assert_eq!(timeline.add(at(103, 21), ok(), RowRef::New(0)), merged);
    assert_eq!(timeline.add(at(103, 22), None, RowRef::New(0)), MergeDecision::Insert);
    // A record before all known rows is a row of its own.
    assert_eq!(timeline.add(at(101, 23), ok(), RowRef::New(1)), MergeDecision::Insert);
}
