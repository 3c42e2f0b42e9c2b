//! Counts the open connections of all clients that share settings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::address::BrokerAddress;

/// The open connections of all clients that share settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenConnections(Arc<Mutex<ConnectionCounts>>);

#[derive(Debug, Default)]
struct ConnectionCounts {
    /// The number of all connections, including connections that are being opened.
    total: usize,
    /// The number of connections on which the broker has answered, by its address.
    answered: HashMap<BrokerAddress, usize>,
}

/// One connection. It counts until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    counts: OpenConnections,
    address: BrokerAddress,
    is_answered: bool,
}

impl OpenConnections {
    /// Counts one more connection. `None`: the maximum `max` is already reached.
    pub(crate) fn acquire(
        &self,
        address: &BrokerAddress,
        max: Option<usize>,
    ) -> Option<ConnectionPermit> {
        let mut counts = self.lock();
        if max.is_some_and(|max| counts.total >= max) {
            return None;
        }
        counts.total += 1;
        let (counts, address) = (self.clone(), address.clone());
        Some(ConnectionPermit { counts, address, is_answered: false })
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Records that the broker has answered.
    pub(crate) fn record_answer(&mut self) {
        self.is_answered = true;
        *self.counts.lock().answered.entry(self.address.clone()).or_default() += 1;
    }

    /// Whether another connection to the broker is open and was answered.
    pub(crate) fn has_answered_others(&self) -> bool {
        self.counts.lock().answered.contains_key(&self.address)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.total -= 1;
        if self.is_answered
            && let Some(answered) = counts.answered.get_mut(&self.address)
        {
            *answered -= 1;
            if *answered == 0 {
                counts.answered.remove(&self.address);
            }
        }
    }
}
