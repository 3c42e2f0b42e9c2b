//! Reads all topics while the storm goes on, by a connection of its own.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use common::identity::{EndedRun, Identity};
use kafka_client::{FetchLimits, FetchPosition, KafkaClient, KafkaSettings, Uuid};

use super::facts::{Tapped, TopicLife};

/// How long a fetch waits for records: what is deleted is read soon before.
const LIMITS: FetchLimits =
    FetchLimits { max_wait_ms: 100, min_bytes: 1, max_bytes: 4 * 1024 * 1024 };
/// The pause between two fetches, as a machine that is busy has better to do.
const PAUSE: Duration = Duration::from_millis(50);

type Topics = BTreeMap<String, Vec<TopicLife>>;

/// The thread that reads, until it is dropped.
#[derive(Debug)]
pub(super) struct Tap {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ended: AtomicBool,
    topics: Mutex<Topics>,
}

impl Shared {
    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap {
    /// Begins with these topics.
    ///
    /// # Errors
    /// When no thread is to be had.
    pub(super) fn start(
        settings: Arc<KafkaSettings>,
        names: Vec<String>,
    ) -> Result<Self, Box<dyn Error>> {
        let topics = names.into_iter().map(|name| (name, Vec::new())).collect();
        let shared = Arc::new(Shared { ended: AtomicBool::new(false), topics: Mutex::new(topics) });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("tap".to_owned());
        let thread = thread.spawn(move || read(&of_thread, KafkaClient::new(settings)))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The id of a topic as it was seen last, and the offset that is read next.
    pub(super) fn position(&self, topic: &str) -> Option<(Uuid, i64)> {
        let topics = self.shared.topics();
        topics.get(topic)?.last().map(|life| (life.id, life.next_offset))
    }

    /// All that was read.
    pub(super) fn topics(&self) -> BTreeMap<String, Vec<TopicLife>> {
        self.shared.topics().clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(shared: &Shared, mut client: KafkaClient) {
    let names: Vec<String> = shared.topics().keys().cloned().collect();
    let mut look = true;
    while !shared.ended.load(Ordering::Acquire) {
        if look {
            look = !find(shared, &mut client, &names);
        }
        let wanted: Vec<(String, Uuid, i64)> = {
            let topics = shared.topics();
            let last = topics.iter().filter_map(|(name, lives)| Some((name, lives.last()?)));
            last.map(|(name, life)| (name.clone(), life.id, life.next_offset)).collect()
        };
        let positions: Vec<_> = wanted
            .iter()
            .map(|(topic, topic_id, offset)| FetchPosition {
                topic,
                topic_id: *topic_id,
                partition: 0,
                offset: *offset,
            })
            .collect();
        let fetched = client.fetch_partitions(&positions, &LIMITS);
        let mut topics = shared.topics();
        for ((name, id, _), fetched) in wanted.iter().zip(fetched) {
            let life = topics.get_mut(name).and_then(|lives| lives.last_mut());
            let Some(life) = life.filter(|life| life.id == *id) else { continue };
            match fetched {
                Ok(fetched) => {
                    life.next_offset = fetched.next_offset;
                    life.records.extend(fetched.records.into_iter().map(|record| Tapped {
                        offset: record.offset,
                        ended: EndedRun::from_headers(&record.headers).unwrap_or_default(),
                        identity: Identity::from_headers(&record.headers).ok().flatten(),
                        value: record.value.map(Vec::from).unwrap_or_default(),
                    }));
                }
                // A broker that is away, or a topic made again.
                Err(error) => {
                    log::debug!("tap: {name}: {error}");
                    look = true;
                }
            }
        }
        drop(topics);
        std::thread::park_timeout(PAUSE);
    }
}

/// Looks for the topics' ids; true when each is there.
fn find(shared: &Shared, client: &mut KafkaClient, names: &[String]) -> bool {
    let Ok(found) = client.topics(names) else { return false };
    let mut topics = shared.topics();
    let mut there = 0;
    for topic in found.iter().filter(|topic| topic.error.is_none()) {
        let Some(lives) = topics.get_mut(&topic.name) else { continue };
        there += 1;
        // A broker that lags behind may still tell of an earlier one.
        if lives.iter().all(|life| life.id != topic.id) {
            lives.push(TopicLife { id: topic.id, ..TopicLife::default() });
        }
    }
    there == names.len()
}
