//! The committed offsets of the consumer group, for dashboards only. The recorder never reads them.
//!
//! Workers publish the offsets of records that are already in the database. One thread of the
//! recorder commits the offsets, so that a coordinator that does not answer delays no worker.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::backoff::Backoff;
use common::log_throttle::LogThrottle;
use common::stop::Stop;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use kafka_client::{GroupOffset, KafkaError};

use crate::timings::Timings;
use crate::transaction::position::TopicPartition;

/// The maximum number of partitions in one request.
const PARTITIONS_MAX: usize = 1_000;

/// The offsets that workers have published and that are not committed yet.
#[derive(Debug)]
pub(crate) struct DashboardOffset {
    group: String,
    state: Mutex<PublishedOffsets>,
    /// Holds a message while the committer may not have read all offsets.
    wake_sender: Sender<()>,
    wake: Receiver<()>,
}

#[derive(Debug, Default)]
struct PublishedOffsets {
    /// The next offset of each partition. A later offset replaces an earlier offset, so the map
    /// never has more entries than partitions.
    pending: BTreeMap<TopicPartition, i64>,
    /// The start time of the request in flight. `None`: no request is in flight.
    in_flight_since: Option<Instant>,
    /// Whether the last commit failed.
    is_failing: bool,
}

impl DashboardOffset {
    /// Creates the offsets for this consumer group, with none pending.
    pub(crate) fn new(group: String) -> Self {
        let (wake_sender, wake) = bounded(1);
        Self { group, state: Mutex::default(), wake_sender, wake }
    }

    /// Hands an offset to the committer. Never waits for Kafka.
    pub(super) fn publish(&self, partition: &TopicPartition, next_offset: i64) {
        self.state().pending.insert(partition.clone(), next_offset);
        // The committer is awake already if the channel is full.
        let _ = self.wake_sender.try_send(());
    }

    /// If commits fail, drops the offsets of a topic that this recorder does not record any more. A
    /// later commit would overwrite the offsets of the next recorder.
    pub(super) fn release(&self, topic: &str) {
        let mut state = self.state();
        if state.is_failing {
            state.pending.retain(|partition, _| partition.topic != topic);
        }
    }

    /// The time-out of the last commit before the end of the program: `timeout` minus the time that
    /// the request in flight has taken so far, or zero if commits fail.
    pub(crate) fn final_timeout(&self, timeout: Duration) -> Duration {
        let state = self.state();
        let elapsed = state.in_flight_since.map_or(Duration::ZERO, |since| since.elapsed());
        if state.is_failing { Duration::ZERO } else { timeout.saturating_sub(elapsed) }
    }

    /// Returns the first pending offsets and marks them as in flight.
    fn begin_commit(&self) -> Vec<(TopicPartition, i64)> {
        let mut state = self.state();
        let pending = state.pending.iter().take(PARTITIONS_MAX);
        let offsets: Vec<_> = pending.map(|(partition, next)| (partition.clone(), *next)).collect();
        state.in_flight_since = (!offsets.is_empty()).then(Instant::now);
        offsets
    }

