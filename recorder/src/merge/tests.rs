use super::*;

/// One result: its second, and whether it was healthy.
type Event = (i64, bool);

/// A table of one target, fed in batches with a window of what is stored, as
/// the recorder feeds it.
#[derive(Default)]
struct Table {
    rows: Vec<Known>,
}

impl Table {
    fn write(&mut self, first_offset: i64, batch: &[Event], window: usize) {
        self.rows.sort_by_key(|known| known.place);
        let known: Vec<_> = self.rows.iter().rev().take(window).copied().collect();
        let reaches_back = known.len() == self.rows.len();
        let mut timeline = Timeline::new(known, reaches_back);
        let stored = self.rows.len();
        for (index, &(event_time, healthy)) in batch.iter().enumerate() {
            let topic_offset = first_offset + index as i64;
            let place = Place { event_time, topic_offset };
            let row = RowRef::Stored(self.rows.len() as i64);
            match timeline.add(place, healthy, row) {
                Change::Insert => self.rows.push(Known { row, place, healthy }),
                Change::Merge(into, place) => {
                    let found = self.rows.iter_mut().find(|known| known.row == into).unwrap();
                    assert!(found.healthy && healthy, "merged across a failure");
                    assert!(place.event_time >= found.place.event_time, "moved backwards");
                    assert!(place.topic_offset >= topic_offset, "lost an offset");
                    found.place = place;
                }
            }
        }
        assert!(self.rows.len() >= stored);
    }

    /// Runs of healthy rows as one, failures one by one with their second.
    fn history(&self) -> Vec<Option<i64>> {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|known| known.place);
        compress(rows.iter().map(|known| (known.place.event_time, known.healthy)))
    }
}

/// None for a run of healthy results, the second for each failure.
fn compress(events: impl Iterator<Item = Event>) -> Vec<Option<i64>> {
    let mut history: Vec<Option<i64>> = Vec::new();
    for (second, healthy) in events {
        match healthy {
            true if history.last() == Some(&None) => {}
            true => history.push(None),
            false => history.push(Some(second)),
        }
    }
    history
}

/// Results in the order of their arrival: mostly in step, some late.
fn arrivals(random: &mut fastrand::Rng, late_failures: bool) -> Vec<Event> {
    let mut events = Vec::new();
    let mut second = 100;
    for _ in 0..random.usize(1..60) {
        second += random.i64(0..3);
        let healthy = random.u8(0..10) < 7;
        let late = random.u8(0..10) < 3 && (healthy || late_failures);
        events.push((if late { second - random.i64(0..30) } else { second }, healthy));
    }
    if !late_failures {
        // A failure is in time when nothing that arrived before is newer.
        let mut newest = i64::MIN;
        for (second, healthy) in &mut events {
            if !*healthy {
                *second = (*second).max(newest);
            }
            newest = newest.max(*second);
        }
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

fn in_order(events: &[Event]) -> impl Iterator<Item = Event> {
    let mut ordered: Vec<_> = events.iter().copied().enumerate().collect();
    ordered.sort_by_key(|(offset, (second, _))| (*second, *offset));
    ordered.into_iter().map(|(_, event)| event)
}

/// Goes red when `merge_into` leaves out the check against the next row, or
/// `add` the one for `healthy`.
#[test]
fn the_rows_tell_the_history() {
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = arrivals(&mut random, false);
        let table = recorded(&mut random, &events);
        assert_eq!(table.history(), compress(in_order(&events)), "seed {seed}: {events:?}");
        let offsets = table.rows.iter().map(|known| known.place.topic_offset);
        assert_eq!(offsets.max(), Some(events.len() as i64 - 1), "seed {seed}");
    }
}

#[test]
fn with_late_failures_no_failure_is_lost_and_nothing_is_made_up() {
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let events = arrivals(&mut random, true);
        let told = recorded(&mut random, &events).history();
        let truth = compress(in_order(&events));
        let failures = |history: &[Option<i64>]| history.iter().flatten().count();
        assert_eq!(failures(&told), failures(&truth), "seed {seed}");
        // What is told is the truth, less some healthy runs.
        let mut rest = truth.iter();
        for state in &told {
            assert!(rest.any(|true_state| true_state == state), "seed {seed}: {told:?} {truth:?}");
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
        assert_eq!(table.history(), compress(in_order(&events)), "seed {seed}: {events:?}");
    }
}

#[test]
fn records_in_step_make_one_row_for_each_run() {
    let mut table = Table::default();
    let events = [(1, true), (2, true), (3, false), (4, false), (5, true), (6, true), (6, true)];
    table.write(0, &events, usize::MAX);
    let rows: Vec<_> =
        table.rows.iter().map(|k| (k.place.event_time, k.place.topic_offset)).collect();
    assert_eq!(rows, [(2, 1), (3, 2), (4, 3), (6, 6)]);
}

/// Two results of one second in a topic that was made again, whose offsets are
/// below that of the row. Goes red when `begins` is not looked at.
#[test]
fn results_of_a_topic_made_again_go_on_with_the_run() {
    let at = |event_time, topic_offset| Place { event_time, topic_offset };
    let run = Known { row: RowRef::Stored(1), place: at(102, 174), healthy: true };
    let mut timeline = Timeline::new(vec![run], false);
    let merged = Change::Merge(RowRef::Stored(1), at(103, 174));
    assert_eq!(timeline.add(at(103, 20), true, RowRef::New(0)), merged);
    assert_eq!(timeline.add(at(103, 21), true, RowRef::New(0)), merged);
    assert_eq!(timeline.add(at(103, 22), false, RowRef::New(0)), Change::Insert);
    // What is before all that is known stays by itself.
    assert_eq!(timeline.add(at(101, 23), true, RowRef::New(1)), Change::Insert);
}
