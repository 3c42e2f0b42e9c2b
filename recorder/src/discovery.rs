//! The discovery thread. It asks the brokers for topics, if DOMAIN has a pattern, and records which
//! leaders of topics this recorder reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::stop::Stop;
use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use kafka_client::{BrokerAddress, KafkaClient, KafkaError, TopicMetadata, probe_broker};

use crate::domain::shared::SharedState;
use crate::domain::worker::STACK_BYTES;
use crate::lease::reach::Leaders;

/// The names of this thread in log lines about outages of Kafka. `OUTAGE_USER_LIST` is for the list
/// of all topics, which only shows new topics. `OUTAGE_USER` is for the recorded topics.
const OUTAGE_USER_LIST: &str = "discovery of topics";
const OUTAGE_USER: &str = "discovery";
/// The maximum number of topics in one request.
const TOPICS_MAX: usize = 1_000;
/// The maximum number of brokers that are probed at the same time.
const PROBES_MAX: usize = 16;

/// Asks the brokers until a stop is requested.
///
/// It runs in a thread of its own, so that a broker that does not answer can't delay the renewal of
/// leases.
pub(crate) struct Discovery {
    shared: Arc<SharedState>,
    stop: Stop,
    client: KafkaClient,
    lists_topics: bool,
    /// The topics that this recorder records. The supervisor sends them.
    selected: Receiver<Vec<String>>,
    topics: Vec<String>,
    /// The leaders of the topics in the last answer.
    leaders: BTreeMap<String, Leaders>,
    /// The addresses of the leaders.
    addresses: BTreeMap<i32, BrokerAddress>,
    /// The channel for all topics that have the prefix. An empty list only wakes the supervisor.
    discovered: Sender<Vec<String>>,
}

impl Discovery {
    /// With `lists_topics`, the names of all topics that have the prefix are sent to `discovered`.
    /// Otherwise an empty list is sent when Kafka, or the leader of a topic, becomes reachable or
    /// unreachable. The empty list wakes the supervisor.
    pub(crate) fn new(
        shared: Arc<SharedState>,
        stop: Stop,
        lists_topics: bool,
        selected: Receiver<Vec<String>>,
        discovered: Sender<Vec<String>>,
    ) -> Self {
        Self {
            client: KafkaClient::new(Arc::clone(&shared.kafka)),
            shared,
            stop,
            lists_topics,
            selected,
            topics: Vec::new(),
            leaders: BTreeMap::new(),
            addresses: BTreeMap::new(),
            discovered,
        }
    }

    pub(crate) fn run(&mut self) {
        while !self.stop.is_requested() {
            if let Ok(topics) = self.selected.try_recv() {
                self.topics = topics;
            }
            let Some(delay) = self.ask() else { return };
            select! {
                recv(self.selected) -> topics => match topics {
                    Ok(topics) => self.topics = topics,
                    // The supervisor has ended.
                    Err(_) => return,
                },
                recv(self.stop.channel()) -> _ => {}
                default(delay) => {}
            }
        }
    }

    /// Asks the brokers once. Returns the delay before the next request. `None`: the supervisor has
    /// ended.
    fn ask(&mut self) -> Option<Duration> {
        let shared = Arc::clone(&self.shared);
        let timings = &shared.timings;
        let (mut listed, mut is_list_missing) = (None, false);
        if self.lists_topics {
            match self.client.topics_with_prefix(&shared.topic_prefix) {
                Ok(topics) => {
                    shared.kafka_outage.record_success(OUTAGE_USER_LIST);
                    listed = Some(topics);
                }
                // Without the list of all topics, only new topics are not recorded.
                Err(error) => {
                    shared.kafka_outage.record_failure(OUTAGE_USER_LIST, &error);
                    is_list_missing = true;
                }
            }
        }
        let requested_at = Instant::now();
        let result = self.find_leaders();
        let is_changed = self.probe_leaders();
        let is_answered = result.is_ok();
        let is_woken = match result {
            Ok(()) => {
                shared.kafka_outage.record_success(OUTAGE_USER);
                shared.kafka_health.record_success()
            }
            Err(error) => {
                if matches!(error, KafkaError::TooManyConnections { .. }) {
                    shared.turns.make_room(Instant::now());
                }
                shared.kafka_outage.record_failure(OUTAGE_USER, &error);
                shared.kafka_health.record_failure(requested_at);
                false
            }
        };
        let sent = if listed.is_some() || is_woken || is_changed {
            self.discovered.try_send(listed.unwrap_or_default())
        } else {
            Ok(())
        };
        match sent {
            Err(TrySendError::Disconnected(_)) => None,
            Ok(()) if is_answered && !is_list_missing => Some(timings.discovery_interval),
            // The supervisor has not received the previous list yet, or there was no answer.
            _ => Some(timings.discovery_retry_delay),
        }
    }

