//! Checks from outside whether a program keeps its schedule.

use crate::site_server::RequestArrival;

/// Tolerance for the first and last start of a target: the first start may be this much later
/// than one period after the start of the program, the last one this much earlier than one period
/// before its end.
const EDGE_S: f64 = 1.0;

/// The result for all targets.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ScheduleResult {
    /// Lateness of each start in milliseconds, relative to the earliest start of its target,
    /// modulo the period.
    pub(crate) late_ms: Vec<f64>,
    /// Slots without a start.
    pub(crate) missed: usize,
    /// Starts beyond one per slot.
    pub(crate) doubled: usize,
}

/// A schedule to check.
pub(crate) struct ScheduleCheck<'a> {
    pub(crate) period_s: f64,
    /// The start and the end of the program.
    pub(crate) span_s: (f64, f64),
    /// How often a target may be requested again in the same slot.
    pub(crate) repeats: &'a dyn Fn(usize) -> usize,
}

impl ScheduleCheck<'_> {
    /// Checks the requests of this many targets.
    pub(crate) fn check(&self, targets: usize, arrivals: &[RequestArrival]) -> ScheduleResult {
        let mut starts = vec![Vec::new(); targets];
        for arrival in arrivals {
            if let Some(starts) = starts.get_mut(arrival.target) {
                starts.push(arrival.at_s);
            }
        }
        let mut result = ScheduleResult::default();
        for (target, starts) in starts.iter_mut().enumerate() {
            starts.sort_by(f64::total_cmp);
            self.check_target(starts, (self.repeats)(target), &mut result);
        }
        result
    }

    fn check_target(&self, starts: &[f64], repeats: usize, result: &mut ScheduleResult) {
        let mut slot_starts: Vec<f64> = Vec::new();
        let mut repeated = 0;
        for at_s in starts {
            match slot_starts.last() {
                Some(first) if at_s - first < self.period_s / 2.0 => {
                    repeated += 1;
                    result.doubled += usize::from(repeated > repeats);
                }
                _ => {
                    slot_starts.push(*at_s);
                    repeated = 0;
                }
            }
        }
        let (from_s, to_s) = self.span_s;
        let (Some(first), Some(last)) = (slot_starts.first(), slot_starts.last()) else {
            result.missed += ((to_s - from_s) / self.period_s) as usize;
            return;
        };
        // At both ends a slot counts as missed only if a whole period would have fit.
        result.missed += ((first - from_s - EDGE_S).max(0.0) / self.period_s) as usize;
        result.missed += ((to_s - last - EDGE_S).max(0.0) / self.period_s) as usize;
        let slot = |at_s: &f64| ((at_s - first) / self.period_s).round();
        let offsets_s: Vec<f64> =
            slot_starts.iter().map(|at_s| at_s - slot(at_s) * self.period_s).collect();
        let slots = slot(last) as usize + 1;
        result.missed += slots.saturating_sub(slot_starts.len());
        result.doubled += slot_starts.len().saturating_sub(slots);
        let earliest = offsets_s.iter().copied().fold(f64::INFINITY, f64::min);
        result.late_ms.extend(offsets_s.iter().map(|offset_s| (offset_s - earliest) * 1_000.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(starts_s: &[f64], repeats: usize) -> (Vec<i64>, usize, usize) {
        let arrivals: Vec<_> =
            starts_s.iter().map(|at_s| RequestArrival { at_s: *at_s, target: 0 }).collect();
        let schedule = ScheduleCheck { period_s: 10.0, span_s: (0.0, 40.0), repeats: &|_| repeats };
        let ScheduleResult { late_ms, missed, doubled } = schedule.check(1, &arrivals);
        let late_us = late_ms.iter().map(|late| (late * 1_000.0).round() as i64).collect();
        (late_us, missed, doubled)
    }

    #[test]
    fn lateness_is_relative_to_the_earliest_start_of_a_target() {
        let starts = [3.001, 13.0, 23.05, 33.0];
        assert_eq!(check(&starts, 0), (vec![1_000, 0, 50_000, 0], 0, 0));
        // Drift counts as lateness.
        assert_eq!(check(&[3.0, 13.002, 23.004, 33.006], 0), (vec![0, 2_000, 4_000, 6_000], 0, 0));
    }

    #[test]
    fn slots_without_a_start_are_counted_at_both_ends() {
        assert_eq!(check(&[3.0, 13.0, 33.0], 0).1, 1);
        assert_eq!(check(&[3.0, 13.0, 23.0], 0).1, 1);
        assert_eq!(check(&[13.0, 23.0, 33.0], 0).1, 1);
        assert_eq!(check(&[], 0).1, 4);
        // A slot that is due when the program starts or ends does not count.
        assert_eq!(check(&[10.9, 20.9, 30.9], 0).1, 0);
    }

    #[test]
    fn extra_starts_are_counted_unless_they_are_repeats() {
        let starts = [3.0, 4.0, 13.0, 23.0, 24.0, 25.0, 33.0];
        assert_eq!(check(&starts, 0).2, 3);
        assert_eq!(check(&starts, 1).2, 1);
        assert_eq!(check(&starts, 2), (vec![0, 0, 0, 0], 0, 0));
    }
}
