//! The offset that Kafka keeps of the consumer group: for dashboards alone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::backoff::{Backoff, Outage};
use kafka_client::Client;

use crate::transaction::position::Partition;

/// How long committing rests after a failure, so that a coordinator that is
/// away does not hold up recording at each batch.
const REST_FIRST: Duration = Duration::from_millis(500);
const REST_LONGEST: Duration = Duration::from_secs(30);
/// A failure that is over by then is not said: a new cluster has no
/// coordinator for its first group until it has made the topic for it.
const GRACE: Duration = Duration::from_secs(20);

/// Commits what the database has already; nothing ever reads it back.
#[derive(Debug)]
pub struct GroupOffset {
    group: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    backoff: Backoff,
    rest_until: Option<Instant>,
    outage: Outage,
    warned: bool,
}

impl GroupOffset {
    /// For this group.
    pub fn new(group: String) -> Self {
        let state = State {
            backoff: Backoff::new(REST_FIRST, REST_LONGEST),
            rest_until: None,
            outage: Outage::new(GRACE),
            warned: false,
        };
        Self { group, state: Mutex::new(state) }
    }

    /// Commits an offset, unless committing rests after a failure; true when
    /// Kafka has it. A failure that lasts, or that lasting will not mend, is
    /// logged once until it goes well again.
    pub fn commit(&self, client: &mut Client, partition: &Partition, next_offset: i64) -> bool {
        if self.state().rest_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        let Partition { topic, number } = partition;
        let result = client.commit_offset(&self.group, topic, *number, next_offset);
        let mut state = self.state();
        let Err(error) = result else {
            state.backoff.reset();
            state.rest_until = None;
            state.outage.succeeded();
            state.warned = false;
            return true;
        };
        state.rest_until = Some(Instant::now() + state.backoff.next_delay());
        let lasts = state.outage.failed().is_some() || !error.is_retryable();
        if lasts && !std::mem::replace(&mut state.warned, true) {
            let group = &self.group;
            log::warn!("kafka: group {group}: {error}; only dashboards miss it, recording goes on");
        }
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
