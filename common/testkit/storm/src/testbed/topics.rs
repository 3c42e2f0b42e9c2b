//! Creates and deletes topics with retries.

use std::thread;
use std::time::{Duration, Instant};

use kafka_client::{KafkaClient, KafkaError, TopicSpec};

/// Time-out for the creation or deletion of a topic.
pub(crate) const TOPIC_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Creates a topic. An existing topic counts as created, because the response to the last attempt
/// may be lost.
pub(crate) fn create_topic(client: &mut KafkaClient, topic: &str) -> Result<(), String> {
    retry_until(TOPIC_TIMEOUT, || {
        let created = client.create_topic(topic, &TopicSpec::default());
        created.map(drop).map_err(|cause| cause.to_string())
    })
}

/// Deletes a topic. A missing topic counts as deleted: nobody creates it now, and the response to
/// the last attempt may be lost.
pub(crate) fn delete_topic(client: &mut KafkaClient, topic: &str) -> Result<(), String> {
    match client.delete_topic(topic) {
        Err(KafkaError::UnknownTopic { .. }) | Ok(()) => Ok(()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Repeats `attempt` until it succeeds. Returns its last error after the time-out.
pub(crate) fn retry_until<T>(
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + timeout;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(cause) if Instant::now() >= deadline => return Err(cause),
            Err(_) => thread::park_timeout(POLL_INTERVAL),
        }
    }
}
