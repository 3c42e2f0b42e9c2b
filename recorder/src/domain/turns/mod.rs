//! Turns of the domains, if a limit allows fewer connections to Kafka than the domains need. The
//! limit is `max.connections.per.ip` of the broker, or `--kafka-connections`.
//!
//! The recorder learns the limit from refused connections. A domain that is refused closes its
//! connections and waits. While domains wait, each connected domain closes its connections after a
//! short time and waits too, so that every domain is read at least once a minute. From time to time
//! more connections are tried, because the limit may have been raised.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kafka_client::KafkaError;

use crate::timings::Timings;

/// If no connection was refused for this time, the next refusal is logged again.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// A waiting domain that has not asked for its turn for this time waits for something else, and is
/// passed over.
const ASLEEP_AFTER: Duration = Duration::from_secs(1);

/// The domains that may connect to Kafka, and the domains that wait for a turn.
#[derive(Debug)]
pub(crate) struct ConnectionTurns {
    state: Mutex<TurnState>,
    round: Duration,
    turn_max: Duration,
    growth_interval: Duration,
}

#[derive(Debug, Default)]
struct TurnState {
    next_id: u64,
    /// The domains that may connect, with the start of their turn.
    connected: HashMap<u64, Instant>,
    /// The domains that wait for a turn, in order, with the time of their last request for it.
    waiting: VecDeque<(u64, Instant)>,
    /// The maximum number of domains that may connect. `None`: no connection was refused yet.
    limit: Option<DomainLimit>,
}

#[derive(Debug, Clone, Copy)]
struct DomainLimit {
    domains: usize,
    /// The time of the last change of the limit.
    changed_at: Instant,
    refused_at: Instant,
    /// The next increase of the limit.
    growth: usize,
}

impl ConnectionTurns {
    /// Creates turns without a limit.
    pub(crate) fn new(timings: &Timings) -> Self {
        Self {
            state: Mutex::default(),
            round: timings.turn_round,
            turn_max: timings.turn_max,
            growth_interval: timings.turn_growth_interval,
        }
    }

    /// Lowers the limit by one domain, because a connection that all domains depend on was refused.
    pub(crate) fn make_room(&self, now: Instant) {
        let mut state = self.state();
        let domains = state.connected.len().saturating_sub(1).max(1);
        state.limit = Some(DomainLimit { domains, changed_at: now, refused_at: now, growth: 1 });
    }

