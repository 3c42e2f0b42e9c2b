//! The thread that looks for topics, where DOMAIN has a pattern.

use std::sync::Arc;
use std::time::Duration;

use common::kafka::Client;
use common::stop::Stop;
use crossbeam_channel::{Sender, TrySendError};

use crate::shared::Shared;

/// How often the brokers are asked: a new topic is to be recorded within 30 s.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How soon again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Its name where outages are counted by domain.
const WHO: &str = "looking for topics";

/// Gives the names of all topics with the prefix, again and again, until a
/// stop. It is a thread of its own because a broker that hangs may not keep
/// leases from being renewed.
pub fn run(shared: &Arc<Shared>, stop: &Stop, found: &Sender<Vec<String>>) {
    let mut client = Client::new(Arc::clone(&shared.kafka));
    while !stop.requested() {
        let wait = match client.topics_with_prefix(&shared.topic_prefix) {
            Ok(topics) => {
                shared.kafka_outage.succeeded(WHO);
                match found.try_send(topics) {
                    Ok(()) => LOOK_EVERY,
                    // The last answer is not taken in yet: this one was for nothing.
                    Err(TrySendError::Full(_)) => RETRY_AFTER,
                    Err(TrySendError::Disconnected(_)) => return,
                }
            }
            Err(error) => {
                shared.kafka_outage.failed(WHO, &error);
                RETRY_AFTER
            }
        };
        stop.wait(wait);
    }
}
