use super::*;

/// One result: its second, and its kind; none for one that stands by itself, as
/// a failure or a warning does.
type Event = (i64, Option<u8>);

fn kind(number: u8) -> Kind {
    // The kinds differ in one field each.
    let phrase = if number == 1 { "found" } else { "ok" };
    let run = (number == 2).then(|| Uuid::from_u128(7));
    let period_ms = (number == 3).then_some(30_000);
    Kind { phrase: phrase.into(), run, period_ms }
}

/// A row of the table, and how many results it stands for.
#[derive(Debug, Clone)]
struct Stored {
    known: Known,
    results: usize,
}

/// A table of one target, fed in batches with a window of what is stored, as
/// the recorder feeds it.
#[derive(Default)]
struct Table {
    rows: Vec<Stored>,
}

impl Table {
    fn write(&mut self, first_offset: i64, batch: &[Event], window: usize) {
        self.rows.sort_by_key(|row| row.known.place);
        let known: Vec<_> =
            self.rows.iter().rev().take(window).map(|row| row.known.clone()).collect();
        let reaches_back = known.len() == self.rows.len();
        let mut timeline = Timeline::new(known, reaches_back);
        for (index, &(event_time, number)) in batch.iter().enumerate() {
            let topic_offset = first_offset + index as i64;
            let place = Place { event_time, topic_offset };
            let row = RowRef::Stored(self.rows.len() as i64);
            let kind = number.map(kind);
            match timeline.add(place, kind.clone(), row) {
                Change::Insert => {
                    self.rows.push(Stored { known: Known { row, place, kind }, results: 1 });
                }
                Change::Merge(into, place) => {
                    let found = self.rows.iter_mut().find(|row| row.known.row == into).unwrap();
                    let known = &mut found.known;
                    assert!(kind.is_some() && known.kind == kind, "merged what is not alike");
                    assert!(place.event_time >= known.place.event_time, "moved backwards");
                    assert!(place.topic_offset >= topic_offset, "lost an offset");
                    known.place = place;
                    found.results += 1;
                }
            }
        }
    }

    /// Runs of one kind as one, all else one by one.
    fn history(&self) -> Vec<State> {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| row.known.place);
        compress(rows.into_iter().map(|Stored { known, results }| State {
            // Of what is not merged the second is known as well.
            second: known.kind.is_none().then_some(known.place.event_time),
            kind: known.kind,
            results,
        }))
    }
}

/// A stretch of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    second: Option<i64>,
    kind: Option<Kind>,
    results: usize,
}

fn compress(states: impl Iterator<Item = State>) -> Vec<State> {
    let mut history: Vec<State> = Vec::new();
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

/// What really happened, in the order of events.
fn truth(events: &[Event]) -> Vec<State> {
    let mut ordered: Vec<_> = events.iter().copied().enumerate().collect();
    ordered.sort_by_key(|(offset, (second, _))| (*second, *offset));
    compress(ordered.into_iter().map(|(_, (second, number))| State {
        second: number.is_none().then_some(second),
        kind: number.map(kind),
        results: 1,
    }))
}

/// Whether a result that arrives now would part two results of one kind.
fn parts(events: &[Event], (second, number): Event) -> bool {
    // Of several in one second the one that arrived last is the later one.
    let before = events.iter().filter(|it| it.0 <= second).max_by_key(|it| it.0);
    let next = events.iter().filter(|it| it.0 > second).min_by_key(|it| it.0);
    let (before, next) = (before.and_then(|it| it.1), next.and_then(|it| it.1));
    before.is_some() && before == next && before != number
}

/// Results in the order of their arrival: mostly in step, some late. Unless
/// `parting`, none comes between two of one kind that were there before it.
fn arrivals(random: &mut fastrand::Rng, parting: bool) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let (mut second, mut number) = (100, Some(0));
    for _ in 0..random.usize(1..60) {
        second += random.i64(0..3);
        if random.u8(0..10) < 5 {
            number = (random.u8(0..10) < 7).then(|| random.u8(0..4));
        }
        let late = (second - random.i64(0..30), number);
        let is_late = random.u8(0..10) < 3 && (parting || !parts(&events, late));
        events.push(if is_late { late } else { (second, number) });
    }
    events
}

