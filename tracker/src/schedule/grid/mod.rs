//! The grid: target *i* is due at `start + phase_i + k · period_i`. No probe, pause or reload
//! moves it.
//!
//! This module reads no clock: callers pass the time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::schedule::slot_account::{ScheduledTarget, Slot};
use crate::targets::Target;

/// Longest delay after which a slot is still probed; a shorter period is the limit if there is one.
/// Later slots are missed: after a suspension each target is probed at its next slot, and not all
/// of them at once.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// Most probes per second in the first round. The round takes at least one second.
const FIRST_ROUND_PROBES_PER_SECOND: usize = 100;

/// Most removed targets whose slot numbers are remembered in case they come back. With more than
/// that all are forgotten, and start at slot 0 again.
const REMOVED_MAX: usize = 100_000;

/// Due times and target indices, the earliest first.
type DueHeap = BinaryHeap<Reverse<(Duration, usize)>>;

/// The due times of all targets.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Origin of the grid by the schedule's clock.
    start: Duration,
    location: String,
    targets: Vec<GridTarget>,
    /// One entry per target.
    due: DueHeap,
    /// Probes of the first round.
    first_round: DueHeap,
    /// Targets that are no longer on the list.
    removed: HashMap<UrlAndName, GridTarget>,
}

/// Identifies a target across reloads: URL and name.
type UrlAndName = (String, Option<String>);

#[derive(Debug)]
struct GridTarget {
    target: Arc<ScheduledTarget>,
    period: Duration,
    next_slot: Slot,
}

/// A target that is due.
#[derive(Debug)]
pub(crate) struct DueTarget {
    pub(crate) target: Arc<ScheduledTarget>,
    /// Slots that passed unnoticed: all slots before `slot`, or up to now if `slot` is `None`.
    pub(crate) missed: u64,
    /// The slot to probe for. `None` in the first round.
    pub(crate) slot: Option<Slot>,
    /// False if even the last slot passed too long ago to be probed.
    pub(crate) is_probed: bool,
}

/// Numbers of targets that a new list changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScheduleChanges {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
}

impl Schedule {
    /// Makes a schedule whose grid starts at `start`.
    pub(crate) fn new(start: Duration, location: &str, targets: &[Arc<Target>]) -> Self {
        let mut schedule = Self {
            start,
            location: location.to_owned(),
            targets: Vec::new(),
            due: BinaryHeap::new(),
            first_round: BinaryHeap::new(),
            removed: HashMap::new(),
        };
        schedule.apply(targets, start);
        schedule
    }

    /// Schedules a first round of probes outside the grid, for a user who watches the output. It
    /// leaves out targets that are due soon anyway.
    pub(crate) fn schedule_first_round(&mut self) {
        let seconds = self.targets.len().div_ceil(FIRST_ROUND_PROBES_PER_SECOND).max(1);
        let span = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
        for (index, entry) in self.targets.iter().enumerate() {
            if entry.next_slot.due_at > self.start + span {
                let hash = entry.target.target().phase_hash(&self.location);
                self.first_round.push(Reverse((self.start + fraction(span, hash), index)));
            }
        }
    }

