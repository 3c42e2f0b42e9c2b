//! The thread that sees whether Kafka answers, and looks for topics where DOMAIN
//! has a pattern.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::stop::Stop;
use crossbeam_channel::{Sender, TrySendError};
use kafka_client::Client;

use crate::shared::Shared;

/// How often the brokers are asked: a new topic is to be recorded within 30 s.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How soon again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Its name where outages are counted by domain.
const WHO: &str = "looking for brokers";

/// Asks the brokers again and again, until a stop, and gives the names of all
/// topics with the prefix, if they are looked for; without, none as soon as
/// Kafka answers that was away. It is a thread of its own because a broker that
/// hangs may not keep leases from being renewed.
pub(crate) fn run(
    shared: &Arc<Shared>,
    stop: &Stop,
    for_topics: bool,
    found: &Sender<Vec<String>>,
) {
    let mut client = Client::new(Arc::clone(&shared.kafka));
    while !stop.requested() {
        let asked = Instant::now();
        let answer = if for_topics {
            client.topics_with_prefix(&shared.topic_prefix)
        } else {
            // Of no topic: the least that there is to be asked.
            client.topics(&[]).map(|_| Vec::new())
        };
        let wait = match answer {
            Ok(topics) => {
                shared.kafka_outage.succeeded(WHO);
                let is_back = shared.reach.answered();
                let is_news = for_topics || is_back;
                let given = if is_news { found.try_send(topics) } else { Ok(()) };
                match given {
                    Ok(()) => LOOK_EVERY,
                    // The last answer is not taken in yet: this one was for nothing.
                    Err(TrySendError::Full(_)) => RETRY_AFTER,
                    Err(TrySendError::Disconnected(_)) => return,
                }
            }
            Err(error) => {
                shared.kafka_outage.failed(WHO, &error);
                shared.reach.failed(asked);
                RETRY_AFTER
            }
        };
        stop.wait(wait);
    }
}