    fn state(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_connect(&self, id: u64, now: Instant) -> bool {
        let mut state = self.state();
        if state.connected.contains_key(&id) {
            return true;
        }
        let connected = state.connected.len();
        if let Some(limit) = &mut state.limit
            && connected >= limit.domains
            && now.saturating_duration_since(limit.changed_at) >= self.growth_interval
        {
            limit.domains = connected + limit.growth;
            limit.growth *= 2;
            limit.changed_at = now;
        }
        let is_free = state.limit.is_none_or(|limit| connected < limit.domains);
        let index = match state.waiting.iter().position(|(waiting, _)| *waiting == id) {
            Some(index) => index,
            None => {
                state.waiting.push_back((id, now));
                state.waiting.len() - 1
            }
        };
        state.waiting[index].1 = now;
        let is_asleep = |(_, asked_at): &(u64, Instant)| {
            now.saturating_duration_since(*asked_at) > ASLEEP_AFTER
        };
        if !is_free || !state.waiting.iter().take(index).all(is_asleep) {
            return false;
        }
        state.waiting.remove(index);
        state.connected.insert(id, now);
        true
    }

    /// Makes the domain wait. Returns whether the caller must log the refusal.
    fn record_refusal(&self, id: u64, now: Instant) -> bool {
        let mut state = self.state();
        state.connected.remove(&id);
        state.waiting.push_back((id, now));
        let connected = state.connected.len().max(1);
        let last = state.limit.map(|limit| limit.refused_at);
        let domains = state.limit.map_or(connected, |limit| limit.domains.min(connected));
        state.limit = Some(DomainLimit { domains, changed_at: now, refused_at: now, growth: 1 });
        last.is_none_or(|last| now.saturating_duration_since(last) >= LOG_AGAIN_AFTER)
    }

    fn yield_if_due(&self, id: u64, now: Instant, disconnect: impl FnOnce()) -> bool {
        let mut state = self.state();
        let Some(since) = state.connected.get(&id) else { return false };
        let is_over = state.limit.is_some_and(|limit| state.connected.len() > limit.domains);
        let is_due = !state.waiting.is_empty()
            && now.saturating_duration_since(*since) >= self.turn_length(&state);
        if is_over || is_due {
            // The connections are closed first, so that the broker has room for the next domain.
            disconnect();
            state.connected.remove(&id);
            state.waiting.push_back((id, now));
        }
        is_over || is_due
    }

    /// The time for which a domain keeps its connections while other domains wait.
    fn turn_length(&self, state: &TurnState) -> Duration {
        let connected = u32::try_from(state.connected.len()).unwrap_or(u32::MAX).max(1);
        let waiting = u32::try_from(state.waiting.len()).unwrap_or(u32::MAX);
        let share =
            self.round.mul_f64(f64::from(connected) / (f64::from(connected) + f64::from(waiting)));
        share.min(self.turn_max)
    }

    /// Ends the turn of the domain. Returns whether the domain was connected while a limit applied.
    fn leave(&self, id: u64) -> bool {
        let mut state = self.state();
        let was_connected = state.connected.remove(&id).is_some();
        state.waiting.retain(|(waiting, _)| *waiting != id);
        was_connected && state.limit.is_some()
    }
}

/// The turn of one domain. The turn ends when this is dropped.
#[derive(Debug)]
pub(super) struct DomainTurn {
    id: u64,
    turns: Arc<ConnectionTurns>,
}

impl DomainTurn {
    /// Creates the turn of a domain that does not connect yet.
    pub(super) fn new(turns: Arc<ConnectionTurns>) -> Self {
        let id = {
            let mut state = turns.state();
            state.next_id += 1;
            state.next_id
        };
        Self { id, turns }
    }

    /// Whether the domain may connect, or is connected. Otherwise the domain waits for its turn.
    pub(super) fn may_connect(&self, now: Instant) -> bool {
        self.turns.may_connect(self.id, now)
    }

    /// Ends the turn of the domain if other domains wait. `disconnect` closes the connections of
    /// the domain.
    pub(super) fn yield_if_due(&self, now: Instant, disconnect: impl FnOnce()) {
        self.turns.yield_if_due(self.id, now, disconnect);
    }

    /// Ends the turn of a domain that has no lease. Returns whether the caller should close its
    /// connections, to make room for other domains.
    pub(super) fn leave(&self) -> bool {
        self.turns.leave(self.id)
    }

    /// Records that no connection could be opened because of a limit. The caller has
    /// closed its connections.
    pub(super) fn record_refusal(&self, error: &KafkaError, now: Instant) {
        if self.turns.record_refusal(self.id, now) {
            log::warn!(
                "kafka: {error}: domains without a connection take turns, and each is read at \
                 least once a minute; raise max.connections.per.ip or --kafka-connections"
            );
        }
    }

    /// The maximum time for which a fetch may wait for records: no longer than a turn, while other
    /// domains wait for a turn.
    pub(super) fn bound_wait_ms(&self, wait_ms: u32) -> u32 {
        let turns = &self.turns;
        let state = turns.state();
        if state.waiting.is_empty() {
            return wait_ms;
        }
        let turn_ms = u32::try_from(turns.turn_length(&state).as_millis()).unwrap_or(u32::MAX);
        wait_ms.min(turn_ms)
    }
}

impl Drop for DomainTurn {
    fn drop(&mut self) {
        self.turns.leave(self.id);
    }
}

#[cfg(test)]
mod tests;