    /// Replaces the list of targets.
    ///
    /// A target that stays on the list keeps its grid and its account, even if its other options
    /// change. With another period it moves to the grid of that period and continues its slot
    /// numbers. A target that comes back also continues them: the slots in between were not due.
    pub(crate) fn apply(&mut self, targets: &[Arc<Target>], now: Duration) -> ScheduleChanges {
        let mut changes = ScheduleChanges::default();
        let old = std::mem::take(&mut self.targets);
        let mut old: HashMap<_, _> =
            old.into_iter().map(|entry| (key(&entry.target.target()), entry)).collect();
        for target in targets {
            let entry = match old.remove(&key(target)) {
                None => {
                    changes.added += 1;
                    self.add_or_restore(target, now)
                }
                Some(mut entry) => {
                    if *entry.target.target() != **target {
                        changes.changed += 1;
                    }
                    entry.target.set_target(Arc::clone(target));
                    if entry.period != target.period {
                        entry.period = target.period;
                        entry.next_slot.due_at = self.first_due(target, now);
                    }
                    entry
                }
            };
            self.targets.push(entry);
        }
        changes.removed = old.len();
        old.values().for_each(|entry| entry.target.remove());
        if self.removed.len() + old.len() > REMOVED_MAX {
            self.removed.clear();
        }
        self.removed.extend(old);
        let due = |(index, entry): (usize, &GridTarget)| Reverse((entry.next_slot.due_at, index));
        self.due = self.targets.iter().enumerate().map(due).collect();
        self.first_round.clear();
        changes
    }

    fn add_or_restore(&mut self, target: &Arc<Target>, now: Duration) -> GridTarget {
        let due_at = self.first_due(target, now);
        let (scheduled, number) = match self.removed.remove(&key(target)) {
            Some(removed) => (removed.target, removed.next_slot.number),
            None => (Arc::new(ScheduledTarget::new(Arc::clone(target))), 0),
        };
        scheduled.set_target(Arc::clone(target));
        let next_slot = Slot { number, due_at };
        GridTarget { target: scheduled, period: target.period, next_slot }
    }

    /// Returns the first time on the target's grid that is not before `now`.
    fn first_due(&self, target: &Target, now: Duration) -> Duration {
        let phase = fraction(target.period, target.phase_hash(&self.location));
        let since_phase = now.saturating_sub(self.start + phase);
        let slots = since_phase.as_nanos().div_ceil(target.period.as_nanos());
        self.start + phase + multiple(target.period, slots)
    }

    #[cfg(test)]
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Arc<ScheduledTarget>> {
        self.targets.iter().map(|entry| &entry.target)
    }

    /// Returns when the next target is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let heaps = [self.first_round.peek(), self.due.peek()];
        heaps.into_iter().flatten().map(|due| due.0.0).min()
    }

    /// Removes and returns the next target that is due by `now`, with all its slots until then:
    /// the last slot is to be probed unless it is too late, the other slots are missed.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<DueTarget> {
        if self.first_round.peek().is_some_and(|first| first.0.0 <= now) {
            let Reverse((_, index)) = self.first_round.pop()?;
            let target = Arc::clone(&self.targets.get(index)?.target);
            return Some(DueTarget { target, missed: 0, slot: None, is_probed: true });
        }
        let mut top = self.due.peek_mut()?;
        let Reverse((due_at, index)) = *top;
        let delay = now.checked_sub(due_at)?;
        let entry = self.targets.get_mut(index)?;
        let slots_after = delay.as_nanos() / entry.period.as_nanos();
        let last = Slot {
            number: entry.next_slot.number + u64::try_from(slots_after).unwrap_or(u64::MAX),
            due_at: due_at + multiple(entry.period, slots_after),
        };
        let is_probed = now - last.due_at <= DELAY_MAX.min(entry.period);
        let missed = last.number - entry.next_slot.number + u64::from(!is_probed);
        entry.next_slot = Slot { number: last.number + 1, due_at: last.due_at + entry.period };
        *top = Reverse((entry.next_slot.due_at, index));
        let target = Arc::clone(&entry.target);
        Some(DueTarget { target, missed, slot: is_probed.then_some(last), is_probed })
    }
}

fn key(target: &Target) -> UrlAndName {
    (target.url.to_string(), target.name.clone())
}

fn multiple(period: Duration, count: u128) -> Duration {
    let nanos = period.as_nanos() * count;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Returns `span · hash / 2^64`: the same fraction of the span as the hash is of all hashes.
fn fraction(span: Duration, hash: u64) -> Duration {
    let nanos = (span.as_nanos() * u128::from(hash)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
