//! The leaders that this recorder reaches. The discovery thread records them. The supervisor
//! acquires and requests leases accordingly.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Whether this recorder reaches the brokers that lead a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicReach {
    /// No broker was probed yet.
    Unknown,
    /// The topic does not exist, or none of its partitions has a leader. This is the same for all
    /// recorders.
    NoLeader,
    /// None of the leaders is reached.
    Unreached,
    /// The leaders of some partitions are reached.
    Partly,
    /// The leaders of all partitions that have a leader are reached.
    Reached,
}

/// The brokers that lead a topic.
pub(crate) type Leaders = BTreeSet<i32>;

/// The leaders of the topics on the list, and the brokers that are not reached.
#[derive(Debug, Default)]
pub(crate) struct LeaderReach(Mutex<ReachState>);

#[derive(Debug, Default)]
struct ReachState {
    topics: HashMap<String, LedTopic>,
    /// The brokers that are not reached, with their addresses.
    unreached: BTreeMap<i32, String>,
}

#[derive(Debug)]
struct LedTopic {
    leaders: Leaders,
    reach: TopicReach,
    /// The time of the last change of `reach`.
    since: Instant,
}

impl LeaderReach {
    /// Records the leaders of topics, and the brokers that are not reached, with their addresses.
    /// Returns whether the reach of a topic changed.
    pub(crate) fn update(
        &self,
        topics: &BTreeMap<String, Leaders>,
        unreached: BTreeMap<i32, String>,
        now: Instant,
    ) -> bool {
        let mut state = self.state();
        let mut is_changed = false;
        for (topic, leaders) in topics {
            let reach = reach_of(leaders, &unreached);
            let before = state.topics.get(topic);
            let since = match before {
                Some(before) if before.reach == reach => before.since,
                _ => now,
            };
            is_changed |= before.is_none_or(|before| before.reach != reach);
            let led = LedTopic { leaders: leaders.clone(), reach, since };
            state.topics.insert(topic.clone(), led);
        }
        state.unreached = unreached;
        is_changed
    }

    /// The reach of each of these topics, and the time of its last change.
    pub(crate) fn of<'a>(
        &self,
        topics: impl Iterator<Item = &'a str>,
        now: Instant,
    ) -> BTreeMap<&'a str, (TopicReach, Instant)> {
        let state = self.state();
        let reach = |topic| {
            let led = state.topics.get(topic).map(|led| (led.reach, led.since));
            (topic, led.unwrap_or((TopicReach::Unknown, now)))
        };
        topics.map(reach).collect()
    }

    /// The unreachable brokers that lead these topics, formatted like `2 (kafka:9092)`, each with
    /// its topics.
    pub(crate) fn unreached_brokers<'a>(
        &self,
        topics: impl Iterator<Item = &'a str>,
    ) -> BTreeMap<String, Vec<&'a str>> {
        let state = self.state();
        let mut brokers: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for topic in topics {
            let Some(led) = state.topics.get(topic) else { continue };
            for leader in &led.leaders {
                if let Some(address) = state.unreached.get(leader) {
                    brokers.entry(format!("{leader} ({address})")).or_default().push(topic);
                }
            }
        }
        brokers
    }

    fn state(&self) -> MutexGuard<'_, ReachState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reach_of(leaders: &Leaders, unreached: &BTreeMap<i32, String>) -> TopicReach {
    let missing = leaders.iter().filter(|leader| unreached.contains_key(leader)).count();
    match missing {
        _ if leaders.is_empty() => TopicReach::NoLeader,
        0 => TopicReach::Reached,
        missing if missing < leaders.len() => TopicReach::Partly,
        _ => TopicReach::Unreached,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn reach_of_a_topic_follows_from_the_brokers_that_lead_it() {
        let leaders = |list: &[i32]| list.iter().copied().collect::<Leaders>();
        let topics: BTreeMap<String, Leaders> = [
            ("a".to_owned(), leaders(&[1])),
            ("b".to_owned(), leaders(&[2])),
            ("c".to_owned(), leaders(&[1, 2])),
            ("d".to_owned(), leaders(&[])),
        ]
        .into();
        let names = ["a", "b", "c", "d", "e"];
        let (reach, start) = (LeaderReach::default(), Instant::now());
        let states = |now| reach.of(names.into_iter(), now).into_values().collect::<Vec<_>>();
        assert_eq!(states(start), [(TopicReach::Unknown, start); 5]);
        let two = BTreeMap::from([(2, "kafka-2:9092".to_owned())]);
        assert!(reach.update(&topics, two.clone(), start));
        let later = start + Duration::from_secs(15);
        assert!(!reach.update(&topics, two, later), "nothing changed");
        let expected =
            [TopicReach::Reached, TopicReach::Unreached, TopicReach::Partly, TopicReach::NoLeader];
        assert_eq!(states(later)[..4], expected.map(|reach| (reach, start)));
        let brokers = reach.unreached_brokers(names.into_iter());
        assert_eq!(brokers, BTreeMap::from([("2 (kafka-2:9092)".to_owned(), vec!["b", "c"])]));
        assert!(reach.update(&topics, BTreeMap::new(), later));
        assert_eq!(
            states(later)[..2],
            [(TopicReach::Reached, start), (TopicReach::Reached, later)]
        );
    }
}