    /// Removes committed offsets. An offset that was published meanwhile stays pending.
    fn end_commit(&self, offsets: &[(TopicPartition, i64)], is_committed: bool) {
        let mut state = self.state();
        state.in_flight_since = None;
        state.is_failing = !is_committed;
        for (partition, next_offset) in offsets.iter().filter(|_| is_committed) {
            if state.pending.get(partition) == Some(next_offset) {
                state.pending.remove(partition);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, PublishedOffsets> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pending offset of a partition.
    #[cfg(test)]
    pub(super) fn pending(&self, partition: &TopicPartition) -> Option<i64> {
        self.state().pending.get(partition).copied()
    }
}

/// The thread that commits published offsets, one request at a time.
#[derive(Debug)]
pub(crate) struct OffsetCommitter<'a> {
    offsets: &'a DashboardOffset,
    interval: Duration,
    backoff: Backoff,
    outage: LogThrottle,
    is_logged: bool,
}

impl<'a> OffsetCommitter<'a> {
    /// A failure is logged only if it lasts longer than `group_commit_grace`: a new cluster has no
    /// coordinator for its first consumer group until it has created the topic for committed
    /// offsets.
    pub(crate) fn new(offsets: &'a DashboardOffset, timings: &Timings) -> Self {
        Self {
            offsets,
            interval: timings.group_commit_interval,
            backoff: Backoff::new(timings.group_commit_pause_min, timings.group_commit_pause_max),
            outage: LogThrottle::new(timings.group_commit_grace),
            is_logged: false,
        }
    }

    /// Commits until `end` is requested, after the last worker has ended. After `stop` it does not
    /// wait between commits.
    pub(crate) fn run(
        mut self,
        mut commit: impl FnMut(&str, &[GroupOffset<'_>]) -> Result<Vec<KafkaError>, KafkaError>,
        stop: &Stop,
        end: &Stop,
    ) {
        loop {
            select! {
                recv(self.offsets.wake) -> _ => {}
                recv(end.channel()) -> _ => {
                    self.commit(&mut commit);
                    return;
                }
            }
            while let Some(pause) = self.commit(&mut commit) {
                if stop.wait(pause) && self.offsets.state().is_failing {
                    return;
                }
            }
        }
    }

    /// Commits the pending offsets. A failure counts for all partitions. Returns the delay before
    /// the next commit, or `None` if no offset is pending.
    fn commit(
        &mut self,
        commit: &mut impl FnMut(&str, &[GroupOffset<'_>]) -> Result<Vec<KafkaError>, KafkaError>,
    ) -> Option<Duration> {
        let offsets = self.offsets.begin_commit();
        if offsets.is_empty() {
            return None;
        }
        let request: Vec<_> = offsets
            .iter()
            .map(|(partition, offset)| GroupOffset {
                topic: &partition.topic,
                partition: partition.number,
                offset: *offset,
            })
            .collect();
        let result = commit(&self.offsets.group, &request);
        self.offsets.end_commit(&offsets, result.is_ok());
        match result {
            Ok(refused) => {
                self.backoff.reset();
                match refused.first() {
                    // The next offset of the partition is committed later.
                    Some(error) => self.log_failure(error),
                    None => {
                        self.outage.record_success();
                        self.is_logged = false;
                    }
                }
                Some(self.interval)
            }
            Err(error) => {
                self.log_failure(&error);
                Some(self.backoff.next_delay())
            }
        }
    }

    /// Logs a failure that lasts, or that is permanent. Logs it once until a commit succeeds.
    fn log_failure(&mut self, error: &KafkaError) {
        let lasts = self.outage.record_failure().is_some() || !error.is_retryable();
        if lasts && !std::mem::replace(&mut self.is_logged, true) {
            // The workers warn about a failed connection. Only this thread notices a
            // coordinator that does not answer.
            let is_reported =
                error.is_connection_error() && !matches!(error, KafkaError::Timeout { .. });
            let level = if is_reported { log::Level::Info } else { log::Level::Warn };
            let group = &self.offsets.group;
            log::log!(
                level,
                "kafka: can't commit offsets of group {group}: {error}; only dashboards show old offsets, recording continues"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: &str) -> TopicPartition {
        TopicPartition { topic: topic.to_owned(), number: 0 }
    }

    fn timeout() -> KafkaError {
        KafkaError::NoLeader { topic: "offsets".to_owned(), partition: 0 }
    }

    /// One request commits the offsets of all domains. A failure leaves the offsets pending, and
    /// only the latest offset of each partition is committed later.
    #[test]
    fn one_request_commits_the_latest_offsets_of_all_domains() {
        let offsets = DashboardOffset::new("group".to_owned());
        let timings = Timings::default();
        let mut committer = OffsetCommitter::new(&offsets, &timings);
        assert_eq!(committer.commit(&mut |_, _| panic!("nothing is pending")), None);
        offsets.publish(&partition("a"), 1);
        offsets.publish(&partition("b"), 2);
        let pause = committer.commit(&mut |_, _| Err(timeout())).unwrap();
        assert!(pause <= timings.group_commit_pause_min && !pause.is_zero());
        offsets.publish(&partition("b"), 3);
        let mut requests = Vec::new();
        let interval = committer.commit(&mut |group, request| {
            // An offset that is published meanwhile is not lost.
            offsets.publish(&partition("a"), 9);
            let offset = |offset: &GroupOffset<'_>| (offset.topic.to_owned(), offset.offset);
            requests.push((group.to_owned(), request.iter().map(offset).collect::<Vec<_>>()));
            Ok(Vec::new())
        });
        assert_eq!(interval, Some(timings.group_commit_interval));
        let expected = vec![("a".to_owned(), 1), ("b".to_owned(), 3)];
        assert_eq!(requests, [("group".to_owned(), expected)]);
        assert_eq!(
            [offsets.pending(&partition("a")), offsets.pending(&partition("b"))],
            [Some(9), None]
        );
    }

    /// If another recorder records a domain now, its old offset is not committed after an outage:
    /// it would overwrite the offset of the other recorder.
    #[test]
    fn a_failing_commit_forgets_the_topics_of_other_recorders_and_delays_no_stop() {
        let offsets = DashboardOffset::new("group".to_owned());
        let limit = Duration::from_millis(100);
        offsets.publish(&partition("a"), 1);
        offsets.publish(&partition("b"), 2);
        offsets.release("a");
        assert_eq!(offsets.pending(&partition("a")), Some(1), "it is committed soon");
        assert_eq!(offsets.final_timeout(limit), limit);
        let mut committer = OffsetCommitter::new(&offsets, &Timings::default());
        committer.commit(&mut |_, _| Err(timeout()));
        offsets.release("a");
        assert_eq!(
            [offsets.pending(&partition("a")), offsets.pending(&partition("b"))],
            [None, Some(2)]
        );
        assert_eq!(offsets.final_timeout(limit), Duration::ZERO);
    }
}
