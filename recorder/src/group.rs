//! The offset that Kafka keeps of the consumer group: for dashboards alone.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::kafka::Client;

use crate::offsets::Partition;

/// How long committing rests after a failure, so that a coordinator that is
/// away does not hold up recording at each batch.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// Commits what the database has already; nothing ever reads it back.
#[derive(Debug)]
pub struct GroupOffset {
    group: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rest_until: Option<Instant>,
    warned: bool,
}

impl GroupOffset {
    /// For this group.
    pub fn new(group: String) -> Self {
        Self { group, state: Mutex::default() }
    }

    /// Commits an offset; a failure is logged, once until it goes well again.
    pub fn commit(&self, client: &mut Client, partition: &Partition, next_offset: i64) {
        if self.rests() {
            return;
        }
        let Partition { topic, number } = partition;
        let result = client.commit_offset(&self.group, topic, *number, next_offset);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => state.warned = false,
            Err(error) => {
                state.rest_until = Some(Instant::now() + REST_AFTER_FAILURE);
                if !std::mem::replace(&mut state.warned, true) {
                    log::warn!(
                        "kafka: group {}: {error}; only dashboards miss it, recording goes on",
                        self.group
                    );
                }
            }
        }
    }

    fn rests(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rest_until.is_some_and(|until| Instant::now() < until)
    }
}
