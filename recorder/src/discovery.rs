//! The thread that asks the brokers for topics, if DOMAIN has a pattern, and that
//! records whether Kafka is reachable.

use std::sync::Arc;
use std::time::Instant;

use common::stop::Stop;
use crossbeam_channel::{Sender, TrySendError};
use kafka_client::{KafkaClient, KafkaError};

use crate::domain::shared::SharedState;

/// The name of this thread in log lines about outages of Kafka.
const OUTAGE_USER: &str = "discovery";

/// Asks the brokers until a stop is requested. With `lists_topics` it sends the names of
/// all topics that have the prefix. Without, it sends an empty list when Kafka becomes
/// reachable, which wakes the supervisor.
///
/// It runs in a thread of its own, because a broker that does not answer must not delay
/// the renewal of leases.
pub(crate) fn run(
    shared: &Arc<SharedState>,
    stop: &Stop,
    lists_topics: bool,
    discovered: &Sender<Vec<String>>,
) {
    let timings = &shared.timings;
    let mut client = KafkaClient::new(Arc::clone(&shared.kafka));
    while !stop.is_requested() {
        let requested_at = Instant::now();
        let response = if lists_topics {
            client.topics_with_prefix(&shared.topic_prefix)
        } else {
            // The metadata of no topic: the smallest request.
            client.topics(&[]).map(|_| Vec::new())
        };
        let delay = match response {
            Ok(topics) => {
                shared.kafka_outage.record_success(OUTAGE_USER);
                let was_unreachable = shared.kafka_health.record_success();
                let sent = if lists_topics || was_unreachable {
                    discovered.try_send(topics)
                } else {
                    Ok(())
                };
                match sent {
                    Ok(()) => timings.discovery_interval,
                    // The supervisor has not received the previous list yet.
                    Err(TrySendError::Full(_)) => timings.discovery_retry_delay,
                    Err(TrySendError::Disconnected(_)) => return,
                }
            }
            Err(error) => {
                if matches!(error, KafkaError::TooManyConnections { .. }) {
                    shared.turns.make_room(Instant::now());
                }
                shared.kafka_outage.record_failure(OUTAGE_USER, &error);
                shared.kafka_health.record_failure(requested_at);
                timings.discovery_retry_delay
            }
        };
        stop.wait(delay);
    }
}
