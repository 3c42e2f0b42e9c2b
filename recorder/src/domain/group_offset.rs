//! The committed offset of the consumer group, for dashboards only. The recorder
//! never reads it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::backoff::Backoff;
use common::log_throttle::LogThrottle;

use super::services::{Clock, RecordLog};
use crate::timings::Timings;
use crate::transaction::position::TopicPartition;

/// Commits offsets of what the database has already.
#[derive(Debug)]
pub(crate) struct DashboardOffset {
    group: String,
    state: Mutex<CommitState>,
}

#[derive(Debug)]
struct CommitState {
    backoff: Backoff,
    /// Until when no commit is tried after a failure, so that an unreachable
    /// coordinator does not delay every batch.
    paused_until: Option<Instant>,
    outage: LogThrottle,
    warned: bool,
}

impl DashboardOffset {
    /// For this consumer group. A failure is logged only if it lasts longer than
    /// `group_commit_grace`: a new cluster has no coordinator for its first group
    /// until it has created the topic for it.
    pub(crate) fn new(group: String, timings: &Timings) -> Self {
        let state = CommitState {
            backoff: Backoff::new(timings.group_commit_pause_min, timings.group_commit_pause_max),
            paused_until: None,
            outage: LogThrottle::new(timings.group_commit_grace),
            warned: false,
        };
        Self { group, state: Mutex::new(state) }
    }

    /// Commits an offset, unless commits are paused after a failure. Returns whether
    /// Kafka has it. A failure that lasts, or that is permanent, is logged once until
    /// a commit succeeds.
    pub(super) fn commit(
        &self,
        log: &mut impl RecordLog,
        partition: &TopicPartition,
        next_offset: i64,
        clock: &impl Clock,
    ) -> bool {
        if self.state().paused_until.is_some_and(|until| clock.now() < until) {
            return false;
        }
        let TopicPartition { topic, number } = partition;
        let result = log.commit_offset(&self.group, topic, *number, next_offset);
        let mut state = self.state();
        let Err(error) = result else {
            state.backoff.reset();
            state.paused_until = None;
            state.outage.record_success();
            state.warned = false;
            return true;
        };
        state.paused_until = Some(clock.now() + state.backoff.next_delay());
        let lasts = state.outage.record_failure().is_some() || !error.is_retryable();
        if lasts && !std::mem::replace(&mut state.warned, true) {
            let group = &self.group;
            log::warn!(
                "kafka: can't commit offsets of group {group}: {error}; only dashboards show old offsets, recording continues"
            );
        }
        false
    }

    fn state(&self) -> MutexGuard<'_, CommitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
