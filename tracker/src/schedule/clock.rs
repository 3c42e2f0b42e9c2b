//! The clocks: the one that the grid stands on, and what the others say of it.
//!
//! The grid's is Linux's CLOCK_BOOTTIME: it goes on while the machine sleeps,
//! so that a slot which was slept through is seen as missed, and nothing ever
//! sets it. The clock of [`std::time::Instant`], CLOCK_MONOTONIC, stands still
//! meanwhile, and the difference tells of the sleep. The wall clock gives
//! records their time and nothing else.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// How far the wall clock may move against the grid's between two looks, a
/// second apart, before that is a step and no slewing.
const STEP_MIN: Duration = Duration::from_secs(1);

/// A sleep that is shorter is nothing but clocks read one after the other.
const SLEEP_MIN: Duration = Duration::from_millis(100);

/// How long it may take to read the clocks, to compare them; and how often that
/// is tried.
const READING_MAX: Duration = Duration::from_millis(5);
const READINGS_MAX: usize = 5;

/// Now, by the grid's clock: since the machine started.
pub fn now() -> Duration {
    read(ClockId::Boottime)
}

fn read(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    // A wall clock before 1970 is one that was never set.
    let whole = Duration::from_secs(u64::try_from(tv_sec).unwrap_or(0));
    whole + Duration::from_nanos(u64::try_from(tv_nsec).unwrap_or(0))
}

/// All clocks at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The grid's.
    pub now: Duration,
    /// The same, less what the machine slept.
    pub awake: Duration,
    /// The wall clock's, since 1970.
    pub wall: Duration,
}

impl Look {
    /// Reads them close together, or as close as it gets.
    pub fn take() -> Self {
        let mut look = Self::read();
        for _ in 1..READINGS_MAX {
            if read(ClockId::Monotonic).saturating_sub(look.awake) <= READING_MAX {
                break;
            }
            look = Self::read();
        }
        look
    }

    fn read() -> Self {
        let awake = read(ClockId::Monotonic);
        Self { awake, now: now(), wall: read(ClockId::Realtime) }
    }
}

/// What happened to the clocks from one look to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// How long the machine slept.
    pub slept: Duration,
    /// How far the wall clock was set, in seconds, back if negative; zero if it
    /// was not, or by less than a second.
    pub stepped_s: f64,
}

impl Change {
    /// What lies between two looks.
    pub fn between(one: Look, other: Look) -> Self {
        let went = other.now.saturating_sub(one.now);
        let slept = went.saturating_sub(other.awake.saturating_sub(one.awake));
        let expected = one.wall + went;
        let stepped_s = match other.wall.abs_diff(expected) {
            step if step < STEP_MIN => 0.0,
            step if other.wall < expected => -step.as_secs_f64(),
            step => step.as_secs_f64(),
        };
        Self { slept: if slept < SLEEP_MIN { Duration::ZERO } else { slept }, stepped_s }
    }

    /// Logs what somebody who reads the records should know.
    pub fn say(self) {
        if !self.slept.is_zero() {
            log::warn!("the machine slept for {:.1} s", self.slept.as_secs_f64());
        }
        if self.stepped_s != 0.0 {
            log::warn!(
                "the wall clock was set by {:+.1} s: records go by it, the schedule does not",
                self.stepped_s
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_and_a_step_are_told_apart() {
        let s = Duration::from_secs;
        let one = Look { now: s(1000), awake: s(900), wall: s(1_700_000_000) };
        for (now, awake, wall, slept, stepped_s) in [
            (1, 1, 1, 0, 0.0),
            // The wall clock goes on in a sleep.
            (3601, 1, 3601, 3600, 0.0),
            (1, 1, 1 + 7200, 0, 7200.0),
            (3601, 1, 1, 3600, -3600.0),
        ] {
            let other = Look {
                now: one.now + s(now),
                awake: one.awake + s(awake),
                wall: one.wall + s(wall),
            };
            assert_eq!(Change::between(one, other), Change { slept: s(slept), stepped_s });
        }
        let slewed = Look { wall: one.wall + Duration::from_millis(999), ..one };
        assert_eq!(Change::between(one, slewed).stepped_s, 0.0);
        let back = Look { wall: Duration::ZERO, ..one };
        assert_eq!(Change::between(one, back).stepped_s, -1_700_000_000.0);
    }

    #[test]
    fn the_clocks_of_this_machine_agree_with_each_other() {
        let one = Look::take();
        std::thread::park_timeout(Duration::from_millis(20));
        let change = Change::between(one, Look::take());
        assert_eq!(change, Change { slept: Duration::ZERO, stepped_s: 0.0 });
        assert!(now() > one.now && one.awake <= one.now);
    }
}