    /// Finds the leaders of all topics. After an error the last known leaders stay.
    fn find_leaders(&mut self) -> Result<(), KafkaError> {
        if self.topics.is_empty() {
            // Requests metadata without any topic, which is the smallest request.
            return self.client.topics(&[]).map(drop);
        }
        let mut found = Vec::new();
        for names in self.topics.chunks(TOPICS_MAX) {
            found.extend(self.client.topics(names)?);
        }
        self.addresses.clear();
        for topic in found {
            let leaders = self.leaders_of(&topic);
            self.leaders.insert(topic.name, leaders);
        }
        Ok(())
    }

    /// Returns the leaders of a topic, and stores their addresses. A leader without an address is
    /// left out: it is unreachable for all recorders.
    fn leaders_of(&mut self, topic: &TopicMetadata) -> Leaders {
        let mut leaders = Leaders::new();
        for leader in topic.partitions.iter().filter_map(|partition| partition.leader) {
            if let Some(address) = self.client.broker_address(leader) {
                self.addresses.insert(leader, address.clone());
                leaders.insert(leader);
            }
        }
        leaders
    }

    /// Connects to each leader and records which leaders answer. Returns whether the reach of a
    /// topic changed.
    fn probe_leaders(&self) -> bool {
        let brokers: Vec<_> = self.addresses.iter().collect();
        let mut unreached = BTreeMap::new();
        for brokers in brokers.chunks(PROBES_MAX) {
            for (id, address) in self.unanswered(brokers) {
                unreached.insert(*id, address.to_string());
            }
        }
        self.shared.reach.update(&self.leaders, unreached, Instant::now())
    }

    /// Connects to these brokers at the same time. Returns the brokers that do not answer.
    fn unanswered<'a>(
        &self,
        brokers: &[(&'a i32, &'a BrokerAddress)],
    ) -> Vec<(&'a i32, &'a BrokerAddress)> {
        let (shared, stop) = (&self.shared, &self.stop);
        let is_answered = |address| {
            let result = probe_broker(&shared.kafka, address, shared.timings.probe_timeout);
            if let Err(error) = &result {
                log::debug!("discovery: {error}");
            }
            // A broker that refuses a connection because of its limit is reachable.
            let is_full = matches!(result, Err(KafkaError::TooManyConnections { .. }));
            result.is_ok() || is_full || stop.is_requested()
        };
        let is_answered = &is_answered;
        let failed: BTreeSet<i32> = thread::scope(|scope| {
            let probe = |(id, address): &(&'a i32, &'a BrokerAddress)| {
                let (id, address) = (**id, *address);
                let probe = move || (!is_answered(address)).then_some(id);
                let thread = thread::Builder::new().stack_size(STACK_BYTES);
                // If no thread can be started, the brokers are probed one after the other.
                thread.spawn_scoped(scope, probe).map_err(|_| probe())
            };
            let probes: Vec<_> = brokers.iter().map(probe).collect();
            let failed = probes.into_iter().filter_map(|probe| match probe {
                Ok(thread) => thread.join().ok().flatten(),
                Err(failed) => failed,
            });
            failed.collect()
        });
        brokers.iter().filter(|(id, _)| failed.contains(*id)).copied().collect()
    }
}
