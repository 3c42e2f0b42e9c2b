use kafka_client::Uuid;

use super::*;

/// The second and the kind of a result. A failure or a warning has no kind.
type ResultEvent = (i64, Option<u8>);

fn kind(number: u8) -> RowKind {
    // Each kind differs from kind 0 in one field.
    let phrase = if number == 1 { "found" } else { "ok" };
    let run = (number == 2).then(|| Uuid::from_u128(7));
    let period_ms = (number == 3).then_some(30_000);
    RowKind { phrase: phrase.into(), run, period_ms, has_total_us: number == 4 }
}

/// A result with its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SlotEvent {
    second: i64,
    slot: Option<i64>,
    number: Option<u8>,
}

/// A stored row, with its results and their offsets.
#[derive(Debug, Clone)]
struct Stored {
    known: TimelineRow,
    results: Vec<(i64, SlotEvent)>,
}

/// A table of one target, written in batches. Each batch sees a window of the newest
/// rows, as in the recorder.
#[derive(Default)]
struct SimulatedTable {
    rows: Vec<Stored>,
}

impl SimulatedTable {
    fn write(&mut self, first_offset: i64, batch: &[ResultEvent], window: usize) {
        let event = |&(second, number)| SlotEvent { second, slot: None, number };
        self.write_slots(first_offset, &batch.iter().map(event).collect::<Vec<_>>(), window);
    }

    fn write_slots(&mut self, first_offset: i64, batch: &[SlotEvent], window: usize) {
        self.rows.sort_by_key(|row| row.known.span.last);
        let known: Vec<_> =
            self.rows.iter().rev().take(window).map(|row| row.known.clone()).collect();
        let is_complete = known.len() == self.rows.len();
        let mut timeline = Timeline::new(known, is_complete);
        for (topic_offset, event) in (first_offset..).zip(batch) {
            let place = RowPlace { event_time: event.second, topic_offset };
            let row = RowRef::Stored(self.rows.len() as i64);
            let kind = event.number.map(kind);
            match timeline.add(place, event.slot, kind.clone(), row) {
                MergeDecision::Insert => {
                    let span = RowSpan::of_record(place, event.slot);
                    let known = TimelineRow { row, span, kind };
                    self.rows.push(Stored { known, results: vec![(topic_offset, *event)] });
                }
                MergeDecision::Merge(into, span) => {
                    let found = self.rows.iter_mut().find(|row| row.known.row == into).unwrap();
                    let known = &mut found.known;
                    assert!(kind.is_some() && known.kind == kind, "merged different kinds");
                    let (old, new) = (known.span.last, span.last);
                    assert!(new.event_time >= old.event_time, "moved backwards");
                    assert!(new.topic_offset >= topic_offset, "lost an offset");
                    known.span = span;
                    found.results.push((topic_offset, *event));
                }
            }
        }
    }

