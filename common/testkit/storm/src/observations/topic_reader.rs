//! Reads all topics during the storm, with its own connection.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use common::identity::{EndedRun, Identity};
use kafka_client::{FetchLimits, FetchPosition, KafkaClient, KafkaSettings, Uuid};

use crate::observations::{KafkaRecord, TopicIncarnation};

/// Limits of a fetch. The wait is short, so that records are read soon before their topic is
/// deleted.
const LIMITS: FetchLimits =
    FetchLimits { max_wait_ms: 100, min_bytes: 1, max_bytes: 4 * 1024 * 1024 };
/// Pause between two fetches, to leave time to other processes on a busy machine.
const PAUSE: Duration = Duration::from_millis(50);

type Topics = BTreeMap<String, Vec<TopicIncarnation>>;

/// The thread that reads. Dropping this ends it.
#[derive(Debug)]
pub(crate) struct TopicReader {
    shared: Arc<TopicReaderState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct TopicReaderState {
    ended: AtomicBool,
    topics: Mutex<Topics>,
}

impl TopicReaderState {
    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TopicReader {
    /// Starts to read these topics.
    ///
    /// # Errors
    /// Fails if the thread can't be started.
    pub(crate) fn start(
        settings: Arc<KafkaSettings>,
        names: Vec<String>,
    ) -> Result<Self, Box<dyn Error>> {
        let topics = names.into_iter().map(|name| (name, Vec::new())).collect();
        let shared = Arc::new(TopicReaderState {
            ended: AtomicBool::new(false),
            topics: Mutex::new(topics),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("topic-reader".to_owned());
        let thread = thread.spawn(move || read(&for_thread, KafkaClient::new(settings)))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The last known id of a topic, and the offset that is read next.
    pub(crate) fn position(&self, topic: &str) -> Option<(Uuid, i64)> {
        let topics = self.shared.topics();
        topics.get(topic)?.last().map(|incarnation| (incarnation.id, incarnation.next_offset))
    }

    /// Everything that was read.
    pub(crate) fn topics(&self) -> BTreeMap<String, Vec<TopicIncarnation>> {
        self.shared.topics().clone()
    }
}

impl Drop for TopicReader {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(shared: &TopicReaderState, mut client: KafkaClient) {
    let names: Vec<String> = shared.topics().keys().cloned().collect();
    let mut lookup_needed = true;
    while !shared.ended.load(Ordering::Acquire) {
        if lookup_needed {
            lookup_needed = !look_up_ids(shared, &mut client, &names);
        }
        let positions_by_topic: Vec<(String, Uuid, i64)> = {
            let topics = shared.topics();
            let last =
                topics.iter().filter_map(|(name, incarnations)| Some((name, incarnations.last()?)));
            last.map(|(name, incarnation)| (name.clone(), incarnation.id, incarnation.next_offset))
                .collect()
        };
        let positions: Vec<_> = positions_by_topic
            .iter()
            .map(|(topic, topic_id, offset)| FetchPosition {
                topic,
                topic_id: *topic_id,
                partition: 0,
                offset: *offset,
                leader_epoch: None,
            })
            .collect();
        let fetched = client.fetch_partitions(&positions, &LIMITS);
        let mut topics = shared.topics();
        for ((name, id, _), fetched) in positions_by_topic.iter().zip(fetched) {
            let incarnation = topics.get_mut(name).and_then(|incarnations| incarnations.last_mut());
            let Some(incarnation) = incarnation.filter(|incarnation| incarnation.id == *id) else {
                continue;
            };
            match fetched {
                Ok(fetched) => {
                    incarnation.next_offset = fetched.next_offset;
                    incarnation.records.extend(fetched.records.into_iter().map(|record| {
                        KafkaRecord {
                            offset: record.offset,
                            ended: EndedRun::from_headers(&record.headers).unwrap_or_default(),
                            identity: Identity::from_headers(&record.headers).ok().flatten(),
                            value: record.value.map(Vec::from).unwrap_or_default(),
                        }
                    }));
                }
                // A broker is unreachable, or the topic was recreated.
                Err(error) => {
                    log::debug!("topic reader: {name}: {error}");
                    lookup_needed = true;
                }
            }
        }
        drop(topics);
        std::thread::park_timeout(PAUSE);
    }
}

/// Looks up the topic ids. Returns true if every topic exists.
fn look_up_ids(shared: &TopicReaderState, client: &mut KafkaClient, names: &[String]) -> bool {
    let Ok(metadata) = client.topics(names) else { return false };
    let mut topics = shared.topics();
    let mut existing = 0;
    for topic in metadata.iter().filter(|topic| topic.error.is_none()) {
        let Some(incarnations) = topics.get_mut(&topic.name) else { continue };
        existing += 1;
        // A broker with stale metadata may still return the id of an earlier incarnation.
        if incarnations.iter().all(|incarnation| incarnation.id != topic.id) {
            incarnations.push(TopicIncarnation { id: topic.id, ..TopicIncarnation::default() });
        }
    }
    existing == names.len()
}
