//! The grid: target *i* is due at `start + phase_i + k · period_i` for ever, and
//! no probe, pause or reload moves it.
//!
//! It reads no clock, so that tests bring their own.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::schedule::slot_account::{Entry, Slot};
use crate::targets::Target;

/// A slot that the ticker sees later than this, or than the period if that is
/// shorter, is missed: after a sleep or a standstill the targets are probed
/// each at its next slot, and not all at once.
const LATE_MAX: Duration = Duration::from_secs(5);

/// A first round of probes takes a second, or longer for so many targets that
/// more than this would start in one.
const FIRST_LOOKS_A_SECOND: usize = 100;

/// Targets that were taken off the list, whose numbers are kept for the case that
/// they come back. Beyond so many all are forgotten, and begin at 0 again.
const GONE_MAX: usize = 100_000;

/// The times at which targets are due.
#[derive(Debug)]
pub struct Schedule {
    /// The grid's origin, by the grid's clock.
    start: Duration,
    location: String,
    planned: Vec<Planned>,
    /// Due time and index, the earliest on top: one a target.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    /// Those of a first round, in the same form.
    first: BinaryHeap<Reverse<(Duration, usize)>>,
    /// What is no longer on the list.
    gone: HashMap<Key, Planned>,
}

/// What makes a target the same one in another list: its URL and its name.
type Key = (String, Option<String>);

#[derive(Debug)]
struct Planned {
    entry: Arc<Entry>,
    period: Duration,
    /// The next slot, and when it is due.
    next: Slot,
}

/// A target that is due.
#[derive(Debug)]
pub struct Due {
    /// The target.
    pub entry: Arc<Entry>,
    /// Slots that went by before it was seen: those in front of `slot`, or, if
    /// there is none, the last ones.
    pub missed: u64,
    /// The slot to probe for.
    pub slot: Option<Slot>,
    /// Whether to probe.
    pub probe: bool,
}

/// What a new list changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    /// Targets that were not there.
    pub added: usize,
    /// Those of which something else is asked now.
    pub changed: usize,
    /// Those that are gone.
    pub removed: usize,
}

impl Schedule {
    /// A schedule that begins at `start`.
    pub fn new(start: Duration, location: &str, targets: &[Arc<Target>]) -> Self {
        let mut schedule = Self {
            start,
            location: location.to_owned(),
            planned: Vec::new(),
            due: BinaryHeap::new(),
            first: BinaryHeap::new(),
            gone: HashMap::new(),
        };
        schedule.apply(targets, start);
        schedule
    }

    /// Lets every target be probed once soon as well, beside the grid, for
    /// somebody who watches; but for those that are due soon anyway.
    pub fn look_at_once(&mut self) {
        let spans = self.planned.len().div_ceil(FIRST_LOOKS_A_SECOND).max(1);
        let span = Duration::from_secs(u64::try_from(spans).unwrap_or(u64::MAX));
        for (index, planned) in self.planned.iter().enumerate() {
            if planned.next.due_at > self.start + span {
                let hash = planned.entry.target().phase_hash(&self.location);
                self.first.push(Reverse((self.start + share(span, hash), index)));
            }
        }
    }

    /// Takes a new list. A target that stays, by URL and name, keeps its place
    /// and its account, whatever else of it changes; with another period it
    /// gets that grid's place and goes on with its numbers. So does one that comes
    /// back: the slots in between were not due.
    pub fn apply(&mut self, targets: &[Arc<Target>], now: Duration) -> Difference {
        let mut difference = Difference::default();
        let old = std::mem::take(&mut self.planned);
        let mut old: HashMap<_, _> =
            old.into_iter().map(|planned| (key(&planned.entry.target()), planned)).collect();
        for target in targets {
            let planned = match old.remove(&key(target)) {
                None => {
                    difference.added += 1;
                    let due_at = self.first_due(target, now);
                    let (entry, number) = match self.gone.remove(&key(target)) {
                        Some(gone) => (gone.entry, gone.next.number),
                        None => (Arc::new(Entry::new(Arc::clone(target))), 0),
                    };
                    entry.change(Arc::clone(target));
                    Planned { entry, period: target.period, next: Slot { number, due_at } }
                }
                Some(mut planned) => {
                    if *planned.entry.target() != **target {
                        difference.changed += 1;
                    }
                    planned.entry.change(Arc::clone(target));
                    if planned.period != target.period {
                        planned.period = target.period;
                        planned.next.due_at = self.first_due(target, now);
                    }
                    planned
                }
            };
            self.planned.push(planned);
        }
        difference.removed = old.len();
        old.values().for_each(|planned| planned.entry.remove());
        if self.gone.len() + old.len() > GONE_MAX {
            self.gone.clear();
        }
        self.gone.extend(old);
        let due = |(index, planned): (usize, &Planned)| Reverse((planned.next.due_at, index));
        self.due = self.planned.iter().enumerate().map(due).collect();
        self.first.clear();
        difference
    }

    /// The first place of the target's grid that is not before `now`.
    fn first_due(&self, target: &Target, now: Duration) -> Duration {
        let phase = share(target.period, target.phase_hash(&self.location));
        let ahead = now.saturating_sub(self.start + phase);
        let slots = ahead.as_nanos().div_ceil(target.period.as_nanos());
        self.start + phase + times(target.period, slots)
    }

    /// The targets, for what is to be done with each.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.planned.iter().map(|planned| &planned.entry)
    }

    /// When the next target is due.
    pub fn next_due(&self) -> Option<Duration> {
        [self.first.peek(), self.due.peek()].into_iter().flatten().map(|due| due.0.0).min()
    }

    /// The next target that is due by `now`. All its slots until then are dealt
    /// with: the last is to be probed for, unless that is late, too.
    pub fn pop(&mut self, now: Duration) -> Option<Due> {
        if self.first.peek().is_some_and(|first| first.0.0 <= now) {
            let Reverse((_, index)) = self.first.pop()?;
            let entry = Arc::clone(&self.planned.get(index)?.entry);
            return Some(Due { entry, missed: 0, slot: None, probe: true });
        }
        let mut top = self.due.peek_mut()?;
        let Reverse((at, index)) = *top;
        let late = now.checked_sub(at)?;
        let planned = self.planned.get_mut(index)?;
        let before = late.as_nanos() / planned.period.as_nanos();
        let last = Slot {
            number: planned.next.number + u64::try_from(before).unwrap_or(u64::MAX),
            due_at: at + times(planned.period, before),
        };
        let probe = now - last.due_at <= LATE_MAX.min(planned.period);
        let missed = last.number - planned.next.number + u64::from(!probe);
        planned.next = Slot { number: last.number + 1, due_at: last.due_at + planned.period };
        *top = Reverse((planned.next.due_at, index));
        let entry = Arc::clone(&planned.entry);
        Some(Due { entry, missed, slot: probe.then_some(last), probe })
    }
}

fn key(target: &Target) -> Key {
    (target.url.to_string(), target.name.clone())
}

fn times(period: Duration, count: u128) -> Duration {
    let nanos = period.as_nanos() * count;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The part of `span` that `hash` is of all hashes.
fn share(span: Duration, hash: u64) -> Duration {
    let nanos = (span.as_nanos() * u128::from(hash)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
