use super::*;
use crate::targets::{TargetDefaults, parse_websites};

const PERIOD: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(1_000);

fn targets(list: &str, period: Duration) -> Vec<Arc<Target>> {
    let defaults = TargetDefaults { period, ..TargetDefaults::default() };
    parse_websites(list, "x-", &defaults).unwrap().into_iter().map(Arc::new).collect()
}

/// Pops all due targets: URL, missed slots and slot number of each.
fn pop_all(schedule: &mut Schedule, now: Duration) -> Vec<(String, u64, Option<u64>)> {
    std::iter::from_fn(|| schedule.pop_due(now))
        .map(|due| {
            (due.target.target().recorded_url.clone(), due.missed, due.slot.map(|slot| slot.number))
        })
        .collect()
}

fn phase(target: &Target) -> Duration {
    fraction(target.period, target.phase_hash("oslo"))
}

#[test]
fn the_grid_of_a_target_never_moves() {
    let mut list = targets("http://a.io", PERIOD);
    list.extend(targets("http://b.io", Duration::from_millis(7_001)));
    let mut schedule = Schedule::new(START, "oslo", &list);
    let mut counts = [0_u32; 2];
    while counts[0] < 2_000 {
        let due_at = schedule.next_due().unwrap();
        let delay = Duration::from_millis(u64::from(counts[1] % 4_999));
        for due in std::iter::from_fn(|| schedule.pop_due(due_at + delay)) {
            let target = due.target.target();
            let count = &mut counts[usize::from(target.recorded_url.ends_with("b.io"))];
            let slot = due.slot.unwrap();
            // A late slot does not move the next slot.
            assert_eq!(slot.due_at, START + phase(&target) + target.period * *count);
            assert_eq!((due.missed, slot.number), (0, u64::from(*count)));
            *count += 1;
        }
    }
    assert!((17_100..17_200).contains(&counts[1]), "{counts:?}");
}

#[test]
fn missed_slots_are_counted_and_not_probed_later() {
    let list = targets("http://a.io,http://b.io", PERIOD);
    let mut schedule = Schedule::new(START, "oslo", &list);
    let [a, b] = [phase(&list[0]), phase(&list[1])];
    assert!(b > a + DELAY_MAX && b < PERIOD - DELAY_MAX, "{a:?} {b:?}");
    // Ten periods later target a is just due, and the last slot of b is too late.
    let popped = pop_all(&mut schedule, START + PERIOD * 10 + a + DELAY_MAX);
    assert_eq!(popped, [("http://a.io".into(), 10, Some(10)), ("http://b.io".into(), 10, None)]);
    assert_eq!(pop_all(&mut schedule, START + PERIOD * 10 + a + DELAY_MAX), []);
    assert_eq!(schedule.next_due(), Some(START + PERIOD * 10 + b));
    let popped = pop_all(&mut schedule, START + PERIOD * 10 + b);
    assert_eq!(popped, [("http://b.io".into(), 0, Some(10))]);
}

#[test]
fn the_first_round_is_spread_over_seconds_and_moves_no_slot() {
    for (count, span_s) in [(3, 1), (1_000, 10)] {
        let list: Vec<_> = (0..count).map(|number| format!("http://a.io/{number}")).collect();
        let list = targets(&list.join(","), PERIOD);
        let mut schedule = Schedule::new(START, "oslo", &list);
        schedule.schedule_first_round();
        let end = START + Duration::from_secs(span_s);
        let mut popped = Vec::new();
        while let Some(due_at) = schedule.next_due().filter(|due_at| *due_at <= end) {
            popped.extend(pop_all(&mut schedule, due_at));
        }
        let urls: std::collections::HashSet<_> = popped.iter().map(|popped| &popped.0).collect();
        assert_eq!(urls.len(), count);
        assert!(schedule.first_round.is_empty());
        let on_grid = list.iter().filter(|target| START + phase(target) <= end).count();
        assert_eq!(popped.iter().filter(|popped| popped.2 == Some(0)).count(), on_grid);
    }
}

#[test]
fn a_reload_moves_no_target_that_stays() {
    let list = targets("http://a.io,http://b.io,http://c.io x", PERIOD);
    let mut schedule = Schedule::new(START, "oslo", &list);
    let now = START + PERIOD * 3;
    while schedule.next_due().unwrap() < now {
        let due_at = schedule.next_due().unwrap();
        schedule.pop_due(due_at).unwrap();
    }
    let kept = Arc::clone(schedule.targets().next().unwrap());
    let removed = Arc::clone(schedule.targets().nth(1).unwrap());
    removed.enqueue(None, false);
    let mut new = targets("http://d.io,http://c.io y", PERIOD);
    new.extend(targets("http://c.io x", PERIOD / 3));
    new.push(Arc::new(Target { retries: 7, ..(*list[0]).clone() }));
    let changes = schedule.apply(&new, now);
    assert_eq!(changes, ScheduleChanges { added: 2, changed: 2, removed: 1 });
    assert!(removed.start_job().is_none());
    assert_eq!((kept.target().retries, Arc::strong_count(&kept)), (7, 2));
    let mut next: Vec<_> = std::iter::from_fn(|| schedule.pop_due(schedule.next_due()?))
        .take(40)
        .map(|due| (due.target.target(), due.slot.unwrap(), due.missed))
        .collect();
    next.reverse();
    for target in &new {
        let first = next.iter().rfind(|(popped, ..)| popped == target).unwrap();
        assert_eq!(first.2, 0, "{target:?}");
        let number = match &*target.recorded_url {
            "http://d.io" => 0,
            "http://c.io" if target.name.as_deref() == Some("y") => 0,
            _ => 3,
        };
        assert_eq!(first.1.number, number, "{target:?}");
        assert!(first.1.due_at >= now && first.1.due_at < now + target.period);
        let since = first.1.due_at - START - phase(target);
        assert_eq!(since.as_nanos() % target.period.as_nanos(), 0);
    }
}
