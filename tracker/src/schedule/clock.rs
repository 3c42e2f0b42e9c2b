//! The three clocks, and the events that their differences reveal.
//!
//! The schedule uses CLOCK_BOOTTIME. Nobody can set this clock, and it counts the time that the
//! machine is suspended, so that slots in that time are recognized as missed. CLOCK_MONOTONIC, the
//! clock of [`std::time::Instant`], stops while the machine is suspended; the difference of both
//! is the duration of the suspension. The wall clock provides the timestamps of records and
//! nothing else.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Smallest difference between wall clock and schedule clock that counts as a step. NTP corrects
/// smaller differences slowly.
const STEP_MIN: Duration = Duration::from_secs(1);

/// Shortest suspension that is recognized. Shorter differences come from reading the clocks one
/// after the other.
const SUSPENSION_MIN: Duration = Duration::from_millis(100);

/// Longest duration of reading all clocks that allows comparing them.
const READ_TIME_MAX: Duration = Duration::from_millis(5);
/// Attempts to read the clocks within [`READ_TIME_MAX`].
const READ_ATTEMPTS_MAX: usize = 5;

/// Returns the time of the schedule's clock: the time since the machine started.
pub(crate) fn now() -> Duration {
    read_clock(ClockId::Boottime)
}

fn read_clock(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    // The wall clock is before 1970 only if it was never set.
    let whole = Duration::from_secs(u64::try_from(tv_sec).unwrap_or(0));
    whole + Duration::from_nanos(u64::try_from(tv_nsec).unwrap_or(0))
}

/// All clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockReadings {
    /// The schedule's clock.
    pub(crate) now: Duration,
    /// The same clock without the time that the machine was suspended.
    pub(crate) awake: Duration,
    /// The wall clock, since 1970.
    pub(crate) wall: Duration,
}

impl ClockReadings {
    /// Reads the clocks. Repeats this a few times if the thread was interrupted in between.
    pub(crate) fn read() -> Self {
        let mut readings = Self::read_once();
        for _ in 1..READ_ATTEMPTS_MAX {
            let read_time = read_clock(ClockId::Monotonic).saturating_sub(readings.awake);
            if read_time <= READ_TIME_MAX {
                break;
            }
            readings = Self::read_once();
        }
        readings
    }

    fn read_once() -> Self {
        let awake = read_clock(ClockId::Monotonic);
        Self { awake, now: now(), wall: read_clock(ClockId::Realtime) }
    }
}

/// The changes of the clocks between two readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClockChange {
    /// How long the machine was suspended.
    pub(crate) suspended: Duration,
    /// Step of the wall clock in seconds, negative if it was set back. 0: no step of a second or
    /// more.
    pub(crate) wall_step_s: f64,
}

impl ClockChange {
    pub(crate) fn between(earlier: ClockReadings, later: ClockReadings) -> Self {
        let elapsed = later.now.saturating_sub(earlier.now);
        let suspended = elapsed.saturating_sub(later.awake.saturating_sub(earlier.awake));
        let expected_wall = earlier.wall + elapsed;
        let wall_step_s = match later.wall.abs_diff(expected_wall) {
            step if step < STEP_MIN => 0.0,
            step if later.wall < expected_wall => -step.as_secs_f64(),
            step => step.as_secs_f64(),
        };
        let suspended = if suspended < SUSPENSION_MIN { Duration::ZERO } else { suspended };
        Self { suspended, wall_step_s }
    }

    /// Logs a suspension and a step of the wall clock.
    pub(crate) fn log(self) {
        if !self.suspended.is_zero() {
            log::warn!("the machine was suspended for {:.1} s", self.suspended.as_secs_f64());
        }
        if self.wall_step_s != 0.0 {
            log::warn!(
                "the wall clock was set by {:+.1} s: this changes the timestamps of records, not the schedule",
                self.wall_step_s
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspension_and_a_step_are_distinguished() {
        let s = Duration::from_secs;
        let earlier = ClockReadings { now: s(1000), awake: s(900), wall: s(1_700_000_000) };
        for (now, awake, wall, suspended, wall_step_s) in [
            (1, 1, 1, 0, 0.0),
            // The wall clock runs during a suspension.
            (3601, 1, 3601, 3600, 0.0),
            (1, 1, 1 + 7200, 0, 7200.0),
            (3601, 1, 1, 3600, -3600.0),
        ] {
            let later = ClockReadings {
                now: earlier.now + s(now),
                awake: earlier.awake + s(awake),
                wall: earlier.wall + s(wall),
            };
            assert_eq!(
                ClockChange::between(earlier, later),
                ClockChange { suspended: s(suspended), wall_step_s }
            );
        }
        let slewed = ClockReadings { wall: earlier.wall + Duration::from_millis(999), ..earlier };
        assert_eq!(ClockChange::between(earlier, slewed).wall_step_s, 0.0);
        let set_back = ClockReadings { wall: Duration::ZERO, ..earlier };
        assert_eq!(ClockChange::between(earlier, set_back).wall_step_s, -1_700_000_000.0);
    }

    #[test]
    fn the_clocks_of_this_machine_agree() {
        let earlier = ClockReadings::read();
        std::thread::park_timeout(Duration::from_millis(20));
        let change = ClockChange::between(earlier, ClockReadings::read());
        assert_eq!(change, ClockChange { suspended: Duration::ZERO, wall_step_s: 0.0 });
        assert!(now() > earlier.now && earlier.awake <= earlier.now);
    }
}
