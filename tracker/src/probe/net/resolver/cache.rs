//! Answers kept for as long as they say, for `--dns-cache`.
//!
//! Kept are addresses, aliases, NXDOMAIN and "no such record", each family's
//! apart; a failure or silence is never kept, so that it lasts no longer than
//! it does.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;

use super::message::Reply;
use super::servers::Servers;

/// The most answers: both families of 10,000 names. At that, expired ones make
/// room, else any one.
const ANSWERS_MAX: usize = 20_000;

/// How often expired answers are looked for at most, as it takes a walk through
/// all.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The most addresses of one answer: no more are tried by a probe.
const ADDRESSES_MAX: usize = crate::probe::net::connect::ADDRESSES_MAX;

/// Whose answer: the servers are part of it, as another's may differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Compares without regard to case.
    name: Name,
    servers: Servers,
    family: usize,
}

#[derive(Debug)]
struct Kept {
    reply: Reply,
    until: Instant,
}

#[derive(Debug, Default)]
struct Answers {
    kept: HashMap<Key, Kept>,
    swept: Option<Instant>,
}

/// Shared by all workers. Time is given by the caller.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Answers>);

impl Cache {
    /// What is known at that time of both families.
    pub(crate) fn get(&self, name: &Name, servers: &Servers, now: Instant) -> [Option<Reply>; 2] {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        [0, 1].map(|family| {
            let key = Key { name: name.clone(), servers: servers.clone(), family };
            answers.kept.get(&key).filter(|one| now < one.until).map(|one| one.reply.clone())
        })
    }

    /// Keeps a reply for that long; not at all for no time.
    pub(crate) fn put(
        &self,
        (name, servers, family): (&Name, &Servers, usize),
        mut reply: Reply,
        keep: Duration,
        now: Instant,
    ) {
        if keep.is_zero() {
            return;
        }
        if let Reply::Addresses(addresses) = &mut reply {
            addresses.truncate(ADDRESSES_MAX);
            addresses.shrink_to_fit();
        }
        let key = Key { name: name.clone(), servers: servers.clone(), family };
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !answers.kept.contains_key(&key) {
            answers.make_room(now);
        }
        answers.kept.insert(key, Kept { reply, until: now + keep });
    }
}

impl Answers {
    fn make_room(&mut self, now: Instant) {
        if self.kept.len() < ANSWERS_MAX {
            return;
        }
        let is_due = |swept: Instant| now.saturating_duration_since(swept) >= SWEEP_EVERY;
        if self.swept.is_none_or(is_due) {
            self.swept = Some(now);
            self.kept.retain(|_, one| now < one.until);
        }
        if self.kept.len() >= ANSWERS_MAX
            && let Some(any) = self.kept.keys().next().cloned()
        {
            self.kept.remove(&any);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn servers(port: u16) -> Servers {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn addresses(count: u8) -> Reply {
        Reply::Addresses((0..count).map(|i| IpAddr::from([192, 0, 2, i])).collect())
    }

    /// Goes red when an answer outlives its time, or is another's.
    #[test]
    fn an_answer_is_kept_for_its_time_and_for_nobody_else() {
        let (cache, start, site) = (Cache::default(), Instant::now(), name("Site.example."));
        let get =
            |name: &Name, port, seconds| cache.get(name, &servers(port), start + SECOND * seconds);
        cache.put((&site, &servers(1), 1), addresses(1), SECOND * 60, start);
        cache.put((&site, &servers(1), 0), Reply::NoData, SECOND * 5, start);
        let four = Some(addresses(1));
        assert_eq!(get(&name("sITE.example."), 1, 0), [Some(Reply::NoData), four.clone()]);
        assert_eq!(get(&site, 1, 5), [None, four]);
        assert_eq!(get(&site, 1, 60), [None, None]);
        assert_eq!(get(&site, 2, 0), [None, None]);
        assert_eq!(get(&name("other.example."), 1, 0), [None, None]);
        cache.put((&site, &servers(1), 1), addresses(2), Duration::ZERO, start + SECOND * 61);
        assert_eq!(get(&site, 1, 61), [None, None]);
        cache.put((&site, &servers(1), 1), addresses(200), SECOND, start + SECOND * 61);
        assert_eq!(get(&site, 1, 61), [None, Some(addresses(16))]);
    }

    /// Goes red when the bound is not kept, or expired answers are kept before
    /// others.
    #[test]
    fn a_full_cache_drops_what_has_expired_before_anything_else() {
        let (cache, start) = (Cache::default(), Instant::now());
        let put = |index: usize, keep, now| {
            cache.put((&name(&format!("n{index}.")), &servers(1), 0), Reply::NoData, keep, now);
        };
        let count = || cache.0.lock().unwrap().kept.len();
        for index in 0..ANSWERS_MAX {
            put(index, if index < 100 { SECOND } else { SECOND * 100 }, start);
        }
        let later = start + SECOND * 2;
        put(ANSWERS_MAX, SECOND * 100, later);
        assert_eq!(count(), ANSWERS_MAX - 99);
        for index in 0..300 {
            put(ANSWERS_MAX + 1 + index, SECOND * 100, later);
            assert!(count() <= ANSWERS_MAX);
        }
        assert_eq!(count(), ANSWERS_MAX);
        // What is there already needs no room.
        put(ANSWERS_MAX + 300, SECOND * 100, later);
        let newest = cache.get(&name(&format!("n{}.", ANSWERS_MAX + 300)), &servers(1), later);
        assert_eq!((count(), newest), (ANSWERS_MAX, [Some(Reply::NoData), None]));
    }
}