    /// The history that the rows show: one entry for each sequence of results of one kind, and one
    /// entry for each other result.
    fn history(&self) -> Vec<HistoryEntry> {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| row.known.span.last);
        compress(rows.into_iter().map(|Stored { known, results }| HistoryEntry {
            // If a row is never merged into, its time is exact.
            second: known.kind.is_none().then_some(known.span.last.event_time),
            kind: known.kind,
            results: results.len(),
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

/// The true history of these events, in the order of their times.
fn true_history(events: &[ResultEvent]) -> Vec<HistoryEntry> {
    let mut ordered: Vec<_> = events.iter().copied().enumerate().collect();
    ordered.sort_by_key(|(offset, (second, _))| (*second, *offset));
    compress(ordered.into_iter().map(|(_, (second, number))| HistoryEntry {
        second: number.is_none().then_some(second),
        kind: number.map(kind),
        results: 1,
    }))
}

/// Whether an event that arrives now separates two results of one kind.
fn separates(events: &[ResultEvent], (second, number): ResultEvent) -> bool {
    // If several events have the same second, the last arrival is the latest event.
    let before = events.iter().filter(|it| it.0 <= second).max_by_key(|it| it.0);
    let next = events.iter().filter(|it| it.0 > second).min_by_key(|it| it.0);
    let (before, next) = (before.and_then(|it| it.1), next.and_then(|it| it.1));
    before.is_some() && before == next && before != number
}

/// Random events in the order of their arrival: most in order, some late. Without `separating`, no
/// late event separates two results of one kind that arrived before.
fn arrivals(random: &mut fastrand::Rng, separating: bool) -> Vec<ResultEvent> {
    let mut events: Vec<ResultEvent> = Vec::new();
    let (mut second, mut number) = (100, Some(0));
    for _ in 0..random.usize(1..60) {
        second += random.i64(0..3);
        if random.u8(0..10) < 5 {
            number = (random.u8(0..10) < 7).then(|| random.u8(0..5));
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
        let offsets = table.rows.iter().map(|row| row.known.span.last.topic_offset);
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
        // The rows show the true history, but some healthy sequences may be missing.
        let mut rest = truth.iter();
        for state in &shown {
            let same = |it: &HistoryEntry| (it.second, &it.kind) == (state.second, &state.kind);
            assert!(rest.any(same), "seed {seed}: {shown:?} {truth:?}");
        }
    }
}

/// A record that is older than all known rows is stored as a row of its own.
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
    let rows: Vec<_> =
        table.rows.iter().map(|row| (row.known.span.last, row.results.len())).collect();
    let at = |event_time, topic_offset| RowPlace { event_time, topic_offset };
    let expected =
        [(at(2, 1), 2), (at(3, 2), 1), (at(4, 3), 1), (at(6, 6), 3), (at(8, 8), 2), (at(9, 9), 1)];
    assert_eq!(rows, expected);
}

/// Two results in the same second of a recreated topic. Their offsets are below the offset of the
/// row.
#[test]
fn results_of_a_recreated_topic_extend_the_sequence() {
    let at = |event_time, topic_offset| RowPlace { event_time, topic_offset };
    let ok = || Some(kind(0));
    let span = RowSpan::of_record(at(102, 174), None);
    let run = TimelineRow { row: RowRef::Stored(1), span, kind: ok() };
    let mut timeline = Timeline::new(vec![run], false);
    let span = RowSpan { last: at(103, 174), ..span };
    let merged = MergeDecision::Merge(RowRef::Stored(1), span);
    assert_eq!(timeline.add(at(103, 20), None, ok(), RowRef::New(0)), merged);
    assert_eq!(timeline.add(at(103, 21), None, ok(), RowRef::New(0)), merged);
    assert_eq!(timeline.add(at(103, 22), None, None, RowRef::New(0)), MergeDecision::Insert);
    // A record before all known rows is stored as a row of its own.
    assert_eq!(timeline.add(at(101, 23), None, ok(), RowRef::New(1)), MergeDecision::Insert);
}

const PERIOD_S: i64 = 30;
/// The number of the kind with this period.
const SLOTTED: Option<u8> = Some(3);

/// Random results of one run of a tracker, in the order of slots. Some results are failures, and
/// some are missing. Sometimes the machine stops for a while, so that two slots are far apart.
fn slot_events(random: &mut fastrand::Rng) -> Vec<SlotEvent> {
    let mut events = Vec::new();
    let mut start = 1_000;
    for slot in 0..60 {
        if random.u8(0..20) == 0 {
            start += random.i64(0..20) * PERIOD_S;
        }
        let second = start + slot * PERIOD_S + random.i64(0..PERIOD_S);
        let number = SLOTTED.filter(|_| random.u8(0..8) > 0);
        if random.u8(0..12) > 0 {
            events.push(SlotEvent { second, slot: Some(slot), number });
        }
    }
    events
}

/// The event times of the results of a row, in order.
fn seconds_of(row: &Stored) -> Vec<i64> {
    let mut seconds: Vec<i64> = row.results.iter().map(|(_, event)| event.second).collect();
    seconds.sort_unstable();
    seconds
}

/// The results of a run may arrive in any order. No result lies inside a row that does not include
/// it, and no row covers a time without probes.
#[test]
fn results_with_slots_may_arrive_in_any_order() {
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut events = slot_events(&mut random);
        random.shuffle(&mut events);
        let window = *random.choice(&[1, 3, usize::MAX]).unwrap();
        let mut table = SimulatedTable::default();
        let mut offset = 0;
        while offset < events.len() {
            let end = (offset + random.usize(1..20)).min(events.len());
            table.write_slots(offset as i64, &events[offset..end], window);
            offset = end;
        }
        let results: usize = table.rows.iter().map(|row| row.results.len()).sum();
        assert_eq!(results, events.len(), "seed {seed}");
        for row in &table.rows {
            let RowSpan { first, last, slots } = row.known.span;
            let seconds = seconds_of(row);
            let apart = seconds.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
            assert!(apart <= 3 * PERIOD_S, "seed {seed}: {row:?}");
            let (earliest, event) = row.results.iter().min_by_key(|it| it.1.second).unwrap();
            assert_eq!((first.event_time, first.topic_offset), (event.second, *earliest));
            assert_eq!(last.event_time, *seconds.last().unwrap(), "seed {seed}: {row:?}");
            assert_eq!(Some(last.topic_offset), row.results.iter().map(|it| it.0).max());
            // So the first slot of a stored row is known.
            let (first_slot, last_slot) = slots.unwrap();
            assert_eq!(last_slot - first_slot + 1, row.results.len() as i64, "seed {seed}");
            let inside = |event: &&SlotEvent| {
                (first.event_time..=last.event_time).contains(&event.second)
                    && !row.results.iter().any(|(_, it)| it == *event)
            };
            assert_eq!(events.iter().find(inside), None, "seed {seed}: {row:?}");
        }
    }
}

/// If results arrive in the order of slots, each stretch without a failure, a missing result or a
/// pause is one row.
#[test]
fn results_in_the_order_of_slots_make_one_row_for_each_stretch() {
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = slot_events(&mut random);
        let mut table = SimulatedTable::default();
        for (offset, batch) in (0..).step_by(7).zip(events.chunks(7)) {
            table.write_slots(offset, batch, 1);
        }
        let stretch = |one: &SlotEvent, other: &SlotEvent| {
            (one.number, other.number) == (SLOTTED, SLOTTED)
                && one.slot.map(|slot| slot + 1) == other.slot
                && other.second - one.second <= 3 * PERIOD_S
        };
        let expected: Vec<usize> = events.chunk_by(stretch).map(<[_]>::len).collect();
        let rows: Vec<usize> = table.rows.iter().map(|row| row.results.len()).collect();
        assert_eq!(rows, expected, "seed {seed}");
    }
}

/// A row of the slots 5 to 7, at these seconds.
fn slots_5_to_7(kind: RowKind) -> Timeline {
    let span = RowSpan {
        first: RowPlace { event_time: 150, topic_offset: 10 },
        last: RowPlace { event_time: 210, topic_offset: 12 },
        slots: Some((5, 7)),
    };
    Timeline::new(vec![TimelineRow { row: RowRef::Stored(1), span, kind: Some(kind) }], true)
}

#[test]
fn a_record_is_merged_only_into_a_row_that_it_adjoins() {
    let is_merged = |second: i64, slot: Option<i64>| {
        let place = RowPlace { event_time: second, topic_offset: 13 };
        let mut timeline = slots_5_to_7(kind(3));
        timeline.add(place, slot, SLOTTED.map(kind), RowRef::New(0)) != MergeDecision::Insert
    };
    assert!(is_merged(240, Some(8)) && is_merged(300, Some(8)));
    assert!(is_merged(120, Some(4)) && is_merged(60, Some(4)));
    // More than three periods apart.
    assert!(!is_merged(301, Some(8)) && !is_merged(59, Some(4)));
    // A slot between them is missing.
    assert!(!is_merged(240, Some(9)) && !is_merged(120, Some(3)));
    // A second target with the same key has the same slots.
    assert!(!is_merged(180, Some(6)) && !is_merged(215, Some(7)) && !is_merged(150, Some(5)));
    assert!(!is_merged(240, None));
    for extreme in [i64::MIN, i64::MAX] {
        assert!(!is_merged(240, Some(extreme)) && !is_merged(extreme, Some(8)));
    }
}

/// The clock of a tracker may be set back between two slots.
#[test]
fn slots_decide_although_the_clock_was_set_back() {
    let mut timeline = slots_5_to_7(kind(3));
    let mut merge = |event_time, topic_offset, slot| {
        let place = RowPlace { event_time, topic_offset };
        timeline.add(place, Some(slot), SLOTTED.map(kind), RowRef::New(0))
    };
    let at = |event_time, topic_offset| RowPlace { event_time, topic_offset };
    let span = RowSpan { first: at(150, 10), last: at(210, 13), slots: Some((5, 8)) };
    assert_eq!(merge(205, 13, 8), MergeDecision::Merge(RowRef::Stored(1), span));
    let span = RowSpan { last: at(235, 14), slots: Some((5, 9)), ..span };
    assert_eq!(merge(235, 14, 9), MergeDecision::Merge(RowRef::Stored(1), span));
}

/// Without slots, the event time decides. Without a period, it is 300 s.
#[test]
fn results_without_slots_are_merged_within_three_periods() {
    let rows = |number, seconds: &[i64]| {
        let mut table = SimulatedTable::default();
        let events: Vec<ResultEvent> = seconds.iter().map(|&second| (second, number)).collect();
        table.write(0, &events, usize::MAX);
        let mut rows: Vec<_> = table.rows.iter().map(seconds_of).collect();
        rows.sort();
        rows
    };
    assert_eq!(rows(Some(0), &[0, 900, 1_801]), [vec![0, 900], vec![1_801]]);
    assert_eq!(rows(Some(0), &[1_801, 0, 900]), [vec![0, 900], vec![1_801]]);
    assert_eq!(rows(Some(0), &[1_000, 100, 500]), [[100, 500, 1_000]]);
    assert_eq!(rows(Some(3), &[0, 90, 181]), [vec![0, 90], vec![181]]);
    assert_eq!(rows(None, &[0, 1]), [[0], [1]]);
}
