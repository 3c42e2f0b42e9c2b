//! Whether starts keep a grid, seen from outside.

use crate::site_server::RequestArrival;

/// How much later than a period after the start, or earlier than a period
/// before the end, a target's first or last start may be seen.
const EDGE_S: f64 = 1.0;

/// What was seen of all targets.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ScheduleResult {
    /// How late each start was, in milliseconds: against the earliest of its
    /// target, moved by whole periods.
    pub(crate) late_ms: Vec<f64>,
    /// Slots without a start.
    pub(crate) missed: usize,
    /// Starts beyond one a slot.
    pub(crate) doubled: usize,
}

/// A schedule to be judged.
pub(crate) struct ScheduleCheck<'a> {
    pub(crate) period_s: f64,
    /// When the program was started and when it was told to stop.
    pub(crate) span_s: (f64, f64),
    /// How often a target may be asked again within its slot.
    pub(crate) repeats: &'a dyn Fn(usize) -> usize,
}

impl ScheduleCheck<'_> {
    /// Judges what arrived for so many targets.
    pub(crate) fn judge(&self, targets: usize, arrivals: &[RequestArrival]) -> ScheduleResult {
        let mut starts = vec![Vec::new(); targets];
        for arrival in arrivals {
            if let Some(starts) = starts.get_mut(arrival.target) {
                starts.push(arrival.at_s);
            }
        }
        let mut result = ScheduleResult::default();
        for (target, starts) in starts.iter_mut().enumerate() {
            starts.sort_by(f64::total_cmp);
            self.one(starts, (self.repeats)(target), &mut result);
        }
        result
    }

    fn one(&self, starts: &[f64], repeats: usize, result: &mut ScheduleResult) {
        let mut firsts: Vec<f64> = Vec::new();
        let mut again = 0;
        for at_s in starts {
            match firsts.last() {
                Some(first) if at_s - first < self.period_s / 2.0 => {
                    again += 1;
                    result.doubled += usize::from(again > repeats);
                }
                _ => {
                    firsts.push(*at_s);
                    again = 0;
                }
            }
        }
        let (from_s, to_s) = self.span_s;
        let (Some(first), Some(last)) = (firsts.first(), firsts.last()) else {
            result.missed += ((to_s - from_s) / self.period_s) as usize;
            return;
        };
        // At both ends a slot is missed when a whole one would have had room.
        result.missed += ((first - from_s - EDGE_S).max(0.0) / self.period_s) as usize;
        result.missed += ((to_s - last - EDGE_S).max(0.0) / self.period_s) as usize;
        let slot = |at_s: &f64| ((at_s - first) / self.period_s).round();
        let phases: Vec<f64> =
            firsts.iter().map(|at_s| at_s - slot(at_s) * self.period_s).collect();
        let slots = slot(last) as usize + 1;
        result.missed += slots.saturating_sub(firsts.len());
        result.doubled += firsts.len().saturating_sub(slots);
        let earliest = phases.iter().copied().fold(f64::INFINITY, f64::min);
        result.late_ms.extend(phases.iter().map(|phase| (phase - earliest) * 1_000.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(starts_s: &[f64], repeats: usize) -> (Vec<i64>, usize, usize) {
        let arrivals: Vec<_> =
            starts_s.iter().map(|at_s| RequestArrival { at_s: *at_s, target: 0 }).collect();
        let grid = ScheduleCheck { period_s: 10.0, span_s: (0.0, 40.0), repeats: &|_| repeats };
        let ScheduleResult { late_ms, missed, doubled } = grid.judge(1, &arrivals);
        let late_us = late_ms.iter().map(|late| (late * 1_000.0).round() as i64).collect();
        (late_us, missed, doubled)
    }

    #[test]
    fn a_start_is_late_against_the_earliest_of_its_target() {
        let starts = [3.001, 13.0, 23.05, 33.0];
        assert_eq!(judge(&starts, 0), (vec![1_000, 0, 50_000, 0], 0, 0));
        // A drift is seen as well.
        assert_eq!(judge(&[3.0, 13.002, 23.004, 33.006], 0), (vec![0, 2_000, 4_000, 6_000], 0, 0));
    }

    #[test]
    fn slots_without_a_start_are_counted_at_both_ends_too() {
        assert_eq!(judge(&[3.0, 13.0, 33.0], 0).1, 1);
        assert_eq!(judge(&[3.0, 13.0, 23.0], 0).1, 1);
        assert_eq!(judge(&[13.0, 23.0, 33.0], 0).1, 1);
        assert_eq!(judge(&[], 0).1, 4);
        // One that is due as the program starts or ends.
        assert_eq!(judge(&[10.9, 20.9, 30.9], 0).1, 0);
    }

    #[test]
    fn a_start_beyond_one_a_slot_is_counted_unless_it_is_a_repeat() {
        let starts = [3.0, 4.0, 13.0, 23.0, 24.0, 25.0, 33.0];
        assert_eq!(judge(&starts, 0).2, 3);
        assert_eq!(judge(&starts, 1).2, 1);
        assert_eq!(judge(&starts, 2), (vec![0, 0, 0, 0], 0, 0));
    }
}