fn recorded(random: &mut fastrand::Rng, events: &[Event]) -> Table {
    let mut table = Table::default();
    let mut offset = 0;
    while offset < events.len() {
        let end = (offset + random.usize(1..9)).min(events.len());
        table.write(offset as i64, &events[offset..end], usize::MAX);
        offset = end;
    }
    table
}

/// Goes red when `merge_into` leaves out the check against the next row, or
/// the one that the kinds are the same.
#[test]
fn the_rows_tell_the_history() {
    for seed in 0..4_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = arrivals(&mut random, false);
        let table = recorded(&mut random, &events);
        assert_eq!(table.history(), truth(&events), "seed {seed}: {events:?}");
        let offsets = table.rows.iter().map(|row| row.known.place.topic_offset);
        assert_eq!(offsets.max(), Some(events.len() as i64 - 1), "seed {seed}");
    }
}

#[test]
fn with_late_failures_none_is_lost_and_nothing_is_made_up() {
    for seed in 0..4_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = arrivals(&mut random, true);
        let told = recorded(&mut random, &events).history();
        let truth = truth(&events);
        let alone = |history: &[State]| history.iter().filter(|it| it.kind.is_none()).count();
        assert_eq!(alone(&told), alone(&truth), "seed {seed}");
        let results = told.iter().map(|state| state.results).sum::<usize>();
        assert_eq!(results, events.len(), "seed {seed}");
        // What is told is the truth, less some healthy runs.
        let mut rest = truth.iter();
        for state in &told {
            let same = |it: &State| (it.second, &it.kind) == (state.second, &state.kind);
            assert!(rest.any(same), "seed {seed}: {told:?} {truth:?}");
        }
    }
}

/// Goes red when `add` leaves out the check against `reaches_back`.
#[test]
fn a_window_that_ends_too_early_only_adds_rows() {
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = arrivals(&mut random, false);
        let mut table = Table::default();
        for (offset, event) in events.iter().enumerate() {
            table.write(offset as i64, std::slice::from_ref(event), 2);
        }
        assert_eq!(table.history(), truth(&events), "seed {seed}: {events:?}");
    }
}

#[test]
fn records_in_step_make_one_row_for_each_run() {
    let mut table = Table::default();
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
    let at = |event_time, topic_offset| Place { event_time, topic_offset };
    let expected =
        [(at(2, 1), 2), (at(3, 2), 1), (at(4, 3), 1), (at(6, 6), 3), (at(8, 8), 2), (at(9, 9), 1)];
    assert_eq!(rows, expected);
}

/// Two results of one second in a topic that was made again, whose offsets are
/// below that of the row. Goes red when `begins` is not looked at.
#[test]
fn results_of_a_topic_made_again_go_on_with_the_run() {
    let at = |event_time, topic_offset| Place { event_time, topic_offset };
    let ok = || Some(kind(0));
    let run = Known { row: RowRef::Stored(1), place: at(102, 174), kind: ok() };
    let mut timeline = Timeline::new(vec![run], false);
    let merged = Change::Merge(RowRef::Stored(1), at(103, 174));
    assert_eq!(timeline.add(at(103, 20), ok(), RowRef::New(0)), merged);
    assert_eq!(timeline.add(at(103, 21), ok(), RowRef::New(0)), merged);
    assert_eq!(timeline.add(at(103, 22), None, RowRef::New(0)), Change::Insert);
    // What is before all that is known stays by itself.
    assert_eq!(timeline.add(at(101, 23), ok(), RowRef::New(1)), Change::Insert);
}
