//! The leases that this recorder offers to other recorders. Does no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::plan::Access;
use super::reach::TopicReach;

/// The cause of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferCause {
    /// The leader has not answered the worker for a long time.
    NoAnswer,
    /// A request of the worker was refused because of a missing right.
    Refused,
    /// The thread of the worker could not be started.
    NoThread,
}

/// The leases that this recorder offers, and the leases that it offered until another recorder
/// acquired them. It requests none of them back while the cause may still exist.
#[derive(Debug)]
pub(crate) struct Offers {
    offers: BTreeMap<String, Offer>,
    /// The time for which a lease is not requested back, unless its cause is known to be gone.
    pause: Duration,
}

#[derive(Debug)]
struct Offer {
    cause: OfferCause,
    since: Instant,
    /// The last time at which this recorder was the holder.
    last_held: Instant,
}

impl Offers {
    /// Creates an empty set of offers.
    pub(crate) fn new(pause: Duration) -> Self {
        Self { offers: BTreeMap::new(), pause }
    }

    /// Records the leases that this recorder holds, and the leases among them that it cannot
    /// record. If it can record a held lease again, the lease is not offered any more.
    pub(crate) fn update(
        &mut self,
        held: &BTreeSet<&str>,
        failing: &BTreeMap<String, OfferCause>,
        now: Instant,
    ) {
        let pause = self.pause;
        self.offers.retain(|topic, offer| {
            if held.contains(topic.as_str()) {
                failing.contains_key(topic)
            } else {
                now.saturating_duration_since(offer.last_held) < pause
            }
        });
        for (topic, cause) in failing.iter().filter(|(topic, _)| held.contains(topic.as_str())) {
            let offer = Offer { cause: *cause, since: now, last_held: now };
            let offer = self.offers.entry(topic.clone()).or_insert(offer);
            (offer.cause, offer.last_held) = (*cause, now);
        }
    }

    /// The topics of the leases that this recorder offers while it holds them.
    pub(crate) fn topics(&self) -> BTreeSet<&str> {
        self.offers.keys().map(String::as_str).collect()
    }

    /// Whether this recorder offers the lease.
    pub(crate) fn contains(&self, topic: &str) -> bool {
        self.offers.contains_key(topic)
    }

    /// The access of this recorder to the lease of a topic. `reach` is the reach of the topic, and
    /// `since` the time of its last change.
    pub(crate) fn access(
        &self,
        topic: &str,
        (reach, since): (TopicReach, Instant),
        now: Instant,
    ) -> Access {
        let is_unwanted = self.offers.get(topic).is_some_and(|offer| {
            let is_reached_again = offer.cause == OfferCause::NoAnswer && since > offer.since;
            let is_over = now.saturating_duration_since(offer.last_held) >= self.pause;
            !is_reached_again && !is_over
        });
        match reach {
            _ if is_unwanted => Access::None,
            TopicReach::Unknown | TopicReach::Unreached => Access::None,
            // No recorder can record the whole topic now, so any recorder may hold its lease.
            TopicReach::NoLeader | TopicReach::Partly => Access::Acquire,
            TopicReach::Reached => Access::Request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(300);

    fn offered(cause: OfferCause, start: Instant) -> Offers {
        let mut offers = Offers::new(PAUSE);
        let failing = BTreeMap::from([("a".to_owned(), cause)]);
        offers.update(&BTreeSet::from(["a", "b"]), &failing, start);
        offers.update(&BTreeSet::from(["b"]), &BTreeMap::new(), start);
        offers
    }

    #[test]
    fn an_offered_lease_is_wanted_back_when_its_leader_is_reached_again() {
        let start = Instant::now();
        let offers = offered(OfferCause::NoAnswer, start);
        let (later, end) = (start + PAUSE / 2, start + PAUSE);
        let access = |reach, since, now| offers.access("a", (reach, since), now);
        assert_eq!(access(TopicReach::Unreached, start, later), Access::None);
        assert_eq!(access(TopicReach::Reached, later, later), Access::Request);
        // The discovery thread always reached the leader, but the worker did not.
        assert_eq!(access(TopicReach::Reached, start, later), Access::None);
        assert_eq!(access(TopicReach::Reached, start, end), Access::Request);
        let other = offers.access("b", (TopicReach::Reached, start), start);
        assert_eq!(other, Access::Request);
    }

    #[test]
    fn a_lease_that_was_offered_for_a_right_or_a_thread_is_wanted_back_after_a_pause() {
        let start = Instant::now();
        for cause in [OfferCause::Refused, OfferCause::NoThread] {
            let offers = offered(cause, start);
            let access = |now| offers.access("a", (TopicReach::Reached, now), now);
            assert_eq!(access(start + PAUSE / 2), Access::None, "{cause:?}");
            assert_eq!(access(start + PAUSE), Access::Request, "{cause:?}");
        }
    }

    #[test]
    fn a_lease_that_is_recorded_again_is_not_offered_any_more() {
        let start = Instant::now();
        let mut offers = offered(OfferCause::Refused, start);
        assert!(offers.contains("a"));
        offers.update(&BTreeSet::from(["a"]), &BTreeMap::new(), start);
        assert!(!offers.contains("a"));
    }
}
