//! Caches DNS answers until their TTL has passed, for `--dns-cache`.
//!
//! Addresses, aliases, NXDOMAIN and "no such record" are cached, each family on its own.
//! Failures and time-outs are never cached, so they end as soon as the server recovers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;

use super::message::DnsReply;
use super::name_servers::NameServers;
use crate::probe::net::connect::ADDRESSES_MAX;

/// Most replies in the cache: both families of 10,000 names. A full cache removes its
/// expired replies, or any one reply.
const REPLIES_MAX: usize = 20_000;

/// Shortest time between two removals of expired replies. A removal visits all replies.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The key has the servers, because other servers can have another answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CacheKey {
    /// Compared without regard to case.
    name: Name,
    servers: NameServers,
    family: usize,
}

#[derive(Debug)]
struct CachedReply {
    reply: DnsReply,
    expires_at: Instant,
}

#[derive(Debug, Default)]
struct CacheState {
    replies: HashMap<CacheKey, CachedReply>,
    last_sweep_at: Option<Instant>,
}

/// A cache of DNS replies. All workers share one. The caller passes the time.
#[derive(Debug, Default)]
pub(super) struct DnsCache(Mutex<CacheState>);

impl DnsCache {
    /// Returns the valid replies of both families.
    pub(super) fn get(
        &self,
        name: &Name,
        servers: &NameServers,
        now: Instant,
    ) -> [Option<DnsReply>; 2] {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        [0, 1].map(|family| {
            let key = CacheKey { name: name.clone(), servers: servers.clone(), family };
            let cached = state.replies.get(&key).filter(|cached| now < cached.expires_at);
            cached.map(|cached| cached.reply.clone())
        })
    }

    /// Caches a reply. A TTL of zero is not cached.
    pub(super) fn insert(
        &self,
        (name, servers, family): (&Name, &NameServers, usize),
        mut reply: DnsReply,
        ttl: Duration,
        now: Instant,
    ) {
        if ttl.is_zero() {
            return;
        }
        if let DnsReply::Addresses(addresses) = &mut reply {
            // A probe tries no more addresses.
            addresses.truncate(ADDRESSES_MAX);
            addresses.shrink_to_fit();
        }
        let key = CacheKey { name: name.clone(), servers: servers.clone(), family };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.replies.contains_key(&key) {
            state.make_room(now);
        }
        state.replies.insert(key, CachedReply { reply, expires_at: now + ttl });
    }
}

impl CacheState {
    fn make_room(&mut self, now: Instant) {
        if self.replies.len() < REPLIES_MAX {
            return;
        }
        let is_due = |last: Instant| now.saturating_duration_since(last) >= SWEEP_INTERVAL;
        if self.last_sweep_at.is_none_or(is_due) {
            self.last_sweep_at = Some(now);
            self.replies.retain(|_, cached| now < cached.expires_at);
        }
        if self.replies.len() >= REPLIES_MAX
            && let Some(any_key) = self.replies.keys().next().cloned()
        {
            self.replies.remove(&any_key);
        }
    }
}

#[cfg(test)]
mod tests;
