use super::*;
use crate::targets::{Defaults, parse};

const PERIOD: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(1_000);

fn targets(list: &str, period: Duration) -> Vec<Arc<Target>> {
    let defaults = Defaults { period, ..Defaults::default() };
    parse(list, "x-", &defaults).unwrap().into_iter().map(Arc::new).collect()
}

/// Of each target that is due: its URL, what it missed, its slot.
fn drain(schedule: &mut Schedule, now: Duration) -> Vec<(String, u64, Option<u64>)> {
    std::iter::from_fn(|| schedule.pop(now))
        .map(|due| {
            (due.entry.target().recorded_url.clone(), due.missed, due.slot.map(|slot| slot.number))
        })
        .collect()
}

fn phase(target: &Target) -> Duration {
    share(target.period, target.phase_hash("oslo"))
}

#[test]
fn each_target_keeps_its_own_grid_for_ever() {
    let mut list = targets("http://a.io", PERIOD);
    list.extend(targets("http://b.io", Duration::from_millis(7_001)));
    let mut schedule = Schedule::new(START, "oslo", &list);
    let mut seen = [0_u32; 2];
    while seen[0] < 2_000 {
        let due_at = schedule.next_due().unwrap();
        let late = Duration::from_millis(u64::from(seen[1] % 4_999));
        for due in std::iter::from_fn(|| schedule.pop(due_at + late)) {
            let target = due.entry.target();
            let count = &mut seen[usize::from(target.recorded_url.ends_with("b.io"))];
            let slot = due.slot.unwrap();
            // However late a slot is seen, the next one does not move.
            assert_eq!(slot.due_at, START + phase(&target) + target.period * *count);
            assert_eq!((due.missed, slot.number), (0, u64::from(*count)));
            *count += 1;
        }
    }
    assert!((17_100..17_200).contains(&seen[1]), "{seen:?}");
}

#[test]
fn slots_that_went_by_are_counted_and_not_caught_up() {
    let list = targets("http://a.io,http://b.io", PERIOD);
    let mut schedule = Schedule::new(START, "oslo", &list);
    let [a, b] = [phase(&list[0]), phase(&list[1])];
    assert!(b > a + LATE_MAX && b < PERIOD - LATE_MAX, "{a:?} {b:?}");
    // Ten periods later the one is due just now, the other was so in between.
    let found = drain(&mut schedule, START + PERIOD * 10 + a + LATE_MAX);
    assert_eq!(found, [("http://a.io".into(), 10, Some(10)), ("http://b.io".into(), 10, None)]);
    assert_eq!(drain(&mut schedule, START + PERIOD * 10 + a + LATE_MAX), []);
    assert_eq!(schedule.next_due(), Some(START + PERIOD * 10 + b));
    let found = drain(&mut schedule, START + PERIOD * 10 + b);
    assert_eq!(found, [("http://b.io".into(), 0, Some(10))]);
}

#[test]
fn a_first_look_is_soon_for_some_and_slower_for_many_and_moves_no_slot() {
    for (count, span_s) in [(3, 1), (1_000, 10)] {
        let list: Vec<_> = (0..count).map(|number| format!("http://a.io/{number}")).collect();
        let list = targets(&list.join(","), PERIOD);
        let mut schedule = Schedule::new(START, "oslo", &list);
        schedule.look_at_once();
        let end = START + Duration::from_secs(span_s);
        let mut found = Vec::new();
        while let Some(due_at) = schedule.next_due().filter(|due_at| *due_at <= end) {
            found.extend(drain(&mut schedule, due_at));
        }
        let looked: std::collections::HashSet<_> = found.iter().map(|found| &found.0).collect();
        assert_eq!(looked.len(), count);
        assert!(schedule.first.is_empty());
        let on_grid = list.iter().filter(|target| START + phase(target) <= end).count();
        assert_eq!(found.iter().filter(|found| found.2 == Some(0)).count(), on_grid);
    }
}

#[test]
fn a_new_list_moves_no_target_that_stays() {
    let list = targets("http://a.io,http://b.io,http://c.io x", PERIOD);
    let mut schedule = Schedule::new(START, "oslo", &list);
    let now = START + PERIOD * 3;
    while schedule.next_due().unwrap() < now {
        let due_at = schedule.next_due().unwrap();
        schedule.pop(due_at).unwrap();
    }
    let stays = Arc::clone(schedule.entries().next().unwrap());
    let gone = Arc::clone(schedule.entries().nth(1).unwrap());
    gone.offer(None, false);
    let mut new = targets("http://d.io,http://c.io y", PERIOD);
    new.extend(targets("http://c.io x", PERIOD / 3));
    new.push(Arc::new(Target { retries: 7, ..(*list[0]).clone() }));
    let difference = schedule.apply(&new, now);
    assert_eq!(difference, Difference { added: 2, changed: 2, removed: 1 });
    assert!(gone.take().is_none());
    assert_eq!((stays.target().retries, Arc::strong_count(&stays)), (7, 2));
    let mut next: Vec<_> = std::iter::from_fn(|| schedule.pop(schedule.next_due()?))
        .take(40)
        .map(|due| (due.entry.target(), due.slot.unwrap(), due.missed))
        .collect();
    next.reverse();
    for target in &new {
        let first = next.iter().rfind(|(found, ..)| found == target).unwrap();
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
